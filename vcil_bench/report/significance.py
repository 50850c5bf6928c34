"""Paired comparison of two methods: the same class orders, the same test videos.

Two methods that were tested on the same videos differ by less noise than their separate deviations suggest,
since hard videos are hard for both. So the interval of a difference comes from a bootstrap over test videos in
which both methods see the same draw, and a sign test says over how many class orders it keeps its sign.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcil_bench.metrics import METRICS
from vcil_bench.record import Record, has_predictions, read_predictions

REPLICATES = 1000
SEED = 0  # of the draws, so that a report repeats to the byte
LEVEL = 0.95
CHUNK = 100  # replicates held in memory at a time


@dataclass(frozen=True)
class Comparison:
    """A difference of two methods, first minus second, as a fraction.

    Attributes:
        difference: Mean over class orders.
        low: Lower end of the 95 % interval over test videos, for these class orders.
        high: Upper end.
        wins: Class orders on which the first is better.
        losses: Class orders on which the second is better.
        sign_p: Two-sided p-value of the sign test over class orders; with three orders never below 0.25.
    """

    difference: float
    low: float
    high: float
    wins: int
    losses: int
    sign_p: float

    @property
    def tied(self) -> bool:
        """Whether the interval holds zero, so that the videos do not tell the two apart."""
        return self.low <= 0 <= self.high


def compare(
    first: Sequence[Record], second: Sequence[Record], metric: str, readouts: tuple[str, str]
) -> Comparison | None:
    """Compare two methods run on the same class orders.

    Args:
        first: Complete records of one method, one per seed.
        second: Of the other, of the same seeds.
        metric: Name of a metric.
        readouts: The readout of either.

    Returns:
        The comparison; None if seeds or test videos differ or predictions are missing.
    """
    if [_seed(r) for r in _seed_order(first)] != [_seed(r) for r in _seed_order(second)]:
        return None
    pairs = list(zip(_seed_order(first), _seed_order(second), strict=True))
    draws = [
        _draws(tuple(_seed_order(runs)), readout, metric)
        for runs, readout in zip((first, second), readouts, strict=True)
    ]
    if draws[0] is None or draws[1] is None or draws[0][0] != draws[1][0]:
        return None
    observed = np.array([a.metric(metric, readouts[0]) - b.metric(metric, readouts[1]) for a, b in pairs])
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws[0][1] - draws[1][1], [tail, 100 - tail])
    wins, losses = wins_and_losses(observed, metric)
    return Comparison(float(observed.mean()), float(low), float(high), wins, losses, sign_test(wins, losses))


def wins_and_losses(differences: NDArray[np.float64], metric: str) -> tuple[int, int]:
    """Return on how many class orders the first is better, and on how many the second."""
    better = differences > 0 if METRICS[metric].higher_is_better else differences < 0
    wins = int(better.sum())
    return wins, int((differences != 0).sum()) - wins


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p-value of so uneven a split of fair coins; ties are left out."""
    tosses, tail, ways = wins + losses, 0, 1
    for k in range(min(wins, losses) + 1):
        tail += ways
        ways = ways * (tosses - k) // (k + 1)  # of choosing k + 1 of them
    return min(1.0, 2 * tail / 2**tosses)


def _seed(record: Record) -> int:
    return record.data["seed"]


def _seed_order(runs: Sequence[Record]) -> list[Record]:
    return sorted(runs, key=_seed)


def _draws(runs: Sequence[Record], readout: str, metric: str) -> tuple[str, NDArray[np.float64]] | None:
    """Return a method's metric under every draw of test videos, averaged over its class orders.

    Methods tested on the same videos see the same draws, so their differences are paired.

    Returns:
        A signature of the videos, and [REPLICATES] fractions; None if predictions are missing or the runs were
        not tested on the same videos.
    """
    predictions = [r.data["predictions"] for r in runs]
    if any(p is None for p in predictions):
        return None
    key = (*(str(r.path) for r in runs), *(str(p) for p in predictions), readout, metric)
    if key not in _CACHE:
        _CACHE[key] = _bootstrap([_Outcome.of(r, readout) for r in runs], metric)
    return _CACHE[key]


_CACHE: dict[tuple[str, ...], tuple[str, NDArray[np.float64]] | None] = {}  # a report compares each row often


def _bootstrap(outcomes: Sequence[_Outcome | None], metric: str) -> tuple[str, NDArray[np.float64]] | None:
    paired = [o for o in outcomes if o is not None]
    signatures = {o.signature for o in paired}
    if len(paired) != len(outcomes) or len(signatures) != 1:
        return None
    rng = np.random.default_rng(SEED)
    parts = []
    for _ in range(REPLICATES // CHUNK):
        weights = paired[0].draw(rng, CHUNK)
        parts.append(np.mean([o.metric(metric, weights) for o in paired], axis=0))
    return signatures.pop(), np.concatenate(parts)


@dataclass(frozen=True)
class _Outcome:
    """What became of each test video of a run, the videos sorted by name so that runs agree in their order.

    Attributes:
        videos: Names [V].
        classes: Dataset class of each video [V].
        tasks: Task of each video [V].
        correct: Whether it was recognised after each step [S, V]; False before its task was learnt.
        sizes: Classes per task [S].
    """

    videos: NDArray[Any]
    classes: NDArray[np.int64]
    tasks: NDArray[np.int64]
    correct: NDArray[np.bool_]
    sizes: NDArray[np.float64]

    @property
    def signature(self) -> str:
        """A hash of the videos and their classes."""
        text = "\n".join(f"{c} {v}" for c, v in zip(self.classes, self.videos, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def of(cls, record: Record, readout: str) -> _Outcome | None:
        """Read the predictions beside a record; None if there are none."""
        if not has_predictions(record):
            return None
        stored = read_predictions(record)
        steps = stored.best[readout]
        correct = np.zeros((len(steps), len(stored.videos)), dtype=bool)
        for i, best in enumerate(steps):
            correct[i, : len(best)] = best == stored.labels[: len(best)]
        order = np.argsort(stored.videos, kind="stable")
        classes = np.asarray(record.data["class_order"])[stored.labels]
        return cls(
            stored.videos[order],
            classes[order],
            stored.tasks[order],
            correct[:, order],
            np.asarray(record.data["classes_per_task"], dtype=np.float64),
        )

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Draw how often each video counts in ``count`` replicates [count, V], within classes.

        Within classes, so that each task keeps its number of videos.
        """
        weights = np.zeros((count, len(self.videos)))
        for name in np.unique(self.classes):
            (of_class,) = np.nonzero(self.classes == name)
            weights[:, of_class] = rng.multinomial(
                len(of_class), np.full(len(of_class), 1 / len(of_class)), size=count
            )
        return weights

    def metric(self, name: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute a metric under each row of weights [N, V]; returns [N]."""
        steps = len(self.correct)
        member = (self.tasks[:, None] == np.arange(steps)).astype(np.float64)  # [V, S]
        totals = member.sum(axis=0)
        counts = np.stack([(weights * hit) @ member for hit in self.correct], axis=1)  # [N, S, S]
        matrices = counts / totals
        return np.array([METRICS[name].compute(R, totals, self.sizes) for R in matrices])
