"""Time left of a run: from its own tasks, by their videos, or exactly where another seed has done the task."""

from __future__ import annotations

from typing import Any, cast

import pytest
from rich.progress import Progress

from vcil_bench.record_schema import Step
from vcil_bench.run.time_left import OuterBar, TimeLeft, Work

WORK = [Work(100, 10), Work(20, 20), Work(40, 30)]


def step(number: int, train_s: float, eval_s: float) -> Step:
    made: dict[str, Any] = {"step": number, "costs": {"train_s": train_s, "eval_s": eval_s}}
    return cast("Step", made)


def test_nothing_is_said_before_a_task_is_done() -> None:
    left = TimeLeft(WORK)
    assert left.estimate(1) is None
    assert left.total([0, 1, 2]) is None
    assert left.total([]) is None


def test_a_task_is_estimated_by_its_videos() -> None:
    left = TimeLeft(WORK)
    left.note([step(0, 50.0, 1.0)])
    assert left.estimate(1) == pytest.approx(0.5 * 20 + 0.1 * 20)
    left.note([step(1, 4.0, 2.0)])  # fewer epochs than the base task
    assert left.estimate(2) == pytest.approx(0.2 * 40 + 0.1 * 30)


def test_what_another_seed_took_is_taken() -> None:
    left = TimeLeft(WORK)
    left.note([step(0, 50.0, 1.0), step(1, 4.0, 2.0), step(2, 8.0, 3.0)])
    left.note([step(0, 70.0, 1.0)])
    assert left.total([1, 2, 0]) == pytest.approx(6 + 11 + 61)


def test_the_bar_counts_all_seeds_and_what_earlier_sessions_did() -> None:
    progress = Progress(disable=True)
    bar = OuterBar(progress, [1000, 1993], WORK)
    (shown,) = progress.tasks
    bar.begin_seed([step(0, 60.0, 0.0)])
    bar.begin_step(1000, 1)
    assert shown.description == "seed 1000 (1/2), task 2/3, 2 min left"  # 12 + 24 + 60 + 12 + 24 s
    bar.end_step(step(1, 6.0, 0.0))
    assert (shown.completed, shown.total) == (2, 6)
    bar.end_step(step(2, 12.0, 0.0))
    bar.begin_seed([])
    bar.begin_step(1993, 2)
    assert shown.description == "seed 1993 (2/2), task 3/3, 12 s left"
