"""Exemplar memory: the authors' rankings, budgets that hold at every moment, and state that survives a resume.

A memory that keeps more than the protocol allows makes every number of a run incomparable, and nothing else in
a run would show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch
from golden_files import DTYPES, tensors
from waiting import Waits

from vcil_bench.data.loader import Sample
from vcil_bench.memory import (
    ExemplarMemory,
    MemoryBudgetError,
    check_budget,
    herding_order,
    nearest_to_mean_order,
    random_order,
)
from vcil_bench.protocol import ClipSpec, MemorySpec
from vcil_bench.stream import Task

CLIP = ClipSpec(frames=8, size=10)
SIZES = (2, 1, 2)  # new classes of three tasks


def videos(label: int, count: int, frames: int = 20) -> list[Sample]:
    return [Sample(f"c{label}v{i}", f"c{label}v{i}.mp4", label, frames) for i in range(count)]


def tasks(counts: Sequence[int] = (9, 9, 9, 9, 9), sizes: Sequence[int] = SIZES, frames: int = 20) -> list[Task]:
    """Return tasks whose training videos come class after class, but in turn within the task."""
    found, num_old = [], 0
    for index, size in enumerate(sizes):
        labels = range(num_old, num_old + size)
        of_class = [videos(label, counts[label], frames) for label in labels]
        longest = max(map(len, of_class))
        train = tuple(own[i] for i in range(longest) for own in of_class if i < len(own))
        found.append(Task(index, tuple(labels), tuple(map(str, labels)), num_old, train))
        num_old += size
    return found


def ranked(memory: ExemplarMemory, task: Task) -> dict[int, list[int]]:
    """Rank the last video of each new class first."""
    labels = range(task.num_old, task.num_seen)
    return {label: list(range(len(memory.candidates(label))))[::-1] for label in labels}


def learn(memory: ExemplarMemory, task: Task) -> None:
    memory.grow(task)
    memory.store(task, ranked(memory, task))


def ids(memory: ExemplarMemory, label: int) -> list[str]:
    return [sample.id for sample in memory.of_class(label)]


def best(label: int, count: int, of: int = 9) -> list[str]:
    return [f"c{label}v{of - 1 - i}" for i in range(count)]


# --- rankings


@DTYPES
def test_the_ranking_by_nearness_to_the_mean_equals_the_authors(precision: str) -> None:
    data = tensors("tcd_07", precision)
    features, k = data["features_frames"].mean(dim=1), int(data["K"])
    assert nearest_to_mean_order(features, k) == data["ranking_K"].tolist()
    assert nearest_to_mean_order(features, 100) == data["ranking_all"].tolist()
    assert nearest_to_mean_order(features, k)[:3] == data["ranking_reduced_to_3"].tolist()


@DTYPES
@pytest.mark.parametrize("mode", ["unified", "reduce_construct"])
def test_herding_equals_pycil(mode: str, precision: str) -> None:
    data = tensors("pycil_19", precision)
    per_class, labels = int(data["samples_per_class"]), data["train_labels"]
    chosen, chosen_labels = data[f"{mode}_memory_indices"], data[f"{mode}_memory_labels"]
    for label in range(int(data["n_old_classes"]), int(labels.max()) + 1):
        rows = (labels == label).nonzero()[:, 0]
        order = herding_order(data["train_features"][rows], per_class)
        assert rows[order].tolist() == chosen[chosen_labels == label].tolist()


@DTYPES
def test_old_classes_keep_the_first_of_their_order_as_in_pycil(precision: str) -> None:
    data = tensors("pycil_19", precision)
    num_old, features, labels = int(data["n_old_classes"]), data["train_features"], data["train_labels"]
    stored = data["old_memory_indices"].unflatten(0, (num_old, -1))
    memory = ExemplarMemory(MemorySpec(total=int(data["memory_size_total"])), CLIP)
    both = tasks([18] * 6, sizes=(num_old, 3))
    memory.grow(both[0])
    first = {label: (stored[label] - 18 * label).tolist() for label in range(num_old)}
    memory.store(both[0], first)
    memory.grow(both[1])
    memory.store(both[1], {c: herding_order(features[labels == c], 18) for c in range(num_old, 6)})
    rows = [18 * s.label + int(s.id.partition("v")[2]) for s in memory.samples()]
    assert rows == data["reduce_construct_memory_indices"].tolist()


@pytest.mark.parametrize("rank", [herding_order, nearest_to_mean_order])
def test_a_ranking_holds_every_video_once_even_if_they_are_equal(rank: object) -> None:
    assert callable(rank)
    generator = torch.Generator().manual_seed(0)
    for features in (torch.randn(9, 4, generator=generator), torch.ones(9, 4), torch.zeros(9, 4)):
        assert sorted(rank(features, 20)) == list(range(9))
        assert rank(features, 3) == rank(features, 20)[:3]
        assert rank(features, 0) == []
        assert rank(features[:1], 5) == [0]


@pytest.mark.parametrize("rank", [herding_order, nearest_to_mean_order])
def test_a_ranking_does_not_depend_on_the_length_of_features(rank: object) -> None:
    assert callable(rank)
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths = torch.rand(9, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    assert rank(features, 9) == rank(100 * lengths * features, 9)


def test_choosing_and_listing_exemplars_waits_for_a_device_once_not_once_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched = []
    plain = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: fetched.append(tensor.shape) or plain(tensor))
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    with Waits():
        order = herding_order(features, 9)
    assert [tuple(shape) for shape in fetched] == [(9,)]
    memory = ExemplarMemory(MemorySpec(per_class=9, frames=8), CLIP)
    (task,) = tasks(sizes=(3,))
    memory.grow(task)
    memory.store(task, dict.fromkeys(range(3), order))
    fetched.clear()
    assert len(memory.samples()) == 27
    assert [tuple(shape) for shape in fetched] == [(3, 9), (3, 9, 8)]


def test_herding_makes_up_for_what_is_chosen_where_nearness_does_not() -> None:
    angles = torch.tensor([0.6, 0.5, -0.7])  # two videos on one side of the mean, one on the other
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert nearest_to_mean_order(features, 3) == [1, 0, 2]
    assert herding_order(features, 3) == [1, 2, 0]


# --- budgets


def test_a_random_order_is_a_choice_without_repetition() -> None:
    order = random_order(10, 4, np.random.default_rng(1))
    assert len(order) == len(set(order)) == 4
    assert set(order) <= set(range(10))
    assert order == random_order(10, 4, np.random.default_rng(1))
    assert sorted(random_order(3, 4, np.random.default_rng(1))) == [0, 1, 2]
    first = [random_order(10, 1, np.random.default_rng(seed))[0] for seed in range(200)]
    assert set(first) == set(range(10))


def test_a_budget_per_class_gives_every_class_its_share_for_good() -> None:
    memory = ExemplarMemory(MemorySpec(per_class=3, frames=8), CLIP)
    for task in tasks():
        learn(memory, task)
        for label in range(task.num_seen):
            assert ids(memory, label) == best(label, 3)
        assert [s.label for s in memory.samples()] == [c for c in range(task.num_seen) for _ in range(3)]


def test_a_total_budget_shrinks_the_shares_and_old_classes_keep_their_best() -> None:
    memory = ExemplarMemory(MemorySpec(total=10, frames=8), CLIP)
    for task, share in zip(tasks(), (5, 3, 2), strict=True):
        assert memory.share(task.num_seen) == share
        learn(memory, task)
        for label in range(task.num_seen):
            assert ids(memory, label) == best(label, share)


def test_what_was_cut_leaves_no_trace_in_the_state() -> None:
    memory = ExemplarMemory(MemorySpec(total=10, frames=8), CLIP)
    for task in tasks():
        learn(memory, task)
    for rows in memory.state_dict().values():
        assert (rows[:, :2] >= 0).all()
        assert (rows[:, 2:] == -1).all()


def test_old_shares_serve_until_the_new_exemplars_are_chosen() -> None:
    memory = ExemplarMemory(MemorySpec(total=10, frames=8), CLIP)
    first, second, _ = tasks()
    learn(memory, first)
    memory.grow(second)
    assert [len(memory.of_class(label)) for label in range(3)] == [5, 5, 0]


@pytest.mark.parametrize("frames", [8, 3, "all"])
@pytest.mark.parametrize("length", [1, 5, 20])
@pytest.mark.parametrize("budget", [{"per_class": 3}, {"total": 10}, {"total": 5}, {"total": 100}])
def test_the_budget_is_never_exceeded(budget: dict[str, int], length: int, frames: int | str) -> None:
    spec = MemorySpec(**budget, frames=frames)  # type: ignore[arg-type]
    memory = ExemplarMemory(spec, CLIP)

    def check(classes: int) -> None:
        use = memory.use()
        limit = spec.total if spec.total is not None else 3 * classes
        assert use.videos == len(memory.samples()) <= limit
        assert use.frames <= use.videos * (length if frames == "all" else min(int(frames), length))
        assert use.bytes == use.frames * 3 * CLIP.size**2

    for task in tasks(frames=length):
        memory.grow(task)
        check(task.num_seen)
        memory.store(task, ranked(memory, task))
        check(task.num_seen)
        counts = [len(memory.of_class(label)) for label in range(task.num_seen)]
        assert counts == [min(9, memory.share(task.num_seen))] * task.num_seen


def test_a_class_with_fewer_videos_than_its_share_keeps_them_all() -> None:
    memory = ExemplarMemory(MemorySpec(total=20, frames=8), CLIP)
    counts = (2, 9, 1, 9, 9)
    for task, share in zip(tasks(counts), (10, 6, 4), strict=True):
        learn(memory, task)
        for label in range(task.num_seen):
            assert ids(memory, label) == best(label, min(share, counts[label]), of=counts[label])


@pytest.mark.parametrize(("total", "refused"), [(4, True), (5, False)])
def test_a_total_that_leaves_some_class_without_exemplars_is_refused(total: int, refused: bool) -> None:
    if refused:
        with pytest.raises(MemoryBudgetError, match=r"memory\.total = 4 .*protocol\.memory\.total=5"):
            check_budget(MemorySpec(total=total), 5, "tcd")
    else:
        check_budget(MemorySpec(total=total), 5, "tcd")
    check_budget(MemorySpec(per_class=1), 1000, "tcd")


# --- frames


def test_the_middle_frames_of_the_segments_are_stored() -> None:
    memory = ExemplarMemory(MemorySpec(per_class=1, frames=4), CLIP)
    learn(memory, tasks(frames=20)[0])
    assert [s.stored for s in memory.samples()] == [(2, 7, 12, 17)] * 2
    assert memory.use().frames == 8


@pytest.mark.parametrize(("length", "kept"), [(1, (0,)), (3, (0,)), (8, (0,)), (9, (0, 1, 2, 3, 5, 6, 7, 8))])
def test_of_a_video_no_longer_than_its_segments_the_first_frame_is_stored(
    length: int, kept: tuple[int, ...]
) -> None:
    memory = ExemplarMemory(MemorySpec(per_class=2, frames=8), CLIP)
    learn(memory, tasks(frames=length)[0])
    assert [s.stored for s in memory.samples()] == [kept] * 4
    assert memory.use().frames == 4 * len(kept)


def test_candidates_look_as_they_will_be_stored() -> None:
    memory = ExemplarMemory(MemorySpec(per_class=9, frames=4), CLIP)
    task = tasks()[0]
    memory.grow(task)
    candidates = {label: memory.candidates(label) for label in (0, 1)}
    memory.store(task, ranked(memory, task))
    for label, found in candidates.items():
        assert memory.of_class(label) == found[::-1]


def test_whole_videos_are_kept_where_the_budget_counts_no_frames() -> None:
    memory = ExemplarMemory(MemorySpec(per_class=2, frames="all"), CLIP)
    for task in tasks(frames=13):
        learn(memory, task)
    kept = memory.samples()
    assert all(s.stored is None and s.frames == 13 for s in kept)
    assert memory.use().frames == 13 * len(kept) == 130
    assert memory.use().bytes == 130 * 3 * 10 * 10


@pytest.mark.parametrize("fill", ["repeat", "interpolate"])
def test_exemplars_and_candidates_say_how_their_clips_are_filled(fill: Literal["repeat", "interpolate"]) -> None:
    memory = ExemplarMemory(MemorySpec(per_class=1, frames=4, fill=fill), CLIP)
    task = tasks()[0]
    memory.grow(task)
    candidates = [sample for label in (0, 1) for sample in memory.candidates(label)]
    memory.store(task, ranked(memory, task))
    for sample in [*candidates, *memory.samples()]:
        assert (len(sample.stored or ()), sample.interpolated) == (4, fill == "interpolate")
    assert memory.use().frames == 8  # what is interpolated is not kept


def test_bytes_count_the_protocols_input_size() -> None:
    memory = ExemplarMemory(MemorySpec(per_class=1, frames=4), ClipSpec(frames=8, size=224))
    learn(memory, tasks()[0])
    assert memory.use().bytes == 2 * 4 * 3 * 224 * 224


def test_videos_that_were_not_chosen_are_out_of_reach() -> None:
    memory = ExemplarMemory(MemorySpec(per_class=3, frames=8), CLIP)
    task = tasks()[0]
    learn(memory, task)
    for label in (0, 1):
        chosen = {f"{name}.mp4" for name in best(label, 3)}
        reachable = [s.path for s in memory._videos[label] if s.path]
        assert set(reachable) == chosen
        with pytest.raises(AssertionError, match="have been chosen"):
            memory.candidates(label)


def test_an_empty_memory_uses_nothing() -> None:
    memory = ExemplarMemory(MemorySpec(total=10), CLIP)
    assert memory.samples() == []
    use = memory.use()
    assert (use.videos, use.frames, use.bytes) == (0, 0, 0)


# --- resuming


@pytest.mark.parametrize("frames", [8, "all"])
@pytest.mark.parametrize("budget", [{"per_class": 3}, {"total": 10}])
@pytest.mark.parametrize("learnt", [1, 2, 3])
def test_a_resumed_memory_holds_the_same_and_goes_on_alike(
    learnt: int, budget: dict[str, int], frames: int | str
) -> None:
    spec, stream = MemorySpec(**budget, frames=frames), tasks((9, 2, 9, 9, 9))  # type: ignore[arg-type]
    memory, resumed = ExemplarMemory(spec, CLIP), ExemplarMemory(spec, CLIP)
    for task in stream[:learnt]:
        learn(memory, task)
        resumed.grow(task)
    assert resumed.samples() == []
    resumed.load_state_dict({key: value.clone() for key, value in memory.state_dict().items()})
    assert memory.samples()
    assert resumed.samples() == memory.samples()
    assert resumed.use() == memory.use()
    for task in stream[learnt:]:
        learn(memory, task)
        learn(resumed, task)
        assert resumed.samples() == memory.samples()
    assert all(s.path for s in memory.samples())
