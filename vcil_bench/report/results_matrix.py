"""Results matrix: methods x protocols with one metric; the same rows, numbers and marks as the report's tables.

Rows whose weights saw the same data stand together, best first; the bounds, which are not ranked, come last.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass

from vcil_bench.common.errors import UserError, did_you_mean
from vcil_bench.metrics import METRICS, step_accuracy
from vcil_bench.record import Record

from .tables import Group, Row, cell_text, groups, marks, rows
from .terminal_table import Sheet


class ResultsError(UserError):
    """Results that were asked for and are not there."""


@dataclass(frozen=True)
class Entry:
    """One number: a row of a protocol's table.

    Attributes:
        row: The runs.
        metric: The metric's name.
        mark: ``best``, ``second`` or nothing; nothing, too, where ranking was not asked for.
    """

    row: Row
    metric: str
    mark: str

    @property
    def mean(self) -> float | None:
        """Mean over finished seeds in percent, None without one."""
        values = self.row.values(self.metric)
        return float(values.mean()) if len(values) else None

    @property
    def deviation(self) -> float | None:
        """Sample deviation over finished seeds in percentage points, None for fewer than two."""
        values = self.row.values(self.metric)
        return float(values.std(ddof=1)) if len(values) > 1 else None

    @property
    def text(self) -> str:
        """Mean and deviation, the finished seeds where some are missing, an asterisk where it is stale."""
        lacking = f" ({len(self.row.complete)}/{self.row.seeds})" if self.row.incomplete else ""
        return cell_text(self.row.values(self.metric)) + lacking + (" *" if self.row.stale else "")


Key = tuple[str, str, str, str, str]  # method, variant, backbone, readout, who ran it


@dataclass(frozen=True)
class Matrix:
    """Methods x protocols.

    Attributes:
        groups: The columns.
        metrics: The metric of each column.
        entries: Per row, by its key, and column an entry, None where nothing was run.
    """

    groups: list[Group]
    metrics: list[str]
    entries: dict[Key, list[Entry | None]]


def matrix(
    records: Sequence[Record],
    *,
    protocols: Sequence[str] = (),
    methods: Sequence[str] = (),
    metric: str | None = None,
    readout: str | None = None,
    ranked: bool = False,
) -> Matrix:
    """Arrange results.

    Args:
        records: All there are.
        protocols: Names or patterns (``tcd_*``) of the protocols to show; none for all.
        methods: Likewise of methods.
        metric: For all protocols; None takes the headline of each.
        readout: ``headline`` for each method's first, or a readout's name; None shows all.
        ranked: Mark the best, which takes a paired bootstrap over test videos: seconds with many runs.

    Raises:
        ResultsError: Nothing is there by one of the names.
    """
    if metric is not None and metric not in METRICS:
        raise ResultsError(f"--metric {metric!r}{did_you_mean(metric, METRICS)}; metrics: {', '.join(METRICS)}")
    if not records:
        raise ResultsError("no records there; run something first, or give their folder with --results")
    every = groups(records)
    columns = [group for group in every if _named(group.records[0].data["protocol"]["name"], group, protocols)]
    _check_names("--protocol", protocols, [_protocol(group) for group in every])
    _check_names("--method", methods, [r.data["method"]["name"] for r in records])
    known = sorted({name for r in records for name in r.data["method"]["readouts"]})
    if readout is not None and readout not in ("headline", *known):
        raise ResultsError(
            f"--readout {readout!r}{did_you_mean(readout, known)}; readouts: headline, {', '.join(known)}"
        )
    chosen = [metric or group.metrics[0] for group in columns]
    entries: dict[Key, list[Entry | None]] = {}
    for place, (group, name) in enumerate(zip(columns, chosen, strict=True)):
        lines = rows(group)
        signs = marks(lines, [name]) if ranked else [[""]] * len(lines)
        for row, (mark,) in zip(lines, signs, strict=True):
            if methods and not any(fnmatch.fnmatchcase(row.method, pattern) for pattern in methods):
                continue
            if not _read_out(row, readout):
                continue
            key = row.method, row.variant, row.backbone, row.readout, row.origin
            entries.setdefault(key, [None] * len(columns))[place] = Entry(row, name, mark)
    filled = [place for place in range(len(columns)) if any(line[place] for line in entries.values())]
    if not filled:
        raise ResultsError("nothing was run of this choice; leave out --protocol, --method or --readout")
    kept = {key: [line[place] for place in filled] for key, line in sorted(entries.items(), key=_order)}
    return Matrix([columns[place] for place in filled], [chosen[place] for place in filled], kept)


def sheet(table: Matrix) -> Sheet:
    """Return a matrix as text; what is the same in all rows is left out of their names."""
    several = {
        "variant": any(variant != "default" for _, variant, *_ in table.entries),
        "backbone": len({backbone for _, _, backbone, *_ in table.entries}) > 1,
        "readout": any(
            len(_first(line).row.runs[0].data["method"]["readouts"]) > 1 for line in table.entries.values()
        ),
        "run by": any(origin for *_, origin in table.entries),
    }
    names = ["method", *(name for name, shown in several.items() if shown)]
    keep = [0, *(place for place, shown in enumerate(several.values(), 1) if shown)]
    alone = len(set(table.metrics)) == 1
    titles = [
        group.label + ("" if alone else f" {_arrow(metric)}")
        for group, metric in zip(table.groups, table.metrics, strict=True)
    ]
    lines = list(table.entries.items())
    likes = [_likeness(line) for _, line in lines]
    return Sheet(
        names,
        titles,
        [[key[place] for place in keep] for key, _ in lines],
        [["" if entry is None else entry.text for entry in line] for _, line in lines],
        [["" if entry is None else entry.mark for entry in line] for _, line in lines],
        frozenset(i for i in range(len(lines) - 1) if likes[i] != likes[i + 1]),
    )


def group_sheet(group: Group) -> Sheet:
    """Return the table of one method's runs on a protocol, with all of the protocol's metrics."""
    lines = rows(group)
    readouts = any(len(row.runs[0].data["method"]["readouts"]) > 1 for row in lines)
    return Sheet(
        ["method", *(["readout"] if readouts else []), "seeds"],
        [_arrow(metric) for metric in group.metrics],
        [
            [row.method_and_origin, *([row.readout] if readouts else []), f"{len(row.complete)}/{row.seeds}"]
            for row in lines
        ],
        [[cell_text(row.values(metric)) for metric in group.metrics] for row in lines],
        marks(lines, group.metrics),
    )


def plain(table: Matrix) -> list[dict[str, str | int | float | None]]:
    """Return a matrix in long form, a line per number, for CSV and JSON; numbers in percent."""
    lines: list[dict[str, str | int | float | None]] = []
    for (method, variant, backbone, readout, origin), entries in table.entries.items():
        for group, entry in zip(table.groups, entries, strict=True):
            if entry is None:
                continue
            mean, deviation = entry.mean, entry.deviation
            lines.append(
                {
                    "protocol": group.label,
                    "method": method,
                    "variant": variant,
                    "backbone": backbone,
                    "readout": readout,
                    "origin": origin,
                    "metric": entry.metric,
                    "mean": None if mean is None else round(mean, 6),
                    "std": None if deviation is None else round(deviation, 6),
                    "n": len(entry.row.complete),
                    "seeds": entry.row.seeds,
                    "mark": entry.mark,
                    "notes": entry.row.notes,
                }
            )
    return lines


def partial_result(record: Record) -> str | None:
    """Say how far an unfinished run has come and what it measured there; None for a finished one."""
    done = len(record.data["steps"])
    if record.complete or not done:
        return None
    readout = record.data["method"]["readouts"][0]
    totals = record.data["test_videos"][:done]
    accuracy = 100 * step_accuracy(record.matrix(readout), totals)[-1]
    run = f"{record.data['status']}: seed {record.data['seed']}"
    of = f"{done} of {len(record.data['test_videos'])} tasks"
    return f"{run}, {of}, top-1 {accuracy:.2f} % of {sum(totals)} videos"


def _arrow(metric: str) -> str:
    return METRICS[metric].title + (" ↑" if METRICS[metric].higher_is_better else " ↓")


def _protocol(group: Group) -> str:
    return group.records[0].data["protocol"]["name"]


def _named(name: str, group: Group, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(text, p) for p in patterns for text in (name, group.label))


def _read_out(row: Row, readout: str | None) -> bool:
    headline = row.runs[0].data["method"]["readouts"][0]
    return readout is None or row.readout == (headline if readout == "headline" else readout)


def _check_names(option: str, patterns: Sequence[str], there: Sequence[str]) -> None:
    """Refuse a name by which nothing is there.

    Raises:
        ResultsError: Says what is there.
    """
    known = sorted(set(there))
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise ResultsError(
                f"{option} {pattern!r}: no results{did_you_mean(pattern, known)}; there are some of: "
                f"{', '.join(known)}"
            )


def _first(line: Sequence[Entry | None]) -> Entry:
    return next(entry for entry in line if entry is not None)


def _likeness(line: Sequence[Entry | None]) -> tuple[bool, str]:
    """Return what separates rows that are not ranked against each other: bounds, and the data weights saw."""
    data = _first(line).row.runs[0].data
    return data["method"]["data_access"] == "cumulative", data["weights"]["pretraining"]


def _order(item: tuple[Key, list[Entry | None]]) -> tuple[object, ...]:
    """Sort like with like, by the first column best first, by the next where the first is empty."""
    key, line = item
    values = []
    for entry in line:
        mean = None if entry is None else entry.mean
        better = 1 if entry is None or not METRICS[entry.metric].higher_is_better else -1
        values.append(math.inf if mean is None else better * mean)
    return *_likeness(line), *values, *key
