"""The look of all figures, read from ``style.yaml``: a method has the same colour and marker in every one.

Hue means a family of methods, lightness and marker its member, the line's style the readout. Sizes are in
inches, and places are computed from them: a layout found by trial takes longer than the drawing.
"""

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
import numpy as np
import yaml
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import OffsetFrom
from matplotlib.textpath import text_to_path

from vcil_bench.common.files import write_atomically

SUFFIXES = (".svg", ".png", ".pdf")  # of a figure's files
ON_PAGES = SUFFIXES[:2]  # of those that are many and seldom printed: fonts take half the time of a .pdf
PNG: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}}
_METADATA: dict[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
CHARACTERS = 14.5  # characters of the font size that fit into an inch
LABEL_SIZE = 8.0  # points, of names at the ends of lines
BESIDE_NAME = 0.75  # inches of a legend's column that hold no name, but the line and what is between
LEADER = 0.2  # inches between the end of a line and its name


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


def family_of(method: str) -> str:
    """Return the family whose hue a method has; a method that is not built in is a family of its own."""
    colour, _ = _settings()["methods"].get(method, (method, ""))
    return str(colour)


def dashes_of(readout: str) -> list[float]:
    """Return a readout's dashes and gaps in line widths, nothing for a solid line."""
    settings = _settings()
    return list(settings["readouts"].get(readout, settings["other_readouts"]))


def built_in() -> list[str]:
    """Return the methods with a style of their own."""
    return list(_settings()["methods"])


def line_styles(rows: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Return matplotlib's line properties for rows of a table, given method, variant and readout of each.

    Colour and marker are the method's, the line's style is the readout's; variants that share all three differ
    by the marker's filling, the default variants being the first, with a full one.
    """
    settings = _settings()
    counts: dict[tuple[MethodStyle, str], int] = {}
    styles: list[dict[str, Any]] = [{} for _ in rows]
    for index in sorted(range(len(rows)), key=lambda i: rows[i][1] != "default"):
        method, _, readout = rows[index]
        style = style_of(method)
        number = counts.get((style, readout), 0)
        counts[style, readout] = number + 1
        dashes = dashes_of(readout)
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


def new_figure(width: float, height: float, title: str) -> tuple[Figure, float]:
    """Return a figure so many inches large, a title above that, and the height without the title."""
    lines = textwrap.wrap(title, int(CHARACTERS * 0.85 * width))
    above = 0.17 * len(lines) + 0.08 if lines else 0.0
    figure = Figure(figsize=(width, height + above))
    if lines:
        figure.suptitle("\n".join(lines), x=0.5, y=1 - 0.06 / (height + above), va="top", wrap=False)
    return figure, height


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float, **more: Any) -> Axes:
    """Add axes to a figure, at a place given in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up), **more)


def add_bar(
    figure: Figure, mappable: ScalarMappable, place: tuple[float, float, float, float], label: str
) -> Axes:
    """Add a colour bar at a place given in inches."""
    axes = add_axes(figure, *place)
    bar = figure.colorbar(mappable, cax=axes, label=label)
    bar.outline.set_visible(False)
    return axes


@cache
def text_width(text: str, size: float = LABEL_SIZE) -> float:
    """Return the width of text in inches, in the font of the figures and so many points."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72


def legend_shape(names: Sequence[str], width: float) -> tuple[int, int]:
    """Return columns and rows of a legend below a figure so many inches wide."""
    longest = max((text_width(name, 9.0) for name in names), default=0.0)
    columns = max(1, min(4, len(names), int((width - 0.1) / (longest + BESIDE_NAME))))
    return columns, -(-len(names) // columns)


def legend_height(names: Sequence[str], width: float) -> float:
    """Return the inches that ``legend_below`` takes."""
    return 0.17 * legend_shape(names, width)[1] + 0.12


def legend_below(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Put a legend under everything else, where it hides no line."""
    if handles:
        columns, _ = legend_shape(names, figure.get_figwidth())
        up = 0.04 / figure.get_figheight()
        figure.legend(
            *(handles, names),
            loc="lower center",
            bbox_to_anchor=(0.5, up),
            borderaxespad=0,
            ncols=columns,
            handlelength=3.2,
        )


def label_ends(axes: Axes, height: float, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name lines at their right ends, in their colours, labels that would overlap being moved apart.

    Args:
        axes: Whose right edge is the lines' end; its limits are final.
        height: Its height in inches.
        ends: Of every line its last value, name and colour.
    """
    low, high = axes.get_ylim()
    apart = min(LABEL_SIZE * 1.22 / 72, height / max(len(ends), 1))
    size = min(LABEL_SIZE, apart * 72 / 1.1)
    order = sorted(range(len(ends)), key=lambda i: ends[i][0])
    wanted = [(ends[i][0] - low) / (high - low) * height for i in order]
    for i, place in zip(order, spread(wanted, apart, height), strict=True):
        value, name, colour = ends[i]
        # From the line's end, in its own units, to the label, in inches right of the axes.
        axes.annotate(
            name,
            xy=(1, value),
            xycoords=("axes fraction", "data"),
            xytext=(LEADER * 72, place * 72),
            textcoords=OffsetFrom(axes.patch, (1, 0), unit="points"),
            fontsize=size,
            color=colour,
            va="center",
            ha="left",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "shrinkA": 1,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )


def spread(wanted: Sequence[float], apart: float, length: float) -> list[float]:
    """Move ascending places apart, each as little as the sum of squares allows, and inside ``0..length``."""
    clusters: list[list[float]] = []  # of places that touch, moved by the room that those before them take
    for number, place in enumerate(wanted):
        clusters.append([place - number * apart])
        while len(clusters) > 1 and np.mean(clusters[-2]) >= np.mean(clusters[-1]):
            last = clusters.pop()
            clusters[-1] += last
    room = max(length - (len(wanted) - 1) * apart, 0)
    flat = [float(np.clip(np.mean(cluster), 0, room)) for cluster in clusters for _ in cluster]
    return [place + number * apart for number, place in enumerate(flat)]


def save(figure: Figure, stem: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Write a figure as ``stem`` with each suffix; the same figure gives the same bytes.

    Returns:
        The files.
    """
    files = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    for file in files:
        save_as(figure, file)
    return files


def save_as(figure: Figure, file: Path) -> None:
    """Write a figure in the format that the file's name ends in, one of ``SUFFIXES``."""
    buffer = io.BytesIO()
    with styled():
        more = PNG if file.suffix == ".png" else {}
        figure.savefig(buffer, format=file.suffix[1:], metadata=_METADATA[file.suffix], **more)
    write_atomically(file, buffer.getvalue())


@cache
def _settings() -> dict[str, Any]:
    text = Path(__file__).with_name("style.yaml").read_text(encoding="utf-8")
    settings: dict[str, Any] = yaml.safe_load(text)
    return settings
