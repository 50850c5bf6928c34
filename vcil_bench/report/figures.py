"""Figures from records and their predictions: what every task loses, what is taken for what, what it costs.

Each has a function that returns matplotlib's figure, or None where there is nothing to draw. Means are over
finished seeds; a row without one is left out.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from vcil_bench.metrics import METRICS
from vcil_bench.record import Record, has_predictions, read_predictions

from .curves import curves_figure, legends
from .figure_cache import Kept
from .style import colour_map, heading, legend_below, legend_shape, line_styles, shade_map, shades, styled
from .tables import Group, Row, rows

ANNOTATED = 12  # tasks up to which the cells of a heat map carry numbers
NAME_LENGTH = 100  # characters of a file name, beyond which it is cut and gets a hash
LINEAR = 5  # ratio of largest to smallest up to which a cost's axis is linear


@dataclass(frozen=True)
class Picture:
    """A figure on disk.

    Attributes:
        kind: ``curves``, ``task_forgetting``, ``cost``, ``variants``, ``accuracy_matrix`` or ``confusion``.
        caption: What it shows, one sentence.
        svg: The vector file.
        png: The same in pixels.
        row: The row it shows, None where it shows several.
    """

    kind: str
    caption: str
    svg: Path
    png: Path
    row: Row | None = None


@dataclass(frozen=True)
class Drawn:
    """What ``write_all`` wrote, and what it could not draw.

    Attributes:
        pictures: Figures of all methods first, then of each method's variants, then of each row.
        notes: One line per figure that is missing or lacks seeds.
    """

    pictures: list[Picture]
    notes: list[str]

    @property
    def files(self) -> list[Path]:
        """All files written."""
        return [file for picture in self.pictures for file in (picture.svg, picture.png)]


def write_all(group: Group, folder: Path, kept: Kept) -> Drawn:
    """Write every figure of a group; those of variants and of single rows go into folders of their own.

    Figures of several methods show each by its default run alone, where there is one on the same backbone: the
    variants of an ablation would hide the comparison.

    Args:
        group: Records that may share a table.
        folder: Where to write; made where it is missing.
        kept: The report's figures of last time, which are drawn again only where something changed.

    Returns:
        The pictures and notes on what could not be drawn.
    """
    lines = rows(group)
    drawn = [row for row in lines if row.complete]
    notes = [f"{_row_name(row)}: no finished run" for row in lines if not row.complete]
    pictures = []
    default = {(row.method_and_origin, row.backbone) for row in drawn if row.variant == "default"}
    plain = [
        row for row in drawn if row.variant == "default" or (row.method_and_origin, row.backbone) not in default
    ]
    of_variants = dict.fromkeys(
        row.method
        for row in drawn
        if row.variant != "default" and (row.method_and_origin, row.backbone) in default
    )
    for kind, make, caption in (
        ("curves", curves_figure, "Accuracy over all classes seen, and mean forgetting, after every task."),
        ("task_forgetting", task_forgetting_figure, "Accuracy of every task after each step."),
        (
            "cost",
            cost_figure,
            "Accuracy against exemplars and statistics kept, the most parameters trainable in any task, and "
            "training time.",
        ),
    ):
        files = kept.draw(folder / kind, group.title, plain, partial(make, plain, group.title))
        if files:
            pictures.append(_picture(kind, caption, files))
        elif drawn:
            notes.append(f"{kind}: its numbers are in no record")
    for method in of_variants:
        compared = [row for row in drawn if row.method == method]
        files = kept.draw(
            folder / "variants" / _file_name([method]),
            group.title,
            compared,
            partial(curves_figure, compared, group.title),
        )
        pictures.append(_picture("variants", f"Accuracy and forgetting of {method}'s variants.", files))
    for row, name in zip(drawn, file_names(drawn), strict=True):
        title, stem = _row_name(row), folder / "accuracy_matrix" / name
        files = kept.draw(stem, group.title, [row], partial(accuracy_matrix_figure, row, group.title))
        caption = f"Accuracy on each task after each step, {title}."
        pictures.append(_picture("accuracy_matrix", caption, files, row))
        without = [str(r.data["seed"]) for r in row.complete if not has_predictions(r)]
        if without:
            notes.append(f"{title}: no predictions of seed {', '.join(without)}, needed for the confusions")
        stem = folder / "confusion" / name
        files = kept.draw(stem, group.title, [row], partial(confusion_figure, row, group.title))
        if files:
            caption = f"Which tasks are taken for which, {title}."
            pictures.append(_picture("confusion", caption, files, row))
    return Drawn(pictures, notes)


def file_names(rows: Sequence[Row]) -> list[str]:
    """Return a safe file name, without extension, for every row of a group.

    It is ``method--variant--readout``, with the origin of runs from elsewhere behind the method; names that had
    to be changed or cut end in a hash of the true one, so that no two rows share a file.
    """
    keys = [(row.method, *([row.origin] if row.origin else []), row.variant, row.readout) for row in rows]
    same = Counter(keys)
    names = []
    for row, key in zip(rows, keys, strict=True):
        parts = (*key, row.backbone) if same[key] > 1 else key
        names.append(_file_name(parts))
    return names


def _file_name(parts: Sequence[str]) -> str:
    """Join parts by two dashes, so that none may be inside a part or at its ends."""
    clean = [re.sub(r"[^A-Za-z0-9._=+-]+|-{2,}", "_", part).strip("-") for part in parts]
    name = "--".join(clean)
    if clean != list(parts) or len(name) > NAME_LENGTH:
        name = f"{name[:NAME_LENGTH]}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:8]}"
    return name


def task_forgetting_figure(rows: Sequence[Row], title: str) -> Figure | None:
    """Return the accuracy of every task after each step since it was learnt: panel by row, line by task."""
    drawn = [row for row in rows if row.complete]
    if not drawn:
        return None
    columns = min(4, len(drawn)) if len(drawn) != 4 else 2
    lines = -(-len(drawn) // columns)
    tasks = len(drawn[0].complete[0].data["test_videos"])
    with styled():
        panel = 2.6 if columns > 2 else 3.6
        figure = Figure(
            figsize=(max(columns * panel, 4.2) + 0.8, lines * panel * 0.8 + 0.8), layout="constrained"
        )
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        panels = list(grid.flat)
        for extra in panels[len(drawn) :]:
            extra.remove()
        colours = shades(tasks)
        for axes, row, name in zip(panels, drawn, legends(drawn), strict=False):
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
            axes.set_title(textwrap.fill(name, int(panel * 12.5)))
            axes.set_ylim(-3, 103)
            axes.set_xlim(0.5, tasks + 0.5)
            axes.xaxis.set_major_locator(FixedLocator(_task_ticks(tasks, 6)))
            axes.grid(axis="y")
        for axes in panels[max(0, len(drawn) - columns) : len(drawn)]:
            axes.tick_params(labelbottom=True)
        figure.supxlabel("after learning task", fontsize=9)
        figure.supylabel("accuracy on a task, %", fontsize=9)
        heading(figure, title)
        if tasks > 1:
            norm = BoundaryNorm(np.arange(tasks + 1) + 0.5, tasks)
            mappable = ScalarMappable(norm, shade_map(tasks))
            ticks = _task_ticks(tasks, 10)
            bar = figure.colorbar(
                mappable, ax=panels[: len(drawn)], label="task", ticks=ticks, aspect=25 * lines, pad=0.02
            )
            bar.ax.minorticks_off()
            bar.ax.invert_yaxis()
    return figure


def accuracy_matrix_figure(row: Row, title: str) -> Figure | None:
    """Return a row's accuracy on each task (across) after each step (down); None where no seed is finished."""
    if not row.complete:
        return None
    mean = mean_matrix(row)
    with styled():
        side = _side(len(mean))
        figure = Figure(figsize=(side + 1.7, side + 1.3), layout="constrained")
        axes = figure.subplots()
        _heat_map(axes, mean)
        axes.set_xlabel("accuracy on task")
        axes.set_ylabel("after learning task")
        axes.set_title(textwrap.fill(legends([row])[0], int(15 * (side + 0.6))))
        heading(figure, title)
    return figure


def confusion_figure(row: Row, title: str) -> Figure | None:
    """Return what is taken for what: tasks after the last step and, of several, old and new classes over steps.

    None where no finished seed has its predictions.
    """
    stored = [p for p in (predictions(record, row.readout) for record in row.complete) if p]
    if not stored:
        return None
    mean = np.mean([task_confusion(p) for p in stored], axis=0)
    tasks = len(mean)
    with styled():
        side = _side(tasks)
        width = side + 1.7 + (4 if tasks > 1 else 0)
        figure = Figure(figsize=(width, side + 1.5), layout="constrained")
        if tasks > 1:
            left, right = figure.subplots(1, 2, width_ratios=[side + 1, 3.6])
        else:
            left, right = figure.subplots(), None
        _heat_map(left, mean)
        left.set_xlabel("predicted as a class of task")
        left.set_ylabel("videos of task")
        left.set_title("after the last task, % of a task's videos")
        if right:
            steps = np.arange(2, tasks + 1)
            shares = 100 * np.stack([old_new_confusion(p)[1:] for p in stored])
            for column, (name, look) in enumerate(
                (
                    ("old classes taken for new ones", {"color": "#D55E00", "marker": "o", "linestyle": "-"}),
                    ("new classes taken for old ones", {"color": "#0072B2", "marker": "s", "linestyle": "--"}),
                )
            ):
                values = shares[:, :, column]
                centre = values.mean(axis=0)
                right.plot(steps, centre, label=name, markevery=-(-tasks // ANNOTATED), **look)
                if len(values) > 1:
                    spread = values.std(axis=0, ddof=1)
                    right.fill_between(
                        steps, centre - spread, centre + spread, color=look["color"], alpha=0.15, lw=0
                    )
            right.set_title("after every task")
            right.set_xlabel("after learning task (its classes are the new ones)")
            right.set_ylabel("videos of the old or new classes, %")
            right.set_ylim(-3, 103)
            right.set_xlim(1.5, tasks + 0.5)
            right.xaxis.set_major_locator(FixedLocator([1 + t for t in _task_ticks(tasks - 1, 9)]))
            right.grid(axis="y")
            legend_below(figure, *right.get_legend_handles_labels())
        name = legends([row])[0]
        if len(stored) < len(row.complete):
            name += f" (predictions of {len(stored)} of {len(row.complete)} runs)"
        heading(figure, f"{title}: {name}")
    return figure


def cost_figure(rows: Sequence[Row], title: str) -> Figure | None:
    """Return accuracy against three costs: a point per row, bars are deviations over seeds."""
    drawn = [row for row in rows if row.complete]
    if not drawn:
        return None
    names = [
        f"{name} [keeps all videos]" if _keeps_all(row) else name
        for name, row in zip(legends(drawn), drawn, strict=True)
    ]
    styles = line_styles([(row.method, row.variant) for row in drawn])
    headline = drawn[0].complete[0].data["protocol"]["metrics"]["headline"]
    width = 10.0
    with styled():
        height = 3.4 + 0.2 * legend_shape(names, width)[1]
        figure = Figure(figsize=(width, height), layout="constrained")
        panels = figure.subplots(1, len(COSTS), sharey=True)
        for axes, kind in zip(panels, COSTS, strict=True):
            drawn_costs = []
            for row, style in zip(drawn, styles, strict=True):
                if kind.key == "memory" and _keeps_all(row):
                    continue
                values = np.array(
                    [(costs(r)[kind.key], 100 * r.metric(headline, row.readout)) for r in row.complete]
                )
                x, y = values.mean(axis=0)
                bars: dict[str, Any] = {}
                if len(values) > 1:
                    dx, dy = values.std(axis=0, ddof=1)
                    bars = {"xerr": [[min(dx, x)], [dx]], "yerr": dy}  # no cost is negative
                look = style | {"linestyle": "none", "markersize": 7}
                axes.errorbar([x], [y], **bars, **look, elinewidth=1, capsize=2)
                drawn_costs.append(x)
            _cost_axis(axes, np.array(drawn_costs), kind)
            axes.grid(axis="both")
        metric = METRICS[headline]
        panels[0].set_ylabel(f"{metric.title}, %")
        # A row may be missing from any one panel, so the legend is made of lines that no panel holds.
        handles = [panels[0].plot([], [], **(s | {"linestyle": "none", "markersize": 7}))[0] for s in styles]
        heading(figure, title)
        legend_below(figure, handles, names)
    return figure


@dataclass(frozen=True)
class Cost:
    """A panel of the cost figure.

    Attributes:
        key: Name in the result of ``costs``.
        title: Label of the axis.
        unit: Unit behind the ticks.
    """

    key: str
    title: str
    unit: str


COSTS = (
    Cost("memory", "exemplars and statistics kept after the last task", "B"),
    Cost("trainable", "trainable parameters, the most in any task", ""),
    Cost("train", "training, all tasks", "s"),
)


def costs(record: Record) -> dict[str, float]:
    """Return a finished record's bytes of memory, trainable parameters and seconds of training.

    Memory is that after the last task; parameters are the most of any task, since some methods freeze after the
    first what they trained in it; seconds are summed over tasks.
    """
    steps = record.data["steps"]
    last = steps[-1]["costs"]
    return {
        "memory": float(last["memory"]["bytes"] + last["memory"].get("statistics_bytes", 0)),
        "trainable": float(max(step["costs"]["trainable"] for step in steps)),
        "train": float(sum(step["costs"]["train_s"] for step in steps)),
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


def _picture(kind: str, caption: str, files: Sequence[Path], row: Row | None = None) -> Picture:
    svg, png = files
    return Picture(kind, caption, svg, png, row)


def _row_name(row: Row) -> str:
    return " ".join((row.method, row.variant, row.backbone, row.readout))


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


def _heat_map(axes: Axes, shares: NDArray[np.float64]) -> None:
    """Draw fractions as coloured cells from 0 to 100 percent, NaN as nothing."""
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
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.set_major_locator(FixedLocator(_task_ticks(tasks, ANNOTATED)))
    axes.yaxis.set_major_locator(FixedLocator(_task_ticks(tasks, ANNOTATED)))
    axes.tick_params(length=0)
    if tasks <= ANNOTATED:
        for i, j in zip(*np.nonzero(~np.ma.getmaskarray(percent)), strict=True):
            value = float(percent[i, j])
            ink = "white" if value < 50 else "black"
            axes.text(j + 1, i + 1, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=8)
    figure = axes.figure
    bar = figure.colorbar(mesh, ax=axes, label="%", shrink=0.8, aspect=25)
    bar.outline.set_visible(False)


def _cost_axis(axes: Axes, values: NDArray[np.float64], kind: Cost) -> None:
    """Scale a panel's axis: linear for costs that are close, else logarithmic with a place for zero."""
    axes.set_xlabel(kind.title)
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
        ticks = _linear_ticks(*axes.get_xlim(), divisor)
    else:
        if zero:
            # Between zero and half the smallest cost the axis is linear and short.
            axes.set_xscale("symlog", linthresh=low / 2, linscale=0.4)
            axes.set_xlim(-0.15 * low, 2 * high)
        else:
            axes.set_xscale("log")
            axes.set_xlim(low / 2, 2 * high)
        ticks = [0.0] * zero + _log_ticks(low / 2, 2 * high, divisor)
    # A new scale comes with locators and formatters of its own, so these are set last.
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if unit in ("", "B"):
        axes.xaxis.set_major_formatter(EngFormatter(unit))
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / divisor:g} {unit}"))


def _linear_ticks(low: float, high: float, divisor: float) -> list[float]:
    """Return some four ticks between two numbers, round in the unit that is shown."""
    ticks = MaxNLocator(nbins=4).tick_values(low / divisor, high / divisor)
    return [float(tick * divisor) for tick in ticks if tick >= 0 and low <= tick * divisor <= high]


def _log_ticks(low: float, high: float, divisor: float) -> list[float]:
    """Return at most six ticks between two positive numbers, round in the unit that is shown."""
    decades = range(int(np.floor(np.log10(low / divisor))), int(np.ceil(np.log10(high / divisor))) + 1)
    for heads in ((1, 2, 5), (1, 3), (1,)):
        ticks = [divisor * head * 10.0**k for k in decades for head in heads]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 5:
            return ticks
    return ticks[:: -(-len(ticks) // 5)]
