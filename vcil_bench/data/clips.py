"""From a video to a clip: which frames, which crop; uint8 all the way, normalising is the backbone's.

Frames stay [T, H, W, 3] uint8 in memory order until the crop is taken: resizing uint8 that way was measured at
a tenth of the cost of converting to float first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcil_bench.protocol import ClipSpec

from .crops import Box, crop_boxes, training_box


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


def dist_indices(
    num_frames: int, dense: int, views: int = 1, view: int = 0, rng: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Pick the dense frames of a clip by DiST's rule, for reproducing DiST itself; protocols keep their own.

    The video is cut into ``dense`` segments from its first to its last edge, all in float32, and positions are
    rounded half to even. With ``rng`` a position is drawn from each segment; without, a single view takes the
    middles, and of several view c the part ``(c + 1) / views`` of the way, the last the segments' ends. Ends are
    included, so that neighbours can give the same frame. Source: alibaba-mmai-research/DiST@4b3a09b,
    dataset/base/base_dataset.py. The tower sees every alpha-th of them, beginning with the first.

    Args:
        num_frames: Frames of the video, at least 1.
        dense: Frames T of the clip, at least 1.
        views: Clips of the video that are tested.
        view: Which of them, counted from 0.
        rng: Draws [T] numbers for training; None for testing.

    Returns:
        [T] ascending 0-based frame indices.
    """
    if num_frames < 1 or dense < 1:
        raise ValueError(f"cannot take {dense} frames of {num_frames}")
    if not 0 <= view < views:
        raise ValueError(f"view {view} of {views}: views are counted from 0")
    # torch.linspace, which counts from both ends, without its kernels' choice of rounding.
    i, step = np.arange(dense + 1, dtype=np.float32), np.float32(num_frames) / np.float32(dense)
    edges = np.where(i < (dense + 1) // 2, step * i, np.float32(num_frames) - step * (dense - i))
    first, length = edges[:-1], edges[1:] - edges[:-1]
    if rng is not None:
        positions = first + rng.random(dense).astype(np.float32) * length
    elif views == 1:
        positions = (first + edges[1:]) / 2
    else:
        positions = first + length * np.float32(view + 1) / np.float32(views)
    return np.rint(positions.clip(0, num_frames - 1)).astype(np.int64)


def interpolated(frames: Tensor, num_segments: int) -> Tensor:
    """Fill a clip from fewer frames by linear interpolation in time.

    The frames are set at even distances over the clip, as by ``spread_indices``, and a place between two is
    their mean weighted by nearness. In whole numbers, halves rounded up, so that every processor gives the same.

    Args:
        frames: [n, ...] uint8, n at least 1; a single one is repeated.
        num_segments: Frames T of the clip, not below n.

    Returns:
        [T, ...] uint8.
    """
    gaps, steps = len(frames) - 1, num_segments - 1
    if not gaps:
        return frames.expand(num_segments, *frames.shape[1:])
    places = torch.arange(num_segments) * gaps  # in units of 1 / steps
    left = (places // steps).clamp_max(gaps - 1)
    later = (places - left * steps).view(-1, *[1] * (frames.dim() - 1))
    wide = frames.int()
    blend = (steps - later) * wide[left] + later * wide[left + 1]
    return ((blend + steps // 2) // steps).to(torch.uint8)


def thinned_indices(num_frames: int, kept: int) -> NDArray[np.int64]:
    """Thin a video out to ``kept`` frames at even distances; frames repeat where it has fewer.

    ``floor(s/2 + s x)`` with ``s = F / kept``. Source: vCLIMB utils/icarl_dataset_frames_selfsup_v2.py.

    Args:
        num_frames: Frames F of the video, at least 1.
        kept: How many are left, at least 1.

    Returns:
        [kept] ascending 0-based frame indices.
    """
    step = num_frames / kept
    return np.floor(step / 2 + step * np.arange(kept)).astype(np.int64)


def clip_positions(
    num_stored: int, num_segments: int, draws: Sequence[int] | NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Pick a clip from a list of stored frames by vCLIMB's rule.

    With ``draws`` position ``k q + draws[k]`` of segments of ``q = floor(L / S)`` frames, without their middles
    ``floor(s/2 + s k)``, ``s = L / S``. A list shorter than the clip is repeated evenly, ``floor(k L / S)``,
    where ``segment_indices`` gives the first frame throughout. Source: vCLIMB
    utils/icarl_dataset_frames_selfsup_v2.py, _sample_indices and _get_val_indices.

    Args:
        num_stored: Length L of the list, at least 1.
        num_segments: Segments S.
        draws: [S] integers in 0..q-1, or None for the rule of validation; a short list takes none.

    Returns:
        [S] ascending 0-based positions in the list.
    """
    k = np.arange(num_segments)
    length = num_stored // num_segments
    if length == 0:
        return k * num_stored // num_segments
    if draws is None:
        return thinned_indices(num_stored, num_segments)
    return k * length + np.asarray(draws)


def second_clip_positions(
    num_stored: int,
    kept: int,
    num_segments: int,
    draws: Sequence[int] | NDArray[np.int64] | None,
    released: bool = False,
) -> NDArray[np.int64] | None:
    """Pick the second clip of vCLIMB's temporal consistency: the video as its memory would keep it.

    The list of frames is thinned out to ``kept`` frames, and a clip is taken of these. The released code looks
    the clip's positions up in the list before it is thinned out, so that the clip is of the video's first
    ``kept`` frames. Source: vCLIMB utils/icarl_dataset_frames_selfsup_v2.py.

    Args:
        num_stored: Length L of the list.
        kept: Frames that the memory keeps of a video, -1 for all: then the clip is another draw of the first's
            rule.
        num_segments: Segments S.
        draws: As in ``clip_positions``, for a list of ``kept`` frames.
        released: As the released code has it.

    Returns:
        [S] positions in the list; None where it has no more than ``kept`` frames, so that the second clip is to
        be the first (the released code has a blank one).
    """
    if kept < 0:
        return clip_positions(num_stored, num_segments, draws)
    if num_stored <= kept:
        return None
    positions = clip_positions(kept, num_segments, draws)
    return positions if released else thinned_indices(num_stored, kept)[positions]


@dataclass(frozen=True, slots=True)
class SecondClip:
    """A second clip of every training video beside the first, for vCLIMB's temporal consistency.

    Attributes:
        kept: Frames that the memory keeps of a video, -1 for all, see ``second_clip_positions``.
        released: As the released code has it, which gives exemplars a blank one.
    """

    kept: int
    released: bool = False

    def positions(
        self, num_stored: int, num_segments: int, rng: np.random.Generator
    ) -> NDArray[np.int64] | None:
        """Draw its positions in a video's list of frames, see ``second_clip_positions``."""
        length = (num_stored if self.kept < 0 else self.kept) // num_segments
        draws = rng.integers(length, size=num_segments) if length else None
        return second_clip_positions(num_stored, self.kept, num_segments, draws, self.released)


# Of a blank clip: what is nothing behind the networks' normalisation, up to rounding (0.01), where vCLIMB's code
# puts zeros.
BLANK = (124, 116, 104)


def training_window(width: int, height: int, spec: ClipSpec, rng: np.random.Generator) -> Box | None:
    """Draw what a training clip shows of frames of this size; None where it is their centre."""
    return training_box(width, height, spec.size, rng) if spec.train_crop == "multiscale" else None


def training_pixels(
    frames: NDArray[np.uint8], spec: ClipSpec, rng: np.random.Generator, out: Tensor | None = None
) -> Tensor:
    """Make the training clip of frames from which ``training_window`` is cut out, by the same generator.

    Args:
        frames: [T, H, W, 3] uint8.
        spec: The protocol's clip section.
        rng: The clip's own generator.
        out: Memory to make it in, of the result's shape; None for new memory.

    Returns:
        [T, size, size, 3] uint8, see ``planes``.
    """
    mirror = spec.flip and rng.random() < 0.5
    straight = None if mirror else out
    if spec.train_crop == "multiscale":
        clip = _resize(frames, spec.size, spec.size, spec.interpolation, straight)
    else:
        clip = evaluation_crops(frames, spec, 1, None if straight is None else straight[None])[0]
    if not mirror:
        return clip
    return clip.flip(2) if out is None else out.copy_(clip.flip(2))


def evaluation_crops(frames: NDArray[np.uint8], spec: ClipSpec, crops: int, out: Tensor | None = None) -> Tensor:
    """Resize the short side and take the crops that a clip is evaluated on.

    Args:
        frames: [T, H, W, 3] uint8.
        spec: The protocol's clip section.
        crops: Number of crops, see ``crop_boxes``.
        out: Memory to make them in, of the result's shape; None for new memory.

    Returns:
        [crops, T, size, size, 3] uint8, see ``planes``.
    """
    height, width = frames.shape[1:3]
    short = spec.short_side or spec.size
    new_height = short if height <= width else height * short // width
    new_width = short if width <= height else width * short // height
    resized = _resize(frames, new_height, new_width, spec.interpolation)
    views = []
    for box in crop_boxes(new_width, new_height, spec.size, crops):
        view = resized[:, box.top : box.top + box.height, box.left : box.left + box.width]
        views.append(view.flip(2) if box.mirror else view)
    return torch.stack(views, out=out)


def planes(pixels: Tensor) -> Tensor:
    """Show clips [..., H, W, 3] as [..., 3, H, W], without moving them.

    Networks move them as they need, on their device: on a processor it is a sixth of what a clip from a frame
    store costs.
    """
    return pixels.movedim(-1, -3)


# What ``F.interpolate`` calls with ``antialias``. It has no ``out``: that and a copy take a fifth more.
_RESIZERS: dict[str, Callable[..., Tensor]] = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
}


def _resize(
    frames: NDArray[np.uint8], height: int, width: int, interpolation: str, out: Tensor | None = None
) -> Tensor:
    """Resize [T, H, W, 3] uint8 to [T, height, width, 3], antialiased; a no-op at the same size."""
    clip = torch.from_numpy(np.ascontiguousarray(frames))
    if clip.shape[1:3] == (height, width):
        return clip if out is None else out.copy_(clip)
    resized = clip.new_empty(len(clip), height, width, 3) if out is None else out
    planes_of, planes_to = clip.permute(0, 3, 1, 2), resized.permute(0, 3, 1, 2)
    _RESIZERS[interpolation](planes_of, (height, width), False, None, None, out=planes_to)
    return resized
