"""Videos that cost what those of two datasets cost to decode: their picture size, length, codec and bytes.

A textured scene that the camera pans over, another texture moving before it, and the noise of a sensor; the
encoder is held to the datasets' rates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vcil_bench.common.random_streams import numpy_stream


@dataclass(frozen=True)
class Kind:
    """What a dataset's videos have in common.

    Attributes:
        name: For the table.
        suffix: Of the files, which names the container.
        codec: FFmpeg's encoder.
        width: In pixels.
        height: In pixels.
        frames: Per video.
        bytes: Per video, about.
        options: The encoder's.
    """

    name: str
    suffix: str
    codec: str
    width: int
    height: int
    frames: int
    bytes: int
    options: Mapping[str, str] = field(hash=False)

    def __str__(self) -> str:
        """Describe a video."""
        return f"{self.width}x{self.height}, {self.frames} frames, {self.codec}"


UCF101 = Kind("like UCF101", ".avi", "mpeg4", 320, 240, 174, 335_000, {"bf": "1", "g": "300"})
KINETICS = Kind("like Kinetics", ".mp4", "libx264", 340, 256, 300, 500_000, {})
_FPS, _MARGIN, _NOISE = 25, 96, 3.0


def make(kind: Kind, number: int, folder: Path) -> Path:
    """Make a video; the same number gives the same."""
    path = folder / f"{number}{kind.suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=_FPS, options=dict(kind.options))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = kind.width, kind.height, "yuv420p"
        stream.bit_rate = 8 * kind.bytes * _FPS // kind.frames
        stream.thread_count = 1
        for picture in _pictures(kind, numpy_stream("video", kind.name, number)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _pictures(kind: Kind, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    scene = _texture(kind.height + 2 * _MARGIN, kind.width + 2 * _MARGIN, rng)
    actor = _texture(kind.height // 2, kind.width // 4, rng)
    speeds = rng.uniform(0.01, 0.04, 4)
    height, width = actor.shape[:2]
    for time in range(kind.frames):
        sway = (np.sin(time * speeds) + 1) / 2
        y, x = (2 * _MARGIN * sway[:2]).astype(int)
        picture = scene[y : y + kind.height, x : x + kind.width].copy()
        y, x = int((kind.height - height) * sway[2]), int((kind.width - width) * sway[3])
        picture[y : y + height, x : x + width] = actor
        picture += rng.normal(0, _NOISE, picture.shape).astype(np.float32)
        yield picture.clip(0, 255).astype(np.uint8)


def _texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return noise of several coarsenesses, the coarser the stronger, as natural pictures have it."""
    total = torch.full((1, 3, height, width), 128.0)
    for cell in (4, 8, 16, 32, 64):
        grain = rng.normal(0, 1.5 * cell**0.75, (1, 3, height // cell + 2, width // cell + 2))
        total += F.interpolate(torch.from_numpy(grain).float(), (height, width), mode="bicubic")
    texture: NDArray[np.float32] = total[0].permute(1, 2, 0).numpy()
    return texture
