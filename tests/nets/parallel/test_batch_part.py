"""Batch parts: the loader says which clips a batch holds, loops say it to networks and leave nothing behind."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_runs import context_of
from torch import nn

from vcil_bench.data.loader import ClipLoader
from vcil_bench.method import RunContext
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.parallel.batch_part import BatchPart, current_part
from vcil_bench.nets.parallel.team import Team
from vcil_bench.training import Trainer

TEAM = Team(1, 2)


@pytest.fixture
def context(tiny: Any) -> RunContext:
    """Return what the second of two processes has."""
    alone = context_of(backbone("tsm_tiny").load("random"), tiny.protocol)
    cpu = torch.device("cpu")
    loader = ClipLoader(alone.loader.spec, decoder="auto", workers=0, device=cpu, seed=1, team=TEAM)
    return dataclasses.replace(alone, loader=loader, trainer=Trainer(cpu, "fp32", loader, team=TEAM))


def test_a_pass_says_which_clips_each_of_its_batches_holds(context: RunContext, stream: Any) -> None:
    videos = stream.task(0).train[:5]
    parts = [current_part() for _ in context.centre_clips(videos, batch_size=3)]
    assert parts == [BatchPart(2, 2, 3, TEAM), BatchPart(1, 1, 2, TEAM)]
    assert current_part() is None
    assert [batch.part for batch in context.loader.whole().plain(videos, 3)] == [None, None]
    assert [batch.part for batch in context.loader.views(videos, 3)] == [None, None]


def test_a_pass_that_is_left_early_leaves_nothing_behind(context: RunContext, stream: Any) -> None:
    videos = stream.task(0).train
    for _ in context.centre_clips(videos, batch_size=2):
        assert current_part() is not None
        break
    assert current_part() is None
    assert next(context.centre_clips(videos, batch_size=2)).part is not None
    assert current_part() is None

    def failing() -> None:
        for _ in context.centre_clips(videos, batch_size=2):
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        failing()
    assert current_part() is None


def test_a_pass_that_is_collected_later_takes_no_other_pass_s_part(context: RunContext, stream: Any) -> None:
    """An error's traceback may keep a broken off pass alive until another run is in the middle of its own."""
    videos = stream.task(0).train
    broken_off = iter(context.centre_clips(videos, batch_size=2))
    next(broken_off)
    for batch in context.centre_clips(videos, batch_size=3):
        broken_off.close()
        assert current_part() == batch.part
        assert batch.part is not None
    assert current_part() is None


def test_training_says_it_too_and_statistics_between_its_steps_have_their_own(
    context: RunContext, stream: Any
) -> None:
    module = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    videos = stream.task(0).train[:4]
    epochs = context.trainer.epochs(module, videos, optimiser, num_epochs=1, batch_size=4, phase="task 1")
    for epoch in epochs:
        for batch in epoch:
            assert current_part() == batch.part == BatchPart(2, 2, 4, TEAM)
            for _ in context.centre_clips(videos[:2]):
                assert current_part() == BatchPart(1, 1, 2, TEAM)
            assert current_part() == batch.part
            break
        break
    del epoch, epochs
    assert current_part() is None
