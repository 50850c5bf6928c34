"""Video decoding: reads exactly the frames asked for and counts them.

A class-incremental result depends on which frames a sampler really got, so frames are numbered as a
decode from the first packet onward yields them, and that is also how they are read, by PyAV
(``pyav``). A folder of extracted frames serves as a video too (``frame_folder``).

No seeking, and decord or torchcodec only on request (``other_decoders``), because all of these return
wrong pictures without a word:

- decord on HMDB51 (AVI, several key frames, packed B-frames): all 8 segment centres of one file
  were off by 1 to 87 frames. On made AVIs with B-frames and several key frames it hit 1 of 8, off
  by up to 192 frames. UCF101's AVIs tried have one key frame, which is why the defect stays unseen.
- Seeking fails in the same AVIs, in MPEG-TS, and in streams with open groups of pictures, where
  B-frames refer across a key frame: decord was off by 1 or 2 there, PyAV's own seek missed 30 of
  200 frames.
- The frame count in a container's header is too high for packed B-frames (by 1 or 2) and for cuts
  without re-encoding (200 claimed, 117 shown), and absent from WebM: a count is decoded, not read.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from vcil_bench.common.errors import UserError, did_you_mean
from vcil_bench.common.files import file_sha256

from . import frame_folder, other_decoders, pyav
from .facts import Facts
from .facts import VideoError as VideoError

DECODERS = ("auto", "pyav", *other_decoders.READERS)


def resolve_decoder(name: str) -> str:
    """Return the decoder that runs for ``name``, so that a run record can state it.

    Args:
        name: One of ``DECODERS``.

    Returns:
        ``"pyav"`` for ``"auto"``, otherwise ``name``.

    Raises:
        UserError: If the name is unknown.
    """
    if name not in DECODERS:
        raise UserError(
            f"unknown decoder '{name}'{did_you_mean(name, DECODERS)}; allowed: {', '.join(DECODERS)}"
        )
    return "pyav" if name == "auto" else name


def read_frames(
    path: str | os.PathLike[str], indices: Sequence[int] | np.ndarray, decoder: str = "auto"
) -> np.ndarray:
    """Read exactly the asked frames, upright and in the asked order.

    Decoders other than PyAV exist to repeat results that were computed with them; what is wrong with
    them stands in ``other_decoders``. They read files; a folder of frames is read without any.

    Args:
        path: A video file, or a folder of extracted frames.
        indices: 0-based frame numbers of a forward decode, in any order, duplicates allowed.
        decoder: One of ``DECODERS``.

    Returns:
        uint8 RGB array of shape [len(indices), height, width, 3].

    Raises:
        VideoError: If the file cannot be decoded, has no such frame, or changes its picture size.
        UserError: If the decoder's name is unknown.
    """
    chosen = resolve_decoder(decoder)
    wanted = [operator.index(index) for index in indices]
    if not wanted:
        raise VideoError(f"{path}: no frame index was asked for")
    if min(wanted) < 0:
        raise VideoError(f"{path}: frame index {min(wanted)} is negative; frames count from 0")
    if chosen in other_decoders.READERS and not Path(path).is_dir():
        return other_decoders.read(path, wanted, chosen)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(wanted):
        places.setdefault(index, []).append(place)
    result: np.ndarray | None = None
    for number, picture in pictures(path, places.keys()):
        if result is None:
            result = np.empty((len(wanted), *picture.shape), np.uint8)
        result[places[number]] = picture
    assert result is not None
    return result


def pictures(
    path: str | os.PathLike[str], wanted: Collection[int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the asked frames one at a time, in the order of the video, for what holds more than memory.

    Args:
        path: A video file, or a folder of extracted frames.
        wanted: 0-based frame numbers, at least one; None for all frames.

    Yields:
        Frame number and uint8 RGB picture [height, width, 3].

    Raises:
        VideoError: As ``read_frames``.
    """
    return (frame_folder if Path(path).is_dir() else pyav).pictures(path, wanted)


def count_frames(path: str | os.PathLike[str]) -> int:
    """Count the frames that a forward decode yields; in a damaged video those before the damage.

    Args:
        path: A video file, or a folder of extracted frames.

    Returns:
        The number of frames, at least 1.

    Raises:
        VideoError: If not a single frame can be decoded.
    """
    return (frame_folder if Path(path).is_dir() else pyav).count(path)


def probe(path: str | os.PathLike[str]) -> Facts:
    """Decode a whole video once and report what it holds and whether anything is missing.

    Args:
        path: A video file, or a folder of extracted frames.

    Returns:
        The facts that decoding tells; ``problem`` tells a partly decodable video from a healthy one.

    Raises:
        VideoError: If not a single frame can be decoded.
    """
    return (frame_folder if Path(path).is_dir() else pyav).probe(path)


def content_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a video's bytes; of a folder of frames that over all its pictures."""
    return frame_folder.content_sha256(path) if Path(path).is_dir() else file_sha256(Path(path))
