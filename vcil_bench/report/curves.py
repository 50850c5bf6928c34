"""Curves from records: accuracy over all classes seen, and forgetting, against the number of classes seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vcil_bench.common.errors import UserError
from vcil_bench.metrics import backward_forgetting, step_accuracy
from vcil_bench.record import Record

from .labels import Labels
from .style import (
    LEADER,
    add_axes,
    label_ends,
    legend_below,
    legend_height,
    line_styles,
    new_figure,
    save,
    styled,
    text_width,
)
from .tables import Row

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 10.0  # inches
LEFT, BOTTOM, TOP, RIGHT = 0.6, 0.45, 0.1, 0.12  # margins of axes, inches
NARROWEST = 1.0  # inches of axes that still show something
MARKS = 12  # steps up to which every one gets a marker and a tick
BANDS = 6  # rows up to which bands are drawn: more would be grey mist

Quantity = Literal["accuracy", "forgetting"]
TITLES: dict[Quantity, tuple[str, str]] = {  # the second where the first is longer than the axis
    "accuracy": ("accuracy over all classes seen, %", "accuracy, %"),
    "forgetting": ("forgetting of old tasks, percentage points", "forgetting, points"),
}
LOWEST = 1.5  # inches of an axis, unless the height is given


@dataclass(frozen=True)
class Look:
    """How a figure is to look where it does not follow from what it shows.

    Attributes:
        width: Inches; None takes the figure's own.
        height: Inches; None takes what fits.
        labels: What methods are called.
        legend: ``direct`` names lines at their ends, ``below`` lists them there, ``none`` leaves names out.
        quantities: What curves show.
    """

    width: float | None = None
    height: float | None = None
    labels: Labels = field(default_factory=Labels)
    legend: Literal["direct", "below", "none"] = "direct"
    quantities: tuple[Quantity, ...] = ("accuracy", "forgetting")


def accuracy_curve(record: Record, readout: str) -> NDArray[np.float64]:
    """Return the step accuracies of a complete record [S], in percent."""
    return 100 * step_accuracy(record.matrix(readout), record.data["test_videos"])


def forgetting_curve(record: Record, readout: str) -> NDArray[np.float64]:
    """Return, after every step, the mean drop of old tasks since they were learnt [S], in percentage points."""
    R = record.matrix(readout)
    return np.array([100 * backward_forgetting(R[: i + 1, : i + 1]) for i in range(len(R))])


CURVES = {"accuracy": accuracy_curve, "forgetting": forgetting_curve}


def frame(rows: Sequence[Row], labels: Labels | None = None) -> pd.DataFrame:
    """Return the numbers behind the curves, a line per row of a table and step; steps count from 0.

    Percent, and percentage points; deviations are sample deviations over finished seeds, empty for a single one.
    """
    import pandas as pd  # late: a run draws its curves without it

    labels = labels or Labels()
    lines: list[dict[str, object]] = []
    for row in (row for row in rows if row.complete):
        values = {
            name: np.stack([curve(r, row.readout) for r in row.complete]) for name, curve in CURVES.items()
        }
        for step, seen in enumerate(np.cumsum(row.complete[0].data["classes_per_task"])):
            line: dict[str, object] = {
                "method": row.method,
                "origin": row.origin,
                "label": labels.method(row.method),
                "variant": row.variant,
                "backbone": row.backbone,
                "readout": row.readout,
                "step": step,
                "classes_seen": int(seen),
                "n": len(row.complete),
                "seeds": row.seeds,
            }
            for name, several in values.items():
                line[f"{name}_mean"] = several[:, step].mean()
                line[f"{name}_std"] = several[:, step].std(ddof=1) if len(several) > 1 else np.nan
            lines.append(line)
    columns = [
        "method",
        "origin",
        "label",
        "variant",
        "backbone",
        "readout",
        "step",
        "classes_seen",
        "n",
        "seeds",
    ]
    columns += [f"{name}_{what}" for name in CURVES for what in ("mean", "std")]
    return pd.DataFrame(lines, columns=columns)


def draw(rows: Sequence[Row], title: str, stem: Path) -> list[Path]:
    """Draw both curves side by side and write ``stem`` as .svg, .png and .pdf.

    Each line is the mean over finished seeds; rows without a finished seed are left out. Same input, same bytes.

    Args:
        rows: Rows of one group.
        title: Heading of the figure.
        stem: Path without extension.

    Returns:
        The files; none where no row has a finished seed.
    """
    figure = curves_figure(rows, title)
    return save(figure, stem) if figure else []


def curves_figure(rows: Sequence[Row], title: str = "", look: Look | None = None) -> Figure | None:
    """Return the figure that ``draw`` writes, None where no row has a finished seed.

    Bands, of up to six rows, are one sample deviation over seeds; ticks stand where something was measured.

    Raises:
        UserError: It is to be too narrow for its names.
    """
    look = look or Look()
    drawn = [row for row in rows if row.complete]
    if not drawn:
        return None
    names = legends(drawn, look.labels)
    styles = line_styles([(row.method, row.variant, row.readout) for row in drawn])
    panels = len(look.quantities)
    with styled():
        beside = max(map(text_width, names)) + LEADER + 0.06 if look.legend == "direct" else RIGHT
        least = panels * (LEFT + beside + NARROWEST)
        width = look.width or panels * max(WIDTH / 2, LEFT + beside + 2 * NARROWEST)  # long names make it wider
        panel = width / panels - LEFT - beside
        if panel < NARROWEST:
            raise UserError(
                f"--width {width:g}in is too narrow for the names beside the lines; give {least:.1f}in or "
                f"more, shorter "
                "--labels, --legend below, or one quantity"
            )
        below = BOTTOM + (legend_height(names, width) if look.legend == "below" else 0)
        needed = 0.136 * len(drawn) if look.legend == "direct" else 0.0
        height = look.height or max(min(0.8 * panel, 2.9), needed, LOWEST) + below + TOP
        figure, height = new_figure(width, height, title)
        tall = height - below - TOP
        if tall < 0.5:
            raise UserError(
                f"--height {height:g}in leaves no room for the curves; give {below + TOP + 0.5:.1f}in or more"
            )
        for place, quantity in enumerate(look.quantities):
            axes = add_axes(figure, place * width / panels + LEFT, below, panel, tall)
            _panel(axes, quantity, drawn, names, styles)
            long, short = TITLES[quantity]
            axes.set_ylabel(long if text_width(long, 9.0) < tall + 0.2 else short)
            if look.legend == "direct":
                ends = [
                    (float(np.asarray(line.get_ydata())[-1]), str(line.get_label()), str(line.get_color()))
                    for line in axes.get_lines()
                    if not str(line.get_label()).startswith("_")
                ]
                label_ends(axes, tall, ends)
        if look.legend == "below":
            legend_below(figure, *figure.axes[0].get_legend_handles_labels())
    return figure


def _panel(
    axes: Axes, quantity: Quantity, drawn: Sequence[Row], names: Sequence[str], styles: Sequence[dict[str, Any]]
) -> None:
    """Draw one quantity of all rows."""
    for number, (row, name, style) in enumerate(zip(drawn, names, styles, strict=True)):
        seen = np.cumsum(row.complete[0].data["classes_per_task"])
        values = np.stack([CURVES[quantity](r, row.readout) for r in row.complete])
        mean = values.mean(axis=0)
        # Over many steps markers are thinned out, each row's elsewhere, so that none hides another.
        every = -(-len(seen) // MARKS)
        axes.plot(seen, mean, label=name, **style, markevery=(number % every, every))
        axes.set_xticks(_ticks(seen, every))
        if len(values) > 1 and len(drawn) <= BANDS:
            deviation = values.std(axis=0, ddof=1)
            axes.fill_between(seen, mean - deviation, mean + deviation, color=style["color"], alpha=0.15, lw=0)
    seen = np.cumsum(drawn[0].complete[0].data["classes_per_task"])
    span = max(float(seen[-1] - seen[0]), 1.0)
    axes.set_xlim(seen[0] - 0.04 * span, seen[-1] + 0.02 * span)
    axes.set_xlabel("classes seen")
    axes.grid(axis="y")
    if quantity == "forgetting":
        axes.axhline(0, color="#999999", linewidth=0.7, zorder=0)
    axes.set_ylim(*axes.get_ylim())


def _ticks(seen: NDArray[np.int64], every: int) -> list[int]:
    """Return the numbers of classes that get a tick: after the last task, and of many every n-th before it."""
    return [int(number) for number in seen[::-1][::every][::-1]]


def legends(rows: Sequence[Row], labels: Labels | None = None) -> list[str]:
    """Return a name per row, with its finished seeds if some are missing, its backbone if rows differ in that.

    A method's only run on a backbone that was chosen for it is named by the backbone, whatever else was set.

    Args:
        rows: Rows that stand beside each other.
        labels: What methods and readouts are called; None takes their names.
    """
    differ = len({row.backbone for row in rows}) > 1
    beside = Counter((row.method_and_origin, row.readout, row.backbone) for row in rows)
    names = []
    for row in rows:
        if row.has_chosen_backbone and beside[row.method_and_origin, row.readout, row.backbone] == 1:
            names.append(row.named(labels, on_backbone=True))
        elif differ and row.backbone not in row.variant:
            names.append(f"{row.named(labels)} on {row.backbone}")
        else:
            names.append(row.named(labels))
    return [
        f"{name} ({len(row.complete)}/{row.seeds} seeds)" if row.incomplete else name
        for name, row in zip(names, rows, strict=True)
    ]
