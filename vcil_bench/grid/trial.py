"""A trial of a run, from which hours follow: ``python -m vcil_bench.grid.trial FILE METHOD PROTOCOL ...``.

The run is the real one, method, data, loader and device, and is broken off by what counts its progress: after 20
steps of its first training, or, where a task trains less than that or not at all, after some batches of tests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID

from vcil_bench.common.config import parse_assignments
from vcil_bench.common.errors import UserError
from vcil_bench.common.logged_bars import OUTER
from vcil_bench.run import loop
from vcil_bench.run.plan import Plan, make_plan
from vcil_bench.run.time_left import Work, work_of
from vcil_bench.stream import TaskStream

from .estimate import Estimate, from_trial
from .launchers import Engine
from .scheduler import Cell

WARM, STEPS = 3, 20  # steps that are not timed, since kernels are chosen and workers started, and those that are
TEST_BATCHES = 5
TESTING = "testing"  # the bar of the tests
POLL_S = 0.2


class TrialError(UserError):
    """A trial that failed."""


class Enough(KeyboardInterrupt):
    """Enough was measured."""


class Stopwatch(Progress):
    """Bars that nobody sees: times a run's steps, and breaks it off when that is enough.

    Attributes:
        found: What was measured, see ``measured``.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(disable=True)
        self.found: dict[str, float] = {}
        self._device = device
        self._learning_since = 0.0
        self._moved: dict[TaskID, list[tuple[float, float]]] = {}

    def add_task(self, description: str, *arguments: Any, **fields: Any) -> TaskID:
        """Note when the tests begin: by then the task was trained whole."""
        if description == TESTING:
            self.found["base_s"] = self._time() - self._learning_since
        made = super().add_task(description, *arguments, **fields)
        self._moved[made] = [(self._time(), 0.0)] if description == TESTING else []
        return made

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Note when the first task begins."""
        super().update(task_id, **changes)
        if self._tasks[task_id].fields.get(OUTER) and "description" in changes:
            self._learning_since = self._time()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Note a step.

        Raises:
            Enough: Enough was measured.
        """
        super().advance(task_id, advance)
        bar, moved = self._tasks[task_id], self._moved[task_id]
        if not self._learning_since:  # data that are prepared
            return
        count = len(moved)
        if bar.description == TESTING:
            moved.append((self._time(), moved[-1][1] + advance))
            if count >= TEST_BATCHES or bar.finished:
                start = moved[0 if len(moved) < 3 else 1]  # the first batch waits for workers
                self.found["test_s"] = (moved[-1][0] - start[0]) / max(1.0, moved[-1][1] - start[1])
                raise Enough
            return
        # A GPU works behind what the processor has asked of it; it is waited for where times are taken alone.
        moved.append((self._time() if count + 1 in (WARM, WARM + STEPS) else 0.0, bar.completed))
        if len(moved) == WARM + STEPS:
            step_s = (moved[-1][0] - moved[WARM - 1][0]) / STEPS
            self.found = {"step_s": step_s, "base_s": step_s * float(bar.total or 0)}
            raise Enough

    def _time(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def hold(cell: Cell, engine: Engine) -> Estimate:
    """Hold a cell's trial and wait for it.

    Args:
        cell: With its data prepared.
        engine: Where; its first slot must be free.

    Raises:
        TrialError: The trial failed; says why.
    """
    assert cell.plan is not None
    assert cell.seed is not None
    assert cell.manifest is not None
    with tempfile.TemporaryDirectory(prefix="vcil-bench-trial-") as name:
        folder = Path(name)
        found, log = folder / "found.json", folder / "trial.log"
        command = [
            sys.executable,
            "-m",
            "vcil_bench.grid.trial",
            str(found),
            *cell.arguments(folder / "results"),
        ]
        job = engine.start(0, command, log)
        try:
            while (ended := job.poll()) is None:
                time.sleep(POLL_S)
        except BaseException:
            job.kill()
            raise
        if not found.exists():
            lines = [
                line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
            ]
            raise TrialError(f"{cell.name}: its trial ended with exit code {ended.code}: {lines[-1]}")
        measured = json.loads(found.read_text(encoding="utf-8"))
    steps = len(cell.plan.protocol.spec.tasks.sizes)
    cumulative = cell.plan.method.data_access == "cumulative"
    work = work_of(TaskStream(cell.plan.protocol, cell.manifest, cell.seed), steps, cumulative=cumulative)
    return _extrapolated(cell.plan, measured, work)


def _extrapolated(plan: Plan, measured: Mapping[str, float], work: Sequence[Work]) -> Estimate:
    """Make an estimate of what was measured."""
    if "step_s" not in measured:
        return from_trial(measured["base_s"], measured["test_s"], work, plan, "a trial of its first task")
    # Forward alone is a third of forward and backward.
    test_s = measured["step_s"] / getattr(plan.config, "batch_size", 1) / 3
    basis = f"a trial of {STEPS} steps ({measured['step_s']:.2g} s each)"
    return from_trial(measured["base_s"], test_s, work, plan, basis)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return what a trial has measured.

    Returns:
        ``base_s``: seconds of training of the base task; ``step_s``, of a step of it, where it was broken off
        there; ``test_s``, of testing a video, where the tests were reached.

    Raises:
        UserError: The run would be refused.
    """
    plan = make_plan(
        options.method,
        options.protocol,
        seed=options.seed,
        assignments=parse_assignments(options.assignments),
        results=options.results,
        device=options.device,
    )
    watch = Stopwatch(plan.device)
    with contextlib.suppress(Enough):
        loop.run(plan, data=options.data, force=True, progress=watch, say=print)
    return watch.found


def main() -> None:
    """Measure, and write what was found to a file; what is refused is said in a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("method")
    parser.add_argument("protocol")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", nargs="+", default=[], dest="assignments")
    options = parser.parse_args()
    try:
        found = measure(options)
    except UserError as error:
        raise SystemExit(f"vcil-bench: error: {error}") from None
    options.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
