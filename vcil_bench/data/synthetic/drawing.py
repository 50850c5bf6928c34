"""Draw coloured shapes on textured backgrounds: the pictures behind the embedded data and model.

The clips of ``synthetic`` and the stills that the tiny CLIP is pretrained on have to show the same
kind of objects, and nothing else may be shared between them. So the drawing lives here, as
functions of explicit parameters and a generator, and each user draws its own parameters.

All coordinates are in pixels, x to the right and y downwards, and may lie outside the picture; all colours are
RGB in [0, 1].

Pictures must not depend on the processor. Sums, products, quotients and square roots are the same everywhere;
sine, exponential and the like, whose last digits are not, are rounded (``settled``), and all is float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

SIZE = 64
POST_WIDTH = (4.0, 8.0)

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.13, 0.13),
    "blue": (0.14, 0.28, 0.92),
    "green": (0.12, 0.68, 0.20),
    "yellow": (0.95, 0.86, 0.10),
    "purple": (0.58, 0.16, 0.74),
    "white": (0.98, 0.98, 0.98),
    "orange": (0.96, 0.52, 0.06),
    "cyan": (0.10, 0.82, 0.86),
    "pink": (0.98, 0.52, 0.74),
    "black": (0.04, 0.04, 0.04),
}

MOTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}

_GRID = np.arange(SIZE, dtype=np.float64)


def settled(values: Any) -> Any:
    """Round away the digits in which processors differ."""
    return np.round(values, 9)


def _length(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y)  # hypot is not the same everywhere


def _square(x: Array, y: Array, r: float) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.89 * r


def _circle(x: Array, y: Array, r: float) -> Array:
    return _length(x, y) - r


def _triangle(x: Array, y: Array, r: float) -> Array:
    # Distance of the three sides from the centroid; 0.75 r makes its area about the circle's.
    return np.maximum(y, 0.866 * np.abs(x) - 0.5 * y) - 0.75 * r


def _star(x: Array, y: Array, r: float) -> Array:
    # Folding the angle leaves one tenth of the star, the side from an outer to an inner corner.
    outer, inner, tenth = 1.4 * r, 0.62 * r, np.pi / 5
    angle = np.abs((settled(np.arctan2(x, -y)) + tenth) % (2 * tenth) - tenth)
    rho = _length(x, y)
    side_x, side_y = inner * settled(np.cos(tenth)) - outer, inner * settled(np.sin(tenth))
    along_x, along_y = rho * settled(np.cos(angle)) - outer, rho * settled(np.sin(angle))
    return (side_y * along_x - side_x * along_y) / _length(side_x, side_y)


def _cross(x: Array, y: Array, r: float) -> Array:
    long, short = 1.15 * r, 0.38 * r
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - long, y - short), np.maximum(x - short, y - long))


def _ring(x: Array, y: Array, r: float) -> Array:
    return np.abs(_length(x, y) - 0.9 * r) - 0.28 * r


def _diamond(x: Array, y: Array, r: float) -> Array:
    return (np.abs(x) / 0.8 + np.abs(y) - 1.4 * r) * 0.625


def _heart(x: Array, y: Array, r: float) -> Array:
    body = (np.abs(x) + np.abs(y) - r) * 0.707
    return np.minimum(body, _length(np.abs(x) - r / 2, y + r / 2) - 0.707 * r)


def _crescent(x: Array, y: Array, r: float) -> Array:
    return np.maximum(_length(x, y) - 1.15 * r, 0.95 * r - _length(x - 0.6 * r, y))


def _bar(x: Array, y: Array, r: float) -> Array:
    return np.maximum(np.abs(x) - 1.4 * r, np.abs(y) - 0.4 * r)


# Signed distances to the outline in pixels, negative inside, for an object of "radius" r.
SHAPES: dict[str, Callable[[Array, Array, float], Array]] = {
    "square": _square,
    "circle": _circle,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "diamond": _diamond,
    "heart": _heart,
    "crescent": _crescent,
    "bar": _bar,
}


def _offsets(centres: Array) -> tuple[Array, Array]:
    """Return the way from centres to pixels, as x and y [T, 64, 64]."""
    dx = _GRID[None, :] - centres[:, :1]
    dy = _GRID[None, :] - centres[:, 1:]
    shape = (len(centres), SIZE, SIZE)
    return np.broadcast_to(dx[:, None, :], shape), np.broadcast_to(dy[:, :, None], shape)


def object_mask(shape: str, centres: Array, radius: float, angle: float = 0.0) -> Array:
    """Draw one shape at each of several places.

    Args:
        shape: A key of ``SHAPES``.
        centres: Positions [T, 2] as (x, y) in pixels.
        radius: Radius in pixels of the disc of about the same area.
        angle: Rotation in radians.

    Returns:
        Coverage of each pixel [T, 64, 64] in [0, 1], with a soft edge one pixel wide.
    """
    x, y = _offsets(np.asarray(centres, dtype=np.float64))
    cos, sin = settled(np.cos(angle)), settled(np.sin(angle))
    distance = SHAPES[shape](cos * x + sin * y, cos * y - sin * x, radius)
    return np.clip(0.5 - distance, 0.0, 1.0)


def trail_mask(motion: str, centre: Array, radius: float, length: float, period: float) -> Array:
    """Draw fading speed lines behind an object that moves.

    Args:
        motion: A key of ``MOTIONS``; the lines lie on the opposite side.
        centre: Position [2] of the object as (x, y) in pixels.
        radius: Radius of the object in pixels.
        length: How far the lines reach beyond the object, in pixels.
        period: Distance between two lines in pixels.

    Returns:
        Coverage of each pixel [64, 64] in [0, 1].
    """
    x, y = (offset[0] for offset in _offsets(np.asarray(centre, dtype=np.float64)[None]))
    step_x, step_y = MOTIONS[motion]
    behind = -(step_x * x + step_y * y)
    across = np.abs(x if step_x == 0 else y)
    lines = 0.75 + 0.25 * settled(np.cos(2 * np.pi * across / period))
    fade = np.clip(1.3 * (radius + length - behind) / length, 0.0, 1.0)
    inside = (behind > 0) & (across < radius)
    return lines * fade * inside


def post_mask(rng: np.random.Generator) -> Array:
    """Draw a straight post across the picture, which hides what is behind it, [64, 64] in [0, 1]."""
    across = _rotated(rng)[0]
    return np.clip(rng.uniform(*POST_WIDTH) / 2 + 0.5 - np.abs(across), 0.0, 1.0)


def shifted(rng: np.random.Generator, colour: Array, shift: tuple[float, float]) -> Array:
    """Move a colour [3] to another tint by a random distance in RGB between the two of ``shift``.

    The way is square to the line from black through the colour, so that neither brightness nor light brings a
    moved colour back. Where it leaves what can be shown, the shade is lightened or darkened along that line.
    """
    way = settled(rng.standard_normal(3))
    way = way - colour * ((way * colour).sum() / (colour * colour).sum())
    moved = colour + way * (rng.uniform(*shift) / np.sqrt((way * way).sum()))
    moved = moved + colour * max(0.0, float((-moved / colour).max()))
    shade: Array = moved / max(1.0, float(moved.max()))
    return shade


def shade(rng: np.random.Generator, colour: str, shift: tuple[float, float]) -> Array:
    """Draw one shade [3] of a named colour, as far from the table's as ``shift`` says (see ``shifted``)."""
    return shifted(rng, np.array(COLOURS[colour]) * rng.uniform(0.85, 1.0), shift)


def paint(canvas: Array, mask: Array, colour: Array) -> Array:
    """Blend a colour [3] into a canvas [..., 64, 64, 3] where the mask [..., 64, 64] covers it."""
    return canvas + mask[..., None] * (colour - canvas)


def _rotated(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return pixel coordinates [64, 64] in a randomly turned and shifted frame."""
    angle, (shift_x, shift_y) = rng.uniform(0, 2 * np.pi), rng.uniform(0, SIZE, 2)
    x, y = _GRID[None, :] - shift_x, _GRID[:, None] - shift_y
    cos, sin = settled(np.cos(angle)), settled(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _plain(rng: np.random.Generator) -> Array:
    return np.zeros((SIZE, SIZE))


def _gradient(rng: np.random.Generator) -> Array:
    return _rotated(rng)[0]


def _stripes(rng: np.random.Generator) -> Array:
    wave = settled(np.sin(2 * np.pi * _rotated(rng)[0] / rng.uniform(7, 20)))
    return np.clip(wave * rng.uniform(1, 4), -1, 1)


def _checker(rng: np.random.Generator) -> Array:
    x, y = _rotated(rng)
    cell = rng.uniform(7, 16)
    return (np.floor(x / cell) + np.floor(y / cell)) % 2


def _noise(rng: np.random.Generator) -> Array:
    frequency = np.fft.fftfreq(SIZE)
    power = _length(frequency[:, None], frequency[None, :])
    spectrum = np.fft.fft2(rng.standard_normal((SIZE, SIZE)))
    return settled(np.fft.ifft2(spectrum * np.exp(-((power * rng.uniform(8, 16)) ** 2))).real)


def _radial(rng: np.random.Generator) -> Array:
    return _length(*_rotated(rng))


def _waves(rng: np.random.Generator) -> Array:
    x, y = _rotated(rng)
    bent = x + rng.uniform(2, 5) * settled(np.sin(2 * np.pi * y / rng.uniform(16, 32)))
    return settled(np.sin(2 * np.pi * bent / rng.uniform(9, 22)))


def _dots(rng: np.random.Generator) -> Array:
    pitch = rng.uniform(9, 18)
    x, y = (np.abs(axis % pitch - pitch / 2) for axis in _rotated(rng))
    return np.clip(rng.uniform(0.2, 0.36) * pitch - _length(x, y), 0, 1)


def _patches(rng: np.random.Generator) -> Array:
    x, y = _rotated(rng)
    cell = rng.uniform(9, 18)
    table = rng.uniform(0, 1, (16, 16))
    return table[np.floor(x / cell).astype(int) % 16, np.floor(y / cell).astype(int) % 16]


# Patterns of any range; ``background`` stretches them between two colours.
BACKGROUNDS: dict[str, Callable[[np.random.Generator], Array]] = {
    "gradient": _gradient,
    "stripes": _stripes,
    "checker": _checker,
    "noise": _noise,
    "radial": _radial,
    "waves": _waves,
    "dots": _dots,
    "patches": _patches,
    "plain": _plain,
}


def muted(rng: np.random.Generator, shift: tuple[float, float]) -> Array:
    """Draw a colour [3] near grey, neither bright nor dark, so that every one of ``COLOURS`` stands out from it.

    Args:
        rng: Source of the grey and of its tint.
        shift: Least and largest distance from the grey in RGB.
    """
    return shifted(rng, np.full(3, rng.uniform(0.22, 0.66)), shift)


def background(rng: np.random.Generator, family: str, shift: tuple[float, float]) -> Array:
    """Draw a background [64, 64, 3] of one family of ``BACKGROUNDS`` in two random muted colours.

    Args:
        rng: Source of pattern and colours.
        family: A key of ``BACKGROUNDS``.
        shift: Of both colours, as in ``muted``.
    """
    pattern = BACKGROUNDS[family](rng)
    low, high = float(pattern.min()), float(pattern.max())
    pattern = (pattern - low) / max(high - low, 1e-6)
    first, second = muted(rng, shift), muted(rng, shift)
    return first + pattern[..., None] * (second - first)


def to_uint8(image: Array) -> NDArray[np.uint8]:
    """Convert colours in [0, 1] to bytes, rounding to the nearest."""
    return np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
