"""Runs cut off inside a task: they end in what an undisturbed run ends in, or are refused with the reason."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from small_runs import ENTRIES, method_class
from small_runs import quick as quick_values

from vcil_bench import record
from vcil_bench.training import checkpoint
from vcil_bench.training.resume import PhaseSaver

ROOT = Path(__file__).parents[2]
EVERY_STEP = "checkpoint_minutes=0"
QUICK = ["epochs=2", "epochs_first=2", "batch_size=4"]


def _arguments(method: str) -> list[str]:
    values = quick_values(method_class(method), epochs=2, batch_size=3)
    return ["--set", EVERY_STEP, *(f"{k}={json.dumps(v)}" for k, v in values.items() if k != "template")]


def _outcome(folder: Path) -> tuple[Any, bytes]:
    """Return counts and losses of every step, and the predictions."""
    (path,) = folder.glob("*/*/*-s1.json")
    found = record.load(path)
    assert found.complete
    flops = [(s["costs"]["train_flops"], s["costs"]["test_clip_flops"]) for s in found.data["steps"]]
    return [(s["correct"], s["losses"]) for s in found.data["steps"]] + flops, path.with_suffix(
        ".npz"
    ).read_bytes()


class _CutOff:
    """Counts the moments at which states are saved, and ends the run after one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.last = -1
        original = PhaseSaver.maybe_save

        def maybe_save(saver: PhaseSaver, *arguments: Any, **more: Any) -> None:
            original(saver, *arguments, **more)
            self.calls += 1
            if self.calls == self.last:
                raise KeyboardInterrupt

        patch.setattr(PhaseSaver, "maybe_save", maybe_save)


TRAINED = sorted(name for name in ENTRIES if name != "zero_shot")
TELLING = ("stpr",)  # state of its own, two phases and gradients that pile up


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=() if m in TELLING else pytest.mark.slow) for m in TRAINED]
)
def test_every_method_cut_off_inside_tasks_ends_in_the_same(
    method: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _arguments(method)
    cut = _CutOff(monkeypatch)
    assert tiny.run(method, tmp_path / "whole", *arguments) == 0
    moments = cut.calls
    assert moments > 6
    for _ in range(4):
        cut.calls, cut.last = 0, moments // 5
        assert tiny.run(method, tmp_path / "cut", *arguments) == 130
    cut.last = -1
    assert tiny.run(method, tmp_path / "cut", *arguments) == 0
    assert _outcome(tmp_path / "cut") == _outcome(tmp_path / "whole")
    assert not list((tmp_path / "cut").rglob("*.safetensors"))


def _leave_inside_a_task(tiny: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int = 3) -> Path:
    """Stop a run in the middle of its first task, and return the state it left."""
    with monkeypatch.context() as patch:
        _CutOff(patch).last = after
        assert tiny.run("finetune", folder, "--set", EVERY_STEP, *QUICK) == 130
    (path,) = folder.glob("*/finetune/*.phase-1.safetensors")
    return path


def test_a_resumed_run_says_where_its_phase_continues(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _leave_inside_a_task(tiny, tmp_path, monkeypatch)
    capsys.readouterr()
    assert tiny.run("finetune", tmp_path, "--set", EVERY_STEP, *QUICK) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "phase" in line]
    assert lines == ["seed 1: phase 'task 1': continuing at epoch 2, step 2"]


def test_a_damaged_state_is_named_and_kept(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _leave_inside_a_task(tiny, tmp_path, monkeypatch)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # one bit of one weight
    path.write_bytes(content)
    assert tiny.run("finetune", tmp_path, "--set", EVERY_STEP, *QUICK) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert path.name in line
    assert "damaged checkpoint" in line
    assert path.read_bytes() == content
    assert tiny.run("finetune", tmp_path, "--force", "--set", EVERY_STEP, *QUICK) == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"class_order": "other"}, "class order"),
        ({"vcil_bench.training": "x", "torch_version": "y"}, "torch version, vcil_bench.training"),
    ],
)
def test_a_state_of_another_run_is_refused_with_what_changed(
    change: dict[str, str],
    named: str,
    tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _leave_inside_a_task(tiny, tmp_path, monkeypatch)
    tensors, meta = checkpoint.read(path)
    meta["identity"] |= change
    checkpoint.write(path, tensors, meta)
    assert tiny.run("finetune", tmp_path, "--set", EVERY_STEP, *QUICK) == 2
    assert f"another {named};" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_and_loses_nothing(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run("finetune", tmp_path / "whole", "--set", EVERY_STEP, *QUICK) == 0
    path = _leave_inside_a_task(tiny, tmp_path / "cut", monkeypatch)
    before = path.read_bytes()

    def full(tensors: Any, target: Path, metadata: Any) -> None:
        target.write_bytes(b"half of it")
        raise SafetensorError("No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        assert tiny.run("finetune", tmp_path / "cut", "--set", EVERY_STEP, *QUICK) == 2
    assert "No space left" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert [p for p in path.parent.iterdir() if p.name.startswith(".")] == []
    assert tiny.run("finetune", tmp_path / "cut", "--set", EVERY_STEP, *QUICK) == 0
    assert _outcome(tmp_path / "cut") == _outcome(tmp_path / "whole")


def test_seconds_of_sessions_that_died_are_counted(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _leave_inside_a_task(tiny, tmp_path, monkeypatch)
    tensors, meta = checkpoint.read(path)
    meta["trainer"]["train_s"], meta["trainer"]["waited_s"] = 1000.0, 500.0
    checkpoint.write(path, tensors, meta)
    assert tiny.run("finetune", tmp_path, "--set", EVERY_STEP, *QUICK) == 0
    (found,) = tmp_path.glob("*/finetune/*-s1.json")
    costs = [step["costs"] for step in record.load(found).data["steps"]]
    assert 1000 < costs[0]["train_s"] < 1100
    assert 500 < costs[0]["data_wait_s"] < 600
    assert costs[1]["train_s"] < 100


@pytest.mark.slow
def test_a_run_in_fp16_goes_on_with_its_scale_after_a_task(tiny: Any, tmp_path: Path) -> None:
    """A scale that began anew would skip other steps than in an undisturbed run."""
    sets = ["precision=fp16", "epochs=2", "epochs_first=4", "batch_size=2"]
    assert tiny.run("stpr", tmp_path / "whole", "--set", *sets) == 0
    assert tiny.run("stpr", tmp_path / "cut", "--set", *sets, "max_tasks=1") == 0
    assert tiny.run("stpr", tmp_path / "cut", "--set", *sets) == 0
    assert _outcome(tmp_path / "cut") == _outcome(tmp_path / "whole")


def test_states_of_one_kind_in_the_place_of_the_other_are_named(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _leave_inside_a_task(tiny, tmp_path, monkeypatch)
    name = path.name.replace(".phase-1.", ".ckpt.")
    path.rename(path.with_name(name))
    assert tiny.run("finetune", tmp_path, "--set", EVERY_STEP, *QUICK) == 2
    assert f"{name}: another kind of state" in capsys.readouterr().err


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tiny: Any, tmp_path: Path) -> None:
    moments = random.Random(0)
    settings = [EVERY_STEP, "epochs=60", "epochs_first=60", "batch_size=2"]
    command = [sys.executable, "-m", "vcil_bench", "run", "stpr", str(tiny.protocol), "--seed", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(folder: str) -> subprocess.Popen[bytes]:
        arguments = [*command, *tiny.arguments(tmp_path / folder), "--set", *settings]
        return subprocess.Popen(arguments, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment)

    assert start("whole").wait() == 0
    kills = inside = 0
    while kills < 20:
        latest, states = _latest(tmp_path / "cut"), moments.randint(1, 8)
        process = start("cut")
        deadline = time.monotonic() + 120
        while states and time.monotonic() < deadline:  # it has resumed and saved so many states
            assert process.poll() is None, "the run ended before it could be killed twenty times"
            before, latest = latest, _latest(tmp_path / "cut")
            states -= latest != before
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.02))  # anywhere in the step that follows
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills += 1
        inside += bool(list((tmp_path / "cut").glob("*/stpr/*.phase-*.safetensors")))
    assert inside > 10
    assert start("cut").wait() == 0
    assert _outcome(tmp_path / "cut") == _outcome(tmp_path / "whole")


def _latest(folder: Path) -> int:
    times = [0]
    for path in folder.rglob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # replaced or dropped meanwhile
            times.append(path.stat().st_mtime_ns)
    return max(times)


def test_a_state_holds_every_random_generator(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _leave_inside_a_task(tiny, tmp_path, monkeypatch)
    tensors, meta = checkpoint.read(path)
    assert {"rng/torch", "rng/numpy", "rng/python"} <= set(tensors)
    assert {"numpy", "python"} == set(meta["rng"])
    assert tensors["rng/torch"].dtype == torch.uint8
