"""Time left of a run: estimated from its tasks that are done, shown as one bar over all seeds and tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.progress import Progress

from vcil_bench.common.durations import in_words
from vcil_bench.common.logged_bars import OUTER
from vcil_bench.record_schema import Step
from vcil_bench.stream import TaskStream


@dataclass(frozen=True)
class Work:
    """Videos of a step: those it trains on, its exemplars apart, and those it is tested on."""

    train: int
    test: int


def work_of(stream: TaskStream, steps: int, *, cumulative: bool) -> list[Work]:
    """Return the work of the first steps of a stream."""
    tested = [len(stream.test(step)) for step in range(steps)]
    return [
        Work(len(stream.task(step, cumulative=cumulative).train), sum(tested[: step + 1]))
        for step in range(steps)
    ]


class TimeLeft:
    """Estimates seconds: a step takes what it took with another seed, else by videos what the last one took."""

    def __init__(self, work: Sequence[Work]) -> None:
        """Take the steps of one seed; those of the others are like them."""
        self.work = work
        self._measured: dict[int, list[tuple[float, float]]] = defaultdict(list)

    def note(self, steps: Sequence[Step]) -> None:
        """Take what steps have cost."""
        for step in steps:
            self._measured[step["step"]].append((step["costs"]["train_s"], step["costs"]["eval_s"]))

    def estimate(self, step: int) -> float | None:
        """Return the seconds that a step will take; None while no step is done.

        The base task trains more epochs than the others with most methods, so it stands for them only while
        none of them is done.
        """
        if step in self._measured:
            return fmean(train + test for train, test in self._measured[step])
        if not self._measured:
            return None
        like = max((other for other in self._measured if 0 < other < step), default=min(self._measured))
        train_s, test_s = (fmean(column) for column in zip(*self._measured[like], strict=True))
        done, wanted = self.work[like], self.work[step]
        return train_s * wanted.train / max(1, done.train) + test_s * wanted.test / max(1, done.test)

    def total(self, steps: Sequence[int]) -> float | None:
        """Return the seconds that steps will take together; None while no step is done."""
        estimates = [self.estimate(step) for step in steps]
        return sum(e for e in estimates if e is not None) if steps and None not in estimates else None


class OuterBar:
    """The bar over all seeds and steps of a command."""

    def __init__(self, progress: Progress, seeds: Sequence[int], work: Sequence[Work]) -> None:
        """Show it.

        Args:
            progress: The terminal's bars, or their lines in a log.
            seeds: Seeds that are left to do.
            work: The steps of each.
        """
        self._progress = progress
        self._seeds = seeds
        self._time = TimeLeft(work)
        self._bar = progress.add_task("starting", total=len(seeds) * len(work), **{OUTER: True})

    def begin_seed(self, done: Sequence[Step]) -> None:
        """Count the steps that an earlier session of a seed has done."""
        self._time.note(done)
        self._progress.update(self._bar, advance=len(done))

    def begin_step(self, seed: int, step: int) -> None:
        """Show that a step begins, and how long all that is left will take."""
        steps = len(self._time.work)
        number = self._seeds.index(seed)
        left = self._time.total([*range(step, steps), *[*range(steps)] * (len(self._seeds) - number - 1)])
        of = f" ({number + 1}/{len(self._seeds)})" if len(self._seeds) > 1 else ""
        time = f", {in_words(left)} left" if left is not None else ""
        self._progress.update(self._bar, description=f"seed {seed}{of}, task {step + 1}/{steps}{time}")

    def end_step(self, step: Step) -> None:
        """Note that a step is done, and what it cost."""
        self._time.note([step])
        self._progress.update(self._bar, advance=1)
