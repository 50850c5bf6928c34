"""Draw still pictures and tell what is true of them: all that the embedded networks are pretrained on.

The methods under test start from a network that has seen pictures and never a video. So the embedded ones
learn from stills with their own random parameters; no benchmark clip and no frame of one is ever read.

Motion words need a visual meaning, or a network could not tell "moving left" from "moving right" before it
has seen a clip. A still can only hint at motion, so a moving object trails speed lines behind it. Benchmark
clips never have such lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcil_bench.data import synthetic
from vcil_bench.data.synthetic import drawing

COLOURS = tuple(drawing.COLOURS)
SHAPES = tuple(drawing.SHAPES)
MOTIONS = ("still", *drawing.MOTIONS)
SIZES = ("small", "", "large")
FAMILIES = tuple(drawing.BACKGROUNDS)
COARSE_GRID, FINE_GRID = 3, 6
PLACE_BINS = 12  # columns and rows by which a place is read, finer than captions tell it

# Of the stills' own draws. Shades and light go beyond those of the clips, as a pretraining on the world's
# pictures goes beyond a benchmark's.
OBJECT_SHIFT = (0.0, 0.16)
BACKGROUND_SHIFT = (0.0, 0.13)
LIGHT = (0.7, 1.15)
RADIUS = (6.0, 12.0)
MAX_ANGLE = 0.3
BORDER = 2.0
LINES_IN_VIEW = 8.0  # pixels of speed lines that the picture's border leaves
OTHER_SHARE, POST_SHARE = 0.3, 0.3

# What is told of a still and how many values it may take, in the order of ``Still.facts``.
FACTS: dict[str, int] = {
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "motion": len(MOTIONS),
    "zone": COARSE_GRID**2,
    "cell": FINE_GRID**2,
    "column": PLACE_BINS,
    "row": PLACE_BINS,
    "size": len(SIZES),
    "background": len(FAMILIES),
}

BATCH_OBJECTS = 8
STILLS_PER_OBJECT = 16

# Second part of each generator's key: what trains, what measures and what initialises never meet.
TRAINING_STREAM, HELD_OUT_STREAM, INITIAL_STREAM = 0, 1, 2


@dataclass(frozen=True)
class Still:
    """One picture and what is true of it.

    Attributes:
        image: RGB bytes [64, 64, 3].
        facts: Indices of colour, shape, motion (0 is none), zone of 3 x 3, cell of 6 x 6, column and row of 12,
            size (0 is small, 1 neither, 2 large) and background family.
    """

    image: NDArray[np.uint8]
    facts: tuple[int, ...]


def draw_still(rng: np.random.Generator, colour: str, shape: str, motion: str, contrast: float = 1.0) -> Still:
    """Draw a still with everything but the object and its motion at random.

    Args:
        rng: Source of the random parameters.
        colour: A key of ``drawing.COLOURS``.
        shape: A key of ``drawing.SHAPES``.
        motion: ``still`` or a key of ``drawing.MOTIONS``; motion shows as speed lines.
        contrast: Strength of the background's pattern, 0 for none, 1 for that of the clips.

    Returns:
        The picture and its facts.
    """
    family = int(rng.integers(len(FAMILIES)))
    canvas = drawing.background(rng, FAMILIES[family], BACKGROUND_SHIFT)
    mean = canvas.mean((0, 1))
    canvas = mean + contrast * (canvas - mean)
    if rng.random() < OTHER_SHARE * contrast:
        canvas = _with_other_object(rng, canvas)
    radius = float(rng.uniform(*RADIUS))
    centre = _place(rng, motion, radius)
    paint = drawing.shade(rng, colour, OBJECT_SHIFT)
    if motion != "still":
        lines = drawing.trail_mask(
            motion, centre, radius, length=rng.uniform(28, 31) - radius, period=rng.uniform(4, 7)
        )
        # Paler than the object, or few pixels would tell the front from the back.
        canvas = drawing.paint(canvas, rng.uniform(0.8, 1.0) * lines, 0.4 * paint + 0.6)
    mask = drawing.object_mask(shape, centre[None], radius, angle=rng.uniform(-MAX_ANGLE, MAX_ANGLE))[0]
    image = drawing.paint(canvas, mask, paint)
    if rng.random() < POST_SHARE * contrast:
        image = drawing.paint(image, drawing.post_mask(rng), drawing.muted(rng, BACKGROUND_SHIFT))
    column, row = (centre * COARSE_GRID // drawing.SIZE).astype(int)
    fine_column, fine_row = (centre * FINE_GRID // drawing.SIZE).astype(int)
    line_column, line_row = (centre * PLACE_BINS // drawing.SIZE).astype(int)
    facts = (
        COLOURS.index(colour),
        SHAPES.index(shape),
        MOTIONS.index(motion),
        int(COARSE_GRID * row + column),
        int(FINE_GRID * fine_row + fine_column),
        int(line_column),
        int(line_row),
        0 if radius < 8 else 2 if radius > 10 else 1,
        family,
    )
    return Still(drawing.to_uint8(image * rng.uniform(*LIGHT)), facts)


def _place(rng: np.random.Generator, motion: str, radius: float) -> drawing.Array:
    """Draw the centre [2] of an object: anywhere in the picture that leaves its speed lines in view."""
    low, high = np.full(2, BORDER), np.full(2, drawing.SIZE - BORDER)
    if motion != "still":
        room = (radius + LINES_IN_VIEW) * np.array(drawing.MOTIONS[motion])
        low, high = np.maximum(low, room), np.minimum(high, drawing.SIZE + room)
    return rng.uniform(low, high)


def _with_other_object(rng: np.random.Generator, canvas: drawing.Array) -> drawing.Array:
    """Paint a smaller object into a picture, of a colour and a shape that no class has."""
    mask = drawing.object_mask(
        synthetic.OTHER_SHAPES[rng.integers(len(synthetic.OTHER_SHAPES))],
        rng.uniform(BORDER, drawing.SIZE - BORDER, (1, 2)),
        rng.uniform(*synthetic.OTHER_RADIUS),
        angle=rng.uniform(-MAX_ANGLE, MAX_ANGLE),
    )[0]
    colour = synthetic.OTHER_COLOURS[rng.integers(len(synthetic.OTHER_COLOURS))]
    return drawing.paint(canvas, mask, drawing.shade(rng, colour, OBJECT_SHIFT))


def draw_stills(
    rng: np.random.Generator,
    contrast: float = 1.0,
    objects: int = BATCH_OBJECTS,
    stills_per_object: int = STILLS_PER_OBJECT,
) -> list[Still]:
    """Draw the stills of one training batch, several of each object.

    A quarter of the objects are those of the class names, which a pretrained model would know well.

    Args:
        rng: Source of everything random.
        contrast: Strength of the backgrounds' patterns, as in ``draw_still``.
        objects: How many objects, each a colour and a shape.
        stills_per_object: How many stills of each, with motions at random.

    Returns:
        The stills, those of one object next to each other.
    """
    stills: list[Still] = []
    for number in range(objects):
        if number % 4 == 0:
            colour, shape = synthetic.OBJECTS[rng.integers(len(synthetic.OBJECTS))]
        else:
            colour = COLOURS[rng.integers(len(COLOURS))]
            shape = SHAPES[rng.integers(len(SHAPES))]
        for _ in range(stills_per_object):
            motion = MOTIONS[rng.integers(len(MOTIONS))]
            stills.append(draw_still(rng, colour, shape, motion, contrast))
    return stills


def contrast_at(step: int, steps: int) -> float:
    """Return the strength of backgrounds in a training: objects are learned on plain ones first."""
    return min(1.0, max(0.0, (step / steps - 0.1) / 0.3))


def held_out_stills(seed: int, motions: Sequence[str], count: int) -> Iterator[tuple[int, Still]]:
    """Yield (object x motion index, still) from a stream that training never draws from."""
    rng = np.random.default_rng([seed, HELD_OUT_STREAM])
    kinds = [(*item, motion) for item in synthetic.OBJECTS for motion in motions]
    for kind, (colour, shape, motion) in enumerate(kinds):
        for _ in range(count):
            yield kind, draw_still(rng, colour, shape, motion)


def held_out_mixture(seed: int, count: int) -> Iterator[Still]:
    """Yield held-out stills in which every colour, shape and motion is as likely as any other."""
    rng = np.random.default_rng([seed, HELD_OUT_STREAM, 2])
    for _ in range(count):
        colour, shape, motion = (names[rng.integers(len(names))] for names in (COLOURS, SHAPES, MOTIONS))
        yield draw_still(rng, colour, shape, motion)


def normalised(stills: Sequence[Still], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return pictures as a network's input [B, 3, 64, 64], with mean and deviation of each channel."""
    pixels = torch.from_numpy(np.stack([still.image for still in stills])).permute(0, 3, 1, 2)
    means, deviations = torch.tensor(mean), torch.tensor(std)
    return (pixels / 255 - means[:, None, None]) / deviations[:, None, None]
