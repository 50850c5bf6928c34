"""Facts of a video, as one full decode finds them, and the error that every decoder raises."""

from __future__ import annotations

from dataclasses import dataclass

from vcil_bench.common.errors import UserError


class VideoError(UserError):
    """A video that cannot be read, or a frame it does not have; names the file and the cause."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found at a path.

    Attributes:
        frames: Frames that a forward decode yields, in a damaged file those before the damage; 0 where there are
            none.
        claimed: Frames that the container's header claims, or None.
        width: Width of the upright picture in stored pixels (no aspect-ratio scaling), 0 where nothing decodes.
        height: Height of the upright picture.
        fps: Average frame rate, or None where it is not known.
        codec: FFmpeg's name of the codec, "" where nothing decodes.
        bytes: Size of the file, or of all that a folder of frames holds; 0 where it was not looked at.
        mtime_ns: Modification time of the file or folder, which tells an unchanged one; else 0.
        sha256: Hash of the content; "" where it was not looked at, or nothing decodes.
        problem: Why the video is left out of runs, or None for a healthy one.
    """

    frames: int = 0
    claimed: int | None = None
    width: int = 0
    height: int = 0
    fps: float | None = None
    codec: str = ""
    bytes: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    problem: str | None = None
