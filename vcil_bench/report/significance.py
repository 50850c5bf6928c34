"""Paired comparison of two methods: the same class orders, the same test videos.

Two methods that were tested on the same videos differ by less noise than their separate deviations suggest,
since hard videos are hard for both. So the interval of a difference comes from a bootstrap over test videos in
which both methods see the same draw, and a sign test says over how many class orders it keeps its sign. Draws
are made once per set of videos, and comparisons may be kept on disk (``kept_in``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcil_bench import metrics
from vcil_bench.common.files import code_sha256, write_atomically
from vcil_bench.metrics import METRICS
from vcil_bench.record import Record, has_predictions, read_predictions

REPLICATES = 1000
SEED = 0  # of the draws, so that a report repeats to the byte
LEVEL = 0.95
CHUNK = 100  # replicates of a class that are drawn at once
SETS = 2  # sets of videos whose draws are held in memory
DECIMALS = 12  # that a difference is told to


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
    return _kept_or_made(_Side.of(first, readouts[0]), _Side.of(second, readouts[1]), metric)


def compare_each(
    rows: Sequence[tuple[Sequence[Record], str]], metrics: Sequence[str]
) -> Iterator[tuple[int, int, str, Comparison]]:
    """Compare every two of some methods over the class orders that both were run on.

    Args:
        rows: Of each the complete records, one per seed, and the readout.
        metrics: Names of metrics.

    Yields:
        Numbers of two rows, the lower first, a metric and the comparison; nothing for those that share no seed
        or cannot be paired.
    """
    by_seed = [{_seed(record): record for record in runs} for runs, _ in rows]
    sides: dict[tuple[int, tuple[int, ...]], _Side] = {}  # hashing a side takes longer than comparing two
    for b in range(len(rows)):
        for a in range(b):
            shared = tuple(sorted(by_seed[a].keys() & by_seed[b].keys()))
            if not shared:
                continue
            for place in (a, b):
                if (place, shared) not in sides:
                    sides[place, shared] = _Side.of([by_seed[place][s] for s in shared], rows[place][1])
            for metric in metrics:
                made = _kept_or_made(sides[a, shared], sides[b, shared], metric)
                if made is not None:
                    yield a, b, metric, made


@dataclass(frozen=True)
class _Side:
    """A method's runs and readout, as they are compared.

    Attributes:
        runs: In the order of seeds.
        readout: The readout.
        name: A hash of all that a comparison takes from them.
    """

    runs: tuple[Record, ...]
    readout: str
    name: str

    @classmethod
    def of(cls, runs: Sequence[Record], readout: str) -> _Side:
        ordered = tuple(sorted(runs, key=_seed))
        parts = [[readout, record.outcome(readout), has_predictions(record)] for record in ordered]
        return cls(ordered, readout, hashlib.sha256(json.dumps(parts).encode()).hexdigest())

    @property
    def seeds(self) -> list[int]:
        return [_seed(record) for record in self.runs]


def _kept_or_made(first: _Side, second: _Side, metric: str) -> Comparison | None:
    if first.seeds != second.seeds:
        return None
    key = hashlib.sha256(json.dumps([_code(), metric, first.name, second.name]).encode()).hexdigest()
    if key not in _KEPT:
        made = _compare(first, second, metric)
        _KEPT[key] = None if made is None else asdict(made)
    _ASKED.add(key)
    kept = _KEPT[key]
    return None if kept is None else Comparison(**kept)


_KEPT: dict[str, dict[str, Any] | None] = {}  # all comparisons made by this process or read from disk
_ASKED: set[str] = set()  # those that were asked for


@contextmanager
def kept_in(path: Path, *, forget: bool) -> Iterator[None]:
    """Take comparisons that were made before from a file, and leave those made meanwhile there.

    What a comparison was made of is part of its name, so that one of other counts, predictions or code is never
    taken.

    Args:
        path: A JSON file; one that is missing or no JSON holds none.
        forget: Whether to drop from the file what was not asked for.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        _KEPT.update({key: kept for key, kept in before.items() if _is_comparison(kept)})
    except (OSError, ValueError, AttributeError):
        before = {}
    _ASKED.clear()
    yield
    names = _ASKED if forget else _ASKED | (before.keys() & _KEPT.keys())
    text = json.dumps({key: _KEPT[key] for key in sorted(names)}, indent=1, sort_keys=True)
    write_atomically(path, text.encode())


def _is_comparison(kept: Any) -> bool:
    if kept is None:
        return True
    names = [field.name for field in fields(Comparison)]
    return isinstance(kept, dict) and list(kept) == sorted(names) and all(map(_is_number, kept.values()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def _code() -> str:
    """Return a hash of the code and libraries that comparisons are made with."""
    return code_sha256((__file__, metrics.__file__), np.__version__)


def _compare(first: _Side, second: _Side, metric: str) -> Comparison | None:
    draws = [_draws(side.runs, side.readout) for side in (first, second)]
    if draws[0] is None or draws[1] is None or draws[0][0] != draws[1][0]:
        return None
    observed = np.array(
        [
            a.metric(metric, first.readout) - b.metric(metric, second.readout)
            for a, b in zip(first.runs, second.runs, strict=True)
        ]
    )
    tail = 100 * (1 - LEVEL) / 2
    # Rounded, so that no processor's way of adding makes a difference of none.
    differences = np.round(draws[0][1][metric] - draws[1][1][metric], DECIMALS)
    low, high = np.percentile(differences, [tail, 100 - tail])
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


def _draws(runs: tuple[Record, ...], readout: str) -> tuple[str, dict[str, NDArray[np.float64]]] | None:
    """Return a method's metrics under every draw of test videos, averaged over its class orders.

    Methods tested on the same videos see the same draws, so their differences are paired.

    Returns:
        A signature of the videos, and per metric [REPLICATES] fractions; None if predictions are missing or the
        runs were not tested on the same videos.
    """
    predictions = [r.data["predictions"] for r in runs]
    if any(p is None for p in predictions):
        return None
    key = (*(str(r.path) for r in runs), *(str(p) for p in predictions), readout)
    if key not in _CACHE:
        _CACHE[key] = _bootstrap([_Outcome.of(r, readout) for r in runs])
    return _CACHE[key]


_CACHE: dict[tuple[str, ...], tuple[str, dict[str, NDArray[np.float64]]] | None] = {}  # rows are compared often


def _bootstrap(outcomes: Sequence[_Outcome | None]) -> tuple[str, dict[str, NDArray[np.float64]]] | None:
    paired = [o for o in outcomes if o is not None]
    signatures = {o.signature for o in paired}
    if len(paired) != len(outcomes) or len(signatures) != 1:
        return None
    (signature,) = signatures
    if signature not in _WEIGHTS:
        while len(_WEIGHTS) >= SETS:
            del _WEIGHTS[next(iter(_WEIGHTS))]
        _WEIGHTS[signature] = paired[0].draw()
    values = [o.metrics(_WEIGHTS[signature]) for o in paired]
    return signature, {name: np.mean([each[name] for each in values], axis=0) for name in METRICS}


_WEIGHTS: dict[str, NDArray[np.float32]] = {}  # by the videos' signature; 0.1 GB for 25,000 videos


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

    def draw(self) -> NDArray[np.float32]:
        """Draw how often each video counts in every replicate [V, REPLICATES], within classes.

        Within classes, so that each task keeps its number of videos.
        """
        rng = np.random.default_rng(SEED)
        weights = np.zeros((len(self.videos), REPLICATES), dtype=np.float32)
        places = [np.flatnonzero(self.classes == name) for name in np.unique(self.classes)]
        for start in range(0, REPLICATES, CHUNK):
            for place in places:
                counts = rng.multinomial(len(place), np.full(len(place), 1 / len(place)), size=CHUNK)
                weights[place, start : start + CHUNK] = counts.T
        return weights

    def metrics(self, weights: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        """Compute every metric under each column of weights [V, N]; returns [N] each."""
        steps = len(self.correct)
        totals = np.bincount(self.tasks, minlength=steps).astype(np.float64)
        counts = np.zeros((weights.shape[1], steps, steps))
        for task in range(steps):
            (place,) = np.nonzero(self.tasks == task)
            # Whole numbers far below 2^24, exact in these floats in whatever order they are added.
            hits = self.correct[task:, place].astype(np.float32)
            counts[:, task:, task] = (hits @ weights[place]).T
        matrices = counts / totals
        return {name: metric.compute(matrices, totals, self.sizes) for name, metric in METRICS.items()}
