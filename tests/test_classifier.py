"""The model in training and its frozen copy, parameter groups, and recipes laid over those of base classes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pytest
import torch
from small_runs import clips_of, config_of, context_of, method_class

from vcil_bench.classifier import VCLIMB_RECIPE
from vcil_bench.method import Method
from vcil_bench.nets.backbones import backbone
from vcil_bench.stream import TaskStream


@pytest.fixture(params=["tsm_tiny", "clip_tiny"])
def method(request: Any, stream: TaskStream, tiny: Any) -> Any:
    cls = method_class("icarl")
    made = cls(config_of(cls, dropout=0.5), context_of(backbone(request.param).load(None), tiny.protocol))
    made.grow(stream.task(0))
    return made.train()


def test_a_frozen_copy_scores_as_the_model_did_without_dropout(method: Any, stream: TaskStream) -> None:
    clips = clips_of(stream, method, 1)
    old = method.model.frozen_copy()
    with torch.no_grad():
        before = method.eval().model.logits(clips)
        for parameter in method.parameters():
            parameter.add_(0.1)
        assert torch.equal(old.logits(clips), before)
        assert not torch.allclose(method.model.logits(clips), before)
    assert not any(p.requires_grad for p in old.parameters())
    assert not old.logits(clips).requires_grad


def test_a_frozen_copy_is_no_part_of_the_method(method: Any) -> None:
    names = set(method.state_dict())
    old = method.model.frozen_copy()
    assert set(method.state_dict()) == names
    ours = {p.data_ptr() for p in method.parameters() if p.numel()}
    assert not ours & {p.data_ptr() for p in old.parameters() if p.numel()}


def test_logits_are_the_means_over_frames_behind_the_dropout(method: Any, stream: TaskStream) -> None:
    model, clips = method.eval().model, clips_of(stream, method, 1)
    with torch.no_grad():
        frames = model.frame_features(clips)
        each = torch.stack([model.head(frame) for frame in frames])  # [B, T, K]
        torch.testing.assert_close(model.logits(clips), each.mean(dim=1))
        torch.testing.assert_close(model.features_with_maps(clips).frames, frames)
        assert not torch.equal(method.train().model.dropout(frames), frames)


@pytest.mark.parametrize("method", ["tsm_tiny"], indirect=True)
def test_without_policies_all_is_trained_alike(method: Any) -> None:
    assert len({(g["lr"], g["weight_decay"]) for g in method.optimiser().param_groups}) == 4
    config = dataclasses.replace(method.config, **VCLIMB_RECIPE)
    method.config = config
    groups = method.optimiser().param_groups
    assert {(g["lr"], g["weight_decay"]) for g in groups} == {(1e-3, 1e-4)}
    stepped = [id(p) for g in groups for p in g["params"]]
    assert sorted(stepped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


def test_groups_that_are_given_stand_in_their_places(method: Any) -> None:
    head, extra = {"params": [method.model.head.weight], "lr": 0.5}, torch.nn.Linear(2, 2)
    usual = method.optimiser().param_groups
    changed = method.optimiser(head_groups=[head], extra_groups=[{"params": list(extra.parameters())}])
    network, (beside, last) = changed.param_groups[:-2], changed.param_groups[-2:]
    assert [len(g["params"]) for g in network] == [len(g["params"]) for g in usual[:-2]]
    assert beside["params"] == list(extra.parameters())
    assert (last["params"], last["lr"]) == ([method.model.head.weight], 0.5)


@dataclasses.dataclass(frozen=True)
class Numbers:
    a: int = 0
    b: int = 0
    c: int = 0


class Base(Method):
    name = "base"
    Config = Numbers
    recipes: ClassVar = {"tcd_*": {"a": 1, "b": 1}, "tcd_ucf101_*": {"b": 2}}


class Derived(Base):
    recipes: ClassVar = {"tcd_*": {"b": 3}, "vclimb_*": {"c": 4}}


class Silent(Derived):
    pass


@pytest.mark.parametrize("cls", [Derived, Silent])
def test_recipes_are_laid_over_those_of_the_base_classes(cls: type[Method]) -> None:
    config, origins = cls.resolve_config("tcd_ucf101_10x5", {"c": 5})
    assert config == Numbers(1, 3, 5)
    assert origins == {"a": "recipe tcd_*", "b": "recipe tcd_*", "c": "command line"}
    assert cls.resolve_config("vclimb_ucf101_10", {})[0] == Numbers(c=4)
    assert Base.resolve_config("tcd_ucf101_10x5", {})[0] == Numbers(1, 2, 0)
