"""The ResNet-era methods in training: each part they are named for acts, and every switch changes the result.

A unit test of a loss would still pass if the method forgot to add it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import clips_of, config_of, context_of, learn, method_class, untried_switches

from vcil_bench.classifier import ClassifierConfig
from vcil_bench.data.loader import Batch, ClipLoader
from vcil_bench.method import Method
from vcil_bench.nets.backbones import backbone
from vcil_bench.stream import TaskStream

# One variant per switch value, and per term with its weight taken away. Switches of the classifiers' base, whose
# code is one for all, are tried under lwf.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "lwf": [
        {"loss": "softmax"},
        {"partial_bn": False},
        {"optim_policies": False},
        {"drop_last": False},
        {"dropout": 0.0},
    ],
    "lwm": [{"loss": "softmax"}, {"attention": 0.0}],
    "icarl": [
        {"loss": "paper"},
        {"loss": "softmax"},
        {"rehearsal": False},
        {"distillation": False},
        {"selection": "nearest_to_mean"},
        {"tc_clip": "spread"},
        {"tc_clip": "released"},
    ],
    "bic": [
        {"bias": False},
        {"distillation": False},
        {"temperature": 20.0},
        {"held_out": 0.0},
        {"held_out": 0.6, "released": True},
        {"tc_clip": "spread"},
        {"tc_clip": "released"},
        {"optim_policies": True},
        {"partial_bn": True},
    ],
    "ewc": [{"reg_lambda": 0.0}, {"released": True}, {"optim_policies": True}, {"partial_bn": True}],
    "mas": [{"reg_lambda": 0.0}, {"released": True}, {"optim_policies": True}, {"partial_bn": True}],
    "ucir": [{"less_forget": 0.0}, {"ranking": 0.0}],
    "podnet": [
        {"pod_spatial": 0.0},
        {"pod_flat": 0.0},
        {"proxies": 1},
        {"balanced_lr": 1e-6},
    ],
    "tcd": [
        {"importance": False},
        {"lambda_0": 0.0},
        {"lambda_1": 0.0},
        {"lambda_2": 0.0},
        {"lambda_kind": "arith"},
        {"lambda_kind": "fix"},
        {"proxies": 1},
        {"authors_code": False},
        {"balanced_lr": 1e-6},
    ],
    "hce": [
        {"aggregation": False, "refinement": "number"},
        {"distil_maps": False, "refinement": "number"},
        {"distil_features": False},
        {"refinement": "number"},
        {"refinement": "none"},
        {"scale": "literal"},
        {"head": "linear"},
        {"expansion": 1.0},
    ],
}
# A rate at which a second of training moves the scores, and enough epochs for what starts with the second.
LIVELY = {"lr": 0.02, "dropout": 0.2, "epochs": 3, "batch_size": 4}
# Of those whose steps do not grow with the gradients, a lower rate.
RATES = {"ewc": {"lr": 0.005}, "mas": {"lr": 0.005}}


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("tsm_tiny").load(None)


def _method(name: str, changes: dict[str, Any], trunk: Any, stream: TaskStream, tiny: Any) -> Method:
    # Two exemplars of three videos, so that there is a choice, and that some are left out.
    cls = method_class(name)
    budget = {"memory__per_class": 2}
    config = config_of(cls, **(LIVELY | RATES.get(name, {}) | changes))
    return learn(cls, config, trunk, stream, tiny, 3, **budget)


def _scores(name: str, changes: dict[str, Any], trunk: Any, stream: TaskStream, tiny: Any) -> torch.Tensor:
    method = _method(name, changes, trunk, stream, tiny)
    with torch.inference_mode():
        return torch.stack(list(method.predict(clips_of(stream, method, 3)).values()))


@pytest.fixture(scope="module")
def plain(trunk: Any, stream: TaskStream, tiny: Any) -> Any:
    """Scores of each method as it is by default, made once."""
    made: dict[str, torch.Tensor] = {}

    def of(name: str) -> torch.Tensor:
        if name not in made:
            made[name] = _scores(name, {}, trunk, stream, tiny)
        return made[name]

    return of


@pytest.mark.parametrize("name", VARIANTS)
def test_every_switch_is_among_the_variants(name: str) -> None:
    base = None if name == "lwf" else ClassifierConfig
    assert untried_switches(method_class(name), VARIANTS[name], base) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [(name, changes) for name, variants in VARIANTS.items() for changes in variants],
    ids=lambda x: x if isinstance(x, str) else "+".join(f"{k}={v}" for k, v in x.items()),
)
def test_every_switch_runs_and_changes_the_scores(
    name: str, changes: dict[str, Any], plain: Any, trunk: Any, stream: TaskStream, tiny: Any
) -> None:
    scores = _scores(name, changes, trunk, stream, tiny)
    assert scores.isfinite().all()
    assert scores.shape == plain(name).shape
    changed = [not torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(scores, plain(name), strict=True)]
    assert changed[0]  # the readout that tables show
    if name == "icarl" and "selection" not in changes:  # what changes the training changes what both read
        assert all(changed)


@pytest.mark.parametrize(
    "name", ["icarl", *(pytest.param(n, marks=pytest.mark.slow) for n in ("tcd", "ucir", "podnet", "hce"))]
)
def test_exemplars_are_kept_and_trained_on(
    name: str, trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every old class appears in the batches of the next task, and never more of its videos than allowed."""
    asked: dict[str, list[Any]] = {}
    original = ClipLoader.training

    def spy(self: Any, samples: Any, epochs: int, batch: int, phase: str, **more: Any) -> Any:
        asked[phase] = list(samples)
        return original(self, samples, epochs, batch, phase, **more)

    monkeypatch.setattr(ClipLoader, "training", spy)
    method = _method(name, {}, trunk, stream, tiny)
    old = [s for s in asked["task 3"] if s.label < 3]
    assert sorted(s.label for s in old) == [0, 0, 1, 1, 2, 2]
    assert all(s.stored is not None and len(s.stored) <= 4 for s in old)
    use = method.memory_use()
    assert (use.videos, use.frames) == (8, 32)
    assert use.bytes == 32 * 3 * 64 * 64
    assert [len(method.memory.of_class(label)) for label in range(4)] == [2, 2, 2, 2]
    if "task 3 balanced" in asked:
        assert sorted(s.label for s in asked["task 3 balanced"]) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("on", ["tsm_tiny", pytest.param("clip_tiny", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_method_trains_in_bf16(name: str, on: str, stream: TaskStream, tiny: Any) -> None:
    """Maps that are converted must stay on the way to the loss: some methods differentiate by them."""
    cls = method_class(name)
    context = dataclasses.replace(context_of(backbone(on).load(None), tiny.protocol), precision="bf16")
    method = cls(config_of(cls), context)
    for step in range(2):
        method.grow(stream.task(step))
        method.train().learn(stream.task(step))
    with torch.inference_mode():
        for scores in method.eval().predict(clips_of(stream, method, 2)).values():
            assert scores.isfinite().all()
            assert scores.dtype == torch.float32


def test_a_resumed_memory_reaches_no_more_than_it_stored(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    method: Any = _method("icarl", {}, trunk, stream, tiny)
    twin: Any = method_class("icarl")(method.config, context_of(trunk, tiny.protocol, memory__per_class=2))
    for step in range(3):
        twin.grow(stream.task(step))
    twin.load_state_dict(method.state_dict())
    assert twin.memory.samples() == method.memory.samples()
    for memory in (method.memory, twin.memory):
        reachable = [v for videos in memory._videos.values() for v in videos if v.frames]
        assert len(reachable) == memory.use().videos


def test_nearest_means_are_those_of_the_exemplars(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    method: Any = _method("icarl", {}, trunk, stream, tiny)
    unit = torch.nn.functional.normalize
    for label in range(4):
        features, _ = method.video_features(method.memory.of_class(label))
        torch.testing.assert_close(method.exemplar_means[label], unit(unit(features, dim=1).mean(dim=0), dim=0))


def test_importance_is_measured_after_training_and_has_mean_one(
    trunk: Any, stream: TaskStream, tiny: Any
) -> None:
    method: Any = _method("tcd", {"authors_code": False}, trunk, stream, tiny)
    maps, network = method.importance_maps(), method.model.network
    assert [tuple(m.shape) for m in maps] == [(4, c) for c in (*network.map_channels, network.dim)]
    for importance in maps:
        assert 0 < float(importance.mean()) <= 1  # 1 but for the 1e-8 of the formula, when gradients are tiny
        assert (importance.std(dim=1) > 0).all()  # channels differ
        assert (importance.std(dim=0) > 0).any()  # and so do frames
    with_quirk: Any = _method("tcd", {}, trunk, stream, tiny)
    assert all((m == m[0]).all() for m in with_quirk.importance_maps())  # 4 frames, not 8: time is lost


@pytest.mark.slow
def test_old_proxies_of_tcd_move_in_the_fine_tuning_only(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    cls = method_class("tcd")
    config = config_of(cls, **LIVELY, proxies=1, balanced_lr=1e-12)
    one: Any = learn(cls, config, trunk, stream, tiny, 1)
    two: Any = learn(cls, config, trunk, stream, tiny, 2)
    torch.testing.assert_close(two.model.head.old_weight, one.model.head.weight, rtol=0, atol=1e-8)
    changed: Any = learn(cls, config_of(cls, **LIVELY, proxies=1), trunk, stream, tiny, 2)
    assert not torch.allclose(changed.model.head.old_weight, one.model.head.weight, rtol=0, atol=1e-6)


def test_old_weights_of_ucir_stay(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    cls = method_class("ucir")
    config = config_of(cls, **LIVELY)
    one: Any = learn(cls, config, trunk, stream, tiny, 1)
    two: Any = learn(cls, config, trunk, stream, tiny, 2)
    assert torch.equal(two.model.head.old_weight, one.model.head.weight)


def test_the_weights_of_hce_move_and_differ_between_videos(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    method: Any = _method("hce", {}, trunk, stream, tiny)
    fresh: Any = method_class("hce")(method.config, context_of(trunk, tiny.protocol))
    method.train()
    clips = clips_of(stream, method, 3)
    new = method.model.features_with_maps(clips)
    old = fresh.model.frozen_copy().features_with_maps(clips)
    weights = method.aggregation(new, old)
    layers = [c for stage in method.model.network.stage_channels for c in stage]
    assert [tuple(w.shape) for w in weights] == [(len(clips), 4, c) for c in layers]
    assert all(w.min() >= 0 and w.max() <= 1 and w.std() > 0 for w in weights)


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", VARIANTS)
def test_losses_are_finite_for_a_batch_of_one_old_class(
    name: str, count: int, trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch may hold nothing but exemplars, or a single clip; the terms of all methods must stand that."""
    cls = method_class(name)
    method: Any = learn(cls, config_of(cls, **LIVELY), trunk, stream, tiny, 1)
    clips = clips_of(stream, method, 1)[:count]
    batch = Batch(clips, torch.zeros(count, dtype=torch.long))
    monkeypatch.setattr(ClipLoader, "training", lambda *given, **more: iter([batch] * 10))
    method.context.trainer.losses.clear()
    task = stream.task(1)
    method.grow(task)
    method.train().learn(task)
    assert method.context.trainer.losses
    for means in method.context.trainer.losses:
        assert all(np.isfinite(value) for key, value in means.items() if key != "phase")
    with torch.inference_mode():
        assert all(scores.isfinite().all() for scores in method.eval().predict(clips).values())
