"""What a grid takes: by records, or by a trial extrapolated by videos; and what a dry run says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_scheduler import grid_arguments
from tiny_dataset import Tiny

from vcil_bench.grid import trial
from vcil_bench.grid.estimate import Device, Estimate, exemplars, from_records, from_trial, needs
from vcil_bench.grid.experiments import Experiment
from vcil_bench.grid.scheduler import Cell
from vcil_bench.record import Record
from vcil_bench.run.plan import Plan, make_plan
from vcil_bench.run.time_left import Work

HERE = Device("this processor", "cpu")


def plan_of(tiny: Tiny, results: Path, method: str = "zero_shot", **values: Any) -> Plan:
    given = {"backbone": "clip_tiny", **values}
    return make_plan(method, str(tiny.protocol), seed=None, assignments=given, results=results, device="cpu")


def record_of(plan: Plan, device: str, seconds: float, **changes: Any) -> Record:
    """Make up a finished run of a plan, as far as an estimate reads it."""
    costs = {"train_s": seconds, "eval_s": 0.5, "state_bytes": 100, "trainable": 10}
    data: dict[str, Any] = {
        "status": "complete",
        "method": {"name": plan.method.name},
        "protocol": {"fingerprint": plan.protocol.fingerprint},
        "weights": {"name": plan.backbone.name},
        "options": {"precision": {"value": plan.options.precision}},
        "variant": plan.variant,
        "environment": {"device": device, "device_type": "cpu"},
        "steps": [{"costs": costs}, {"costs": costs}],
    }
    return Record(Path("/nowhere"), data | changes)  # type: ignore[arg-type]


def test_records_of_the_run_on_this_device_come_first(tiny: Tiny, tmp_path: Path) -> None:
    plan = plan_of(tiny, tmp_path)
    there = record_of(plan, "another processor", 100.0)
    variant = record_of(plan, HERE.name, 20.0, variant="template=x")
    own = [record_of(plan, HERE.name, 10.0), record_of(plan, HERE.name, 12.0)]
    every = [there, variant, *own]
    assert from_records(plan, every, HERE) == Estimate(23.0, "records of it on this processor", 280)
    of_variant = from_records(plan, [there, variant], HERE)
    assert of_variant is not None
    assert (of_variant.seconds, of_variant.basis) == (
        41.0,
        "records of its variant template=x on this processor",
    )
    elsewhere = from_records(plan, [there], HERE)
    assert elsewhere is not None
    assert elsewhere.basis == "records of it on another processor, not on this device"


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "partial"},
        {"method": {"name": "joint"}},
        {"protocol": {"fingerprint": "0"}},
        {"weights": {"name": "clip_vit_b16"}},
        {"options": {"precision": {"value": "bf16"}}},
        {"environment": {"device": HERE.name, "device_type": "cuda"}},
    ],
)
def test_records_of_something_else_tell_nothing(tiny: Tiny, tmp_path: Path, changes: dict[str, Any]) -> None:
    plan = plan_of(tiny, tmp_path)
    assert from_records(plan, [record_of(plan, HERE.name, 1.0, **changes)], HERE) is None


def test_a_trial_goes_before_records_which_tell_of_the_disk(tiny: Tiny, tmp_path: Path) -> None:
    plan, experiment = plan_of(tiny, tmp_path), Experiment("zero_shot", str(tiny.protocol))
    measured = {experiment: Estimate(5.0, "a trial")}
    cells = [Cell(experiment, seed, plan) for seed in (1, 2)]
    (need,) = needs(cells, [record_of(plan, HERE.name, 1.0)], HERE, measured)
    assert need.estimate == Estimate(5.0, "a trial", 280)
    assert need.todo == 2


def test_later_tasks_count_by_videos_exemplars_and_epochs(tiny: Tiny, tmp_path: Path) -> None:
    work = [Work(60, 40), Work(30, 60), Work(30, 80)]
    without = from_trial(120.0, 0.5, work, plan_of(tiny, tmp_path, "finetune", epochs=5, epochs_first=10), "x")
    assert without.seconds == pytest.approx(120 + 2 * (120 * 30 / 60 * 5 / 10) + 0.5 * (40 + 60 + 80))
    replay = from_trial(120.0, 0.0, work, plan_of(tiny, tmp_path, "replay", epochs=10, epochs_first=10), "x")
    assert replay.seconds == pytest.approx(120 + 2 * (30 + 2) + 2 * (30 + 3))  # an exemplar of each class


def test_exemplars_are_the_budget_when_all_is_learnt(tiny: Tiny, tmp_path: Path) -> None:
    kept = exemplars(plan_of(tiny, tmp_path, "replay"))
    assert kept is not None
    assert (kept.videos, kept.frames, kept.bytes) == (4, 16, 16 * 3 * 64 * 64)
    assert exemplars(plan_of(tiny, tmp_path, "finetune")) is None


def test_a_dry_run_says_what_would_be_run_and_runs_nothing(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = grid_arguments(tiny, tmp_path / "results", "replay,finetune")
    assert tiny.main(*arguments, "lr=0.1,0.2", "--dry-run") == 0
    shown = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["replay", "replay", "finetune", "finetune"]
    assert {row[3] for row in rows} == {"2"}
    assert rows[0][4].startswith("4 videos")
    assert any(line.startswith("8 runs to do") for line in shown)
    assert not list(tmp_path.rglob("*.json"))
    assert not list(tmp_path.rglob("*.log"))
    arguments[arguments.index("--data") : arguments.index("--results")] = []
    assert tiny.main(*arguments, "--dry-run") == 0  # without data, too, which it names
    assert "--data folder=ROOT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--trial"], "--dry-run"),
        (["--dry-run", "--trial", "--engine", "slurm"], "without --engine"),
        (["--dry-run", "lr=1,,2"], "is empty"),
        (["--dry-run", "--table", "stpr_component"], "did you mean 'stpr_components'"),
    ],
)
def test_slips_are_one_line(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    arguments = grid_arguments(tiny, tmp_path)
    if "lr=1,,2" in more:
        arguments += ["--set", *more[1:]]
        more = more[:1]
    assert tiny.main(*arguments, *more) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert says in error
    assert tiny.main("grid", "--dry-run") == 2
    assert "--table ID" in capsys.readouterr().err


class TestStopwatch:
    """The trial's progress breaks a run off when it has measured enough."""

    def test_after_some_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watch, now = self.watch(monkeypatch)
        bar = watch.add_task("task 1", total=1000)
        for step in range(trial.WARM + trial.STEPS - 1):
            now[0] += 10.0 if step < trial.WARM else 0.5
            watch.advance(bar)
        now[0] += 0.5
        with pytest.raises(trial.Enough):
            watch.advance(bar)
        assert watch.found == {"step_s": 0.5, "base_s": 500.0}

    def test_in_the_tests_of_a_task_that_trains_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watch, now = self.watch(monkeypatch)
        bar = watch.add_task("task 1", total=2)
        now[0] = 7.0
        watch.advance(bar)
        testing = watch.add_task(trial.TESTING, total=100)
        for _ in range(trial.TEST_BATCHES - 1):
            now[0] += 2.0
            watch.advance(testing, 10)
        now[0] += 2.0
        with pytest.raises(trial.Enough):
            watch.advance(testing, 10)
        assert watch.found == {"base_s": 6.0, "test_s": 0.2}

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> tuple[trial.Stopwatch, list[float]]:
        import torch

        now = [0.0]
        monkeypatch.setattr(trial.time, "perf_counter", lambda: now[0])
        watch = trial.Stopwatch(torch.device("cpu"))
        preparing = watch.add_task("rendering", total=5)
        for _ in range(100):  # what comes before the first task counts nothing
            watch.advance(preparing)
        outer = watch.add_task("starting", total=3, outer=True)
        now[0] = 1.0
        watch.update(outer, description="seed 1, task 1/3")
        return watch, now


@pytest.mark.slow
def test_a_trial_of_a_real_run(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*grid_arguments(tiny, tmp_path / "results", "finetune"), "batch_size=1", "epochs_first=20"]
    assert tiny.main(*arguments, "--dry-run", "--trial") == 0
    assert f"a trial of {trial.STEPS} steps" in capsys.readouterr().out
    arguments[1] = "simplecil"
    assert (
        tiny.main(*[a for a in arguments if not a.startswith(("batch_", "epochs_"))], "--dry-run", "--trial")
        == 0
    )
    assert "a trial of its first task" in capsys.readouterr().out
    assert not list((tmp_path / "results").rglob("*.json"))
