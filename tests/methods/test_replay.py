"""Naive replay: what it trains on, what it keeps, and that it is fine-tuning but for its memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_runs import config_of, context_of, learn, method_class, stream_of

from vcil_bench.memory import exemplars_of
from vcil_bench.nets.backbones import backbone
from vcil_bench.run import seeded
from vcil_bench.training import Epoch

REPLAY = method_class("replay")


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


def test_a_later_task_trains_on_its_videos_and_all_exemplars_in_one_shuffle(tiny: Any, trunk: Any) -> None:
    stream = stream_of(tiny)
    method = learn(REPLAY, config_of(REPLAY), trunk, stream, tiny, steps=1)
    kept = exemplars_of(method)
    assert {sample.label for sample in kept} == set(range(stream.task(0).num_seen))
    seen: list[Any] = []
    train_epochs = method.train_epochs

    def watched(samples: Any, *args: Any, **keys: Any) -> Any:
        seen.append(list(samples))
        return train_epochs(samples, *args, **keys)

    method.train_epochs = watched  # type: ignore[method-assign]
    task = stream.task(1)
    seeded.grow(method, task, 1)
    seeded.learn(method, task, 1)
    assert seen == [[*task.train, *kept]]


def test_exemplars_are_a_random_choice_of_the_runs_own(tiny: Any, trunk: Any) -> None:
    stream = stream_of(tiny)

    def chosen(seed: int, before: int = 0) -> list[str]:
        method = seeded.construct(
            REPLAY, config_of(REPLAY), context_of(trunk, tiny.protocol, memory__per_class=1), seed
        )
        seeded.grow(method, stream.task(0), seed)
        torch.rand(before)  # what happened before does not matter
        seeded.learn(method, stream.task(0), seed)
        return [sample.path for sample in exemplars_of(method)]

    assert chosen(1) == chosen(1, before=5)
    assert len({tuple(chosen(seed)) for seed in range(1, 7)}) > 1


@pytest.mark.parametrize("name", ["synthetic_3x4", "synthetic_6x4", "tcd_ucf101_10x5", "mine"])
def test_it_is_trained_as_the_bounds_are(name: str) -> None:
    finetune = method_class("finetune")
    assert REPLAY.backbone_for(name) == finetune.backbone_for(name)
    ours, theirs = (cls.resolve_config(name, {})[0] for cls in (REPLAY, finetune))
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)


def test_on_vclimbs_protocols_it_is_trained_as_their_code_does(tiny: Any) -> None:
    config = REPLAY.resolve_config("vclimb_ucf101_10", {})[0]
    assert (config.schedule, config.lr, config.momentum, config.weight_decay) == ("constant", 1e-3, 0.9, 1e-4)
    assert (config.dropout, config.partial_bn) == (0.5, False)
    icarl = method_class("icarl").resolve_config("vclimb_ucf101_10", {})[0]
    assert (config.epochs, config.batch_size) == (icarl.epochs, icarl.batch_size)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_stays_where_it_is_told_to(
    schedule: str, tiny: Any, trunk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    update = Epoch.update

    def noted(epoch: Any, *more: Any) -> None:
        rates.append(epoch._optimiser.param_groups[0]["lr"])
        update(epoch, *more)

    monkeypatch.setattr(Epoch, "update", noted)
    config = config_of(REPLAY, schedule=schedule, epochs_first=3)
    learn(REPLAY, config, trunk, stream_of(tiny), tiny, steps=1)
    assert rates[0] == config.lr
    assert (len(set(rates)) == 1) == (schedule == "constant")
