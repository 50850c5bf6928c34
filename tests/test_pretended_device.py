"""Every method on a pretended GPU: what a real one would refuse, and what would make it idle, fails here."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretended_device import CUDA, PretendedDevice, PretendedDeviceError, pretending
from rich.progress import Progress
from small_runs import ENTRIES, method_class, quick
from torch import Tensor

from vcil_bench import registry, runner, training
from vcil_bench.plan import make_plan


@pytest.fixture
def device() -> Iterator[PretendedDevice]:
    with pretending() as found:
        yield found


def one_step(device: PretendedDevice, act: Callable[[Tensor], Any]) -> None:
    """Do something with a tensor of the device inside a training step."""
    x = torch.ones(3, 4, device="cuda", requires_grad=True)
    for _ in device.steps([None]):
        act(x)


# The checker: what it must refuse, and that it names operation and line.

FORBIDDEN: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "truth": lambda x: bool(x.isfinite().all()),
    "tolist": lambda x: x.tolist(),
    "print": lambda x: repr(x),
    "to the host": lambda x: x.cpu(),
    "to the host in the middle of a graph": lambda x: x.to("cpu").sum().backward(),
    "from the host": lambda x: torch.zeros(3).to(x.device),
    "from the host, not pinned": lambda x: torch.zeros(3).to(x.device, non_blocking=True),
    "a list": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "copy_": lambda x: x.detach().copy_(torch.zeros(3, 4)),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "masked_select": lambda x: x.masked_select(x > 0),
    "mask": lambda x: x[x > 0],
    "mask of rows": lambda x: x[torch.ones(3, dtype=torch.bool, device=x.device)],
    "assignment of values by a mask": lambda x: x.detach().__setitem__(x > 0, torch.zeros(12, device=x.device)),
    "host indices": lambda x: x[torch.tensor([0, 1])],
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "repeats": lambda x: x.repeat_interleave(torch.ones(3, dtype=torch.long, device=x.device), dim=0),
}
MIXED: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x + torch.zeros(3, 4),
    "number of the device with a host tensor": lambda x: torch.zeros(3) * x.sum(),
    "cat": lambda x: torch.cat([x, torch.zeros(1, 4)]),
    "linear": lambda x: F.linear(x, torch.zeros(2, 4)),
    "bias": lambda x: F.linear(x, torch.zeros(2, 4, device="cuda"), torch.zeros(2)),
    "labels": lambda x: F.cross_entropy(x, torch.zeros(3, dtype=torch.long)),
    "module": lambda x: torch.nn.Linear(4, 2)(x),
    "factory": lambda x: x + torch.arange(4.0),
    "stack of numbers": lambda x: torch.stack([x.sum(), torch.tensor(0.0)]),
    "in place": lambda x: torch.zeros(3, 4).add_(x),
    "numpy": lambda x: x.detach().numpy(),
    "np.asarray": lambda x: np.asarray(x.detach()),
    "host generator": lambda x: torch.empty_like(x).normal_(generator=torch.Generator()),
    "host generator of a factory": lambda x: torch.rand(3, device=x.device, generator=torch.Generator()),
    "device generator": lambda x: torch.rand(3, generator=torch.Generator("cuda")),
    "host weights of an optimiser": lambda x: _sgd_step(torch.nn.Parameter(torch.zeros(3, 4)), x),
}


def _sgd_step(parameter: torch.nn.Parameter, gradient: Tensor) -> None:
    parameter.grad = gradient.detach()
    torch.optim.SGD([parameter], lr=0.1).step()


def _named(error: PretendedDeviceError, name: str) -> None:
    """Check that an error names this file and the line of the act."""
    assert error.file == __file__
    line = Path(__file__).read_text(encoding="utf-8").splitlines()[error.line - 1]
    assert f'"{name}"' in line or "SGD" in line


@pytest.mark.parametrize("name", FORBIDDEN)
def test_waiting_inside_a_step_is_refused(device: PretendedDevice, name: str) -> None:
    with pytest.raises(PretendedDeviceError, match="inside a training step") as error:
        one_step(device, FORBIDDEN[name])
    _named(error.value, name)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_waiting_elsewhere_is_counted(device: PretendedDevice, name: str) -> None:
    x = torch.ones(3, 4, device="cuda", requires_grad=True)
    FORBIDDEN[name](x)
    assert device.waits
    assert device.waits[-1].file == __file__


@pytest.mark.parametrize("name", MIXED)
def test_what_a_gpu_refuses_is_refused(device: PretendedDevice, name: str) -> None:
    with pytest.raises(PretendedDeviceError) as error:
        MIXED[name](torch.ones(3, 4, device="cuda", requires_grad=True))
    _named(error.value, name)


# Every method, run as a user runs it.

METHODS = [name for name, entry in ENTRIES.items() if entry.cls is not None]


@pytest.fixture
def gpu(device: PretendedDevice, monkeypatch: pytest.MonkeyPatch) -> PretendedDevice:
    """A pretended GPU that knows what a training step of the harness is: from a batch to the next."""
    batches = training.Epoch.__iter__
    monkeypatch.setattr(training.Epoch, "__iter__", lambda epoch: device.steps(batches(epoch)))
    return device


def run(name: str | Path, tiny: Any, results: Path, **options: Any) -> Any:
    """Run two tasks of a method on the GPU and return the record; quick values are those that contract tests take."""
    cls = registry.find(str(name)).cls
    assert cls is not None
    values = {"max_tasks": 2, "workers": 0, "eval_batch": 3, **quick(cls), **options}
    plan = make_plan(
        str(name), str(tiny.protocol), seed=1, assignments=values, results=results, device="cuda"
    )
    records = runner.run(plan, data=tiny.root, force=False, progress=Progress(disable=True), say=lambda line: None)
    return records[0].data


@pytest.mark.parametrize("name", METHODS)
def test_every_method(gpu: PretendedDevice, name: str, tiny: Any, tmp_path: Path) -> None:
    cls = method_class(name)
    found = run(name, tiny, tmp_path, backbone="clip_tiny" if "text" in cls.needs else "tsm_tiny")
    assert [len(step["correct"][cls.readouts[0]]) for step in found["steps"]] == [1, 2]
