"""Several processes on one run: they end in the counts of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from double_precision import check_equal_trainings
from small_runs import ENTRIES, method_class
from small_runs import quick as quick_values

from vcil_bench import record

ROOT = Path(__file__).parent.parent
IN_FLOAT64 = Path(__file__).parent / "double_precision.py"
SPLIT = sorted(name for name in ENTRIES if method_class(name).splits_batches)


def _run(
    tiny: Any, method: str, folder: Path, processes: int, backbone: str = "clip_tiny"
) -> subprocess.CompletedProcess[str]:
    values = quick_values(method_class(method))
    if "batch_size" in values:
        values["batch_size"] = 5  # 3 and 2 clips a process
    sets = [f"{k}={json.dumps(v)}" for k, v in values.items() if k != "template"]
    arguments = [a.replace("clip_tiny", backbone) for a in tiny.arguments(folder)]
    run = [str(IN_FLOAT64), "run", method, str(tiny.protocol), *arguments, "--seed", "1"]
    launch = []
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launch, *run, "--set", "threads=1", *sets]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def _check_two_equal_one(tiny: Any, method: str, tmp_path: Path, backbone: str = "clip_tiny") -> None:
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        done = _run(tiny, method, folder, processes, backbone)
        assert done.returncode == 0, done.stderr
        (path,) = folder.glob("*/*/*-s1.json")
        found[processes] = record.load(path)
    one, two = found[1].data, found[2].data
    assert two["environment"]["processes"] == 2
    check_equal_trainings(one["steps"], two["steps"])


@pytest.mark.training
def test_two_processes_give_the_counts_of_one(tiny: Any, tmp_path: Path) -> None:
    _check_two_equal_one(tiny, "stpr", tmp_path)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("method", [name for name in SPLIT if name != "stpr"])
def test_two_processes_give_the_counts_of_one_for_every_method(method: str, tiny: Any, tmp_path: Path) -> None:
    _check_two_equal_one(tiny, method, tmp_path)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("method", ["tcd", "icarl"])
def test_a_batch_norm_in_training_sees_the_batch_of_all_processes(
    method: str, tiny: Any, tmp_path: Path
) -> None:
    _check_two_equal_one(tiny, method, tmp_path, "tsm_tiny")


def test_a_method_that_cannot_share_batches_says_so(tiny: Any, tmp_path: Path) -> None:
    done = _run(tiny, "lwm", tmp_path, 2)
    assert done.returncode != 0
    assert "differentiates by feature maps" in done.stderr
