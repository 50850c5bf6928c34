"""Figures from records and their predictions: what every task loses, what is taken for what, what it costs.

Each has a function that returns matplotlib's figure, or None where there is nothing to draw. Means are over
finished seeds; a row without one is left out. Which of them a report draws: ``group_figures.py``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from vcil_bench.common.errors import UserError
from vcil_bench.metrics import METRICS
from vcil_bench.record import Record, has_predictions, read_predictions

from .curves import Look, legends
from .style import (
    add_axes,
    add_bar,
    colour_map,
    legend_below,
    legend_height,
    line_styles,
    new_figure,
    shade_map,
    shades,
    styled,
)
from .tables import Row

ANNOTATED = 12  # tasks up to which the cells of a heat map carry numbers
LINEAR = 5  # ratio of largest to smallest up to which a cost's axis is linear


def task_forgetting_figure(rows: Sequence[Row], title: str = "", look: Look | None = None) -> Figure | None:
    """Return the accuracy of every task after each step since it was learnt: panel by row, line by task."""
    look = look or Look()
    drawn = [row for row in rows if row.complete]
    if not drawn:
        return None
    columns = min(4, len(drawn)) if len(drawn) != 4 else 2
    if look.width:
        columns = max(1, min(columns, int((look.width - 1.4) / 1.2)))
    lines = -(-len(drawn) // columns)
    tasks = len(drawn[0].complete[0].data["test_videos"])
    with styled():
        width = look.width or max(columns * (2.4 if columns > 2 else 3.4), 4.2) + 1.4
        panel = (width - 1.4) / columns - 0.15
        names = [textwrap.wrap(name, max(8, int(panel * 14))) for name in legends(drawn, look.labels)]
        above = 0.15 * max(map(len, names)) + 0.1  # of every panel
        tall = (look.height - 0.45) / lines - above - 0.15 if look.height else 0.72 * panel
        if tall < 0.3:
            raise UserError(f"--height {look.height:g}in leaves no room for {lines} lines of panels; give more")
        figure, height = new_figure(width, lines * (tall + above + 0.15) + 0.45, title)
        colours = shades(tasks)
        for number, (row, name) in enumerate(zip(drawn, names, strict=True)):
            line, column = divmod(number, columns)
            left, bottom = 0.55 + column * (panel + 0.15), height - (line + 1) * (tall + above + 0.15) + 0.15
            axes = add_axes(figure, left, bottom, panel, tall)
            mean = mean_matrix(row)
            for task in range(tasks):
                steps = np.arange(task, tasks) + 1
                # The dot says where a task was learnt, and is all there is of the last one.
                axes.plot(
                    *(steps, 100 * mean[task:, task]),
                    color=colours[task],
                    marker="o",
                    markevery=[0],
                    markersize=4 if tasks <= ANNOTATED else 2.5,
                    linewidth=1.3 if tasks <= ANNOTATED else 0.9,
                )
            axes.set_title("\n".join(name), pad=4)
            axes.set_ylim(-3, 103)
            axes.set_xlim(0.5, tasks + 0.5)
            axes.xaxis.set_major_locator(FixedLocator(_task_ticks(tasks, 6)))
            axes.yaxis.set_major_locator(FixedLocator([0, 25, 50, 75, 100]))
            axes.tick_params(labelleft=column == 0, labelbottom=number + columns >= len(drawn))
            axes.grid(axis="y")
        up = height / figure.get_figheight()
        figure.supxlabel("after learning task", fontsize=9, y=0.06 / figure.get_figheight(), va="bottom")
        figure.supylabel("accuracy on a task, %", fontsize=9, x=0.04 / width, y=up / 2, ha="left", va="center")
        if tasks > 1:
            norm = BoundaryNorm(np.arange(tasks + 1) + 0.5, tasks)
            place = (width - 0.7, 0.5, 0.13, height - 0.5 - above)
            bar = add_bar(figure, ScalarMappable(norm, shade_map(tasks)), place, "task")
            bar.minorticks_off()
            bar.yaxis.set_major_locator(FixedLocator(_task_ticks(tasks, 10)))
            bar.invert_yaxis()
    return figure


def accuracy_matrix_figure(row: Row, title: str = "", look: Look | None = None) -> Figure | None:
    """Return a row's accuracy on each task (across) after each step (down); None where no seed is finished."""
    look = look or Look()
    if not row.complete:
        return None
    mean = mean_matrix(row)
    with styled():
        side = max(look.width - 1.5, 1.0) if look.width else _side(len(mean))
        name = textwrap.wrap(legends([row], look.labels)[0], int(15 * (side + 0.6)))
        above = 0.15 * len(name) + 0.12
        figure, _ = new_figure(side + 1.5, side + 0.5 + above, title)
        axes = _heat_map(figure, mean, (0.5, 0.5, side))
        axes.set_xlabel("accuracy on task")
        axes.set_ylabel("after learning task")
        axes.set_title("\n".join(name))
    return figure


def confusion_figure(row: Row, title: str = "", look: Look | None = None) -> Figure | None:
    """Return what is taken for what: tasks after the last step and, of several, old and new classes over steps.

    None where no finished seed has its predictions.
    """
    look = look or Look()
    stored = [p for p in (predictions(record, row.readout) for record in row.complete) if p]
    if not stored:
        return None
    mean = np.mean([task_confusion(p) for p in stored], axis=0)
    tasks = len(mean)
    name = legends([row], look.labels)[0]
    if len(stored) < len(row.complete):
        name += f" (predictions of {len(stored)} of {len(row.complete)} runs)"
    with styled():
        side = (
            max((look.width - 2.2) / 2 if tasks > 1 else look.width - 1.5, 1.0) if look.width else _side(tasks)
        )
        across = (look.width / 2 - 0.7 if look.width else 3.2) if tasks > 1 else 0.0
        below = 0.5 + (legend_height([*_OLD_NEW], side + across + 2.1) if tasks > 1 else 0)
        figure, _ = new_figure(
            side + (across + 2.1 if tasks > 1 else 1.5),
            side + below + 0.28,
            ": ".join(filter(None, (title, name))),
        )
        left = _heat_map(figure, mean, (0.5, below, side))
        left.set_xlabel("predicted as a class of task")
        left.set_ylabel("videos of task")
        left.set_title("after the last task, % of a task's videos")
        if tasks > 1:
            right = add_axes(figure, side + 1.95, below, across, side)
            _old_new(right, np.stack([old_new_confusion(p)[1:] for p in stored]))
            legend_below(figure, *right.get_legend_handles_labels())
    return figure


_OLD_NEW: dict[str, dict[str, Any]] = {
    "old classes taken for new ones": {"color": "#D55E00", "marker": "o", "linestyle": "-"},
    "new classes taken for old ones": {"color": "#0072B2", "marker": "s", "linestyle": "--"},
}


def _old_new(axes: Axes, shares: NDArray[np.float64]) -> None:
    """Draw what ``old_new_confusion`` gives after every step but the first, of several runs [N, S - 1, 2]."""
    tasks = shares.shape[1] + 1
    steps = np.arange(2, tasks + 1)
    for column, (name, look) in enumerate(_OLD_NEW.items()):
        values = 100 * shares[:, :, column]
        centre = values.mean(axis=0)
        axes.plot(steps, centre, label=name, markevery=-(-tasks // ANNOTATED), **look)
        if len(values) > 1:
            deviation = values.std(axis=0, ddof=1)
            axes.fill_between(
                steps, centre - deviation, centre + deviation, color=look["color"], alpha=0.15, lw=0
            )
    axes.set_title("after every task")
    axes.set_xlabel("after learning task (its classes are the new ones)")
    axes.set_ylabel("videos of the old or new classes, %")
    axes.set_ylim(-3, 103)
    axes.set_xlim(1.5, tasks + 0.5)
    axes.xaxis.set_major_locator(FixedLocator([1 + t for t in _task_ticks(tasks - 1, 9)]))
    axes.grid(axis="y")


def cost_figure(rows: Sequence[Row], title: str = "", look: Look | None = None) -> Figure | None:
    """Return accuracy against each cost that records hold: a point per row, bars are deviations over seeds."""
    look = look or Look()
    drawn = [row for row in rows if row.complete]
    if not drawn:
        return None
    names = [
        f"{name} [keeps all videos]" if _keeps_all(row) else name
        for name, row in zip(legends(drawn, look.labels), drawn, strict=True)
    ]
    styles = line_styles([(row.method, row.variant, row.readout) for row in drawn])
    headline = drawn[0].complete[0].data["protocol"]["metrics"]["headline"]
    spent = {id(record): costs(record) for row in drawn for record in row.complete}
    kinds = [kind for kind in COSTS if any(kind.key in cost for cost in spent.values())]
    width = look.width or 10.0
    columns = len(kinds)
    if (width - 0.65) / columns - 0.25 < 1.3:  # no room for ticks that can be read
        columns = -(-columns // 2)
    lines = -(-len(kinds) // columns)
    wide = (width - 0.65) / columns - 0.25
    if wide < 0.8:
        raise UserError(
            f"--width {width:g}in is too narrow for {columns} panels; give {0.65 + 1.05 * columns:.2f}in or more"
        )
    titles = [textwrap.wrap(kind.title, int(wide * 13)) for kind in kinds]
    under = 0.32 + 0.15 * max(map(len, titles))  # of every panel, for ticks and title
    with styled():
        below = 0.1 + legend_height(names, width)
        figure, height = new_figure(
            width, look.height or below + lines * (min(2.9, 1.1 * wide) + under) + 0.1, title
        )
        tall = (height - below - 0.1) / lines - under
        if tall < 0.5:
            raise UserError(
                f"--height {height:g}in leaves no room above the names; give "
                f"{below + 0.1 + lines * (under + 0.5):.1f}in or more"
            )
        panels = []
        for number in range(len(kinds)):
            line, column = divmod(number, columns)
            place = 0.55 + column * (wide + 0.25), height - 0.1 - tall - line * (tall + under)
            panels.append(add_axes(figure, *place, wide, tall))
        for axes, kind, about in zip(panels, kinds, titles, strict=True):
            drawn_costs = []
            for row, style in zip(drawn, styles, strict=True):
                if kind.key == "memory" and _keeps_all(row):
                    continue
                values = np.array(
                    [
                        (spent[id(r)][kind.key], 100 * r.metric(headline, row.readout))
                        for r in row.complete
                        if kind.key in spent[id(r)]
                    ]
                )
                if not len(values):
                    continue
                x, y = values.mean(axis=0)
                bars: dict[str, Any] = {}
                if len(values) > 1:
                    dx, dy = values.std(axis=0, ddof=1)
                    bars = {"xerr": [[min(dx, x)], [dx]], "yerr": dy}  # no cost is negative
                point = style | {"linestyle": "none", "markersize": 7}
                axes.errorbar([x], [y], **bars, **point, elinewidth=1, capsize=2)
                drawn_costs.append(x)
            _cost_axis(axes, np.array(drawn_costs), kind, most=max(2, int(wide / 0.5)))
            axes.set_xlabel("\n".join(about))
            axes.grid(axis="both")
        limits = [axes.get_ylim() for axes in panels]
        low, high = min(low for low, _ in limits), max(high for _, high in limits)
        for number, axes in enumerate(panels):
            axes.set_ylim(low, high)
            axes.tick_params(labelleft=number % columns == 0)
            if number % columns == 0:
                axes.set_ylabel("\n".join(textwrap.wrap(f"{METRICS[headline].title}, %", int(tall * 13))))
        # A row may be missing from any one panel, so the legend is made of lines that no panel holds.
        handles = [panels[0].plot([], [], **(s | {"linestyle": "none", "markersize": 7}))[0] for s in styles]
        legend_below(figure, handles, names)
    return figure


@dataclass(frozen=True)
class Cost:
    """A panel of the cost figure.

    Attributes:
        key: Name in the result of ``costs``.
        title: Label of the axis.
        unit: Unit behind the ticks; empty for numbers.
    """

    key: str
    title: str
    unit: str


COSTS = (
    Cost("memory", "exemplars and statistics kept after the last task", "B"),
    Cost("trainable", "trainable parameters, the most in any task", ""),
    Cost("train", "training, all tasks", "s"),
    Cost("train_flops", "FLOPs of training, all tasks", ""),
)


def costs(record: Record) -> dict[str, float]:
    """Return a finished record's bytes of memory, trainable parameters, seconds and FLOPs of training.

    Memory is that after the last task; parameters are the most of any task, since some methods freeze after the
    first what they trained in it; seconds and FLOPs are summed over tasks. Where FLOPs were not counted they are
    left out.
    """
    steps = record.data["steps"]
    last = steps[-1]["costs"]
    flops = [step["costs"].get("train_flops") for step in steps]
    counted = [number for number in flops if number is not None]
    return {
        "memory": float(last["memory"]["bytes"] + last["memory"].get("statistics_bytes", 0)),
        "trainable": float(max(step["costs"]["trainable"] for step in steps)),
        "train": float(sum(step["costs"]["train_s"] for step in steps)),
        **({"train_flops": float(sum(counted))} if len(counted) == len(steps) else {}),
    }


def mean_matrix(row: Row) -> NDArray[np.float64]:
    """Return the mean accuracy matrix over finished seeds [S, S], fractions; NaN above the diagonal."""
    mean: NDArray[np.float64] = np.mean([r.matrix(row.readout) for r in row.complete], axis=0)
    return mean


@dataclass(frozen=True)
class Taken:
    """What the test videos of one run were taken for by one readout.

    Attributes:
        task: Task of every test video [N], in the order of the tasks.
        best: After every step, the task of the class that each video seen so far was taken for.
    """

    task: NDArray[np.int64]
    best: list[NDArray[np.int64]]


def predictions(record: Record, readout: str) -> Taken | None:
    """Read the predictions beside a record, None where they are missing."""
    if not has_predictions(record):
        return None
    stored = read_predictions(record)
    # Labels count the classes in the order of the tasks.
    ends = np.cumsum(record.data["classes_per_task"])
    return Taken(stored.tasks, [np.searchsorted(ends, labels, side="right") for labels in stored.best[readout]])


def task_confusion(taken: Taken) -> NDArray[np.float64]:
    """Return the share of each task's videos [S, S] that is taken for each task after the last step."""
    number = len(taken.best)
    counts = np.zeros((number, number))
    np.add.at(counts, (taken.task, taken.best[-1]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def old_new_confusion(taken: Taken) -> NDArray[np.float64]:
    """Return, after every step, how much is taken for old that is new and the reverse.

    Returns:
        [S, 2]: the share of the old classes' videos taken for a class of the step's task, and the share of that
        task's videos taken for an old class; NaN for the first step, where nothing is old.
    """
    shares = np.full((len(taken.best), 2), np.nan)
    for step, best in enumerate(taken.best):
        if step:
            new = taken.task[: len(best)] == step
            shares[step] = (best[~new] == step).mean(), (best[new] < step).mean()
    return shares


def _keeps_all(row: Row) -> bool:
    """Whether the row trains on all videos so far, which no budget of exemplars allows."""
    return row.complete[0].data["method"]["data_access"] == "cumulative"


def _side(tasks: int) -> float:
    """Return the side of a heat map in inches, large enough for its numbers."""
    return min(max(0.42 * tasks, 2.6), 5.0)


def _task_ticks(tasks: int, most: int) -> list[int]:
    """Return at most so many task numbers, evenly spread and counted from 1."""
    every = -(-tasks // most)
    return list(range(1, tasks + 1, every))


def _heat_map(figure: Figure, shares: NDArray[np.float64], place: tuple[float, float, float]) -> Axes:
    """Draw fractions as coloured cells from 0 to 100 percent, NaN as nothing, and a bar of the colours beside.

    Args:
        figure: Where.
        shares: [S, S].
        place: Left, bottom and side of the square in inches.
    """
    left, bottom, side = place
    axes = add_axes(figure, left, bottom, side, side)
    tasks = len(shares)
    percent = np.ma.masked_invalid(100 * shares)
    edges = np.arange(tasks + 1) + 0.5
    mesh = axes.pcolormesh(
        *(edges, edges, percent),
        cmap=colour_map(),
        vmin=0,
        vmax=100,
        edgecolors="white",  # also closes the hairlines that viewers show between vector cells
        linewidth=0.8 if tasks <= ANNOTATED else 0.3,
    )
    axes.invert_yaxis()
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.set_major_locator(FixedLocator(_task_ticks(tasks, ANNOTATED)))
    axes.yaxis.set_major_locator(FixedLocator(_task_ticks(tasks, ANNOTATED)))
    axes.tick_params(length=0)
    if tasks <= ANNOTATED:
        size = min(8.0, 72 * side / tasks / 2.6)
        for i, j in zip(*np.nonzero(~np.ma.getmaskarray(percent)), strict=True):
            value = float(percent[i, j])
            ink = "white" if value < 50 else "black"
            axes.text(j + 1, i + 1, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=size)
    add_bar(figure, mesh, (left + side + 0.12, bottom + 0.1 * side, 0.1, 0.8 * side), "%")
    return axes


def _cost_axis(axes: Axes, values: NDArray[np.float64], kind: Cost, *, most: int) -> None:
    """Scale a panel's axis: linear for costs that are close, else logarithmic with a place for zero.

    Args:
        axes: The panel.
        values: Costs that it shows.
        kind: Their kind.
        most: Ticks that there is room for, beside one at zero.
    """
    unit, divisor = kind.unit, 1.0
    if unit == "s" and values.max(initial=0) >= 600:
        unit, divisor = ("h", 3600.0) if values.max() >= 7200 else ("min", 60.0)
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
    zero = bool((values == 0).any())
    if not len(positive):
        axes.set_xlim(-0.1, 1)
        ticks = [0.0]
    elif high / low <= LINEAR:
        axes.set_xlim(-0.08 * high if zero else max(0, low - 0.3 * high), 1.2 * high)
        ticks = _linear_ticks(*axes.get_xlim(), divisor, most)
    else:
        if zero:
            # Between zero and half the smallest cost the axis is linear and short.
            axes.set_xscale("symlog", linthresh=low / 2, linscale=0.4)
            axes.set_xlim(-0.15 * low, 2 * high)
        else:
            axes.set_xscale("log")
            axes.set_xlim(low / 2, 2 * high)
        ticks = [0.0] * zero + _log_ticks(low / 2, 2 * high, divisor, most)
    # A new scale comes with locators and formatters of its own, so these are set last.
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if unit in ("", "B"):
        axes.xaxis.set_major_formatter(EngFormatter(unit))
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / divisor:g} {unit}"))


def _linear_ticks(low: float, high: float, divisor: float, most: int) -> list[float]:
    """Return a few ticks between two numbers, round in the unit that is shown."""
    ticks = MaxNLocator(nbins=min(4, most)).tick_values(low / divisor, high / divisor)
    return [float(tick * divisor) for tick in ticks if tick >= 0 and low <= tick * divisor <= high]


def _log_ticks(low: float, high: float, divisor: float, most: int) -> list[float]:
    """Return a few ticks between two positive numbers, round in the unit that is shown."""
    decades = range(int(np.floor(np.log10(low / divisor))), int(np.ceil(np.log10(high / divisor))) + 1)
    for heads in ((1, 2, 5), (1, 3), (1,)):
        ticks = [divisor * head * 10.0**k for k in decades for head in heads]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: -(-len(ticks) // most)]
