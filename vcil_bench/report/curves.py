"""Curves from records: accuracy over all classes seen, and forgetting, against the number of classes seen."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vcil_bench.metrics import backward_forgetting, step_accuracy
from vcil_bench.record import Record
from vcil_bench.storage import write_atomically

from .tables import Row

# Okabe and Ito's colours, told apart by the colour-blind; the yellow is left out, it is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX*"
STYLES = ("-", "--", ":", "-.")
LEGEND_WIDTH = 130  # characters that fit across the figure


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
        The two files.
    """
    drawn = [row for row in rows if row.complete]
    with mpl.rc_context({"svg.hashsalt": "vcil-bench", "font.size": 9, "svg.fonttype": "none"}):
        longest = max((len(_legend(row)) for row in drawn), default=1)
        columns = max(1, min(4, len(drawn), LEGEND_WIDTH // (longest + 6)))
        legend_rows = -(-len(drawn) // columns)
        figure = Figure(figsize=(9, 3.7 + 0.2 * legend_rows), layout="constrained")
        left, right = figure.subplots(1, 2)
        styles = _styles(drawn)
        for row in drawn:
            style = styles[row.name]
            for axes, curve in ((left, accuracy_curve), (right, forgetting_curve)):
                values = np.stack([curve(r, row.readout) for r in row.complete])
                seen = np.cumsum(row.complete[0].data["classes_per_task"])
                _line(axes, seen, values, _legend(row), style)
        _dress(left, "accuracy over all classes seen, %")
        _dress(right, "mean drop of old tasks since learnt, %")
        right.axhline(0, color="#999999", linewidth=0.7, zorder=0)
        figure.suptitle(title, fontsize=10, wrap=True)
        handles, names = left.get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
        files = [stem.with_name(stem.name + suffix) for suffix in (".svg", ".png")]
        for file in files:
            _write(figure, file)
    return files


def _legend(row: Row) -> str:
    return f"{row.name} ({len(row.complete)}/{row.seeds} seeds)" if row.incomplete else row.name


def _styles(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Give each method a colour that follows from its name, and its variants line styles."""
    taken: dict[str, int] = {}
    for method in sorted({row.method for row in rows}):
        start = int(hashlib.sha256(method.encode()).hexdigest(), 16)
        free = [i % len(COLOURS) for i in range(start, start + len(COLOURS))]
        free = [i for i in free if i not in taken.values()] or free
        taken[method] = free[0]
    counts: dict[str, int] = {}
    styles = {}
    for row in rows:
        number = counts.setdefault(row.method, 0)
        counts[row.method] += 1
        styles[row.name] = {
            "color": COLOURS[taken[row.method]],
            "marker": MARKERS[taken[row.method] % len(MARKERS)],
            "linestyle": STYLES[number % len(STYLES)],
        }
    return styles


def _line(
    axes: Axes,
    seen: NDArray[np.int64],
    values: NDArray[np.float64],
    name: str,
    style: dict[str, str],
) -> None:
    mean = values.mean(axis=0)
    axes.plot(seen, mean, label=name, markersize=4, linewidth=1.4, **style)  # type: ignore[arg-type]
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axes.fill_between(seen, mean - spread, mean + spread, color=style["color"], alpha=0.15, lw=0)


def _dress(axes: Axes, label: str) -> None:
    axes.set_xlabel("classes seen")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.7)
    axes.set_axisbelow(True)


def _write(figure: Figure, file: Path) -> None:
    buffer = io.BytesIO()
    metadata = {"Date": None} if file.suffix == ".svg" else {"Software": None}
    figure.savefig(buffer, format=file.suffix[1:], dpi=150, metadata=metadata)
    write_atomically(file, buffer.getvalue())
