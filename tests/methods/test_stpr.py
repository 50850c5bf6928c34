"""StPR in training: every switch acts, what must stay stays, and the parts see what the paper says they see."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from small_runs import clips_of, config_of, learn, method_class, untried_switches

from vcil_bench.methods import stpr
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.trunk import AdapterConfig
from vcil_bench.stream import TaskStream


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


STPR_VARIANTS = [
    {"adapters": False},
    {"fssd": False},
    {"moe": False},
    {"adapters": False, "moe": False},
    {"router": "average"},
    {"router": "clip"},
    {"router": "adapter"},
    {"expert_init": "fresh"},
    {"routing": "softmax"},
    {"schedule": "constant"},
    {"expert_readout": "mean"},
    {"negatives": "current"},
    {"negatives": "batch"},
    {"template": "a clip of {}"},
]


@pytest.fixture(scope="module")
def plain_stpr(trunk: Any, stream: TaskStream, tiny: Any) -> torch.Tensor:
    return _stpr_scores({}, trunk, stream, tiny)


def _stpr_scores(changes: dict[str, Any], trunk: Any, stream: TaskStream, tiny: Any) -> torch.Tensor:
    cls = method_class("stpr")
    method = learn(cls, config_of(cls, lr=0.1, **changes), trunk, stream, tiny, 3)
    with torch.inference_mode():
        return method.predict(clips_of(stream, method, 3))["text"]


def test_every_switch_of_stpr_is_among_the_variants() -> None:
    assert untried_switches(method_class("stpr"), STPR_VARIANTS) == []


@pytest.mark.slow
@pytest.mark.parametrize("changes", STPR_VARIANTS, ids=lambda c: "+".join(f"{k}={v}" for k, v in c.items()))
def test_every_switch_of_stpr_runs_and_changes_its_scores(
    changes: dict[str, Any], plain_stpr: torch.Tensor, trunk: Any, stream: TaskStream, tiny: Any
) -> None:
    scores = _stpr_scores(changes, trunk, stream, tiny)
    assert scores.shape == plain_stpr.shape
    assert scores.isfinite().all()
    assert not torch.allclose(scores, plain_stpr, rtol=0, atol=1e-6)


def test_stpr_without_any_part_is_frozen_clip(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    scores = _stpr_scores({"adapters": False, "moe": False, "template": "{}"}, trunk, stream, tiny)
    cls = method_class("zero_shot")
    method = learn(cls, config_of(cls), trunk, stream, tiny, 3)
    with torch.inference_mode():
        torch.testing.assert_close(scores, method.predict(clips_of(stream, method, 3))["text"])


def test_old_experts_and_anchors_stay_as_they_were(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    cls = method_class("stpr")
    config = config_of(cls)
    two = learn(cls, config, trunk, stream, tiny, 2).state_dict()
    three = learn(cls, config, trunk, stream, tiny, 3).state_dict()
    experts = [k for k in two if k.startswith("experts.")]
    assert experts
    assert all(torch.equal(two[k], three[k]) for k in experts)
    assert torch.equal(two["anchors"], three["anchors"][:3])
    assert (three["anchors"].norm(dim=1) > 0).all()
    adapters = [k for k in two if k.startswith("encoder.")]
    assert not all(torch.equal(two[k], three[k]) for k in adapters)


def test_fssd_holds_the_encoder_back(
    trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A larger w must leave the shared semantics of old clips closer to where they were.

    The variance floor is high because three near-identical videos a class have next to no variance, which
    would make the weighted loss too steep for any step.
    """
    measure = functools.partial(stpr.channel_importance, floor=0.01)
    monkeypatch.setattr(stpr, "channel_importance", measure)
    cls = method_class("stpr")
    drifts = []
    for weight in (0.0, 1e4, 1e5):
        config = config_of(
            cls,
            fssd_weight=weight,
            moe=False,
            adapter_dropout=0.0,
            epochs=8,
            lr=0.5,
        )
        one = learn(cls, config, trunk, stream, tiny, 1)
        two = learn(cls, config, trunk, stream, tiny, 2)
        clips = clips_of(stream, one, 1)
        with torch.inference_mode():
            old, new = (m.encoder(clips).mean(dim=1) for m in (one, two))
        unit = torch.nn.functional.normalize
        drifts.append(float((unit(old, dim=-1) - unit(new, dim=-1)).square().mean()))
    assert drifts[2] < drifts[1] < drifts[0]
    assert drifts[2] < 0.5 * drifts[0]


def test_importance_is_measured_under_the_old_encoder_before_training(
    float64: None, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = backbone("clip_tiny").load(None)
    cls = method_class("stpr")
    config = config_of(cls, lr=0.1)
    one = learn(cls, config, trunk, stream, tiny, 1)
    measured = []
    original = cls._importance  # type: ignore[attr-defined]

    def spy(self: Any, task: Any) -> torch.Tensor:
        adapters = {k: v.clone() for k, v in self.encoder.state_dict().items()}
        measured.append((task.index, adapters, original(self, task)))
        return measured[-1][2]

    monkeypatch.setattr(cls, "_importance", spy)
    two = learn(cls, config, trunk, stream, tiny, 2)
    ((index, adapters, importance),) = measured
    assert index == 1
    assert all(torch.equal(v, one.encoder.state_dict()[k]) for k, v in adapters.items())
    assert not all(torch.equal(v, two.encoder.state_dict()[k]) for k, v in adapters.items())
    task = stream.task(1)
    with torch.inference_mode():
        spatial = torch.cat([one.encoder(b.clips).mean(dim=1) for b in one.context.centre_clips(task.train)])
        unit = torch.nn.functional.normalize(spatial, dim=-1)
    expected = unit.mean(dim=0) * two.texts[2] / unit.var(dim=0, correction=0).clamp_min(1e-6)
    torch.testing.assert_close(importance[2], expected.clamp_min(0))
    assert (importance[:2] == 0).all()


def test_anchors_are_class_means_under_the_trained_encoder(float64: None, stream: TaskStream, tiny: Any) -> None:
    trunk = backbone("clip_tiny").load(None)
    cls = method_class("stpr")
    method = learn(cls, config_of(cls, lr=0.1), trunk, stream, tiny, 2)
    unit = torch.nn.functional.normalize
    with torch.inference_mode():
        batches = list(method.context.centre_clips(stream.task(1).train))
        frames = torch.cat([method.encoder(b.clips) for b in batches])
        dynamics = unit(method.experts[1](frames), dim=-1) - unit(frames.mean(dim=1), dim=-1)
    torch.testing.assert_close(method.anchors[2], dynamics.mean(dim=0))
    assert method.expert_of_anchor.tolist() == [0, 0, 1]


def test_distillation_holds_no_second_trunk(trunk: Any) -> None:
    encoder = trunk.encoder(AdapterConfig(bottleneck=8))
    old = encoder.frozen_copy()
    assert old.trunk is encoder.trunk
    assert sum(p.numel() for p in old.parameters()) == sum(p.numel() for p in encoder.parameters())
    assert not any(p.requires_grad for p in old.parameters())
