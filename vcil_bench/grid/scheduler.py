"""Grids: experiments x seeds, one run per cell, as many at a time as there is room for.

A cell is a command ``vcil-bench run`` for one seed, so whatever is true of runs is true of cells: a finished one
is reused, an unfinished one resumes. What cannot run is found before anything starts. A cell
that died is tried again; one that was refused, or that would fail in the same way again, is not. A cell is done
when its record says so, whatever its process says.
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

from vcil_bench import protocol as protocols
from vcil_bench import record as records
from vcil_bench import registry
from vcil_bench.common.config import parse_assignments
from vcil_bench.common.errors import ExitCode, UserError, did_you_mean
from vcil_bench.common.files import locked, remove
from vcil_bench.common.progress_bars import bar
from vcil_bench.data.datasets import ADAPTERS
from vcil_bench.data.manifest import Manifest
from vcil_bench.identity import in_words
from vcil_bench.record import RecordError
from vcil_bench.run.data import Split, open_split
from vcil_bench.run.files import leftovers
from vcil_bench.run.plan import Plan, StaleRecord, make_plan
from vcil_bench.run.reuse import finished, outdated_states
from vcil_bench.stream import class_names

from .experiments import Experiment
from .launchers import GRACE_S, PROMPT, Ended, Engine, Job, Refused

POLL_S = 0.2
ALL_AT_ONCE = 10_000  # cells handed to a cluster, whose scheduler decides
AGAIN_S = 60.0  # before a command is handed in again that the engine did not take
UNANSWERED_S = 600.0  # for a cluster to answer a grid of which it never took a job
PATIENCE_S = 24 * 3600.0  # for a cluster to take a job when none is left that it took before
Status = Literal["done", "skipped", "failed", "stopped", "impossible"]


class GridError(UserError):
    """A grid that cannot be run as it was asked for."""


@dataclass(frozen=True)
class Request:
    """A grid as it was asked for; ``seeds`` is None for all of each protocol."""

    experiments: Sequence[Experiment]
    seeds: Sequence[int] | None
    roots: Mapping[str, Path]
    results: Path
    rerun_stale: bool = False


@dataclass
class Cell:
    """One run of a grid, and what became of it.

    Attributes:
        experiment: What is run.
        seed: Of the class order; None where the whole pair of method and protocol is impossible.
        plan: The run, None where it is impossible.
        root: Folder of the dataset, where one was given.
        stale: Its record is of another method, config or data, and is moved aside first.
        manifest: The data it runs on, None where it is impossible.
        status: None before it has ended.
        reason: Why it was not done.
        attempts: Processes started for it.
        seconds: From its first start to its end.
        one_of_several: Whether the grid has other variants of its run as well.
    """

    experiment: Experiment
    seed: int | None
    plan: Plan | None = None
    root: Path | None = None
    stale: bool = False
    manifest: Manifest | None = None
    status: Status | None = None
    reason: str = ""
    attempts: int = 0
    seconds: float = 0.0
    one_of_several: bool = False
    _started: float = field(default=0.0, repr=False)
    _ended: float | None = field(default=None, repr=False)
    _written: int | None = field(default=None, repr=False)  # its record, when the last attempt began

    @property
    def method(self) -> str:
        """As it was typed."""
        return self.experiment.method

    @property
    def protocol(self) -> str:
        """As it was typed."""
        return self.experiment.protocol

    @property
    def variant(self) -> str:
        """What it sets beside the defaults, as it names the record's file."""
        return "" if self.plan is None else self.plan.variant

    @property
    def name(self) -> str:
        """The cell in words; its settings where cells of the grid differ in them."""
        variant = f" {self.variant}" if self.one_of_several and self.variant not in ("", "default") else ""
        return f"{self.method}{variant} on {self.protocol}" + (
            "" if self.seed is None else f", seed {self.seed}"
        )

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
        except (OSError, ValueError, KeyError, TypeError):  # not there yet, or left behind by something else
            return 0

    def recorded(self) -> bool:
        """Tell whether its record holds what was asked for: all tasks, or the first ``max_tasks``."""
        assert self.plan is not None
        try:
            record = records.load(self.path)
        except RecordError:  # none, or one that no run would call finished
            return False
        upto = self.plan.options.max_tasks
        return record.complete or (upto is not None and len(record.data["steps"]) >= min(upto, self.tasks))

    def written(self) -> int | None:
        """Return when its record was written, in nanoseconds of the file system's clock; None without one."""
        return self.path.stat().st_mtime_ns if self.path.exists() else None

    def begin_attempt(self, written: int | None) -> None:
        """Note that a process was started for it.

        Args:
            written: What ``written`` gave before the start.
        """
        self.attempts += 1
        self._written, self._ended = written, None
        if self.attempts == 1:
            self._started = time.monotonic()

    def end_attempt(self) -> None:
        """Note that its process has ended, or is given up."""
        self.seconds = time.monotonic() - self._started

    def since_end(self) -> float:
        """Return the seconds since the attempt was first seen to have ended: since the first call."""
        now = time.monotonic()
        if self._ended is None:
            self._ended = now
        return now - self._ended

    def failure(self) -> str | None:
        """Return what its record says of why the last attempt failed; None where that came to no record."""
        if self.written() == self._written:
            return None
        try:
            return records.load(self.path).data["reason"]
        except RecordError:
            return None

    def command(self) -> list[str]:
        """Return its command: the same for every attempt, as a cluster may repeat it by itself."""
        assert self.plan is not None
        return [sys.executable, "-m", "vcil_bench", "run", *self.arguments(self.plan.results)]

    def arguments(self, results: Path) -> list[str]:
        """Return what ``run`` is given for it.

        Args:
            results: Folder for the record.
        """
        words = [self.method, self.protocol, "--seed", str(self.seed), "--results", str(results)]
        if self.root is not None:
            words += ["--data", str(self.root)]
        if self.experiment.assignments:
            words += ["--set", *self.experiment.assignments]
        return words


Watch = Callable[[Sequence[Cell], Sequence[Cell]], None]  # takes the cells that run and all cells


def cells(request: Request, progress: Progress, *, prepare: bool = True) -> list[Cell]:
    """Plan every cell; those that are done are ``skipped``, those that cannot run ``impossible``, each with why.

    Args:
        request: The grid.
        progress: Progress bars.
        prepare: Prepare the data, once for all cells; else no data are looked at.

    Raises:
        UserError: A method, protocol or dataset that does not exist, an assignment that is malformed.
    """
    known = [*ADAPTERS, *dict.fromkeys(experiment.protocol for experiment in request.experiments)]
    for name in request.roots:
        if name not in known:
            raise GridError(
                f"--data {name}={request.roots[name]}: no dataset {name!r}{did_you_mean(name, known)}; "
                f"known: {', '.join(ADAPTERS)}, or the name of a protocol of the grid"
            )
    for method in dict.fromkeys(experiment.method for experiment in request.experiments):
        registry.find(method)
    opened: dict[tuple[str, str, Path | None], Split] = {}
    planned: list[Cell] = []
    paths: set[Path] = set()
    for experiment in request.experiments:
        given = parse_assignments(list(experiment.assignments))
        loaded = protocols.load(experiment.protocol)
        root = request.roots.get(experiment.protocol, request.roots.get(loaded.spec.dataset.name))
        try:
            # On the processor, since planning must take no memory of a GPU that the runs need.
            plan = make_plan(
                experiment.method,
                experiment.protocol,
                seed=None,
                assignments=given,
                results=request.results,
                device="cpu",
            )
            manifest = _manifest(plan, root, opened, progress) if prepare else None
        except UserError as error:
            planned.append(Cell(experiment, None, status="impossible", reason=str(error)))
            continue
        for seed in dict.fromkeys(plan.protocol.spec.seeds if request.seeds is None else request.seeds):
            if plan.path(seed) in paths:  # said in other words already: one file is one cell
                continue
            paths.add(plan.path(seed))
            planned.append(cell := Cell(experiment, seed, plan, root, manifest=manifest))
            _find_status(cell, request.rerun_stale)
    several = len({cell.variant for cell in planned} - {""}) > 1
    for cell in planned:
        cell.one_of_several = several
    return planned


def run(
    todo: Sequence[Cell],
    engine: Engine,
    retries: int,
    watch: Watch,
    say: Callable[[str], None] = lambda line: None,
) -> bool:
    """Run cells until each is done or has failed.

    Args:
        todo: Cells without a status; their outcome is written into them.
        engine: Where they run.
        retries: How often a cell that died is started again.
        watch: Called now and then, and whenever a cell has ended.
        say: Takes lines that a user should know.

    Returns:
        Whether all were seen to their end; False after Ctrl-C or SIGTERM, upon which runs are stopped so that
        the same command resumes them (a second one kills them).

    Raises:
        Refused: The engine takes no command, though none is running.
    """
    waiting, running = list(todo), dict[int, tuple[Cell, Job]]()
    engine.limit_to(len(todo))  # runs share a machine with no more than there are
    intake = _Intake(say)
    with _Signals() as signals:
        try:
            while (waiting or running) and not signals.count:
                for slot in range(engine.slots):
                    if slot not in running and waiting and intake.open(len(running)) and not signals.count:
                        cell = waiting.pop(0)
                        try:
                            job = _start(cell, engine, slot)
                        except Refused as error:
                            waiting.insert(0, cell)
                            if not signals.count:  # Ctrl-C reaches the command that hands in as well
                                intake.refused(error, len(running))
                            continue
                        if job is not None:
                            running[slot] = cell, job
                            intake.took()
                watch([cell for cell, _ in running.values()], todo)
                time.sleep(POLL_S)
                for slot, (cell, job) in list(running.items()):
                    ended = job.poll()
                    if ended is None or _may_be_unseen(cell, ended, engine.lag_s):
                        continue
                    del running[slot]
                    if _record_outcome(cell, ended, retries):
                        waiting.insert(0, cell)
                    watch([cell for cell, _ in running.values()], todo)
        finally:
            _stop(list(running.values()), signals)
    for cell in todo:
        if cell.status is None:
            cell.status = "stopped"
            cell.reason = "run the same command to continue it" if cell.attempts else "not started"
    return all(cell.status != "stopped" for cell in todo)


class _Intake:
    """How many commands an engine takes: all until it refuses one, then as many as run, at times one more."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._room = float("inf")
        self._again = 0.0
        self._took_any = False
        self._idle_since: float | None = None  # refused, and nothing runs

    def open(self, running: int) -> bool:
        """Tell whether another command may be handed in."""
        return running < self._room or time.monotonic() >= self._again

    def took(self) -> None:
        """Note that one was taken."""
        self._took_any, self._idle_since = True, None

    def refused(self, error: Refused, running: int) -> None:
        """Note that one was not taken.

        Raises:
            Refused: There is nothing to wait for.
        """
        now = time.monotonic()
        if self._room == float("inf"):
            self._say(f"{error}; {running} jobs keep running, the rest waits")
        self._room, self._again = running, now + AGAIN_S
        self._idle_since = None if running else self._idle_since or now
        if self._idle_since is not None and now - self._idle_since >= self._patience(error):
            raise error

    def _patience(self, error: Refused) -> float:
        """Return the seconds to wait with nothing running: what was taken once will be taken again."""
        if self._took_any:
            return PATIENCE_S
        return UNANSWERED_S if error.away else 0.0


class _Signals:
    """Counts SIGINT and SIGTERM rather than raise: between a process's start and its entry in a list, say."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._add) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _add(self, *_: object) -> None:
        self.count += 1


def _find_status(cell: Cell, rerun_stale: bool) -> None:
    """Find out whether a cell is done already, or cannot be run."""
    assert cell.plan is not None
    assert cell.seed is not None
    try:
        cell.plan.protocol.check_seed(cell.seed)
        if _finished(cell):
            cell.status, cell.reason = "skipped", "finished before"
    except StaleRecord as error:
        cell.stale = rerun_stale
        if not rerun_stale:
            cell.status = "impossible"
            cell.reason = (
                f"{error.path}: stale: {in_words(error.reasons)} changed; --rerun-stale moves it aside and runs "
                "anew"
            )
    except UserError as error:
        cell.status, cell.reason = "impossible", str(error)


def _finished(cell: Cell) -> bool:
    """Tell whether a cell needs no work.

    Raises:
        StaleRecord: It has finished, or saved states, under other conditions.
    """
    assert cell.plan is not None
    assert cell.seed is not None
    if finished(cell.plan, cell.seed, cell.manifest, lambda line: None):
        return True
    if changed := outdated_states(cell.plan, cell.seed, cell.manifest):
        raise StaleRecord(cell.path, changed)
    return False


def _manifest(
    plan: Plan, root: Path | None, opened: dict[tuple[str, str, Path | None], Split], progress: Progress
) -> Manifest:
    """Prepare a protocol's data before many processes do it at once; refuse what its runs would refuse.

    Raises:
        UserError: No root is known, or the data are not good enough.
    """
    dataset = plan.protocol.spec.dataset
    key = dataset.name, str(dataset.split), root
    if key not in opened:
        opened[key] = open_split(
            dataset,
            root,
            lambda text: bar(progress, text),
            max_missing=plan.options.max_missing,
            way_out=f"--data {dataset.name}=ROOT",
        )
    class_names(plan.protocol, opened[key].manifest)
    return opened[key].manifest


def _start(cell: Cell, engine: Engine, slot: int) -> Job | None:
    """Start a cell's next attempt; None where a stale record is in the way, which fails the cell.

    Raises:
        Refused: The engine did not take it.
    """
    if cell.stale:
        try:
            _set_aside(cell)
        except UserError as error:
            cell.status, cell.reason = "failed", str(error)
            return None
    written = cell.written()
    job = engine.start(slot, cell.command(), cell.log)
    cell.begin_attempt(written)
    return job


def _set_aside(cell: Cell) -> None:
    """Move a cell's stale record aside, so that its command, however often it is repeated, resumes its own run.

    Raises:
        UserError: The record cannot be moved, or is being written.
    """
    assert cell.plan is not None
    assert cell.seed is not None
    with locked(cell.path):
        try:
            _finished(cell)
        except StaleRecord:  # still so: no other grid has moved it aside since
            records.supersede(cell.path)
            for path in leftovers(cell.path):
                remove(path)
    cell.stale = False


def _may_be_unseen(cell: Cell, ended: Ended, lag_s: float) -> bool:
    """Tell whether the record of a cell that ended well may be there, but not be seen from this machine yet."""
    return ended.code == 0 and not cell.recorded() and cell.since_end() < lag_s


def _record_outcome(cell: Cell, ended: Ended, retries: int) -> bool:
    """Write down how an attempt ended; True where the cell is to be tried again."""
    cell.end_attempt()
    last = _last_line(cell.log)
    if ended.code <= 0 and cell.recorded():  # its process may have been killed after its work was done
        cell.status, cell.reason = "done", ""
        return False
    if ended.code == 0:
        cell.status, cell.reason = "failed", "ended without a record, though with exit code 0"
        return False
    hopeless = ended.code in (ExitCode.REFUSED, ExitCode.FAILED_FOR_GOOD)
    if not hopeless and cell.attempts <= retries:
        return True
    cell.status = "failed"
    recorded = cell.failure() if ended.code in (ExitCode.FAILED, ExitCode.FAILED_FOR_GOOD) else None
    cell.reason = ended.reason or recorded or _reason(ended.code, last)
    return False


def _reason(code: int, last: str) -> str:
    """Say why a process ended: its signal, or the last line that it wrote."""
    if code < 0:
        memory = " (often: not enough memory)" if -code == signal.SIGKILL else ""
        known = -code in {number.value for number in signal.Signals}
        return f"killed by {signal.Signals(-code).name if known else f'signal {-code}'}{memory}"
    return last or f"exit code {code}"


def _last_line(log: Path) -> str:
    """Return the last line of the last attempt, empty where it wrote none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:  # a job that never began
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "" if last.startswith(PROMPT) else last


def _stop(running: Sequence[tuple[Cell, Job]], signals: _Signals) -> None:
    """Stop what runs: ask, wait, ask again, wait, kill; a second Ctrl-C kills at once."""
    for _ in range(2):
        for _, job in running:
            if job.poll() is None:
                job.stop()
        end = time.monotonic() + GRACE_S
        while any(job.poll() is None for _, job in running) and time.monotonic() < end and signals.count < 2:
            time.sleep(POLL_S)
    for cell, job in running:
        ended = job.poll()
        cell.end_attempt()
        if ended is None:
            job.kill()
        elif ended.code == 0:  # it was about to end anyway
            _record_outcome(cell, ended, 0)
