"""Every method on a pretended GPU: what a real one would refuse, and what would make it idle, fails here."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import os
import typing
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretended_device import CUDA, PretendedDevice, PretendedDeviceError, pretending
from rich.progress import Progress
from small_runs import ENTRIES, config_of, method_class, quick
from torch import Tensor

from vcil_bench import registry, training
from vcil_bench.common.config import ConfigError
from vcil_bench.nets import heads
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.nets.parallel.batch_norm import TeamBatchNorm2d
from vcil_bench.run import loop
from vcil_bench.run.plan import make_plan
from vcil_bench.training.resume import PhaseSaver


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
    "float": lambda x: float(x.detach().sum()),
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
    device.waits.clear()
    FORBIDDEN[name](x)
    assert device.waits
    assert device.waits[-1].file == __file__


@pytest.mark.parametrize("name", sorted(FORBIDDEN.keys() - {"to the host in the middle of a graph"}))
def test_waiting_in_inference_mode_is_counted(device: PretendedDevice, name: str) -> None:
    with torch.inference_mode():
        x = torch.ones(3, 4, device="cuda")
        device.waits.clear()
        FORBIDDEN[name](x)
    assert device.waits


@pytest.mark.parametrize("name", MIXED)
def test_what_a_gpu_refuses_is_refused(device: PretendedDevice, name: str) -> None:
    with pytest.raises(PretendedDeviceError) as error:
        MIXED[name](torch.ones(3, 4, device="cuda", requires_grad=True))
    _named(error.value, name)


def test_a_step_that_stays_on_the_device_is_none_of_this(device: PretendedDevice) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Dropout(0.5), torch.nn.Linear(5, 3)).to("cuda")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
    clips, labels = torch.ones(6, 4).pin_memory(), torch.zeros(6, dtype=torch.long).pin_memory()
    device.waits.clear()  # those of moving the weights
    for _ in device.steps(range(3)):
        x, y = clips.to("cuda", non_blocking=True), labels.to("cuda", non_blocking=True)
        loss = F.cross_entropy(net(x), y) * torch.tensor(2.0)  # a number may come from the host
        loss = loss + torch.where(F.one_hot(y, 3).bool(), net(x), 0.0).sum()
        net.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        x.detach()[x > 0] = 0.0  # one number at a mask is a masked_fill
    assert not device.waits
    assert device.copies["asynchronous"] == 3 * (clips.nbytes + labels.nbytes)
    assert loss.isfinite()


def test_results_lie_where_their_operands_lie(device: PretendedDevice) -> None:
    x = torch.rand(3, 4, device="cuda", requires_grad=True)
    (gradient,) = torch.autograd.grad(x.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.prod(), x)
    views = (x[1:], x.T, x.unflatten(1, (2, 2)), x.detach(), copy.deepcopy(x.detach()), torch.zeros_like(x))
    for found in (gradient, second, *views, torch.nn.Parameter(x.detach()).data, x.new_zeros(2)):
        assert found.device == CUDA
        assert found.is_cuda
    assert torch.zeros(3).device == torch.zeros_like(x, device="cpu").device == torch.device("cpu")
    assert torch.as_tensor(x.detach(), device="cpu").device == torch.device("cpu")
    moved = x.cpu()
    assert moved.device == copy.deepcopy(moved.detach()).device == torch.device("cpu")
    (back,) = torch.autograd.grad(moved.sum(), x)
    assert back.device == CUDA


def test_a_copy_that_is_on_its_way_cannot_be_read(device: PretendedDevice) -> None:
    on_its_way = torch.ones(3, device="cuda").to("cpu", non_blocking=True)
    for read in (Tensor.sum, Tensor.numpy, Tensor.tolist):
        with pytest.raises(PretendedDeviceError, match="arrived"):
            read(on_its_way)
    torch.cuda.synchronize()
    assert on_its_way.tolist() == [1, 1, 1]


def test_memory_that_was_never_written_is_not_a_number(device: PretendedDevice) -> None:
    assert torch.empty(3, device="cuda").isnan().all()
    assert torch.empty_like(torch.ones(3, device="cuda")).isnan().all()


def test_a_forked_process_cannot_use_the_device(device: PretendedDevice) -> None:
    x = torch.ones(3, device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks where threads run
        child = os.fork()
    if child == 0:
        try:
            x.sum()
        except PretendedDeviceError:
            os._exit(17)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17


def test_the_device_draws_from_a_state_of_its_own(device: PretendedDevice) -> None:
    torch.manual_seed(3)
    state, host = torch.cuda.get_rng_state(), torch.get_rng_state()
    first = torch.rand(3, device="cuda").cpu()
    assert torch.equal(torch.get_rng_state(), host)
    torch.rand(3)
    torch.cuda.set_rng_state(state)
    assert torch.equal(torch.rand(3, device="cuda").cpu(), first)


def test_autocast_has_the_lists_of_cuda(device: PretendedDevice) -> None:
    x, host = torch.ones(2, 4, device="cuda"), torch.ones(2, 4)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert F.linear(x, x).dtype == torch.bfloat16
        assert F.linear(host, host).dtype == torch.float32
        assert F.layer_norm(F.linear(x, x), (2,)).dtype == torch.float32  # bfloat16 on the processor
        assert torch.cat([F.linear(x, x), x[:, :2]]).dtype == torch.float32
    assert F.linear(x, x).dtype == torch.float32


def test_nothing_is_left_when_pretending_ends() -> None:
    def parts() -> list[Any]:
        return [Tensor.device, Tensor.to, torch.autocast, torch.Generator, torch.cuda.is_available]

    before = parts()
    with pretending(), torch.autocast("cuda", dtype=torch.bfloat16):
        assert before != parts()
    assert before == parts()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.layer_norm(torch.ones(2, 2).bfloat16(), (2,)).dtype == torch.bfloat16


# Every method, run as a user runs it.

METHODS = [name for name, entry in ENTRIES.items() if entry.cls is not None]
EMBEDDED = ("clip_tiny", "tsm_tiny")
PAIRS = [(m, b) for m in METHODS for b in EMBEDDED if method_class(m).needs <= BACKBONES[b].provides]
# With one exemplar a class, as on the tiny protocol, BiC has no video for its correction.
HOLDING_OUT = {"protocol.memory.per_class": 2, "held_out": 0.5}
# What a method does not say of itself: options of a run that compute in another way.
MORE: list[tuple[str, dict[str, Any]]] = [
    ("stpr", {"micro_batch": 3}),
    ("icarl", {"micro_batch": 3, "backbone": "clip_tiny", "precision": "bf16"}),
    ("stpr", {"feature_cache_mb": 8}),
    ("icarl", {"protocol.memory.per_class": None, "protocol.memory.total": 4}),
    ("tcd", {"protocol.memory.frames": "all"}),
    ("podnet", {"determinism": "strict"}),
    ("finetune", {"workers": 2}),
    ("finetune", {"precision": "fp16"}),
    ("stpr", {"precision": "fp16"}),
    ("tcd", {"precision": "fp16"}),
    ("tcd", {"precision": "fp16", "authors_code": True}),
    ("tcd", {"precision": "bf16", "authors_code": True, "proxies": 1}),
    ("ewc", {"precision": "fp16"}),
    ("mas", {"precision": "fp16"}),
    ("essential", {"precision": "fp16"}),
    ("essential", {"precision": "fp16", "views": "fixed"}),
    ("bic", HOLDING_OUT | {"precision": "fp16", "tc_clip": "spread"}),
    ("bic", HOLDING_OUT | {"micro_batch": 3, "backbone": "clip_tiny"}),
    ("ewc", {"micro_batch": 3, "backbone": "clip_tiny"}),
    ("mas", {"micro_batch": 3, "backbone": "clip_tiny"}),
    ("pivot", {"micro_batch": 3, "precision": "bf16"}),
    ("pivot", {"precision": "fp16"}),
    ("l2p", {"micro_batch": 3, "precision": "fp16"}),
    ("coda_prompt", {"micro_batch": 3, "precision": "bf16"}),
]


def switches() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every method with every other value of every switch of its config that it takes alone."""
    for name in METHODS:
        cls = method_class(name)
        hints = typing.get_type_hints(cls.Config)
        for field in dataclasses.fields(cls.Config):
            for value in (True, False) if hints[field.name] is bool else typing.get_args(hints[field.name]):
                if not isinstance(value, (bool, str)) or value == field.default:
                    continue
                with contextlib.suppress(ConfigError):
                    config_of(cls, **{field.name: value})
                    yield name, {field.name: value}


@pytest.fixture
def gpu(device: PretendedDevice, monkeypatch: pytest.MonkeyPatch) -> PretendedDevice:
    """A pretended GPU that knows what a training step of the harness is: from a batch to the next."""
    batches = training.Epoch.__iter__
    monkeypatch.setattr(training.Epoch, "__iter__", lambda epoch: device.steps(batches(epoch)))
    return device


def run(name: str | Path, tiny: Any, results: Path, *, on: str = "cuda", **options: Any) -> Any:
    """Run two tasks of a method, on the backbone that is not CLIP where it can, and return the record."""
    cls = registry.find(str(name)).cls
    assert cls is not None
    keys = {field.name for field in dataclasses.fields(cls.Config)}
    config = config_of(cls, **{key: value for key, value in options.items() if key in keys})
    needs = cls.needs_with(config)
    fits = needs <= BACKBONES["tsm_tiny"].provides and "micro_batch" not in options
    chosen = "tsm_tiny" if fits else "clip_tiny"
    values = {"backbone": chosen, "max_tasks": 2, "workers": 0, "eval_batch": 3, **quick(cls), **options}
    if cls.mixes_test_clips_with(config):
        del values["eval_batch"]
    plan = make_plan(str(name), str(tiny.protocol), seed=1, assignments=values, results=results, device=on)
    (found,) = loop.run(plan, data=tiny.root, force=False, progress=Progress(disable=True), say=str)
    assert [len(step["correct"][cls.readouts[0]]) for step in found.data["steps"]] == [1, 2]
    return found.data


TELLING = ("stpr", "icarl", "essential", "l2p", "ranpac")  # kinds of steps


def outcome(data: Any) -> Any:
    """Return what two runs have alike: losses and counts."""
    return [(step["losses"], step["correct"]) for step in data["steps"]]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in TELLING else pytest.mark.slow) for name in METHODS]
)
def test_every_method(gpu: PretendedDevice, name: str, tiny: Any, tmp_path: Path) -> None:
    short = {"epochs_first": 1, "batch_size": 12, "eval_batch": 12}
    keys = {*quick(method_class(name)), "eval_batch"}
    run(name, tiny, tmp_path, **{key: value for key, value in short.items() if key in keys})
    assert gpu.copies["asynchronous"] > 0


def test_the_second_stage_of_bic(gpu: PretendedDevice, tiny: Any, tmp_path: Path) -> None:
    data = run("bic", tiny, tmp_path, **HOLDING_OUT)
    assert "task 2 bias" in {loss["phase"] for loss in data["steps"][1]["losses"]}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "on"), PAIRS)
def test_every_method_on_every_backbone(
    gpu: PretendedDevice, name: str, on: str, precision: str, tiny: Any, tmp_path: Path
) -> None:
    run(name, tiny, tmp_path, backbone=on, precision=precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [*MORE, *switches()], ids=lambda given: given if isinstance(given, str) else str(given)
)
def test_every_switch(
    gpu: PretendedDevice, name: str, options: dict[str, Any], tiny: Any, tmp_path: Path
) -> None:
    run(name, tiny, tmp_path, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_without_dropout_losses_and_counts_are_the_processors(
    name: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pretended device has torch's kernel, which the harness replaces on processors alone.
    monkeypatch.setattr(TeamBatchNorm2d, "_on_cpu", torch.nn.BatchNorm2d.forward)
    keys = {field.name for field in dataclasses.fields(method_class(name).Config)}
    still = {key: 0.0 for key in keys if key.endswith("dropout")}
    here = run(name, tiny, tmp_path / "cpu", on="cpu", **still)
    with pretending():
        there = run(name, tiny, tmp_path / "cuda", **still)
    for (losses, counts), (expected, same) in zip(outcome(there), outcome(here), strict=True):
        assert counts == same
        for one, other in zip(losses, expected, strict=True):
            assert one.pop("phase") == other.pop("phase")
            assert one == pytest.approx(other, rel=1e-4, abs=1e-6)  # fused SGD rounds in its own way


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), [("stpr", "bf16"), ("tcd", "fp32"), ("finetune", "fp16")])
def test_a_run_cut_off_inside_tasks_ends_in_the_same(
    gpu: PretendedDevice, name: str, precision: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"precision": precision, "checkpoint_minutes": 0}
    whole = run(name, tiny, tmp_path / "whole", **values)
    maybe_save, calls = PhaseSaver.maybe_save, itertools.count(1)

    def cut(saver: PhaseSaver, *arguments: Any, **more: Any) -> None:
        maybe_save(saver, *arguments, **more)
        if next(calls) % 3 == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PhaseSaver, "maybe_save", cut)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run(name, tiny, tmp_path / "cut", **values)
    assert outcome(run(name, tiny, tmp_path / "cut", **values)) == outcome(whole)


def test_an_epoch_waits_for_its_losses_and_a_test_for_its_batches(
    gpu: PretendedDevice, tiny: Any, tmp_path: Path
) -> None:
    found = run("lwf", tiny, tmp_path, eval_batch=1)
    waits = Counter(Path(wait.file).stem for wait in gpu.waits)
    assert waits["trainer"] == sum(len(epoch) - 2 for step in found["steps"] for epoch in step["losses"])
    tested = sum(sum(found["test_videos"][: i + 1]) for i in range(2))
    assert waits["evaluation"] <= tested + 2


# A slip of one line in a method is caught.


def test_a_tensor_that_stays_on_the_host_is_caught(
    gpu: PretendedDevice, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(heads.__file__).read_text(encoding="utf-8")
    assert source.count(".to(self.weight.device)") == 1
    changed: dict[str, Any] = {"__name__": heads.__name__}
    exec(compile(source.replace(".to(self.weight.device)", ""), heads.__file__, "exec"), changed)
    monkeypatch.setattr(heads.GrowingLinear, "grow", changed["GrowingLinear"].grow)
    with pytest.raises(PretendedDeviceError) as error:
        run("finetune", tiny, tmp_path)
    assert error.value.operation == "cat"
    assert error.value.file == heads.__file__


PLUGIN = """
import torch
import torch.nn.functional as F
from vcil_bench.methods.finetune import Finetune

class Slip(Finetune):
    name = "slip"

    def logits(self, clips):
        x = super().logits(clips)
        return x if not self.training else self.slip(x)

    def slip(self, x):
        {}
        return x
"""
SLIPS = {
    "print(f'{x.sum().item():.2f}')": "item",
    "x = x + torch.zeros(len(x), 1)": "add",
    "x = x[x.isfinite().all(dim=1)]": "index by a mask",
    "assert x.isfinite().all()": "item",
    "x = x * torch.rand(1, generator=torch.Generator(), device=x.device)": "rand",
    "x = x * torch.tensor([1.0], device=x.device)": "a copy to the device",
}


@pytest.mark.parametrize(
    "slip",
    [pytest.param(slip, marks=() if number < 2 else pytest.mark.slow) for number, slip in enumerate(SLIPS)],
)
def test_a_slip_in_a_method_is_named(gpu: PretendedDevice, slip: str, tiny: Any, tmp_path: Path) -> None:
    file = tmp_path / "slip.py"
    file.write_text(PLUGIN.format(slip), encoding="utf-8")
    with pytest.raises(PretendedDeviceError) as error:
        run(file, tiny, tmp_path)
    assert error.value.operation == SLIPS[slip]
    assert (Path(error.value.file), error.value.line) == (file, PLUGIN.splitlines().index("        {}") + 1)
