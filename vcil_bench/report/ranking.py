"""Marks the best and the second best of a column, among like with like only.

Weights that saw the same data are like; a CLIP is not ranked against an ImageNet ResNet, and a bound that
trains on all data so far is not ranked at all. Only cells with all their seeds take part. Rows not significantly
worse than the best share its mark.
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
    "bootstrap over test videos); italics: second best. Bounds, stale runs and cells with missing seeds are "
    "not ranked."
)


@dataclass
class Candidate:
    """A cell that may be marked.

    Attributes:
        records: The finished records behind it.
        readout: Their readout.
        complete: Whether all seeds are there, and none is stale.
        mark: ``best``, ``second`` or nothing.
        versus: The best minus this one; None for the best itself, or where the two cannot be paired.
    """

    records: Sequence[Record]
    readout: str
    complete: bool
    mark: str = ""
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
        bound = any(r.data["method"]["data_access"] == "cumulative" for r in cell.records)
        if cell.complete and not bound:
            like[cell.records[0].data["weights"]["pretraining"]].append(cell)
    for members in like.values():
        if len(members) > 1:
            _mark(members, metric)
    for cell, other in twins:
        cell.mark, cell.versus = other.mark, other.versus


def _mark(members: list[Candidate], metric: str) -> None:
    means = {id(cell): cell.mean(metric) for cell in members}
    members = sorted(members, key=lambda c: means[id(c)], reverse=METRICS[metric].higher_is_better)
    best, *others = members
    best.mark = "best"
    rest = []
    for cell in others:
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
