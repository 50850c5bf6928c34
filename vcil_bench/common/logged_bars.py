"""Progress bars for a log file: where a terminal would show bars, a line now and then says how they stand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from .durations import in_words

EVERY_S = 60.0
OUTER = "outer"  # field of the bar over everything, whose text begins the lines of those inside it


class LoggedBars(Progress):
    """Bars that are not drawn; what moves one of them may be told in a line, of all bars one a minute."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start counting time.

        Args:
            say: Takes a line.
            every_s: Seconds between lines.
            clock: Gives the time in seconds.
        """
        super().__init__(console=Console(stderr=True), disable=True)
        self._say = say
        self._every_s = every_s
        self._now = clock
        self._said = clock()
        self._began: dict[TaskID, tuple[float, float]] = {}  # when a bar was first moved here, and from where

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Move a bar, and perhaps say where it stands."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a bar, and where it was moved, perhaps say where it stands."""
        super().update(task_id, **changes)
        if changes.get("completed"):
            self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        now, bar = self._now(), self._tasks[task_id]
        # From behind the first step, which waits for workers to start; nor is what was done before a speed.
        self._began.setdefault(task_id, (now, bar.completed))
        if bar.fields.get(OUTER) or now - self._said < self._every_s:
            return
        self._said = now
        of = "" if bar.total is None else f" of {bar.total:.0f}"
        began, start = self._began[task_id]
        left = ""
        if bar.total is not None and bar.completed > start:
            left = f", {in_words((now - began) * (bar.total - bar.completed) / (bar.completed - start))} left"
        around = [str(other.description) for other in self.tasks if other.fields.get(OUTER)]
        self._say(": ".join([*around, f"{bar.description} [{bar.completed:.0f}{of}{left}]"]))
