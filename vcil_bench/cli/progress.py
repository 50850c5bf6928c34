"""Progress of a command: bars in a terminal, lines in a log file, nothing with ``--quiet``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from vcil_bench.common.progress_bars import bar
from vcil_bench.common.progress_lines import ProgressLines
from vcil_bench.common.terminal_text import print

if TYPE_CHECKING:
    from rich.progress import Progress, Task

CLEAR_LINE = "\r\x1b[K"
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)  # whether no progress is to be shown


def progress_bars() -> Progress:
    """Return progress bars: bars in a terminal, a line a minute in a log, of one process of a team, if any."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    from vcil_bench.common.logged_bars import OUTER, LoggedBars

    class TimeLeft(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            return Text() if task.fields.get(OUTER) else super().render(task)  # whose text says it, better

    if is_shown() and not sys.stderr.isatty():
        return LoggedBars(lambda line: print(line, file=sys.stderr, flush=True))
    return Progress(
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeLeft(),
        console=Console(stderr=True),
        transient=True,
        expand=True,
        disable=not is_shown(),
    )


@contextmanager
def loading_torch() -> Iterator[None]:
    """Say in a terminal, at once, that a library is being loaded; it takes seconds, some more on a slow disk."""
    if "torch" in sys.modules or not sys.stderr.isatty() or not is_shown():
        yield
        return
    sys.stderr.write("loading torch ...")
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write(CLEAR_LINE)
        sys.stderr.flush()


def is_main() -> bool:
    """Tell whether this is the process that speaks, where torchrun has started several."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def quiet(asked: bool) -> Iterator[None]:
    """Show no progress meanwhile, where that was asked for."""
    before = _QUIET.set(asked)
    try:
        yield
    finally:
        _QUIET.reset(before)


def is_shown() -> bool:
    """Tell whether this process shows progress at all."""
    return is_main() and not _QUIET.get()


@contextmanager
def watched(text: str) -> Iterator[Callable[[int, int], None]]:
    """Give what shows progress: a bar in a terminal, lines in a log."""
    if sys.stderr.isatty() or _QUIET.get():
        with progress_bars() as progress, bar(progress, text) as moved:
            yield moved
    else:
        yield ProgressLines(text, lambda line: print(line, file=sys.stderr, flush=True))


@contextmanager
def report_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give what shows the stages of a report: a bar in a terminal, in a log now and then a line."""
    if sys.stderr.isatty() or _QUIET.get():
        with progress_bars() as progress:
            task = progress.add_task("", total=None)
            yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)
        return
    lines: dict[str, ProgressLines] = {}

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def moved(what: str, done: int, total: int) -> None:
        if done == 0 or what not in lines:  # a stage may be gone through again
            lines[what] = ProgressLines(what, say)
        lines[what](done, total)

    yield moved
