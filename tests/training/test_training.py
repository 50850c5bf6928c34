"""The step of training: fp16's skipped steps, gradients beside the loss, and no waiting for the device."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_runs import config_of, context_of, learn, method_class
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from waiting import Waits

from vcil_bench.data.loader import LoaderClock, Sample
from vcil_bench.method import RunContext
from vcil_bench.methods.lwm import grad_cam
from vcil_bench.methods.tcd import TCD, AuthorsSGD
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.network import Features
from vcil_bench.run import evaluation
from vcil_bench.training import Epoch, Trainer, gradients, sgd
from vcil_bench.training.resume import PhaseProgress


def on_gpu(tiny: Any, precision: str) -> RunContext:
    """Return the context of a run on a GPU, its tensors on the processor for the test's sake."""
    context = context_of(backbone("tsm_tiny").load("random"), tiny.protocol)
    return dataclasses.replace(context, device=torch.device("cuda"), precision=precision)


def epoch_of(optimiser: torch.optim.Optimizer, tiny: Any) -> Epoch:
    """Return an epoch in fp16."""
    loader = context_of(backbone("tsm_tiny").load("random"), tiny.protocol).loader
    trainer = Trainer(torch.device("cpu"), "fp16", loader)
    return Epoch(iter([]), trainer, nn.Module(), optimiser, PhaseProgress())


# --- fp16


@pytest.mark.parametrize("kind", [torch.optim.SGD, AuthorsSGD])
def test_weights_stay_finite_where_the_first_gradient_overflows(kind: Any, tiny: Any) -> None:
    """Memory that no one has written holds NaN here, as it may hold anything on a GPU."""
    context = on_gpu(tiny, "fp16")
    weight = nn.Parameter(torch.ones(3))
    torch.use_deterministic_algorithms(True)
    try:
        if kind is AuthorsSGD:
            optimiser = kind([{"params": [weight], "repeated": True}], lr=0.1, momentum=0.9)
        else:
            optimiser = sgd(context, [weight], lr=0.1, momentum=0.9, weight_decay=0.0)
        epoch = epoch_of(optimiser, tiny)
        epoch.step({"loss": (weight * torch.tensor([math.inf, 1.0, 1.0])).sum()})
        assert torch.equal(weight, torch.ones(3)), "a step that overflows is skipped"
        epoch.step({"loss": weight.sum()})
    finally:
        torch.use_deterministic_algorithms(False)
    taken = 0.1 if kind is torch.optim.SGD else 0.2
    torch.testing.assert_close(weight.detach(), torch.full((3,), 1 - taken))


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_sgd_is_fused_on_a_gpu_unless_a_scaler_skips_its_steps(precision: str, tiny: Any) -> None:
    context = on_gpu(tiny, precision)
    settings: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    optimiser = sgd(context, [nn.Parameter(torch.ones(3))], **settings)
    assert (optimiser.param_groups[0]["fused"] is True) == (precision != "fp16")
    here = dataclasses.replace(context, device=torch.device("cpu"))
    assert not sgd(here, [nn.Parameter(torch.ones(3))], **settings).param_groups[0]["fused"]


def test_gradients_that_pile_up_leave_out_those_that_overflow(tiny: Any) -> None:
    inside, beside = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimiser = AuthorsSGD([{"params": [inside]}, {"params": [beside], "piles_up": True}], lr=0.1)
    epoch = epoch_of(optimiser, tiny)
    for factor in (math.inf, 1.0, math.nan, 2.0):
        with Waits() as waits:
            waits.allowed = 1  # the scaler's own, whether to skip
            epoch.backward({"loss": (inside + factor * beside).sum()})
            optimiser.pile_up(overflows=True)
            epoch.update()
    assert torch.equal(beside, torch.ones(2))
    assert beside.grad is not None
    torch.testing.assert_close(beside.grad, torch.full((2,), 3.0))


class Halved(nn.Module):
    """What lies between a feature map and the scores of a network in fp16."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.half().mean(dim=(-2, -1)).float()


def test_gradients_by_maps_survive_a_network_in_fp16() -> None:
    maps = torch.rand(2, 4, 3, 8, 8, requires_grad=True)
    value = 1e-5 * Halved()(maps).mean()
    (lost,) = torch.autograd.grad(value, maps, retain_graph=True)
    assert (lost == 0).all()
    (found,) = gradients(value, [maps], scale=2.0**16)
    torch.testing.assert_close(found, torch.full_like(found, 1e-5 / maps.numel()), rtol=1e-3, atol=0)


def test_gradients_without_fp16_are_torchs_own_bit_for_bit() -> None:
    x = torch.randn(50, requires_grad=True)
    value = (x.exp().sum().log() * x.square().mean()).tanh()
    (expected,) = torch.autograd.grad(value, x, create_graph=True)
    (found,) = gradients(value, [x], scale=2.0**16, differentiable=True)
    assert torch.equal(found, expected)
    pairs = (torch.autograd.grad(g.square().sum(), x, retain_graph=True)[0] for g in (found, expected))
    assert torch.equal(*pairs)


def test_attention_maps_survive_a_network_in_fp16() -> None:
    maps = torch.rand(2, 4, 3, 8, 8, requires_grad=True)
    frames = Halved()(maps)
    scores = 1e-6 * frames.mean(dim=1)
    found = Features(frames, ((maps,),))
    assert grad_cam(found, scores, torch.tensor([0, 1]), differentiable=False).amin() > 0


def test_importance_in_fp16_is_that_of_fp32(stream: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = method_class("tcd")
    found = {}
    learnt = learn(cls, config_of(cls), backbone("tsm_tiny").load(None), stream, tiny, 1)
    task = stream.task(0, cumulative=False)
    for precision in ("fp32", "fp16"):
        method = cls(learnt.config, dataclasses.replace(learnt.context, precision=precision))
        assert isinstance(method, TCD)
        method.grow(task)
        method.load_state_dict(learnt.state_dict())
        torch.manual_seed(0)  # of the dropout
        plain = method.model.mean_logits
        # Gradients by the values of maps of 224 pixels are as small as this makes those of 64.
        monkeypatch.setattr(method.model, "mean_logits", lambda frames, plain=plain: 1e-3 * plain(frames))
        method.train()._measure_importance(task, task.train)
        found[precision] = method.importance_maps()
    for half, full in zip(found["fp16"], found["fp32"], strict=True):
        assert float((half - full).norm() / full.norm()) < 0.05


# --- waiting for the device


@pytest.mark.parametrize(
    "name",
    ["hce", pytest.param("lwm", marks=pytest.mark.slow), "tcd", pytest.param("ucir", marks=pytest.mark.slow)],
)
def test_no_step_of_a_classifier_waits_for_the_device(
    name: str, stream: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Epoch.__iter__
    steps = 0

    def watched(epoch: Epoch) -> Iterator[Any]:
        nonlocal steps
        for batch in plain(epoch):
            with Waits():  # until the next batch is asked for
                yield batch
            steps += 1

    def one_hot(labels: Tensor, num_classes: int) -> Tensor:
        with _disable_current_modes():  # on processors alone it looks at the labels first
            return plain_one_hot(labels, num_classes)

    plain_one_hot = F.one_hot
    monkeypatch.setattr(F, "one_hot", one_hot)
    monkeypatch.setattr(Epoch, "__iter__", watched)
    cls = method_class(name)
    config = config_of(cls, drop_last=False, **({"proxies": 1} if name == "tcd" else {}))
    learn(cls, config, backbone("tsm_tiny").load(None), stream, tiny, 2)
    assert steps >= 4


class Guesses:
    """A method whose scores are known, in memory that it uses again for every batch."""

    name, readouts = "guesses", ("cnn",)

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores
        self.again = torch.empty_like(scores)
        self.done = 0
        self.training = True

    def eval(self) -> None:
        self.training = False

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        assert not self.training
        found = self.again[: len(clips)]
        found.copy_(self.scores[self.done : self.done + len(clips)])
        self.done += len(clips)
        return {"cnn": found}


class Clips:
    """A loader of test clips under whose batches nothing may wait for the device."""

    def __init__(self, may_wait_at: set[int]) -> None:
        self.may_wait_at = may_wait_at
        self.clock = LoaderClock()

    def views(self, samples: list[Sample], size: int) -> Iterator[Any]:
        for number, start in enumerate(range(0, len(samples), size), start=1):
            part = SimpleNamespace(clips=torch.zeros(len(samples[start : start + size]), 2, 1))
            with Waits() if number not in self.may_wait_at else contextlib.nullcontext():
                yield part  # until the next batch is asked for


def result_of(scores: Tensor, monkeypatch: pytest.MonkeyPatch, look_every: int) -> Any:
    """Test a method of these scores [videos * 2 views, K], two videos a batch."""
    monkeypatch.setattr(evaluation, "LOOK_EVERY", look_every)
    count = len(scores) // 2
    samples = [Sample(str(i), "", i % scores.shape[1], 1) for i in range(count)]
    batches = range(1, count)
    loader = Clips({b for b in batches if b % look_every == 0})
    context = SimpleNamespace(loader=loader, trainer=Trainer(torch.device("cpu"), "fp32", loader))  # type: ignore[arg-type]
    method: Any = Guesses(scores)
    return evaluation.evaluate(method, context, [samples[:3], samples[3:]], scores.shape[1], 2)  # type: ignore[arg-type]


def test_testing_waits_for_the_device_every_few_batches_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(22, 6, generator=torch.Generator().manual_seed(0))
    each, seldom, once = (result_of(scores, monkeypatch, number) for number in (1, 2, 100))
    best = scores.double().unflatten(0, (-1, 2)).mean(dim=1).argsort(dim=1, descending=True)[:, :5]
    for found in (each, seldom, once):
        assert (found.top["cnn"] == best.numpy()).all()
        assert found.correct == each.correct


@pytest.mark.parametrize("video", [0, 10])
def test_scores_that_are_not_finite_are_refused_wherever_they_are(
    video: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = torch.zeros(22, 6)
    scores[2 * video, 1] = math.nan
    with pytest.raises(evaluation.EvaluationError, match=r"'cnn' must be finite, 1 of"):
        result_of(scores, monkeypatch, 3)
