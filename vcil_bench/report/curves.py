"""Curves from records: accuracy over all classes seen, and forgetting, against the number of classes seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vcil_bench.metrics import backward_forgetting, step_accuracy
from vcil_bench.record import Record

from .style import heading, legend_below, legend_shape, line_styles, save, styled
from .tables import Row

WIDTH = 9.0  # inches
MARKS = 12  # steps up to which every one gets a marker
BANDS = 6  # rows up to which the bands keep their full strength


def accuracy_curve(record: Record, readout: str) -> NDArray[np.float64]:
    """Return the step accuracies of a complete record [S], in percent."""
    return 100 * step_accuracy(record.matrix(readout), record.data["test_videos"])


def forgetting_curve(record: Record, readout: str) -> NDArray[np.float64]:
    """Return, after every step, the mean drop of old tasks since they were learnt [S], in percent."""
    R = record.matrix(readout)
    return np.array([100 * backward_forgetting(R[: i + 1, : i + 1]) for i in range(len(R))])


def draw(rows: Sequence[Row], title: str, stem: Path) -> list[Path]:
    """Draw both curves side by side and write ``stem`` as .svg and .png.

    Each line is the mean over finished seeds, the band its sample deviation; rows without a finished seed are
    left out. Same input, same bytes.

    Args:
        rows: Rows of one group.
        title: Heading of the figure.
        stem: Path without extension.

    Returns:
        The two files; none where no row has a finished seed.
    """
    figure = curves_figure(rows, title)
    return save(figure, stem) if figure else []


def curves_figure(rows: Sequence[Row], title: str) -> Figure | None:
    """Return the figure that ``draw`` writes, None where no row has a finished seed."""
    drawn = [row for row in rows if row.complete]
    if not drawn:
        return None
    names, styles = legends(drawn), line_styles([(row.method, row.variant) for row in drawn])
    _, lines = legend_shape(names, WIDTH)
    with styled():
        figure = Figure(figsize=(WIDTH, (3.7 if len(drawn) <= 8 else 4.7) + 0.2 * lines), layout="constrained")
        left, right = figure.subplots(1, 2)
        for number, (row, name, style) in enumerate(zip(drawn, names, styles, strict=True)):
            seen = np.cumsum(row.complete[0].data["classes_per_task"])
            # Over many steps markers are thinned out, each row's elsewhere, so that none hides another.
            every = -(-len(seen) // MARKS)
            style["markevery"] = (number % every, every)
            for axes, curve in ((left, accuracy_curve), (right, forgetting_curve)):
                values = np.stack([curve(r, row.readout) for r in row.complete])
                _line(axes, seen, values, name, style, 0.15 * min(1, BANDS / len(drawn)))
        _dress(left, "accuracy over all classes seen, %")
        _dress(right, "mean drop of old tasks since learnt, %")
        right.axhline(0, color="#999999", linewidth=0.7, zorder=0)
        heading(figure, title)
        legend_below(figure, *left.get_legend_handles_labels())
    return figure


def legends(rows: Sequence[Row]) -> list[str]:
    """Return a name per row, with its finished seeds if some are missing, its backbone if rows differ in that.

    A method's only run on a backbone that was chosen for it is named by the backbone, whatever else was set.
    """
    differ = len({row.backbone for row in rows}) > 1
    beside = Counter((row.method_and_origin, row.readout, row.backbone) for row in rows)
    names = []
    for row in rows:
        if row.has_chosen_backbone and beside[row.method_and_origin, row.readout, row.backbone] == 1:
            names.append(row.name_by_backbone)
        elif differ and row.backbone not in row.variant:
            names.append(f"{row.name} on {row.backbone}")
        else:
            names.append(row.name)
    return [
        f"{name} ({len(row.complete)}/{row.seeds} seeds)" if row.incomplete else name
        for name, row in zip(names, rows, strict=True)
    ]


def _line(
    axes: Axes,
    seen: NDArray[np.int64],
    values: NDArray[np.float64],
    name: str,
    style: dict[str, Any],
    strength: float,
) -> None:
    mean = values.mean(axis=0)
    axes.plot(seen, mean, label=name, **style)
    if len(seen) <= MARKS:
        axes.set_xticks(seen)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axes.fill_between(seen, mean - spread, mean + spread, color=style["color"], alpha=strength, lw=0)


def _dress(axes: Axes, label: str) -> None:
    axes.set_xlabel("classes seen")
    axes.set_ylabel(label)
    axes.grid(axis="y")
