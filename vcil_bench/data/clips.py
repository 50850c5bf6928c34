"""From a video to a clip: which frames, which crop; uint8 all the way, normalising is the backbone's.

Frames stay [T, H, W, 3] uint8 in memory order until the crop is taken: resizing uint8 that way was measured at
a tenth of the cost of converting to float first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vcil_bench.protocol import ClipSpec

SCALES = (1.0, 0.875, 0.75, 0.66)  # of the short side, TCD ops/transforms.py GroupMultiScaleCrop


def segment_indices(
    num_frames: int, num_segments: int, rng: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Pick one frame from each of ``num_segments`` equal segments of a video.

    With ``rng`` the frame is drawn uniformly from each segment of ``floor(F/S)`` frames; a video shorter than
    the number of segments gives its first frame throughout, as in TCD's code. Without, it is the middle
    frame, ``floor(F/S * (k + 0.5))``, where short videos repeat frames. Source: TCD ops/dataset.py,
    _sample_indices and _get_test_indices, here counted from 0.

    Args:
        num_frames: Frames F of the video, at least 1.
        num_segments: Segments S, at least 1.
        rng: Generator for the training draw; None for the test rule.

    Returns:
        [S] ascending 0-based frame indices.
    """
    if num_frames < 1 or num_segments < 1:
        raise ValueError(f"cannot take {num_segments} segments of {num_frames} frames")
    k = np.arange(num_segments)
    if rng is None:
        return np.floor(num_frames / num_segments * (k + 0.5)).astype(np.int64)
    length = num_frames // num_segments
    if length == 0:
        return np.zeros(num_segments, dtype=np.int64)
    return (k * length + rng.integers(length, size=num_segments)).astype(np.int64)


def segment_starts(num_frames: int, num_segments: int) -> NDArray[np.int64]:
    """Return the first frame of each segment: the second clip of TCD's ``twice_sample``."""
    return np.floor(num_frames / num_segments * np.arange(num_segments)).astype(np.int64)


def exemplar_indices(num_frames: int, num_segments: int) -> NDArray[np.int64]:
    """Pick the frames by which a video is judged and kept as an exemplar: the middle of each segment.

    A video with no more frames than segments gives its first frame throughout, as in TCD's code (ops/
    dataset.py, _get_val_indices); the distinct values are what is stored (cl_methods/exemplars.py).

    Args:
        num_frames: Frames of the video, at least 1.
        num_segments: Segments S.

    Returns:
        [S] ascending 0-based frame indices.
    """
    if num_frames <= num_segments:
        return np.zeros(num_segments, dtype=np.int64)
    return segment_indices(num_frames, num_segments)


def spread_indices(stored: Sequence[int], num_segments: int) -> NDArray[np.int64]:
    """Fill a clip from the frames that an exemplar still has, each repeated where they are too few.

    The stored frames are set at even distances over the clip, and each position takes the nearest of them; of
    more frames than segments, the nearest to each segment are taken in the same way. Source: TCD
    ops/dataset.py, duplicate_index.

    Args:
        stored: Ascending indices of the stored frames.
        num_segments: Segments S.

    Returns:
        [S] of the stored indices.
    """
    frames = np.asarray(stored, dtype=np.int64)
    if len(frames) == num_segments:
        return frames
    if len(frames) == 1:
        return np.repeat(frames, num_segments)
    places = np.linspace(0, num_segments - 1, len(frames))
    nearest = np.abs(places[None, :] - np.arange(num_segments)[:, None]).argmin(axis=1)
    return frames[nearest]


@dataclass(frozen=True)
class Box:
    """A crop window in pixels, mirrored or not."""

    left: int
    top: int
    width: int
    height: int
    mirror: bool = False


def crop_boxes(width: int, height: int, size: int, crops: int) -> list[Box]:
    """Return the test crops of a frame of ``width`` x ``height``.

    One is the centre crop. 3, 5 and 10 follow TCD ops/transforms.py (GroupFullResSample, GroupOverSample):
    offsets are multiples of ``floor((side - size) / 4)``, so the far crops may end up to 3 pixels short of the
    edge; of the 10, each position comes plain, then mirrored.
    """
    if crops == 1:
        return [Box((width - size) // 2, (height - size) // 2, size, size)]
    w, h = (width - size) // 4, (height - size) // 4
    corners = [(0, 0), (4 * w, 0), (0, 4 * h), (4 * w, 4 * h), (2 * w, 2 * h)]
    places = [(0, 2 * h), (4 * w, 2 * h), (2 * w, 2 * h)] if crops == 3 else corners
    mirrors = (False, True) if crops == 10 else (False,)
    return [Box(x, y, size, size, mirror) for x, y in places for mirror in mirrors]


def multiscale_choices(width: int, height: int, size: int) -> list[tuple[int, int]]:
    """Return the (width, height) pairs of TCD's multi-scale crop, in its order (heights outer)."""
    sides = [int(min(width, height) * scale) for scale in SCALES]
    sides = [size if abs(side - size) < 3 else side for side in sides]
    return [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]


def multiscale_offsets(width: int, height: int, crop_width: int, crop_height: int) -> list[tuple[int, int]]:
    """Return the 13 (left, top) places of a multi-scale crop window (TCD ops/transforms.py)."""
    w, h = (width - crop_width) // 4, (height - crop_height) // 4
    grid = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0)]
    grid += [(1, 1), (3, 1), (1, 3), (3, 3)]
    return [(x * w, y * h) for x, y in grid]


def training_box(width: int, height: int, size: int, rng: np.random.Generator) -> Box:
    """Draw a multi-scale crop window uniformly over size pairs and places; its sides may differ.

    A side that TCD rounds up to ``size`` can exceed the frame by up to 2 pixels, which its image library
    pads with black; here the window ends at the frame.
    """
    choices = multiscale_choices(width, height, size)
    crop_width, crop_height = choices[rng.integers(len(choices))]
    crop_width, crop_height = min(crop_width, width), min(crop_height, height)
    places = multiscale_offsets(width, height, crop_width, crop_height)
    left, top = places[rng.integers(len(places))]
    return Box(left, top, crop_width, crop_height)


def training_clip(frames: NDArray[np.uint8], spec: ClipSpec, rng: np.random.Generator) -> Tensor:
    """Crop, resize and perhaps mirror a clip for training, all frames alike.

    Args:
        frames: [T, H, W, 3] uint8.
        spec: The protocol's clip section.
        rng: The clip's own generator.

    Returns:
        [T, 3, size, size] uint8.
    """
    if spec.train_crop == "center":
        clip = test_clips(frames, spec, crops=1)[0]
    else:
        box = training_box(frames.shape[2], frames.shape[1], spec.size, rng)
        clip = _resize(_cut(frames, box), spec.size, spec.size, spec.interpolation)
    mirror = spec.flip and rng.random() < 0.5
    return (clip.flip(-1) if mirror else clip).contiguous()


def test_clips(frames: NDArray[np.uint8], spec: ClipSpec, crops: int) -> Tensor:
    """Resize the short side and take the test crops.

    Args:
        frames: [T, H, W, 3] uint8.
        spec: The protocol's clip section.
        crops: Number of crops, see ``crop_boxes``.

    Returns:
        [crops, T, 3, size, size] uint8.
    """
    height, width = frames.shape[1:3]
    short = spec.short_side or spec.size
    new_height = short if height <= width else height * short // width
    new_width = short if width <= height else width * short // height
    resized = _resize(frames, new_height, new_width, spec.interpolation)  # [T, 3, H', W']
    boxes = crop_boxes(new_width, new_height, spec.size, crops)
    return torch.stack([_crop(resized, box) for box in boxes]).contiguous()


test_clips.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever its name


def _cut(frames: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    return frames[:, box.top : box.top + box.height, box.left : box.left + box.width]


def _crop(clip: Tensor, box: Box) -> Tensor:
    window = clip[..., box.top : box.top + box.height, box.left : box.left + box.width]
    return window.flip(-1) if box.mirror else window


def _resize(frames: NDArray[np.uint8], height: int, width: int, interpolation: str) -> Tensor:
    """Resize [T, H, W, 3] uint8 to [T, 3, height, width] uint8, antialiased; a no-op at the same size."""
    clip = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if clip.shape[-2:] == (height, width):
        return clip
    return F.interpolate(clip, (height, width), mode=interpolation, antialias=True)
