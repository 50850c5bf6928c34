"""A grid runs what is left to run, tries again what died, and can be stopped and resumed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from made_up_records import record_data
from rich.progress import Progress
from tiny_dataset import PROTOCOL, Tiny

from vcil_bench import record as records
from vcil_bench.common.errors import UserError
from vcil_bench.common.files import locked
from vcil_bench.grid import scheduler
from vcil_bench.grid.display import View, table
from vcil_bench.grid.experiments import product
from vcil_bench.grid.launchers import Ended, Engine, EngineError, Job, LocalEngine, Refused, visible_gpus
from vcil_bench.grid.scheduler import Cell, Request
from vcil_bench.grid.slurm import SubmititEngine
from vcil_bench.metrics import METRICS

METHOD = '''
"""Zero-shot, with an accident while it learns the second task."""

import os, signal, time
from pathlib import Path

from vcil_bench.methods.zero_shot import ZeroShot


class {name}(ZeroShot):
    name = "{name}"
    paper = "a test"

    def learn(self, task):
        flag = Path(__file__).with_suffix(f".{{os.environ.get('ACCIDENT', 'once')}}")
        if task.index == 1 and not flag.exists():
            flag.touch()
            {accident}
        super().learn(task)
'''


def method(folder: Path, name: str, accident: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(METHOD.format(name=name, accident=accident), encoding="utf-8")
    return path


def request(
    tiny: Tiny,
    results: Path,
    *methods: str,
    protocols: Sequence[str] = (),
    assignments: Sequence[str] = ("backbone=clip_tiny",),
    **changes: object,
) -> Request:
    asked: dict[str, object] = {
        "experiments": product(methods or ("zero_shot",), protocols or [str(tiny.protocol)], assignments),
        "seeds": None,
        "roots": {"folder": tiny.root},
        "results": results,
    }
    return Request(**(asked | changes))  # type: ignore[arg-type]


def cells(asked: Request) -> list[Cell]:
    return scheduler.cells(asked, Progress(disable=True))


def grid_arguments(tiny: Tiny, results: Path, method: str | Path = "zero_shot") -> list[str]:
    """Return a grid's command of one method on the tiny protocol, on the processor."""
    words = ["grid", method, tiny.protocol, "--data", f"folder={tiny.root}", "--results", results]
    return [*map(str, words), "--gpus", "none", "--set", "backbone=clip_tiny"]


class Scripted(Engine):
    """Ends commands as a script says, one ending per start, and keeps what was started.

    A command that ends with 0 leaves a record; an exception in the place of an ending is raised at the start.

    Args:
        failed_because: What the record of a command that ends with 3 says; None where it leaves none.
    """

    def __init__(
        self, slots: int, *endings: tuple[int, str] | EngineError, failed_because: str | None = None
    ) -> None:
        self.slots = slots
        self.failed_because = failed_because
        self.endings = list(endings)
        self.commands: list[list[str]] = []
        self.most = 0
        self.running: set[ScriptedJob] = set()

    def start(self, slot: int, command: Sequence[str], log: Path) -> Job:
        ending = self.endings.pop(0)
        if isinstance(ending, EngineError):
            raise ending
        self.commands.append(list(command))
        code, line = ending
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(line + "\n", encoding="utf-8")
        if code == 0:
            records.save(log.with_suffix(".json"), record_data())
        elif code == 3 and self.failed_because is not None:
            records.save(log.with_suffix(".json"), record_data(status="failed", reason=self.failed_because))
        job = ScriptedJob(self, code)
        self.running.add(job)
        self.most = max(self.most, len(self.running))
        return job


class ScriptedJob(Job):
    asked_before = 0

    def __init__(self, engine: Scripted, code: int) -> None:
        self.engine, self.code = engine, code

    def poll(self) -> Ended | None:
        if self.asked_before:
            self.asked_before -= 1
            return None
        self.engine.running.discard(self)
        return Ended(self.code)

    def stop(self) -> None:
        raise AssertionError("it had ended")

    def kill(self) -> None:
        raise AssertionError("it had ended")


class Endless(Engine):
    """Starts commands that end when they are stopped."""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def start(self, slot: int, command: Sequence[str], log: Path) -> Job:
        return EndlessJob()


class EndlessJob(Job):
    ended: Ended | None = None

    def poll(self) -> Ended | None:
        return self.ended

    def stop(self) -> None:
        self.ended = Ended(130)

    def kill(self) -> None:
        raise AssertionError("it had stopped")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "POLL_S", 0.01)


def go(todo: list[Cell], engine: Engine, retries: int = 1) -> bool:
    with View(lambda line: None) as view:
        return scheduler.run(todo, engine, retries, view.watch)


def test_names_given_twice_are_one_cell(tiny: Tiny, tmp_path: Path) -> None:
    asked = dataclasses.replace(request(tiny, tmp_path, "finetune", "finetune"), seeds=[1, 1])
    assert [(cell.method, cell.seed) for cell in cells(asked)] == [("finetune", 1)]


def test_a_cell_is_one_run_of_one_seed(tiny: Tiny, tmp_path: Path) -> None:
    todo = cells(request(tiny, tmp_path, "zero_shot", "finetune"))
    assert [(cell.method, cell.seed, cell.tasks) for cell in todo] == [
        *(("zero_shot", 1, 3), ("zero_shot", 2, 3)),
        *(("finetune", 1, 3), ("finetune", 2, 3)),
    ]
    engine = Scripted(3, *[(0, "")] * 4)
    assert go(todo, engine)
    assert {cell.status for cell in todo} == {"done"}
    assert engine.most == 3
    command = " ".join(engine.commands[1])
    assert f"vcil_bench run zero_shot {tiny.protocol} --seed 2 --results {tmp_path}" in command
    assert command.endswith(f"--data {tiny.root} --set backbone=clip_tiny")


@pytest.mark.parametrize(
    ("code", "line", "attempts", "reason"),
    [
        (2, "no weights", 1, "no weights"),
        (3, "loss is nan", 1, "loss is nan"),
        (1, "RuntimeError: CUDA out of memory", 3, "RuntimeError: CUDA out of memory"),
        (-9, "", 3, "killed by SIGKILL (often: not enough memory)"),
        (7, "", 3, "exit code 7"),
    ],
)
def test_only_what_died_is_tried_again(
    tiny: Tiny, tmp_path: Path, code: int, line: str, attempts: int, reason: str
) -> None:
    (cell,) = cells(request(tiny, tmp_path, seeds=[1]))
    assert go([cell], Scripted(1, *[(code, line)] * 3), retries=2)
    assert (cell.status, cell.attempts, cell.reason) == ("failed", attempts, reason)
    assert str(cell.log) in table([cell])


def test_why_a_run_failed_is_read_from_its_record(tiny: Tiny, tmp_path: Path) -> None:
    (cell,) = cells(request(tiny, tmp_path, seeds=[1]))
    engine = Scripted(1, (3, "whatever a log ends with"), failed_because="TrainingError: loss is nan")
    assert go([cell], engine)
    assert (cell.status, cell.reason) == ("failed", "TrainingError: loss is nan")


def test_every_attempt_is_the_same_command_and_forces_nothing(tiny: Tiny, tmp_path: Path) -> None:
    """A scheduler may repeat it by itself, long after the stale record is gone."""
    (cell,) = cells(request(tiny, tmp_path, seeds=[1]))
    engine = Scripted(1, (-9, ""), (0, ""))
    go([cell], engine)
    assert cell.status == "done"
    first, second = engine.commands
    assert first == second
    assert "--force" not in first
    assert "done (2 attempts)" in table([cell])


def test_a_stale_record_is_moved_aside_once_right_before_its_cell_starts(tiny: Tiny, tmp_path: Path) -> None:
    file = method(tmp_path, "changing", "pass")
    assert tiny.run(file, tmp_path / "results") == 0
    file.write_text(file.read_text(encoding="utf-8") + "CHANGED = True\n", encoding="utf-8")
    (cell,) = cells(request(tiny, tmp_path / "results", str(file), seeds=[1], rerun_stale=True))
    records.checkpoint_path(cell.path).touch()
    state = cell.path.with_suffix(".phase-1.safetensors")
    state.touch()
    assert cell.path.exists()
    go([cell], Scripted(1, (-9, ""), (0, "")))
    assert (cell.status, cell.attempts) == ("done", 2)
    assert len(list(cell.path.parent.glob("superseded/*/*.json"))) == 1
    assert not records.checkpoint_path(cell.path).exists()
    assert not state.exists()


def test_a_stale_record_that_is_being_written_fails_its_cell_alone(tiny: Tiny, tmp_path: Path) -> None:
    file = method(tmp_path, "changing", "pass")
    assert tiny.run(file, tmp_path / "results") == 0
    file.write_text(file.read_text(encoding="utf-8") + "CHANGED = True\n", encoding="utf-8")
    one, two = cells(request(tiny, tmp_path / "results", str(file), rerun_stale=True))
    with locked(one.path):
        go([one, two], Scripted(1, (0, "")))
    assert (one.status, two.status) == ("failed", "done")
    assert "another process works on it" in one.reason


def test_a_cell_is_done_when_its_record_is(tiny: Tiny, tmp_path: Path) -> None:
    """Code below a method may end Python with 0; a process may be killed after its work was done."""
    one, two = cells(request(tiny, tmp_path))
    records.save(two.path, record_data())
    engine = Scripted(1, (0, ""), (-9, ""))
    start = engine.start

    def without_record(slot: int, command: Sequence[str], log: Path) -> Job:
        job = start(slot, command, log)
        one.path.unlink(missing_ok=True)
        return job

    engine.start = without_record  # type: ignore[method-assign]
    go([one, two], engine, retries=0)
    assert (one.status, one.attempts) == ("failed", 1)
    assert "without a record" in one.reason
    assert two.status == "done"


@pytest.mark.parametrize(("steps", "status"), [(1, "failed"), (2, "done")])
def test_max_tasks_is_what_a_partial_record_must_hold(
    tiny: Tiny, tmp_path: Path, steps: int, status: str
) -> None:
    asked = request(tiny, tmp_path, seeds=[1], assignments=["backbone=clip_tiny", "max_tasks=2"])
    (cell,) = cells(asked)
    engine = Scripted(1, (0, ""))
    start = engine.start

    def partial(slot: int, command: Sequence[str], log: Path) -> Job:
        job = start(slot, command, log)
        rows = [[4], [2, 1]][:steps]
        records.save(cell.path, record_data(status="partial", correct=rows))
        return job

    engine.start = partial  # type: ignore[method-assign]
    go([cell], engine)
    assert cell.status == status


def test_a_record_of_another_machine_may_be_seen_late(tiny: Tiny, tmp_path: Path) -> None:
    (cell,) = cells(request(tiny, tmp_path, seeds=[1]))
    engine = Scripted(1, (0, ""))
    engine.lag_s = 60.0
    start = engine.start

    def hidden(slot: int, command: Sequence[str], log: Path) -> Job:
        job = start(slot, command, log)
        cell.path.rename(cell.path.with_suffix(".unseen"))
        return job

    engine.start = hidden  # type: ignore[method-assign]
    looks = 0

    def watch(running: Sequence[Cell], all_cells: Sequence[Cell]) -> None:
        nonlocal looks
        looks += 1
        if looks == 5:
            assert cell.status is None
            cell.path.with_suffix(".unseen").rename(cell.path)

    assert scheduler.run([cell], engine, 0, watch)
    assert cell.status == "done"


# ---- an engine that does not take every command

FULL = Refused("job submit limit", away=False)
AWAY = Refused("unable to contact the controller", away=True)


class Slow(Scripted):
    """Runs a command until it has been asked about it some times."""

    def start(self, slot: int, command: Sequence[str], log: Path) -> Job:
        job = super().start(slot, command, log)
        assert isinstance(job, ScriptedJob)
        job.asked_before = 3
        return job


def test_a_refused_command_waits_and_nothing_that_runs_is_stopped(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "AGAIN_S", 0.05)
    todo = cells(request(tiny, tmp_path, "zero_shot", "finetune"))
    engine = Slow(9, (0, ""), (0, ""), FULL, FULL, AWAY, (0, ""), FULL, (0, ""))
    told: list[str] = []
    assert scheduler.run(todo, engine, 0, lambda running, all_cells: None, told.append)
    assert [cell.status for cell in todo] == ["done"] * 4
    assert [cell.attempts for cell in todo] == [1] * 4
    assert not engine.endings
    (line,) = told
    assert "2 jobs keep running" in line


def test_no_more_is_handed_in_than_an_engine_took(tiny: Tiny, tmp_path: Path) -> None:
    """After a refusal a command follows where one has ended; another try beyond that waits a minute."""
    todo = cells(request(tiny, tmp_path, "zero_shot", "finetune"))
    engine = Slow(9, (0, ""), FULL, (0, ""), (0, ""), (0, ""))
    assert go(todo, engine, 0)
    assert engine.most == 1
    assert {cell.status for cell in todo} == {"done"}


def test_a_retry_that_is_refused_is_tried_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "AGAIN_S", 0.01)
    (cell,) = cells(request(tiny, tmp_path, seeds=[1]))
    assert go([cell], Scripted(1, (-9, ""), AWAY, FULL, (0, "")), retries=1)
    assert (cell.status, cell.attempts) == ("done", 2)


def test_what_was_never_taken_is_an_error_at_once(tiny: Tiny, tmp_path: Path) -> None:
    todo = cells(request(tiny, tmp_path))
    with pytest.raises(Refused, match="job submit limit"):
        go(todo, Scripted(1, FULL))


def test_a_cluster_that_does_not_answer_is_waited_for_a_while(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "AGAIN_S", 0.01)
    (cell,) = cells(request(tiny, tmp_path, seeds=[1]))
    assert go([cell], Scripted(1, AWAY, AWAY, (0, "")))
    assert cell.status == "done"
    monkeypatch.setattr(scheduler, "UNANSWERED_S", 0.05)
    (cell,) = cells(request(tiny, tmp_path, seeds=[2]))
    with pytest.raises(Refused, match="unable to contact"):
        go([cell], Scripted(1, *[AWAY] * 1000))


def test_ctrl_c_stops_what_runs_and_starts_nothing_more(tiny: Tiny, tmp_path: Path) -> None:
    todo = cells(request(tiny, tmp_path))
    engine = Endless(1)

    def interrupt(running: Sequence[Cell], all_cells: Sequence[Cell]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    assert not scheduler.run(todo, engine, 1, interrupt)
    assert [cell.status for cell in todo] == ["stopped", "stopped"]
    assert [cell.reason for cell in todo] == ["run the same command to continue it", "not started"]


def test_ctrl_c_while_a_command_is_handed_in_is_no_refusal(tiny: Tiny, tmp_path: Path) -> None:
    """A terminal's Ctrl-C ends ``sbatch``, too."""
    todo = cells(request(tiny, tmp_path))
    engine = Scripted(2)

    def interrupted(slot: int, command: Sequence[str], log: Path) -> Job:
        os.kill(os.getpid(), signal.SIGINT)
        raise FULL

    engine.start = interrupted  # type: ignore[method-assign]
    assert not go(todo, engine)
    assert [cell.status for cell in todo] == ["stopped", "stopped"]


def test_impossible_cells_are_named_before_anything_starts(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = tmp_path / "without.yaml"
    without.write_text(yaml.safe_dump(PROTOCOL | {"memory": None, "name": "without"}), encoding="utf-8")
    arguments = grid_arguments(tiny, tmp_path / "results", "zero_shot,icarl")
    arguments[2] = str(without)
    assert tiny.main(*arguments) == 2
    error = capsys.readouterr().err
    assert "icarl on" in error
    assert "protocol.memory.per_class" in error
    assert "--skip-impossible" in error
    assert not (tmp_path / "results/without").exists()
    engine = Scripted(1, (0, ""), (0, ""))
    monkeypatch.setattr(LocalEngine, "start", lambda _, *given: engine.start(*given))
    assert tiny.main(*arguments, "--skip-impossible") == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in shown[2:5]] == ["done", "done", "impossible"]
    assert shown[6].startswith("impossible: icarl on")


def test_a_grid_of_impossible_runs_has_not_succeeded(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*grid_arguments(tiny, tmp_path), "--seeds", "77", "--skip-impossible"]
    assert tiny.main(*arguments) == 2
    printed = capsys.readouterr()
    assert "impossible: zero_shot on" in printed.out
    assert "nothing was run" in printed.err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"roots": {}}, "--data folder=ROOT"),
        ({"seeds": [7]}, "no seed 7"),
        ({"assignments": ["tempate=x"]}, "did you mean 'template'"),
        ({"roots": {"folder": Path("/nowhere")}}, "no folder '/nowhere'"),
    ],
)
def test_what_a_run_would_refuse_is_refused_by_the_grid(
    tiny: Tiny, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    (cell,) = cells(request(tiny, tmp_path, **changes))
    assert cell.status == "impossible"
    assert says in cell.reason


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--data", "fodler=/x"], "did you mean 'folder'"),
        (["--data", "/x"], "NAME=ROOT"),
        (["--seeds", "1,x"], "--seeds 'x'"),
        (["--jobs", "0"], "--jobs 0"),
        (["--retries", "-1"], "--retries -1"),
        (["--gpus", "77"], "no GPU '77'"),
        (["--slurm", "partition=gpu"], "--engine slurm"),
        (["--engine", "submitit-local", "--slurm", "tiem=3"], "slurm_tiem"),
    ],
)
def test_slips_are_answered_in_one_line(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    if "submitit-local" in more:
        pytest.importorskip("submitit")
    assert tiny.main(*grid_arguments(tiny, tmp_path), *more) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert says in error


def test_unknown_names_are_refused_whatever_else_is_possible(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'zero_shot'"):
        cells(request(tiny, tmp_path, "zero_shto"))
    with pytest.raises(UserError, match="unknown protocol"):
        cells(request(tiny, tmp_path, protocols=["tcd_ucf101"]))


def test_stale_records_are_refused_or_run_anew(tiny: Tiny, tmp_path: Path) -> None:
    accident = method(tmp_path, "changing", "pass")
    assert tiny.run(accident, tmp_path / "results") == 0
    asked = request(tiny, tmp_path / "results", str(accident), seeds=[1])
    assert [cell.status for cell in cells(asked)] == ["skipped"]
    accident.write_text(accident.read_text(encoding="utf-8") + "CHANGED = True\n", encoding="utf-8")
    (cell,) = cells(asked)
    assert cell.status == "impossible"
    assert f"{accident.name} changed; --rerun-stale moves it aside" in cell.reason
    (cell,) = cells(request(tiny, tmp_path / "results", str(accident), seeds=[1], rerun_stale=True))
    assert (cell.status, cell.stale) == (None, True)


def test_a_run_that_was_cut_off_under_older_code_is_refused_or_run_anew(tiny: Tiny, tmp_path: Path) -> None:
    file = method(tmp_path, "changing", "pass")
    assert tiny.run(file, tmp_path / "results", "--set", "max_tasks=1") == 0
    asked = request(tiny, tmp_path / "results", str(file), seeds=[1])
    assert [cell.status for cell in cells(asked)] == [None]
    file.write_text(file.read_text(encoding="utf-8") + "CHANGED = True\n", encoding="utf-8")
    (cell,) = cells(asked)
    assert cell.status == "impossible"
    assert f"{file.name} changed; --rerun-stale moves it aside" in cell.reason
    (cell,) = cells(request(tiny, tmp_path / "results", str(file), seeds=[1], rerun_stale=True))
    assert records.checkpoint_path(cell.path).exists()
    go([cell], Scripted(1, (0, "")))
    assert cell.status == "done"
    assert not records.checkpoint_path(cell.path).exists()


def test_the_reason_of_an_earlier_failure_is_not_taken_for_that_of_the_last(tiny: Tiny, tmp_path: Path) -> None:
    (cell,) = cells(request(tiny, tmp_path, seeds=[1]))
    records.save(cell.path, record_data(status="failed", reason="TrainingError: of last week"))
    go([cell], Scripted(1, (1, "no space left")), retries=0)
    assert (cell.status, cell.reason) == ("failed", "no space left")


def test_gpus_are_those_that_the_environment_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus("all") == ["0", "1"]
    assert visible_gpus("1") == ["1"]
    assert visible_gpus("none") == []
    with pytest.raises(EngineError, match="no GPU '2'"):
        visible_gpus("0,2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert visible_gpus("all") == ["5", "7"]
    assert LocalEngine(visible_gpus("all"), 3).slots == 6


def test_every_slot_has_its_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = LocalEngine(["5", "7"], 1)
    show = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], *sys.argv[1:])"
    jobs = [engine.start(slot, [sys.executable, "-c", show], tmp_path / f"{slot}.log") for slot in (0, 1)]
    while any(job.poll() is None for job in jobs):
        time.sleep(0.01)
    logs = [(tmp_path / f"{slot}.log").read_text(encoding="utf-8").splitlines() for slot in (0, 1)]
    assert [log[1:] for log in logs] == [["5 --device cuda"], ["7 --device cuda"]]
    assert all(log[0].startswith(f"$ {sys.executable} -c ") for log in logs)


@pytest.mark.parametrize(("gpus", "jobs", "shares"), [(["5", "7"], 1, 2), (["5"], 3, 3), ([], 4, 4), ([], 1, 1)])
def test_runs_side_by_side_share_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: list[str], jobs: int, shares: int
) -> None:
    monkeypatch.setattr("vcil_bench.grid.launchers.allowed", lambda: 12)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    show = "import os; print(os.environ['VCIL_BENCH_SHARES'], os.environ.get('OMP_NUM_THREADS'))"
    job = LocalEngine(gpus, jobs).start(0, [sys.executable, "-c", show], tmp_path / "log")
    while job.poll() is None:
        time.sleep(0.01)
    threads = 12 // shares if shares > 1 else None
    assert (tmp_path / "log").read_text(encoding="utf-8").splitlines()[1] == f"{shares} {threads}"


def test_runs_share_a_machine_with_no_more_than_there_are(tiny: Tiny, tmp_path: Path) -> None:
    (cell,) = cells(request(tiny, tmp_path, seeds=[1]))
    engine = Scripted(8, (0, ""))
    go([cell], engine)
    assert engine.slots == 1


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="--engine slurm"):
        SubmititEngine("slurm", tmp_path, {"partition": "gpu"}, 1)


def test_lines_tell_what_ended_and_what_is_left(tiny: Tiny, tmp_path: Path) -> None:
    todo = cells(request(tiny, tmp_path))
    lines: list[str] = []
    with View(lines.append) as view:
        scheduler.run(todo, Scripted(1, (0, ""), (2, "vcil-bench: error: no")), 0, view.watch)
    assert [line.split(":")[0] for line in lines] == [
        f"[1/2] zero_shot on {tiny.protocol}, seed 1",
        f"[2/2] zero_shot on {tiny.protocol}, seed 2",
    ]
    assert "left" in lines[0]
    assert "failed" in lines[1]
    assert lines[1].endswith("no")


# ---- with real runs


@pytest.mark.slow
def test_runs_are_made_once(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*grid_arguments(tiny, tmp_path), "--jobs", "2"]
    assert tiny.main(*arguments) == 0
    records = sorted(tmp_path.glob("tiny_2x1/zero_shot/*.json"))
    assert [path.stem[-3:] for path in records] == ["-s1", "-s2"]
    assert all("record:" in path.with_suffix(".log").read_text(encoding="utf-8") for path in records)
    capsys.readouterr()
    logs = {path: path.read_bytes() for path in tmp_path.rglob("*.log")}
    assert len(logs) == 2
    assert tiny.main(*arguments) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.log")} == logs  # no process was started
    assert capsys.readouterr().out.count("skipped") == 2


@pytest.mark.slow
def test_a_killed_run_is_resumed(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accident = method(tmp_path, "killed", "os.kill(os.getpid(), signal.SIGKILL)")
    assert tiny.main(*grid_arguments(tiny, tmp_path / "results", accident), "--seeds", "1") == 0
    assert "done (2 attempts)" in capsys.readouterr().out
    (log,) = (tmp_path / "results").glob("*/killed/*.log")
    assert "resuming after task 1 of 3" in log.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_grid_leaves_nothing_running_and_goes_on(
    tiny: Tiny, tmp_path: Path, sent: signal.Signals
) -> None:
    accident = method(tmp_path, "slow", "time.sleep(60)")
    arguments = [*grid_arguments(tiny, tmp_path / "results", accident), "--seeds", "1"]
    command = [sys.executable, "-m", "vcil_bench", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "slow.once").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(sent)
        assert "stopped" in process.communicate(timeout=30)[0]
    assert process.returncode == 130
    (log,) = (tmp_path / "results").glob("*/slow/*.log")
    assert "run the same command to continue after task 1" in log.read_text(encoding="utf-8")
    assert not children(str(accident))
    assert tiny.main(*arguments) == 0
    assert "resuming after task 1 of 3" in log.read_text(encoding="utf-8")


@pytest.mark.slow
def test_submitit_runs_and_resumes_cells_too(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    accident = method(tmp_path, "killed", "os.kill(os.getpid(), signal.SIGKILL)")
    arguments = [*grid_arguments(tiny, tmp_path / "results", accident), "--seeds", "1"]
    assert tiny.main(*arguments, "--engine", "submitit-local", "--slurm", "timeout_min=5") == 0
    assert "done (2 attempts)" in capsys.readouterr().out
    (log,) = (tmp_path / "results").glob("*/killed/*.log")
    assert "resuming after task 1 of 3" in log.read_text(encoding="utf-8")
    assert list((tmp_path / "results/submitit").glob("*_submitted.pkl"))


SLURM = {
    "sbatch": """
        export SLURM_JOB_ID=$((1000 + RANDOM)) SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1
        export SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
        bash "${@: -1}" > /dev/null 2>&1 &
        echo "Submitted batch job $SLURM_JOB_ID"
    """,
    "srun": """
        while [[ $1 == --* ]]; do [[ $1 == --unbuffered ]] && shift || shift 2; done
        exec "$@"
    """,
    "sacct": "echo 'JobID|State|NodeList'",
    "scancel": "",
}


@pytest.mark.slow
def test_a_grid_over_slurm(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm's commands are played by scripts that run the job at once; submitit and all else is real."""
    pytest.importorskip("submitit")
    for name, script in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    accident = method(tmp_path, "killed", "os.kill(os.getpid(), signal.SIGKILL)")
    arguments = [*grid_arguments(tiny, tmp_path / "results", accident), "--seeds", "1", "--engine", "slurm"]
    assert tiny.main(*arguments, "--slurm", "partition=big", "gpus_per_node=0", "cpus_per_task=2") == 0
    assert "done (2 attempts)" in capsys.readouterr().out
    submitted = (tmp_path / "results/submitit").glob("*_submission.sh")
    batches = [path.read_text(encoding="utf-8") for path in submitted]
    assert len(batches) == 2
    for flag in ("--partition=big", "--time=1440", "--cpus-per-task=2"):
        assert f"#SBATCH {flag}\n" in batches[0]


def children(word: str) -> list[str]:
    """Return the processes of this machine whose command holds a word."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if word in line and str(os.getpid()) not in line.split()[0]]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_passes_its_variables_on() -> None:
    words = ["METHODS=a,b", "PROTOCOLS=p,q", "SEED=1", "DATA=x=/1 y=/2", "SET=lr=1", "JOBS=2"]
    root = Path(__file__).parents[2]
    shown = subprocess.run(["make", "-n", "grid", *words], cwd=root, capture_output=True, text=True, check=True)
    line = " ".join(shown.stdout.replace("\\", "").split())
    assert "grid 'a,b' 'p,q' --seeds '1' --data x=/1 y=/2 --set lr=1 --jobs '2'" in line


def test_a_signal_without_a_name_ends_no_grid() -> None:
    assert "35" in scheduler._reason(-35, "")


def test_the_table_has_the_headline_metric_of_what_is_done(tiny: Tiny, tmp_path: Path) -> None:
    done, partial, impossible = cells(request(tiny, tmp_path, seeds=[1, 2, 7]))
    records.save(done.path, record_data())
    done.status = "skipped"
    records.save(partial.path, record_data(status="partial", correct=[[4]]))
    partial.status = "done"
    head, _, *lines = table([done, partial, impossible]).splitlines()
    metric = METRICS["average_incremental_accuracy"].title
    assert head.rstrip().endswith(f"{metric}, %")
    assert lines[0].split()[-1] == "75.00"  # 4 of 4, then 3 of 6
    assert lines[1].split()[-1] == "done"
    assert impossible.status == "impossible"


def test_variants_are_told_apart_where_there_are_several(tiny: Tiny, tmp_path: Path) -> None:
    asked = request(tiny, tmp_path, assignments=["backbone=clip_tiny", "template='{}','a {}'"], seeds=[1])
    one, two = cells(asked)
    assert one.path != two.path
    assert one.name != two.name
    assert "variant" in table([one, two]).splitlines()[0]
    same = request(tiny, tmp_path, assignments=["backbone=clip_tiny", "workers=0,1"], seeds=[1])
    assert len(cells(same)) == 1  # one file, and so one run


def test_what_is_no_record_counts_no_tasks(tiny: Tiny, tmp_path: Path) -> None:
    cell = cells(request(tiny, tmp_path))[0]
    cell.path.parent.mkdir(parents=True)
    for text in ("[]", '{"steps": 5}', "{", ""):
        cell.path.write_text(text, encoding="utf-8")
        assert cell.tasks_done() == 0
