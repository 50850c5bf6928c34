"""Feature memory: what it counts, budgets that hold at every moment, and state that survives a resume."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vcil_bench.data.loader import Sample
from vcil_bench.feature_memory import FeatureMemory
from vcil_bench.memory import MemoryBudgetError
from vcil_bench.protocol import MemorySpec
from vcil_bench.record_schema import MemoryUse
from vcil_bench.run.loop import exceeds_budget
from vcil_bench.stream import Task

DIM, FRAMES = 3, 2


def tasks(*sizes: int, videos: int = 9) -> list[Task]:
    """Return tasks of so many classes, whose videos take turns."""
    made, num_old = [], 0
    for index, size in enumerate(sizes):
        labels = range(num_old, num_old + size)
        train = tuple(Sample(f"{c}-{i}", f"{c}-{i}.mp4", c, 20) for i in range(videos) for c in labels)
        made.append(Task(index, tuple(labels), tuple(map(str, labels)), num_old, train))
        num_old += size
    return made


def memory_of(budget: MemorySpec, per_class: int = 100, frames: int = FRAMES) -> FeatureMemory:
    return FeatureMemory(budget, dim=DIM, frames=frames, per_class=per_class)


def features_of(label: int, number: int, frames: int = FRAMES) -> Tensor:
    """Return features that name their class and their video."""
    first = 100 * label + torch.arange(number)
    return first[:, None, None].expand(number, frames, DIM).float()


def learn(memory: FeatureMemory, task: Task) -> None:
    memory.grow(task)
    for label, places in memory.choose(task, np.random.default_rng(task.index)).items():
        positions = torch.arange(memory.frames).expand(len(places), -1)
        memory.store(task, label, features_of(label, len(places), memory.frames), positions)


def kept(memory: FeatureMemory) -> dict[int, list[int]]:
    """Return which videos there are of each class."""
    rows = memory.rows()
    found: dict[int, list[int]] = {}
    for label, feature in zip(rows.labels.tolist(), rows.features, strict=True):
        assert (feature == feature[0, 0]).all()
        found.setdefault(label, []).append(int(feature[0, 0]) - 100 * label)
    return found


def test_videos_frames_and_bytes_are_counted() -> None:
    memory = memory_of(MemorySpec(per_class=5, frames=8), per_class=4)
    assert memory.use() == MemoryUse()
    for task in tasks(2, 1):
        learn(memory, task)
    assert memory.use() == MemoryUse(12, 24, 24 * DIM * 4, feature_frames=24)
    rows = memory.rows()
    assert rows.features.shape == (12, FRAMES, DIM)
    assert rows.positions.tolist() == [[0, 1]] * 12
    assert rows.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize(
    ("budget", "frames", "expected"),
    [
        (MemorySpec(per_class=2, frames=4), 2, [4, 4, 4]),  # eight frames of each class
        (MemorySpec(per_class=2, frames=4), 3, [2, 2, 2]),
        (MemorySpec(total=6, frames=4), 2, [6, 4, 2]),  # 24 frames over 2, 3 and 6 classes
        (MemorySpec(per_class=3, frames="all"), 2, [3, 3, 3]),  # videos, where their frames are not limited
        (MemorySpec(total=7, frames="all"), 2, [3, 2, 1]),
        (MemorySpec(per_class=50, frames=8), 2, [9, 9, 9]),  # all there are
    ],
)
def test_the_budget_holds_after_every_task_and_old_classes_keep_their_first(
    budget: MemorySpec, frames: int, expected: list[int]
) -> None:
    memory = memory_of(budget, frames=frames)
    for task, share in zip(tasks(2, 1, 3), expected, strict=True):
        learn(memory, task)
        assert kept(memory) == {label: list(range(share)) for label in range(task.num_seen)}
        assert not exceeds_budget(budget, memory.use(), task.num_seen)
        assert memory.features[memory.positions[:, :, 0] < 0].abs().sum() == 0  # what was cut is gone


def test_one_video_too_many_is_over_the_budget() -> None:
    def of(videos: int, **more: int) -> MemoryUse:
        return MemoryUse(videos, 2 * videos, 100, **more)

    frames, whole = MemorySpec(per_class=2, frames=4), MemorySpec(per_class=2)
    assert not exceeds_budget(frames, of(8, feature_frames=16), 2)
    assert exceeds_budget(frames, of(9, feature_frames=18), 2)
    assert exceeds_budget(frames, of(5), 2)  # pixels: four videos are allowed, of however few frames
    assert exceeds_budget(frames, of(5, feature_frames=8), 2)  # some of them
    assert not exceeds_budget(whole, of(4, feature_frames=8), 2)
    assert exceeds_budget(whole, of(5, feature_frames=10), 2)
    assert exceeds_budget(None, of(1, feature_frames=2), 2)


@pytest.mark.parametrize(
    ("budget", "frames", "classes"),
    [
        (MemorySpec(per_class=1, frames=1), 2, 2),
        (MemorySpec(total=3, frames=2), 4, 2),
        (MemorySpec(total=1), 2, 2),
    ],
)
def test_a_budget_without_room_for_a_video_of_each_class_is_refused(
    budget: MemorySpec, frames: int, classes: int
) -> None:
    memory = memory_of(budget, frames=frames)
    with pytest.raises(MemoryBudgetError, match=rf"{frames} frames of a video .* {classes} classes.*per_class="):
        memory.grow(tasks(classes)[0])


def test_videos_are_chosen_at_random_and_each_once() -> None:
    memory = memory_of(MemorySpec(per_class=5, frames=8), per_class=4)
    (task,) = tasks(3)
    chosen = memory.choose(task, np.random.default_rng(0))
    for label, places in chosen.items():
        assert len(set(places)) == 4
        assert {task.train[place].label for place in places} == {label}
    assert memory.choose(task, np.random.default_rng(0)) == chosen
    assert memory.choose(task, np.random.default_rng(1)) != chosen
    drawn = np.zeros(9)
    for seed in range(300):
        drawn[[place // 3 for place in memory.choose(task, np.random.default_rng(seed))[0]]] += 1
    assert abs(drawn / 300 - 4 / 9).max() < 0.12


def test_a_resumed_memory_holds_the_same_and_nothing_beside_its_buffers() -> None:
    budget = MemorySpec(total=4, frames=4)
    memory, resumed = memory_of(budget), memory_of(budget)
    made = tasks(2, 2)
    for task in made:
        learn(memory, task)
        resumed.grow(task)
    resumed.load_state_dict(memory.state_dict())
    assert resumed.use() == memory.use()
    for ours, theirs in zip(vars(memory.rows()).values(), vars(resumed.rows()).values(), strict=True):
        assert torch.equal(ours, theirs)
    assert not any(isinstance(value, (list, tuple, dict)) and value for value in _own(memory).values())


def _own(module: torch.nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that torch does not give it."""
    return {name: value for name, value in vars(module).items() if name not in vars(torch.nn.Module())}
