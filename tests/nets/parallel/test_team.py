"""Several processes on one run: they end in the counts of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from double_precision import check_equal_trainings
from small_runs import ENTRIES, method_class
from small_runs import quick as quick_values

from vcil_bench import record

ROOT = Path(__file__).parents[3]
IN_FLOAT64 = ROOT / "tests/helpers/double_precision.py"
SPLIT = sorted(name for name in ENTRIES if method_class(name).splits_batches)


def _arguments(tiny: Any, method: str, folder: Path, backbone: str) -> list[str]:
    values = quick_values(method_class(method))
    if "batch_size" in values:
        values["batch_size"] = 5  # 3 and 2 clips a process
    if method == "bic":  # or it would have no video for its correction
        values |= {"protocol.memory.per_class": 2, "held_out": 0.5}
    sets = [f"{k}={json.dumps(v)}" for k, v in values.items() if k != "template"]
    arguments = [a.replace("clip_tiny", backbone) for a in tiny.arguments(folder)]
    return ["run", method, str(tiny.protocol), *arguments, "--seed", "1", "--set", "threads=1", *sets]


def _check_equal(one: Path, two: Path) -> None:
    first, second = (record.load(next(folder.glob("*/*/*-s1.json"))).data for folder in (one, two))
    assert second["environment"]["processes"] == 2
    if second["method"]["name"] == "bic":
        assert "task 2 bias" in {loss["phase"] for loss in second["steps"][1]["losses"]}
    check_equal_trainings(first["steps"], second["steps"])


@pytest.mark.training
def test_two_processes_give_the_counts_of_one(float64: None, tiny: Any, tmp_path: Path) -> None:
    one, two = ([*_arguments(tiny, "finetune", tmp_path / name, "clip_tiny")] for name in ("one", "two"))
    assert tiny.main(*one) == 0
    with forked.team(lambda rank: int(tiny.main(*two)), tmp_path) as both:
        assert [process.wait() for process in both] == [0, 0], both[0].text() + both[1].text()
    _check_equal(tmp_path / "one", tmp_path / "two")


def _check_torchrun(tiny: Any, method: str, tmp_path: Path, backbone: str = "clip_tiny") -> None:
    """Assert that torchrun's two processes end in the counts of one."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, launch in (("one", []), ("two", launcher)):
        arguments = _arguments(tiny, method, tmp_path / name, backbone)
        command = [sys.executable, *launch, str(IN_FLOAT64), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        assert done.returncode == 0, done.stderr
    _check_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("method", SPLIT)
def test_torchrun_gives_the_counts_of_one_process(method: str, tiny: Any, tmp_path: Path) -> None:
    _check_torchrun(tiny, method, tmp_path)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("method", ["tcd", "icarl", "ewc", "bic", "acil"])
def test_a_batch_norm_in_training_sees_the_batch_of_all_processes(
    method: str, tiny: Any, tmp_path: Path
) -> None:
    _check_torchrun(tiny, method, tmp_path, "tsm_tiny")


def test_a_method_that_cannot_share_batches_says_so(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert tiny.run("lwm", tmp_path) == 2
    assert "differentiates by feature maps" in capsys.readouterr().err
