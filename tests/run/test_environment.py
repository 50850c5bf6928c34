"""What a record says of the machine, and what is said where a run continues on another or memory runs out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils import collect_env

from vcil_bench.options import RunOptions
from vcil_bench.run import environment, out_of_memory


def test_the_environment_of_a_gpu_names_its_memory_driver_and_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(total_memory=141 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    smi = "| NVIDIA-SMI 580.65.06     Driver Version: 580.65.06   CUDA Version: 13.0 |"
    monkeypatch.setattr(collect_env, "run", lambda command: (0, smi, ""))
    found = environment.environment(torch.device("cuda"), RunOptions(), 1)
    assert (found["device"], found["device_type"]) == ("a GPU", "cuda")
    assert found["device_memory_mb"] == 141 * 1024
    assert found["driver"] == "580.65.06"
    assert found["cudnn"] == 91002
    assert "driver" not in environment.environment(torch.device("cpu"), RunOptions(), 1)


def test_a_run_that_continues_on_another_device_says_so(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["epochs=1", "epochs_first=1"]
    for device, stop in (("one device", 1), ("another device", 2)):
        monkeypatch.setattr(environment, "_processor", lambda device=device: device)
        assert tiny.run("finetune", tmp_path, "--set", *quick, f"max_tasks={stop}") == 0
        said = "".join(capsys.readouterr())
        assert ("one device" in said and "another device" in said) == (device == "another device")
    (path,) = tmp_path.glob("*/*/*-s1.json")
    sessions = json.loads(path.read_text())["sessions"]
    assert [s["environment"]["device"] for s in sessions] == ["one device", "another device"]
    assert environment.other_device([*sessions, sessions[-1]]) is None
    assert environment.other_device(sessions[:1]) is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_memory_that_ran_out_is_told_with_what_helps(error: Exception) -> None:
    whole, chunks = (out_of_memory.advice(error, chunks=given) for given in (False, True))
    assert whole is not None
    assert chunks is not None
    assert "micro_batch" in chunks
    assert "micro_batch" not in whole, "what would be refused is no advice"
    for text in (whole, chunks):
        assert "PYTORCH_ALLOC_CONF=expandable_segments:True" in text


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: an illegal memory access"), ValueError("CUDNN")])
def test_other_errors_get_no_advice_on_memory(error: Exception) -> None:
    assert out_of_memory.advice(error, chunks=True) is None
