"""Bars in a log: a line a minute with the loss, the place over all and the time left."""

from __future__ import annotations

from vcil_bench.common.logged_bars import OUTER, LoggedBars


def bars() -> tuple[LoggedBars, list[float], list[str]]:
    now, said = [0.0], list[str]()
    return LoggedBars(said.append, every_s=60, clock=lambda: now[0]), now, said


def test_a_line_a_minute_tells_loss_place_and_time_left() -> None:
    made, now, said = bars()
    outer = made.add_task("seed 1, task 2/5", total=5, **{OUTER: True})
    inner = made.add_task("task 2", total=100)
    for step in range(1, 31):
        now[0] = 4.0 * step
        if step == 10:
            made.update(inner, description="task 2, epoch 1/10: loss 0.5")
        made.advance(inner)
    assert said == [
        "seed 1, task 2/5: task 2, epoch 1/10: loss 0.5 [15 of 100, 6 min left]",
        "seed 1, task 2/5: task 2, epoch 1/10: loss 0.5 [30 of 100, 5 min left]",
    ]
    now[0] = 1000.0
    made.update(outer, advance=1)
    assert len(said) == 2


def test_what_was_done_before_tells_nothing_of_the_speed() -> None:
    """A phase that is resumed begins in its middle."""
    made, now, said = bars()
    bar = made.add_task("task 1", total=1000)
    made.update(bar, completed=900)
    now[0] = 60.0
    made.advance(bar)
    assert said == ["task 1 [901 of 1000, 1 h 39 min left]"]


def test_a_bar_of_unknown_length_has_no_time_left() -> None:
    made, now, said = bars()
    bar = made.add_task("looking", total=None)
    made.advance(bar)
    now[0] = 61.0
    made.advance(bar)
    assert said == ["looking [2]"]
