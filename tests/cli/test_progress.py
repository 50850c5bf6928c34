"""Progress of a command: bars in a terminal, lines in a log, nothing from a team's other processes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from vcil_bench.cli.progress import (
    CLEAR_LINE,
    is_shown,
    loading_torch,
    progress_bars,
    quiet,
    report_progress,
    watched,
)
from vcil_bench.common.logged_bars import OUTER, LoggedBars


def test_a_log_gets_lines_of_the_process_that_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress_bars(), LoggedBars)
    monkeypatch.setenv("RANK", "1")
    other = progress_bars()
    assert not isinstance(other, LoggedBars)
    assert other.disable


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_shows_nothing(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with quiet(True), loading_torch(), watched("reading") as moved, report_progress() as told:
        assert progress_bars().disable
        assert not isinstance(progress_bars(), LoggedBars)
        moved(1, 1)
        told("figures", 1, 1)
    assert capsys.readouterr().err == ""
    assert is_shown()


def test_the_outer_bar_leaves_the_time_to_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bars = progress_bars()
    assert not bars.disable
    outer = bars.add_task("seed 1, task 2/5, 3 min left", total=5, **{OUTER: True})
    inner = bars.add_task("task 2", total=100)
    column = bars.columns[-1]
    assert str(column(bars.tasks[outer])) == ""
    assert str(column(bars.tasks[inner])) != ""


@pytest.mark.slow
def test_a_terminal_is_told_at_once_what_is_being_loaded() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vcil_bench", "list", "methods", "--results", "nowhere"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while CLEAR_LINE.encode() not in said:
            said += os.read(ours, 1024)
    os.close(ours)
    assert process.returncode == 0
    assert said.decode() == f"loading torch ...{CLEAR_LINE}"
