"""Outcomes on the page: what every test video of a run was taken for, or how many of each class were recognised.

Small runs are stored video by video, larger ones class by class, and the rest not at all, so that the page keeps
its size however many runs there are. Numbers are packed as unsigned 16-bit integers, the lower byte first.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcil_bench.common.files import code_sha256
from vcil_bench.record import Predictions, Record, has_predictions, read_predictions
from vcil_bench.report.kept_parts import KeptParts

from . import packed
from .packed import pack
from .pool import Pool

SHARED = {"labels", "totals"}  # keys of an outcome whose values stand in the pool


Make = Callable[[Sequence[NDArray[np.int64]], Predictions, Sequence[int], Pool], dict[str, Any]]


@dataclass(frozen=True)
class Budget:
    """Characters of the page that outcomes may take.

    Attributes:
        videos: Of what each video was taken for.
        classes: Of counts per class, of runs for which the former does not suffice.
        names: Of names of videos, beside what each was taken for.
        named: Test videos of the largest run whose names are stored.
    """

    videos: int = 1_500_000
    classes: int = 600_000
    names: int = 250_000
    named: int = 2_000


MORE_NAMES = Budget(names=2_000_000, named=6_000)  # where thumbnails of them were asked for


@dataclass(frozen=True)
class Outcome:
    """What the page stores of a run.

    Attributes:
        readouts: By readout, what ``outcomes`` of a run holds on the page; None where it holds nothing.
        videos: Number in the pool of its test videos' names; None where they are not stored.
        names: The names that are stored.
    """

    readouts: dict[str, dict[str, Any]] | None = None
    videos: int | None = None
    names: tuple[str, ...] = ()


def outcomes_of(
    records: Sequence[Record], pool: Pool, budget: Budget | None = None, kept: KeptParts | None = None
) -> list[Outcome]:
    """Return the outcome of each run, in the order of the records; the smallest runs are stored first.

    Args:
        records: All records.
        pool: Takes what runs share: labels and names of videos, and test videos per class.
        budget: How much may be stored.
        kept: Outcomes that an earlier report has made; takes those that are made.
    """
    budget, kept = budget or Budget(), kept or KeptParts()
    left = {"videos": budget.videos, "classes": budget.classes, "names": budget.names}
    made = [Outcome()] * len(records)
    there = [number for number, record in enumerate(records) if record.data["steps"] and has_predictions(record)]
    for number in sorted(there, key=lambda number: (_predicted(records[number]), number)):
        if left["videos"] <= 0 and left["classes"] <= 0:
            break
        parts = _Parts(records[number], kept)
        for kind, make in (("videos", _by_video), ("classes", _by_class)):
            if left[kind] <= 0:
                continue
            readouts, shared = parts.readouts(make)
            size = len(json.dumps(readouts)) + sum(pool.cost(value) for value in shared)
            if size > left[kind]:
                left[kind] = 0  # what is larger would not fit either
                continue
            left[kind] -= size
            for readout in readouts.values():
                for key in SHARED & readout.keys():
                    readout[key] = pool.add(shared[readout[key]])
            made[number] = Outcome(readouts)
            if kind == "videos" and sum(records[number].data["test_videos"]) <= budget.named:
                made[number] = _named(readouts, parts.names(), pool, left)
            break
    return made


class _Parts:
    """A run's outcome in plain data: of an earlier report, or made of its predictions, read once."""

    def __init__(self, record: Record, kept: KeptParts) -> None:
        self._record = record
        self._kept = kept
        data = record.data
        self._made_of = [_code(), data["predictions"], data["method"]["readouts"], data["classes_per_task"]]

    @cached_property
    def _stored(self) -> Predictions:
        return read_predictions(self._record)

    def readouts(self, make: Make) -> tuple[dict[str, dict[str, Any]], list[Any]]:
        """Return what the page holds of every readout, and the values that others may share."""

        def made() -> list[Any]:
            shared = Pool()
            sizes = self._record.data["classes_per_task"]
            each = {name: make(steps, self._stored, sizes, shared) for name, steps in self._stored.best.items()}
            return [each, shared.values]

        readouts, shared = self._kept.get([make.__name__, *self._made_of], made)
        return {name: dict(readout) for name, readout in readouts.items()}, shared

    def names(self) -> list[str]:
        """Return the names of the test videos."""
        return self._kept.get(["names", *self._made_of], lambda: self._stored.videos.tolist())


@cache
def _code() -> str:
    """Return a hash of this file and of the one that packs, and of the versions of numpy and zlib."""
    return code_sha256((__file__, packed.__file__), np.__version__, zlib.ZLIB_RUNTIME_VERSION)


def _named(readouts: dict[str, dict[str, Any]], names: list[str], pool: Pool, left: dict[str, int]) -> Outcome:
    """Return an outcome with the names of its videos, as long as there is room for them."""
    cost = pool.cost(names)
    if cost > left["names"]:
        left["names"] = 0
        return Outcome(readouts)
    left["names"] -= cost
    return Outcome(readouts, pool.add(names), tuple(names))


def _predicted(record: Record) -> int:
    """Return how many predictions a run has made."""
    tested = np.cumsum(record.data["test_videos"])[: len(record.data["steps"])]
    return int(tested.sum()) * len(record.data["method"]["readouts"])


def _by_video(
    steps: Sequence[NDArray[np.int64]], stored: Predictions, sizes: Sequence[int], shared: Pool
) -> dict[str, Any]:
    """Return what each video was taken for after every step; labels count classes as they are learnt."""
    return {
        "kind": "predictions",
        "data": _packed(np.concatenate(steps)),
        "labels": shared.add(stored.labels.tolist()),
    }


def _by_class(
    steps: Sequence[NDArray[np.int64]], stored: Predictions, sizes: Sequence[int], shared: Pool
) -> dict[str, Any]:
    """Return how many videos of each class learnt so far are recognised after every step, and its confusions."""
    totals = np.bincount(stored.labels, minlength=sum(sizes))
    counts = []
    for best, learnt in zip(steps, np.cumsum(sizes), strict=False):
        labels = stored.labels[: len(best)]
        counts.append(np.bincount(labels[best == labels], minlength=learnt))
    return {
        "kind": "classes",
        "data": _packed(np.concatenate(counts)),
        "taken": _taken(steps[-1], stored.labels[: len(steps[-1])]),
        "totals": shared.add(totals.tolist()),
    }


def _taken(best: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, list[list[int]]]:
    """Return, per class, the three classes that most of its videos were taken for wrongly, and how many."""
    wrong = best != labels
    pairs, counts = np.unique(np.stack([labels[wrong], best[wrong]]), axis=1, return_counts=True)
    taken: dict[str, list[list[int]]] = {}
    # The commonest first, and of equally common ones the class that was learnt first.
    for place in np.lexsort((pairs[1], -counts, pairs[0])):
        several = taken.setdefault(str(pairs[0, place]), [])
        if len(several) < 3:
            several.append([int(pairs[1, place]), int(counts[place])])
    return taken


def _packed(numbers: NDArray[np.int64]) -> str:
    """Return whole numbers below 65,536 as text."""
    return pack(numbers.astype("<u2").tobytes())
