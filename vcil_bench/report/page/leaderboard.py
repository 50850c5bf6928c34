"""Leaderboard of the page: how each row stands among its like by every metric, and what was run at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from vcil_bench.metrics import METRICS
from vcil_bench.protocol import names
from vcil_bench.record import Record
from vcil_bench.report.comparison_table import exemplars_of
from vcil_bench.report.labels import Labels, of_dataset
from vcil_bench.report.ranking import Candidate, is_bound, learns, like_of
from vcil_bench.report.tables import Group, Row, standings, warnings_of

FORGETTING = "backward_forgetting"
DECIMALS = 6  # of percent, so that rounding for the eye is the only one that shows


def metrics_of(group: Group) -> list[str]:
    """Return the metrics that rows have numbers of: the protocol's, headline first, then all others."""
    return list(dict.fromkeys([*group.metrics, FORGETTING, *METRICS]))


def heads_of(group: Group) -> dict[str, Any]:
    """Return what a column of the leaderboard is called: the dataset, and what tells its protocols apart."""
    protocol = group.records[0].data["protocol"]
    dataset, rest = Labels().protocol(protocol["label"])
    if not rest:  # a protocol of one's own, or a derived one
        dataset, rest = of_dataset(protocol["dataset"]["name"]), protocol["label"]
    apart = group.label.removeprefix(protocol["label"])  # of groups that share a protocol's label
    return {
        "dataset": dataset,
        "short": f"{rest} {apart}" if apart else rest,
        "all_metrics": metrics_of(group),
    }


def standings_of(group: Group, lines: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield, for each row of a group, what it is and how it stands by every metric."""
    metrics = metrics_of(group)
    columns = [standings(lines, metric) for metric in metrics]
    for row, name, *cells in zip(lines, row_ids(group, lines), *columns, strict=True):
        first = row.runs[0]
        by_metric = list(zip(metrics, cells, strict=True))
        yield {
            "id": name,
            "label": Labels().method(row.method),
            "readout_label": Labels().readout(row.readout),
            "bound": is_bound(first),
            "trains": not row.complete or any(map(learns, row.complete)),
            "like": like_of(first),
            "exemplars": {"0": "none"}.get(exemplars_of(first), exemplars_of(first)),
            "values": {metric: spread(row.values(metric)) for metric in metrics},
            "ranks": {metric: cell.mark for metric, cell in by_metric},
            "behind": {metric: _behind(cell, metric) for metric, cell in by_metric},
        }


def row_ids(group: Group, lines: Sequence[Row]) -> list[str]:
    """Return the part of an address that names a row; rows that differ in the backbone alone are numbered."""
    ids = []
    taken: Counter[str] = Counter()
    for row in lines:
        parts = [group.label, row.method, row.variant, row.readout, *([row.origin] if row.origin else [])]
        name = "/".join(quote(part, safe="!~*'()", errors="replace") for part in parts)
        taken[name] += 1
        ids.append(name if taken[name] == 1 else f"{name}~{taken[name]}")
    return ids


def _behind(cell: Candidate, metric: str) -> dict[str, float | None] | None:
    """Return by how many percentage points the best of its like differs from a row, with its 95 % interval."""
    if cell.best is None:
        return None
    low, high = (None, None) if cell.versus is None else (cell.versus.low, cell.versus.high)
    return {
        "diff": points(cell.best.mean(metric) - cell.mean(metric)),
        "low": None if low is None else points(low),
        "high": None if high is None else points(high),
    }


def points(fraction: float) -> float:
    """Return a fraction in percentage points, as the page stores it."""
    return round(100 * fraction, DECIMALS) + 0.0  # no negative zero


def spread(values: NDArray[np.float64]) -> list[float | None] | None:
    """Return mean and sample deviation of percentages; None without values, no deviation of a single one."""
    if not len(values):
        return None
    return [
        round(float(values.mean()), DECIMALS),
        round(float(values.std(ddof=1)), DECIMALS) if len(values) > 1 else None,
    ]


def about(records: Sequence[Record], lines: Sequence[Row]) -> dict[str, Any]:
    """Return what stands under the title: how much was run, on what code, and what verification said."""
    commits = {record.data["environment"]["git"] or "" for record in records} - {""}
    return {
        "records": len(records),
        "complete": sum(record.complete for record in records),
        "protocols": len({record.data["protocol"]["label"] for record in records}),
        "methods": len({record.data["method"]["name"] for record in records}),
        "seeds": _seeds([row for row in lines if row.complete]),
        "commits": sorted(commit[:7] for commit in commits),
        "verify": {
            "warnings": len(warnings_of(records)),
            "unchecked": sum(not record.data["data"]["verified"] for record in records),
        },
        "known_protocols": len(names()),
    }


def _seeds(lines: Sequence[Row]) -> str:
    """Return over how many finished runs the means of rows are taken; class orders where all of a row differ."""
    if not lines:
        return ""
    counts = sorted({len(row.complete) for row in lines})
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    orders = all(len({tuple(r.data["class_order"]) for r in row.complete}) == len(row.complete) for row in lines)
    what = "class order" if orders else "run"
    return f"{number} {what}{'' if counts == [1] else 's'} each"
