"""Marks the best and the second best of a column, among like with like only.

Weights that saw the same data are like; a CLIP is not ranked against an ImageNet ResNet, and a bound that
trains on all data so far is not ranked at all. What learns nothing forgets nothing, so its forgetting is not
ranked. Only cells with all their seeds take part. Rows not significantly worse than the best share its mark.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vcil_bench.metrics import METRICS
from vcil_bench.record import Record

from .significance import Comparison, compare

EXPLANATION = (
    "Bold: best measured here among runs whose weights saw the same data, and all not significantly worse "
    "(paired "
    "bootstrap over test videos); italics: second best. Bounds, stale runs, cells with missing seeds and the "
    "forgetting of what learns nothing are not ranked."
)


@dataclass
class Candidate:
    """A cell that may be marked.

    Attributes:
        records: The finished records behind it.
        readout: Their readout.
        complete: Whether all seeds are there, and none is stale.
        mark: ``best``, ``second`` or nothing.
        best: The best of its like; None for the best itself, and where it is not ranked.
        versus: The best minus this one; None for the best itself, or where the two cannot be paired.
    """

    records: Sequence[Record]
    readout: str
    complete: bool
    mark: str = ""
    best: Candidate | None = None
    versus: Comparison | None = None

    def mean(self, metric: str) -> float:
        """Return the mean over seeds, a fraction."""
        return float(np.mean([r.metric(metric, self.readout) for r in self.records]))


def rank(column: Sequence[Candidate], metric: str) -> None:
    """Mark the candidates of one column in place."""
    like: dict[str, list[Candidate]] = defaultdict(list)
    first: dict[tuple[object, ...], Candidate] = {}
    twins: list[tuple[Candidate, Candidate]] = []
    for cell in column:
        runs = (cell.readout, *(r.path for r in cell.records))
        if runs in first:  # a run that stands in several rows competes once
            twins.append((cell, first[runs]))
            continue
        first[runs] = cell
        if cell.complete and _is_ranked(cell.records, metric):
            like[like_of(cell.records[0])].append(cell)
    for members in like.values():
        if len(members) > 1:
            _mark(members, metric)
    for cell, other in twins:
        cell.mark, cell.best, cell.versus = other.mark, other.best, other.versus


def like_of(record: Record) -> str:
    """Return what must be the same of runs that are ranked together: the data their weights were trained on."""
    return record.data["weights"]["pretraining"]


def is_bound(record: Record) -> bool:
    """Tell whether a run trained on all data so far, and so shows what a method could reach at best."""
    return record.data["method"]["data_access"] == "cumulative"


def learns(record: Record) -> bool:
    """Tell whether a run took anything from its training videos: parameters, statistics or exemplars."""
    costs = [step["costs"] for step in record.data["steps"]]
    return any(
        cost["trainable"] > 0 or cost["memory"]["bytes"] > 0 or cost["memory"].get("statistics_bytes", 0) > 0
        for cost in costs
    )


def _is_ranked(records: Sequence[Record], metric: str) -> bool:
    """Tell whether runs are ranked by a metric: bounds by none, and by forgetting only what learns."""
    if any(map(is_bound, records)):
        return False
    return METRICS[metric].higher_is_better or any(map(learns, records))


def _mark(members: list[Candidate], metric: str) -> None:
    means = {id(cell): cell.mean(metric) for cell in members}
    members = sorted(members, key=lambda c: means[id(c)], reverse=METRICS[metric].higher_is_better)
    best, *others = members
    best.mark = "best"
    rest = []
    for cell in others:
        cell.best = best
        cell.versus = compare(best.records, cell.records, metric, (best.readout, cell.readout))
        if means[id(cell)] == means[id(best)] or (cell.versus is not None and cell.versus.tied):
            cell.mark = "best"
        else:
            rest.append(cell)
    # Behind a shared first place there is no second, and the last of two is no second best.
    if len(rest) == len(others) > 1:
        for cell in rest:
            if means[id(cell)] == means[id(rest[0])]:
                cell.mark = "second"
