"""What is said of a video: the facts of one full decode, and the error that every decoder raises."""

from __future__ import annotations

from dataclasses import dataclass

from vcil_bench.common.errors import UserError


class VideoError(UserError):
    """A video that cannot be read, or a frame it does not have; names the file and the cause."""


@dataclass(frozen=True)
class VideoFacts:
    """What one full decode of a video found.

    Attributes:
        frames: Frames that a forward decode yields; in a damaged file those before the damage.
        claimed: Frames that the container's header claims, or None.
        width: Width of the upright picture in stored pixels (no aspect-ratio scaling).
        height: Height of the upright picture.
        fps: Average frame rate, or None if the file does not say.
        codec: FFmpeg's name of the codec.
        rotation: Clockwise turn in degrees (0, 90, 180, 270) that makes the stored picture upright;
            ``read_frames`` has already applied it.
        problem: Why the file is decodable in part only, or None for a healthy file.
    """

    frames: int
    claimed: int | None
    width: int
    height: int
    fps: float | None
    codec: str
    rotation: int
    problem: str | None
