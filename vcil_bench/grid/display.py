"""Terminal output of `vcil-bench grid`: shows live progress and the final table."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from vcil_bench.common.terminal_text import shown

from .scheduler import Cell

LOOK_S = 2.0  # between two looks at the records of running cells


class View:
    """Shows progress: a live table on a terminal, elsewhere a line whenever a cell has ended."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Prepare it; ``say`` takes lines where there is no terminal."""
        self._say = say
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, transient=True) if sys.stderr.isatty() else None
        self._began = time.monotonic()
        self._before: int | None = None
        self._looked = 0.0
        self._told: set[int] = set()

    def __enter__(self) -> View:
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def watch(self, running: Sequence[Cell], cells: Sequence[Cell]) -> None:
        """Show how things stand.

        Args:
            running: Cells that run now.
            cells: All cells that were to be run.
        """
        ended = [cell for cell in cells if cell.status is not None]
        news = [cell for cell in ended if id(cell) not in self._told]
        if not news and time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        inside = {id(cell): cell.tasks_done() for cell in running}
        done = sum(cell.tasks for cell in ended) + sum(inside.values())
        self._before = done if self._before is None else self._before  # resumed runs bring tasks along
        total = sum(cell.tasks for cell in cells)
        left = self._left(done, total)
        for cell in news:
            self._told.add(id(cell))
            why = f": {cell.reason}" if cell.reason else ""
            what = f"{cell.name}: {cell.status} in {_time(cell.seconds)}"
            line = f"[{len(self._told)}/{len(cells)}] {what}{why}{left}"
            if self._live is None:
                self._say(line)
            else:
                self._live.console.print(shown(line), markup=False, highlight=False)
        if self._live is not None:
            table = Table.grid(padding=(0, 2))
            for cell in running:
                table.add_row(Text(shown(cell.name)), f"{inside[id(cell)]} of {cell.tasks} tasks")
            table.add_row(f"{len(ended)} of {len(cells)} cells", f"{done} of {total} tasks{left}")
            self._live.update(table)

    def _left(self, done: int, total: int) -> str:
        """Estimate the time that is left from the tasks that were done since the start."""
        fresh = done - (self._before or 0)
        if fresh <= 0 or done >= total:
            return ""
        return f", about {_time((time.monotonic() - self._began) * (total - done) / fresh)} left"


def table(cells: Sequence[Cell]) -> str:
    """Return a table of cells, and below it why some were not done, with the place of their log."""
    lines, reasons = [], []
    for cell in cells:
        again = f" ({cell.attempts} attempts)" if cell.attempts > 1 else ""
        seed = "all" if cell.seed is None else str(cell.seed)
        times = _time(cell.seconds) if cell.attempts else ""
        lines.append([cell.method, cell.protocol, seed, f"{cell.status}{again}", times])
        if cell.status not in ("done", "skipped"):
            log = f" (log: {cell.log})" if cell.attempts else ""
            reasons.append(f"{cell.status}: {cell.name}: {' '.join(cell.reason.split())}{log}")
    headers = ["method", "protocol", "seed", "status", "time"]
    shown = tabulate(lines, headers=headers, tablefmt="simple", disable_numparse=True)
    return "\n".join([shown, *([""] if reasons else []), *reasons])


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
