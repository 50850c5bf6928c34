"""Crop windows: which of them a protocol tests on, and which it draws from for training. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCALES = (1.0, 0.875, 0.75, 0.66)  # of the short side, TCD ops/transforms.py GroupMultiScaleCrop


@dataclass(frozen=True)
class Box:
    """A crop window in pixels, mirrored or not."""

    left: int
    top: int
    width: int
    height: int
    mirror: bool = False

    def of(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return this part of [..., H, W, 3], not mirrored."""
        return pictures[..., self.top : self.top + self.height, self.left : self.left + self.width, :]


def crop_boxes(width: int, height: int, size: int, crops: int) -> list[Box]:
    """Return the test crops of a frame of ``width`` x ``height``.

    One is the centre crop, rounded as torchvision's ``CenterCrop`` does it (TCD train/train_i_cl.py): halves to
    the even number. 3, 5 and 10 follow TCD ops/transforms.py (GroupFullResSample, GroupOverSample): offsets are
    multiples of ``floor((side - size) / 4)``, so the far crops may end up to 3 pixels short of the edge; of the
    10, each position comes plain, then mirrored.
    """
    if crops == 1:
        return [Box(round((width - size) / 2), round((height - size) / 2), size, size)]
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
