"""Extracted frames as a video: a folder of numbered pictures, as TSM's data preparation leaves them.

The pictures are the truth here: nothing is resampled, and frame 0 is the picture with the lowest number, 0 or 1.
A hole in the numbers would shift every frame behind it, so it is an error and not a shorter video.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import simplejpeg

from . import pyav
from .facts import Facts, VideoError

_NAME = re.compile(r"(img_|frame_|image_|)(\d+)\.(jpe?g|png)", re.IGNORECASE)
_LAYOUT = "img_00001.jpg, frame_000001.jpg, image_00001.jpg or 00001.jpg (.png as well)"


def pictures(
    path: str | os.PathLike[str], wanted: Collection[int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the asked frames, in the order of the video; see ``video.pictures``."""
    files = _files(path)
    if wanted is not None and max(wanted) >= len(files):
        raise VideoError(f"{path}: frame {max(wanted)} was asked for, but the folder holds {len(files)} frames")
    shape: tuple[int, ...] | None = None
    for number in range(len(files)) if wanted is None else sorted(wanted):
        picture = _decode(files[number])
        if shape is not None and picture.shape != shape:
            raise VideoError(f"{files[number]}: {_size(picture.shape)}, the frames before it {_size(shape)}")
        shape = picture.shape
        yield number, picture


def count(path: str | os.PathLike[str]) -> int:
    """Count the frames before the first damage; see ``video.count_frames``."""
    return probe(path).frames


def probe(path: str | os.PathLike[str]) -> Facts:
    """Decode all pictures and report what they hold; see ``video.probe``."""
    files = _files(path)
    frames, shape, problem = 0, (0, 0), None
    try:
        for _, picture in pictures(path):
            shape = picture.shape[:2]
            frames += 1
    except VideoError as error:
        if frames == 0:
            raise
        problem = f"only {frames} frames can be used: {error}"
    codec = "png" if files[0].suffix.lower() == ".png" else "mjpeg"
    return Facts(frames, width=shape[1], height=shape[0], codec=codec, problem=problem)


def content_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 over the length and bytes of every picture, in order."""
    digest = hashlib.sha256()
    for file in _files(path):
        content = file.read_bytes()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the pictures of a folder in their order.

    Raises:
        VideoError: There are none, numbers are missing or given twice, or counting starts elsewhere.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(path))
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from error
    by_number: dict[int, re.Match[str]] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        twin = by_number.setdefault(int(match[2]), match)
        if twin is not match:
            raise VideoError(f"{path}: {twin[0]} and {name} are both frame {int(match[2])}; remove one of them")
    if not by_number:
        raise VideoError(f"{path}: is a folder without numbered frames; they are named {_LAYOUT}")
    first = min(by_number)
    start = min(first, 1)
    for number in range(start, start + len(by_number)):
        if number not in by_number:
            prefix, digits, suffix = by_number[first].groups()
            name = f"{prefix}{number:0{len(digits)}}.{suffix}"
            raise VideoError(
                f"{path}: the frame {name} is missing; frames are numbered without a hole from 0 or 1"
            )
    return [Path(path) / by_number[number][0] for number in sorted(by_number)]


def _decode(file: Path) -> np.ndarray:
    """Return one picture as uint8 RGB [height, width, 3]."""
    if file.suffix.lower() == ".png":
        return next(pyav.pictures(file, [0]))[1]
    try:
        picture: np.ndarray = simplejpeg.decode_jpeg(file.read_bytes())
    except (OSError, ValueError) as error:
        raise VideoError(f"{file}: cannot be read as JPEG ({error})") from error
    return picture


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
