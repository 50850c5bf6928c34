"""Terminal output of `vcil-bench grid`: shows live progress and the final table."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from vcil_bench import record as records
from vcil_bench.common.durations import in_words
from vcil_bench.common.errors import UserError
from vcil_bench.common.terminal_text import shown
from vcil_bench.data.datasets import adapter
from vcil_bench.metrics import METRICS
from vcil_bench.report.tables import cell_text
from vcil_bench.report.terminal_table import Sheet
from vcil_bench.run.plan import Plan

from .estimate import Need, exemplars
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
    variants = any(cell.one_of_several for cell in cells)
    measured = [headline(cell) for cell in cells]
    titles = list(dict.fromkeys(title for title, _ in measured if title))
    for cell, (_, number) in zip(cells, measured, strict=True):
        again = f" ({cell.attempts} attempts)" if cell.attempts > 1 else ""
        seed = "all" if cell.seed is None else str(cell.seed)
        times = _time(cell.seconds) if cell.attempts else ""
        named = [cell.method, *([cell.variant] if variants else []), cell.protocol, seed]
        lines.append([*named, f"{cell.status}{again}", times, number])
        if cell.status not in ("done", "skipped"):
            log = f" (log: {cell.log})" if cell.attempts else ""
            reasons.append(f"{cell.status}: {cell.name}: {' '.join(cell.reason.split())}{log}")
    metric = f"{titles[0]}, %" if len(titles) == 1 else "headline metric, %"
    headers = ["method", *(["variant"] if variants else []), "protocol", "seed", "status", "time", metric]
    align = ["left"] * (len(headers) - 1) + ["right"]
    shown = tabulate(lines, headers=headers, tablefmt="simple", disable_numparse=True, colalign=align)
    return "\n".join([shown, *([""] if reasons else []), *reasons])


def plan_sheet(needs: Sequence[Need]) -> tuple[Sheet, list[str]]:
    """Return a table of what a grid would run, and below it what its estimates were made from."""
    bases = list(dict.fromkeys(need.estimate.basis for need in needs if need.estimate is not None))
    signs = {basis: f"({chr(ord('a') + number % 26)})" for number, basis in enumerate(bases)}
    rows, cells = [], []
    for need in needs:
        experiment, plan = need.experiment, need.plan
        variant = "impossible" if plan is None else plan.variant
        rows.append([experiment.method, variant, experiment.protocol])
        todo = [str(cell.seed) for cell in need.cells if cell.status is None]
        seeds = f" ({' '.join(todo)})" if len(todo) < len(need.cells) else ""
        takes = (
            "" if need.estimate is None else f"{in_words(need.estimate.seconds)} {signs[need.estimate.basis]}"
        )
        cells.append(
            [f"{len(todo)}{seeds}" if todo else "none", _kept(plan), takes or ("not known" if need.todo else "")]
        )
    names, titles = ["method", "variant", "protocol"], ["runs", "exemplars", "a run takes"]
    marks = [[""] * len(titles) for _ in rows]
    return Sheet(names, titles, rows, cells, marks), [f"{sign} from {basis}" for basis, sign in signs.items()]


def plan_totals(needs: Sequence[Need], slots: int, results: Path) -> list[str]:
    """Return lines that say what a grid needs altogether.

    Args:
        needs: Of its experiments.
        slots: Runs at a time.
        results: Where the records go.
    """
    every = [cell for need in needs for cell in need.cells]
    todo = sum(need.todo for need in needs)
    done, impossible = (sum(cell.status == status for cell in every) for status in ("skipped", "impossible"))
    lines = [f"{todo} runs to do, {done} done before, {impossible} impossible"]
    known = [(need.todo, need.estimate) for need in needs if need.todo and need.estimate is not None]
    unknown = todo - sum(number for number, _ in known)
    if known:
        seconds = sum(number * estimate.seconds for number, estimate in known)
        at_once = min(slots, todo)
        side = f", {at_once} at a time: about {in_words(seconds / at_once)}" if at_once > 1 else ""
        lines.append(f"time: about {in_words(seconds)} in all{side}")
    if unknown:
        lines.append(f"time: not known of {unknown} runs; --trial measures some steps of each")
    states = [estimate.disk for _, estimate in known if estimate.disk is not None]
    free = shutil.disk_usage(
        next(path for path in (results.absolute(), *results.absolute().parents) if path.exists())
    )
    if states:
        most = max(states) * min(slots, todo)
        lines.append(
            f"disk: saved states of up to {_size(most)} while runs are under way, {_size(free.free)} are free"
        )
    elif todo:
        lines.append(f"disk: saved states of unknown size while runs are under way, {_size(free.free)} are free")
    lacking = {
        need.plan.protocol.spec.dataset.name
        for need in needs
        if need.plan is not None and need.todo and need.cells[0].root is None
    }
    roots = [f"{name}=ROOT" for name in sorted(lacking) if adapter(name).default_root() is None]
    if roots:
        lines.append(f"data: --data {' '.join(roots)} must be given to run this")
    return lines


def _kept(plan: Plan | None) -> str:
    """Say which exemplars a run may keep in the end."""
    if plan is None:
        return ""
    if plan.method.data_access == "cumulative":
        return "all videos"
    kept = exemplars(plan)
    if kept is None:
        return "none"
    if kept.frames is None or kept.bytes is None:
        return f"{kept.videos} videos, all frames"
    return f"{kept.videos} videos, {_size(kept.bytes)}"


def _size(number: float) -> str:
    """Return bytes in the unit that suits them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"


def headline(cell: Cell) -> tuple[str, str]:
    """Return the name of a cell's headline metric and its value in percent; empty without a result."""
    if cell.status not in ("done", "skipped") or cell.plan is None:
        return "", ""
    try:
        record = records.load(cell.path)
    except UserError:  # the record of a skipped run that was moved away meanwhile
        return "", ""
    name, readout = record.data["protocol"]["metrics"]["headline"], record.data["method"]["readouts"][0]
    value = cell_text(np.array([100 * record.metric(name, readout)])) if record.complete else ""
    return METRICS[name].title, value


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
