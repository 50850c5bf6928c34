"""Pairs on the page: how far every two rows of a protocol are apart, with an interval over test videos."""

from __future__ import annotations

from collections.abc import Sequence

from vcil_bench.report.significance import compare_each
from vcil_bench.report.tables import Group, Row

from .leaderboard import FORGETTING

DECIMALS = 3  # of percentage points


def pairs_of(group: Group, lines: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Return 95 % intervals of the first row minus the second, as ``vcil-bench compare`` tells them.

    Returns:
        By metric (the headline, and forgetting) and numbers of two rows (``"3,7"``, the lower first) the ends in
        percentage points; without pairs that share no class order or have no predictions.
    """
    metrics = list(dict.fromkeys([group.metrics[0], FORGETTING]))
    pairs: dict[str, dict[str, list[float]]] = {metric: {} for metric in metrics}
    finished = [number for number, row in enumerate(lines) if row.complete]
    sides = [(lines[number].complete, lines[number].readout) for number in finished]
    for a, b, metric, made in compare_each(sides, metrics):
        ends = [round(100 * end, DECIMALS) + 0.0 for end in (made.low, made.high)]
        pairs[metric][f"{finished[a]},{finished[b]}"] = ends
    return pairs
