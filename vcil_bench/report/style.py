"""The look of all figures, read from ``style.yaml``: a method has the same colour and marker in every one."""

from __future__ import annotations

import hashlib
import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.style
import yaml
from matplotlib.artist import Artist
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

from vcil_bench.common.files import write_atomically

SUFFIXES = (".svg", ".png")  # of every figure's files
CHARACTERS = 14.5  # characters of the font size that fit into an inch


@dataclass(frozen=True)
class MethodStyle:
    """How a method looks wherever it is shown.

    Attributes:
        colour: ``#rrggbb``.
        marker: matplotlib's marker.
    """

    colour: str
    marker: str

    @property
    def glyph(self) -> str:
        """The character that stands for the marker in text."""
        return str(_settings()["markers"][self.marker])


def style_of(method: str) -> MethodStyle:
    """Return a method's style, which depends on nothing but its name.

    The built-in methods have theirs from ``style.yaml``, each of a family another shade of its colour; others
    get a pair of colour and marker that no built-in method has, chosen by a hash of the name, so that two of
    them may look alike.
    """
    settings = _settings()
    colours, given = settings["colours"], settings["methods"]
    if method in given:
        colour, marker = given[method]
        family = [name for name, (other, _) in given.items() if other == colour]
        return MethodStyle(colours[colour][family.index(method)], marker)
    taken = {tuple(pair) for pair in given.values()}
    free = [(c, m) for c in colours for m in settings["markers"] if (c, m) not in taken]
    colour, marker = free[int(hashlib.sha256(method.encode()).hexdigest(), 16) % len(free)]
    return MethodStyle(colours[colour][0], marker)


def built_in() -> list[str]:
    """Return the methods with a style of their own."""
    return list(_settings()["methods"])


def line_styles(rows: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return matplotlib's line properties for rows of a table, given method and variant of each.

    Colour and marker are the method's; rows that share both differ by line style and by the marker's filling,
    the default variants being the first, with a solid line.
    """
    settings = _settings()
    counts: dict[MethodStyle, int] = {}
    styles: list[dict[str, Any]] = [{} for _ in rows]
    for index in sorted(range(len(rows)), key=lambda i: rows[i][1] != "default"):
        style = style_of(rows[index][0])
        number = counts.get(style, 0)
        counts[style] = number + 1
        dashes = settings["lines"][number % len(settings["lines"])]
        fill = settings["fills"][number % len(settings["fills"])]
        styles[index] = {
            "color": style.colour,
            "marker": style.marker,
            "linestyle": (0, tuple(dashes)) if dashes else "-",
            "markerfacecolor": "white" if fill == "white" else style.colour,
            "markerfacecoloralt": "white",
            "fillstyle": "full" if fill == "white" else fill,
        }
    return styles


def colour_map() -> Colormap:
    """Return the map of the heat maps, from dark to light with the value."""
    return matplotlib.colormaps[_settings()["colour_map"]]


def shades(number: int) -> list[tuple[float, float, float, float]]:
    """Return colours for an ordered set, such as tasks, light to dark; the lightest can still be seen."""
    span = max(number - 1, 1)
    return [colour_map()(0.86 * (1 - i / span)) for i in range(number)]


def shade_map(number: int) -> Colormap:
    """Return ``shades`` as a map for a colour bar."""
    return ListedColormap(shades(number))


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style on top of matplotlib's defaults; what the user's matplotlibrc says does not count."""
    with matplotlib.style.context(["default", _settings()["rc"]]):
        yield


def heading(figure: Figure, title: str) -> None:
    """Write a title over a figure, wrapped to its width."""
    width = int(CHARACTERS * 0.85 * figure.get_figwidth())
    figure.suptitle(textwrap.fill(title, width), wrap=False)


def legend_shape(names: Sequence[str], width: float) -> tuple[int, int]:
    """Return columns and rows of a legend below a figure so many inches wide."""
    longest = max((len(name) for name in names), default=1)
    columns = max(1, min(4, len(names), int(CHARACTERS * width) // (longest + 6)))
    return columns, -(-len(names) // columns)


def legend_below(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Put a legend under everything else, where it hides no line."""
    if handles:
        columns, _ = legend_shape(names, figure.get_figwidth())
        figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=3.2)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as ``stem`` with .svg and .png; the same figure gives the same bytes.

    Returns:
        The two files, the .svg first.
    """
    files = []
    with styled():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # both files share the layout, which costs more than the drawing
        for suffix, metadata in zip(SUFFIXES, ({"Date": None}, {"Software": None}), strict=True):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], metadata=metadata)
            file = stem.with_name(stem.name + suffix)
            write_atomically(file, buffer.getvalue())
            files.append(file)
    return files


@cache
def _settings() -> dict[str, Any]:
    text = Path(__file__).with_name("style.yaml").read_text(encoding="utf-8")
    settings: dict[str, Any] = yaml.safe_load(text)
    return settings
