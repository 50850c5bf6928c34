"""PIVOT in training: what each phase trains and on what; every kind of prompt acts, and tasks are predicted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import clips_of, config_of, context_of, learn, method_class
from torch import Tensor

from vcil_bench.common.config import ConfigError
from vcil_bench.memory import exemplars_of
from vcil_bench.methods import pivot
from vcil_bench.nets.backbones import backbone
from vcil_bench.run import seeded
from vcil_bench.stream import TaskStream
from vcil_bench.testing.small_data import SmallData
from vcil_bench.testing.small_runs import SHRINKING, SmallRuns

PIVOT = method_class("pivot")
PARTS = ("temporal.", "spatial_prompts.", "temporal_prompts.")
State = dict[str, Tensor]


@pytest.fixture
def trunk(float64: None) -> Any:
    return backbone("clip_tiny").load(None)


def config(**changes: Any) -> Any:
    """Return a quick config whose rate moves what it trains."""
    quick = {"lr": 0.1, "temporal_layers": 1}
    return config_of(PIVOT, **quick | changes)


def scores(method: Any, clips: Tensor) -> Tensor:
    with torch.inference_mode():
        return method.predict(clips)["text"]


@dataclasses.dataclass(frozen=True)
class Phase:
    """What a phase trained on, and what it changed.

    Attributes:
        name: Of the phase.
        samples: Videos and exemplars.
        changed: Parameters.
    """

    name: str
    samples: list[Any]
    changed: set[str]


@contextmanager
def phases_of(method: Any) -> Iterator[list[Phase]]:
    """Note the phases of a method's training."""
    seen: list[Phase] = []
    train_epochs = method.train_epochs

    def watched(samples: Any, *args: Any, **keys: Any) -> Any:
        before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        yield from train_epochs(samples, *args, **keys)
        after = method.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        seen.append(Phase(keys["phase"], list(samples), changed))

    method.train_epochs = watched
    yield seen
    del method.train_epochs


def test_each_phase_trains_its_part_on_its_videos(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    method = seeded.construct(PIVOT, config(), context_of(trunk, tiny.protocol), 1)
    kept: list[Any] = []
    for task in (stream.task(0), stream.task(1)):
        seeded.grow(method, task, 1)
        with phases_of(method) as phases:
            seeded.learn(method, task, 1)
        number = task.index + 1
        module = {name for name, _ in method.named_parameters() if name.startswith("temporal.")}
        prompts = {f"spatial_prompts.{task.index}", f"temporal_prompts.{task.index}"}
        expected = [
            Phase(f"task {number} videos", list(task.train), module),
            Phase(f"task {number} prompts", list(task.train), prompts),
            Phase(f"task {number} replay", [*task.train, *kept], module),
        ]
        assert phases == expected[: 3 if task.index else 2]
        kept = exemplars_of(method)
    assert {sample.label for sample in kept} == {0, 1, 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"spatial_prompts": 0},
        pytest.param({"temporal_prompts": 0}, marks=pytest.mark.slow),
        pytest.param({"template": "a photo of a {}"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_kind_of_prompt_and_the_text_act(
    changes: dict[str, Any], trunk: Any, stream: TaskStream, tiny: Any
) -> None:
    method = learn(PIVOT, config(**changes), trunk, stream, tiny, 2)
    without = {f"{key}." for key, value in changes.items() if value == 0}
    assert {part for part in PARTS for name in method.state_dict() if name.startswith(part)} == {
        *PARTS
    } - without
    clips = clips_of(stream, method, 2)
    found, usual = scores(method, clips), scores(learn(PIVOT, config(), trunk, stream, tiny, 2), clips)
    assert found.shape == usual.shape
    assert found.isfinite().all()
    assert not torch.allclose(found, usual)


def test_without_any_prompt_the_first_task_has_one_phase(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    none = {"spatial_prompts": 0, "temporal_prompts": 0}
    method = seeded.construct(PIVOT, config(**none), context_of(trunk, tiny.protocol), 1)
    seeded.grow(method, stream.task(0), 1)
    with phases_of(method) as phases:
        seeded.learn(method, stream.task(0), 1)
    assert [phase.name for phase in phases] == ["task 1 videos"]


def test_prompts_of_a_task_stay_as_they_were(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    one, two = (learn(PIVOT, config(), trunk, stream, tiny, steps) for steps in (1, 2))
    for kind in ("spatial_prompts", "temporal_prompts"):
        assert torch.equal(getattr(one, kind)[0], getattr(two, kind)[0])
        assert [p.requires_grad for p in getattr(two, kind)] == [False, True]
    assert not torch.equal(one.temporal.cls, two.temporal.cls)


def test_the_predicted_task_decides_which_prompts_a_clip_gets(
    trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = learn(PIVOT, config(), trunk, stream, tiny, 2)
    clips = clips_of(stream, method, 2)
    by_task = []
    for task in range(2):
        told = functools.partial(lambda task, video, *_: torch.full((len(video),), task), task)
        monkeypatch.setattr(pivot, "predict_tasks", told)
        by_task.append(scores(method, clips))
    monkeypatch.undo()
    assert not torch.allclose(*by_task)
    with torch.inference_mode():
        frames = trunk.encode_frames(clips, None)
        tasks = pivot.predict_tasks(method.temporal(frames), method.texts, method.task_of_class)
    assert method.task_of_class.tolist() == [0, 0, 1]
    torch.testing.assert_close(scores(method, clips), torch.stack(by_task)[tasks, range(len(clips))])


def test_the_third_phase_takes_every_clip_with_its_predicted_prompts_and_without(
    trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[tuple[Tensor, list[int]]] = []
    losses = pivot.contrastive_loss

    def watched(video: Tensor, texts: Tensor, labels: Tensor, **keys: Any) -> Tensor:
        batches.append((video.detach(), labels.tolist()))
        return losses(video, texts, labels, **keys)

    predicted: list[list[int]] = []
    predict = pivot.predict_tasks

    def seen(video: Tensor, *given: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        predicted.append(predict(video, *given).tolist())
        return predict(video, *given)

    still = config(temporal_dropout=0.0)
    method = learn(PIVOT, still, trunk, stream, tiny, 1)
    task = stream.task(1)
    seeded.grow(method, task, 1)
    monkeypatch.setattr(pivot, "contrastive_loss", watched)
    monkeypatch.setattr(pivot, "predict_tasks", seen)
    seeded.learn(method, task, 1)
    num_replayed = len(predicted)
    for (video, labels), tasks in zip(batches[-num_replayed:], predicted, strict=True):
        half = len(labels) // 2
        assert labels[:half] == labels[half:]
        assert len(tasks) == half
        assert not torch.allclose(video[:half], video[half:])


def test_a_clip_is_predicted_the_same_alone_and_in_any_batch(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    method = learn(PIVOT, config(), trunk, stream, tiny, 3)
    clips = clips_of(stream, method, 3)
    together = scores(method, clips)
    for i in range(len(clips)):
        torch.testing.assert_close(scores(method, clips[i : i + 1])[0], together[i])


def test_the_layers_of_the_temporal_module_start_equal(trunk: Any, tiny: Any) -> None:
    method = seeded.construct(PIVOT, config(temporal_layers=3), context_of(trunk, tiny.protocol), 1)
    first, *others = (layer.state_dict() for layer in method.temporal.layers)
    assert len(others) == 2
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
    assert 0.5 < float(method.temporal.cls.detach().std()) < 1.5


def test_heads_that_do_not_divide_the_feature_size_are_refused(trunk: Any, tiny: Any) -> None:
    with pytest.raises(ConfigError, match="temporal_heads: 3 does not divide the feature size 128"):
        seeded.construct(PIVOT, config(temporal_heads=3), context_of(trunk, tiny.protocol), 1)


@pytest.mark.slow
def test_a_run_that_is_stopped_after_every_step_of_every_phase_ends_the_same(tmp_path: Path, trunk: Any) -> None:
    (tmp_path / "videos").mkdir()
    data = SmallData(tmp_path / "videos")
    runs = SmallRuns(PIVOT, config(batch_size=2), trunk, SHRINKING)
    tasks = data.tasks((2, 1))
    learnt = runs.learn_all(tasks)
    names = [epoch["phase"] for epoch in learnt.losses[-1]]
    assert names == ["task 2 videos", "task 2 prompts", "task 2 replay"]
    steps = learnt.batches[-1]
    assert steps >= 2 * len(names)
    resumed = runs.resume_with_stops(learnt.states[0], tasks, tmp_path, [1] * (steps - 1))
    assert resumed.losses[-1] == learnt.losses[-1]
    assert all(torch.equal(resumed.states[-1][name], tensor) for name, tensor in learnt.states[-1].items())
