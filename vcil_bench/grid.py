"""Grids: methods x protocols x seeds, one run per cell, as many at a time as there is room for.

A cell is a command ``vcil-bench run`` for one seed, so whatever is true of runs is true of cells: a finished one
is reused, an unfinished one goes on from where it was. What cannot run is found before anything starts. A cell
that died is tried again; one that was refused, or that would fail in the same way again, is not.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.progress import Progress

from . import protocol as protocols
from . import registry
from .data.datasets import ADAPTERS, adapter
from .data.manifest import Manifest, check_present, prepare
from .engines import GRACE_S, PROMPT, Ended, Engine, Job
from .errors import UserError, did_you_mean
from .plan import Plan, RunError, make_plan
from .runner import finished
from .schema import parse_assignments
from .stream import class_names

POLL_S = 0.2
ALL_AT_ONCE = 10_000  # cells handed to a cluster, whose scheduler decides
REFUSED = 2  # exit code of a run that the user's input does not allow
FAILED_LINE = "vcil-bench: the run failed: "  # what cannot go better when it is tried again
Status = Literal["done", "skipped", "failed", "stopped", "impossible"]


class GridError(UserError):
    """A grid that cannot be run as it was asked for."""


@dataclass(frozen=True)
class Request:
    """A grid as it was asked for; ``seeds`` is None for all of each protocol."""

    methods: Sequence[str]
    protocols: Sequence[str]
    seeds: Sequence[int] | None
    roots: Mapping[str, Path]
    assignments: list[str]
    results: Path
    rerun_stale: bool = False


@dataclass
class Cell:
    """One run of a grid, and what became of it.

    Attributes:
        method: As it was typed.
        protocol: As it was typed.
        seed: Of the class order; None where the whole pair of method and protocol is impossible.
        plan: The run, None where it is impossible.
        root: Folder of the dataset, where one was given.
        force: A stale record is moved aside at the first attempt.
        status: None before it has ended.
        reason: Why it was not done.
        attempts: Processes started for it.
        seconds: From its first start to its end.
    """

    method: str
    protocol: str
    seed: int | None
    plan: Plan | None = None
    root: Path | None = None
    force: bool = False
    status: Status | None = None
    reason: str = ""
    attempts: int = 0
    seconds: float = 0.0
    _started: float = field(default=0.0, repr=False)

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.method} on {self.protocol}" + ("" if self.seed is None else f", seed {self.seed}")

    @property
    def path(self) -> Path:
        """Where its record lies."""
        assert self.plan is not None
        assert self.seed is not None
        return self.plan.path(self.seed)

    @property
    def log(self) -> Path:
        """Where its output goes, beside the record."""
        return self.path.with_suffix(".log")

    @property
    def tasks(self) -> int:
        """Number of tasks, the unit of progress."""
        return 0 if self.plan is None else len(self.plan.protocol.spec.tasks.sizes)

    def tasks_done(self) -> int:
        """Return how many tasks are safe on disk."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return len(stored["steps"])
        except (OSError, ValueError, KeyError):  # not there yet, or left behind by something else
            return 0

    def command(self, assignments: Sequence[str]) -> list[str]:
        """Return the command of its next attempt."""
        assert self.plan is not None
        words = [sys.executable, "-m", "vcil_bench", "run", self.method, self.protocol]
        words += ["--seed", str(self.seed), "--results", str(self.plan.results)]
        if self.root is not None:
            words += ["--data", str(self.root)]
        if assignments:
            words += ["--set", *assignments]
        if self.force and self.attempts == 0:  # a second attempt goes on from what the first one left
            words.append("--force")
        return words


Watch = Callable[[Sequence[Cell], Sequence[Cell]], None]  # takes the cells that run and all cells


def cells(request: Request, progress: Progress) -> list[Cell]:
    """Plan every cell; those that are done are ``skipped``, those that cannot run ``impossible``, each with why.

    The data are prepared here, once for all cells.

    Raises:
        UserError: A method, protocol or dataset that does not exist, an assignment that is malformed.
    """
    given = parse_assignments(request.assignments)
    known = [*ADAPTERS, *request.protocols]
    for name in request.roots:
        if name not in known:
            raise GridError(
                f"--data {name}={request.roots[name]}: no dataset {name!r}{did_you_mean(name, known)}; "
                f"known: {', '.join(ADAPTERS)}, or the name of a protocol of the grid"
            )
    for method in request.methods:
        registry.find(method)
    manifests: dict[tuple[str, str, Path], Manifest] = {}
    found: list[Cell] = []
    for protocol in dict.fromkeys(request.protocols):  # a name given twice is one cell, not two for one file
        loaded = protocols.load(protocol)
        for method in dict.fromkeys(request.methods):
            root = request.roots.get(protocol, request.roots.get(loaded.spec.dataset.name))
            seeds = loaded.spec.seeds if request.seeds is None else request.seeds
            try:
                # On the processor, since planning must take no memory of a GPU that the runs need.
                plan = make_plan(
                    method, protocol, seed=None, assignments=given, results=request.results, device="cpu"
                )
                manifest = _manifest(plan, root, manifests, progress)
            except UserError as error:
                found.append(Cell(method, protocol, None, status="impossible", reason=str(error)))
                continue
            for seed in dict.fromkeys(seeds):
                found.append(cell := Cell(method, protocol, seed, plan, root))
                _look(cell, manifest, request.rerun_stale)
    return found


def run(todo: Sequence[Cell], engine: Engine, assignments: Sequence[str], retries: int, watch: Watch) -> bool:
    """Run cells until each is done or has failed.

    Args:
        todo: Cells without a status; their outcome is written into them.
        engine: Where they run.
        assignments: ``--set`` of every run.
        retries: How often a cell that died is started again.
        watch: Called now and then, and whenever a cell has ended.

    Returns:
        Whether all were seen to their end; False after Ctrl-C or SIGTERM, upon which runs are stopped so that
        the same grid can go on with them (a second one kills them).
    """
    waiting, running = list(todo), dict[int, tuple[Cell, Job]]()
    with _Signals() as signals:
        try:
            while (waiting or running) and not signals.count:
                for slot in range(engine.slots):
                    if slot not in running and waiting:
                        cell = waiting.pop(0)
                        running[slot] = cell, _start(cell, engine, slot, assignments)
                watch([cell for cell, _ in running.values()], todo)
                time.sleep(POLL_S)
                for slot, (cell, job) in list(running.items()):
                    ended = job.poll()
                    if ended is None:
                        continue
                    del running[slot]
                    if _settle(cell, ended, retries):
                        waiting.insert(0, cell)
                    watch([cell for cell, _ in running.values()], todo)
        finally:
            _stop(list(running.values()), signals)
    for cell in todo:
        if cell.status is None:
            cell.status = "stopped"
            cell.reason = "the same command goes on with it" if cell.attempts else "not started"
    return all(cell.status != "stopped" for cell in todo)


class _Signals:
    """Counts SIGINT and SIGTERM rather than raise: between a process's start and its entry in a list, say."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Signals:
        self._before = {one: signal.signal(one, self._add) for one in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _add(self, *_: object) -> None:
        self.count += 1


def _look(cell: Cell, manifest: Manifest | None, rerun_stale: bool) -> None:
    """Find out whether a cell is done already, or cannot be run."""
    assert cell.plan is not None
    assert cell.seed is not None
    try:
        cell.plan.protocol.check_seed(cell.seed)
        if finished(cell.plan, cell.seed, manifest, lambda line: None):
            cell.status, cell.reason = "skipped", "finished before"
    except RunError as error:
        cell.force = rerun_stale
        if not rerun_stale:
            text = str(error).replace("FORCE=1 (--force)", "--rerun-stale")
            cell.status, cell.reason = "impossible", text
    except UserError as error:
        cell.status, cell.reason = "impossible", str(error)


def _manifest(
    plan: Plan, root: Path | None, known: dict[tuple[str, str, Path], Manifest], progress: Progress
) -> Manifest:
    """Prepare a protocol's data before many processes do it at once; refuse what its runs would refuse.

    Raises:
        UserError: No root is known, or the data are not good enough.
    """
    dataset = plan.protocol.spec.dataset
    source, split = adapter(dataset.name), str(dataset.split)
    root = source.default_root() if root is None else root
    if root is None:
        raise GridError(f"needs the data of {dataset.name!r}: give their folder with --data {dataset.name}=ROOT")
    key = source.name, split, root
    if key not in known:
        bar = progress.add_task(f"preparing {source.name}", total=None)

        def moved(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        source.make_ready(root, moved)
        check_present(source, root, split, plan.options.max_missing)
        known[key] = prepare(source, root, split, moved)
        progress.remove_task(bar)
    known[key].check_complete(plan.options.max_missing)
    class_names(plan.protocol, known[key])
    return known[key]


def _start(cell: Cell, engine: Engine, slot: int, assignments: Sequence[str]) -> Job:
    command = cell.command(assignments)
    cell.attempts += 1
    if cell.attempts == 1:
        cell._started = time.monotonic()
    return engine.start(slot, command, cell.log)


def _settle(cell: Cell, ended: Ended, retries: int) -> bool:
    """Write down how an attempt ended; True where the cell is to be tried again."""
    cell.seconds = time.monotonic() - cell._started
    last = _last_line(cell.log)
    if ended.code == 0:
        cell.status, cell.reason = "done", ""
        return False
    hopeless = ended.code == REFUSED or last.startswith(FAILED_LINE)
    if not hopeless and cell.attempts <= retries:
        return True
    cell.status = "failed"
    cell.reason = ended.reason or _reason(ended.code, last)
    return False


def _reason(code: int, last: str) -> str:
    """Say why a process ended: its signal, or the last line that it wrote."""
    if code < 0:
        memory = " (often: not enough memory)" if -code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{memory}"
    return last.removeprefix("vcil-bench: error: ").removeprefix(FAILED_LINE) or f"exit code {code}"


def _last_line(log: Path) -> str:
    """Return the last line of the last attempt, empty where it wrote none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:  # a job that never began
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "" if last.startswith(PROMPT) else last


def _stop(running: Sequence[tuple[Cell, Job]], signals: _Signals) -> None:
    """Stop what runs: ask, wait, kill; a second Ctrl-C kills at once."""
    for _, job in running:
        job.stop()
    end = time.monotonic() + GRACE_S
    while any(job.poll() is None for _, job in running) and time.monotonic() < end and signals.count < 2:
        time.sleep(POLL_S)
    for cell, job in running:
        ended = job.poll()
        cell.seconds = time.monotonic() - cell._started
        if ended is None:
            job.kill()
        elif ended.code == 0:  # it was about to end anyway
            _settle(cell, ended, 0)
