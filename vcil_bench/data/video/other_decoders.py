"""decord and torchcodec, to repeat results that were computed with them; imported only when asked for.

Neither is to be trusted with a new result (measured on clips that carry their frame number, of 8 frames drawn):

- decord numbers frames in its own way: 1 of 8 right on XviD AVIs with B-frames and several key frames, off by up
  to 192; 3 of 3 files of HMDB51 wrong, off by up to 87; 6 of 8 on H.264 with open groups of pictures. It can
  hang on files that claim more frames than they have, and has had no release since 2021.
- torchcodec runs with ``seek_mode="exact"``, which scans the file first. It hits all of the H.264, VP9 and
  variable-rate clips, but 1 of 8 on AVIs with B-frames, off by 1 or 2: so are all files of HMDB51 tried, and
  one of two of UCF101. (The approximate mode, off by up to 100 frames with a variable rate, is not offered.)
  Its process grew by 1 to 1.7 GB over 5,000 opened videos, which the memory allocator kept; with
  ``MALLOC_MMAP_THRESHOLD_=65536`` in the environment it was 30 MB over 3,000.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vcil_bench.common.errors import UserError

from . import pyav
from .facts import VideoError


class DecoderError(UserError):
    """A decoder that was asked for and is not installed."""


def read(path: str | os.PathLike[str], wanted: list[int], decoder: str) -> np.ndarray:
    """Read frames with one of ``READERS``; arguments and errors as in ``video.read_frames``.

    Raises:
        DecoderError: It is not installed.
    """
    module_name, hint, reader = READERS[decoder]
    try:
        module = importlib.import_module(module_name)
    except (ImportError, OSError, RuntimeError) as error:
        raise DecoderError(
            f"decoder '{decoder}' was asked for but cannot be imported ({_first_line(error)}); install it with "
            f"{hint}, or use decoder 'auto', which needs nothing else and reads exact frames"
        ) from error
    # PyAV says first what is wrong with a file, and which container it is: decord hangs on the last
    # frames of an MPEG-TS, holding the interpreter so that no timeout can end it.
    with pyav.open_video(path) as (container, _):
        if "mpegts" in container.format.name.split(","):
            raise VideoError(f"{path}: {decoder} cannot read MPEG-TS files reliably; use decoder 'auto'")
    return reader(module, path, wanted)


def _decord(decord: Any, path: str | os.PathLike[str], wanted: list[int]) -> np.ndarray:
    decord.logging.set_level(decord.logging.QUIET)
    failures = (decord.DECORDError, RuntimeError, ValueError, IndexError, OSError)
    try:
        reader = decord.VideoReader(str(Path(path).absolute()), num_threads=1)
        frames = len(reader)
        if max(wanted) < frames:
            pictures = np.asarray(reader.get_batch(wanted).asnumpy())
            return np.ascontiguousarray(pictures, dtype=np.uint8)
    except failures as error:
        raise VideoError(f"{path}: decord cannot read it ({_first_line(error)})") from error
    raise VideoError(f"{path}: frame {max(wanted)} was asked for, but decord counts {frames} frames")


def _torchcodec(decoders: Any, path: str | os.PathLike[str], wanted: list[int]) -> np.ndarray:
    try:
        reader = decoders.VideoDecoder(
            str(Path(path).absolute()), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
        )
        frames = reader.metadata.num_frames
        if max(wanted) < frames:
            return np.ascontiguousarray(reader.get_frames_at(wanted).data.numpy())
    except (RuntimeError, ValueError, IndexError, TypeError, OSError) as error:
        raise VideoError(f"{path}: torchcodec cannot read it ({_first_line(error)})") from error
    raise VideoError(f"{path}: frame {max(wanted)} was asked for, but torchcodec counts {frames} frames")


# Name -> module, how to install it, and what reads with it.
READERS: dict[str, tuple[str, str, Callable[[Any, str | os.PathLike[str], list[int]], np.ndarray]]] = {
    "decord": ("decord", "'pip install decord' (Linux x86_64 and Windows only)", _decord),
    "torchcodec": (
        "torchcodec.decoders",
        "'pip install torchcodec==0.14.0' (beside torch 2.12) and the system's FFmpeg libraries",
        _torchcodec,
    ),
}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
