"""ESSENTIAL: every part is alive in training, fixed views are read once, and either stage resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import clips_of, config_of, context_of, learn, method_class, stream_of, untried_switches
from torch import Tensor

from vcil_bench.common.config import ConfigError
from vcil_bench.data import loader as loading
from vcil_bench.memory import MemoryBudgetError
from vcil_bench.methods.essential import ESSENTIAL
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.clip import ClipTrunk
from vcil_bench.protocol import MemorySpec
from vcil_bench.run import seeded
from vcil_bench.testing.contract import PROTOCOL, quick_values
from vcil_bench.testing.small_data import SmallData
from vcil_bench.testing.small_runs import SmallRuns

# A rate at which a step tells; without decay what moves moves by its gradient.
SEEN: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.0, "epochs": 2, "views": "fixed"}
VARIANTS: list[dict[str, Any]] = [
    {"temporal_matching": "release"},
    {"temporal_matching": "none"},
    {"views": "fixed"},
    {"rehearse_base": False},
]


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


def method_of(trunk: Any, tiny: Any, steps: int, **changes: Any) -> ESSENTIAL:
    config = config_of(ESSENTIAL, **changes)
    method = learn(ESSENTIAL, config, trunk, stream_of(tiny, sizes=(2, 2)), tiny, steps=steps)
    assert isinstance(method, ESSENTIAL)
    return method


def losses_of(method: ESSENTIAL, phase: str) -> list[dict[str, Any]]:
    return [loss for loss in method.context.trainer.losses if loss["phase"] == phase]


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Return the names of what is different in every row but those that are new."""
    return {name for name, value in before.items() if not torch.equal(value, after[name][: len(value)])}


@pytest.fixture(scope="module")
def plain(trunk: Any, tiny: Any) -> Tensor:
    return scores(trunk, tiny)


def scores(trunk: Any, tiny: Any, **changes: Any) -> Tensor:
    method = method_of(trunk, tiny, 2, **({"lr": 0.1} | changes))
    with torch.no_grad():
        return method.predict(clips_of(stream_of(tiny, sizes=(2, 2)), method, 2))["cnn"]


def test_every_switch_is_among_the_variants() -> None:
    assert untried_switches(ESSENTIAL, VARIANTS) == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, marks=() if number == 0 else pytest.mark.slow)
        for number, changes in enumerate(VARIANTS)
    ],
    ids=str,
)
def test_every_switch_changes_the_scores(changes: dict[str, Any], plain: Tensor, trunk: Any, tiny: Any) -> None:
    changed = scores(trunk, tiny, **changes)
    assert changed.isfinite().all()
    assert not torch.allclose(changed, plain)


# --- parts


def test_every_part_learns_and_the_modules_of_old_tasks_stay(trunk: Any, tiny: Any) -> None:
    # A fresh module learns at the task's second step: the first has a rate of 0, the warm-up's.
    first, both = (method_of(trunk, tiny, steps, **SEEN) for steps in (1, 2))
    fresh = seeded.construct(ESSENTIAL, first.config, context_of(trunk, tiny.protocol), 1)
    seeded.grow(fresh, stream_of(tiny, sizes=(2, 2)).task(0), 1)
    start, middle, end = (dict(method.named_parameters()) for method in (fresh, first, both))
    assert moved(start, middle) == start.keys()
    # The temporal embedding is learnt though it began at 0, and the packed projections in all three thirds.
    for name, value in middle.items():
        if name.endswith("in_proj_weight"):
            thirds = zip(start[name].chunk(3), value.chunk(3), strict=True)
            assert not any(torch.equal(a, b) for a, b in thirds)
    assert (middle["temporal.temporal_embedding"].abs().amax(dim=2) > 0).all()
    old = {name for name in middle if name.startswith("retrieval.0.")}
    assert moved(middle, end) == middle.keys() - old
    assert {name for name, p in both.named_parameters() if not p.requires_grad} == old


def test_the_first_stage_trains_the_task_s_outputs_and_only_rehearsal_the_old_ones(
    trunk: Any, tiny: Any
) -> None:
    rows = {}
    for rehearsal in (0, 1):
        ends = [method_of(trunk, tiny, n, **SEEN, rehearsal_epochs=rehearsal).head.weight for n in (1, 2)]
        rows[rehearsal] = [torch.equal(a, b) for a, b in zip(ends[0], ends[1][:2], strict=True)]
    assert rows == {0: [True, True], 1: [False, False]}


@pytest.mark.parametrize("matching", ["full", "release", "none"])
def test_matching_losses_are_there_and_fall(matching: str, trunk: Any, tiny: Any) -> None:
    settings = SEEN | {"epochs": 6, "lr": 0.2, "path_dropout": 0.0, "temporal_matching": matching}
    losses = losses_of(method_of(trunk, tiny, 1, **settings), "task 1")
    names = {"classification", "static"} | ({"temporal"} if matching != "none" else set())
    assert losses[0].keys() - {"phase", "epoch"} == names
    for name in names - ({"temporal"} if matching == "release" else set()):  # which draws the clips together
        assert losses[-1][name] < losses[0][name]


def test_rehearsal_reads_what_is_stored_and_nothing_else(trunk: Any, tiny: Any) -> None:
    """Clips of old videos are out of reach; other features in the memory are another rehearsal."""
    method = method_of(trunk, tiny, 2, **SEEN)
    state = {name: value.clone() for name, value in method.state_dict().items()}
    task = stream_of(tiny, sizes=(2, 2)).task(1)
    outcomes = []
    for factor in (1.0, 2.0):
        method.load_state_dict(state)
        method.memory.features[:2] *= factor
        method.train()
        method.context.trainer.begin_task(1)
        with method.context.loader.limited_to((), lambda: ()):
            torch.manual_seed(0)
            method._rehearse(task)
        (losses,) = losses_of(method, "task 2 rehearsal")
        assert losses.keys() == {"phase", "epoch", "sparse", "retrieved"}
        outcomes.append({name: value.clone() for name, value in method.state_dict().items()})
    trained = {name for name in state if name.startswith(("temporal.", "head."))}
    assert moved(state, outcomes[0]) == trained
    assert moved(outcomes[0], outcomes[1]) == trained | {"memory.features"}


def test_every_stored_video_is_retrieved_by_the_module_of_its_task(trunk: Any, tiny: Any) -> None:
    method = method_of(trunk, tiny, 2, **SEEN, batch_size=5)
    seen: list[tuple[int, Tensor]] = []
    for number, module in enumerate(method.retrieval):
        module.register_forward_pre_hook(lambda _, given, number=number: seen.append((number, given[0])))
    method.context.trainer.begin_task(1)
    method._rehearse(stream_of(tiny, sizes=(2, 2)).task(1))  # in evaluation mode: nothing drops out
    stored = method.memory.rows()
    counts = [0, 0]
    for number, sparse in seen:
        for clip in sparse:
            # The embedding moves with every step, by less than videos are apart.
            nearest = (stored.features - clip).square().sum(dim=(1, 2)).argmin()
            assert int(stored.labels[nearest]) // 2 == number
            counts[number] += 1
    assert counts == [int((stored.labels // 2 == number).sum()) for number in range(2)]


def test_stored_features_are_those_of_random_frames_of_the_task_s_videos(trunk: Any, tiny: Any) -> None:
    method = method_of(trunk, tiny, 1, **SEEN)
    task = stream_of(tiny, sizes=(2, 2)).task(0)
    whole = method._encode(task.train)
    stored = method.memory.rows()
    videos = set()
    for features, positions, label in zip(stored.features, stored.positions, stored.labels, strict=True):
        assert positions.tolist() == sorted(set(positions.tolist()))
        (place,) = {i for i, video in enumerate(whole) if torch.allclose(video[positions], features, atol=1e-5)}
        assert task.train[place].label == label
        videos.add(place)
    assert len(videos) == len(stored.labels) == 4  # two of each class, as one video of four frames is allowed
    assert len({tuple(row) for row in stored.positions.tolist()}) > 1


def test_features_and_modules_are_counted(trunk: Any, tiny: Any) -> None:
    method = method_of(trunk, tiny, 2, **SEEN)
    use, dim = method.memory_use(), 128
    assert (use.videos, use.frames, use.bytes, use.feature_frames) == (8, 16, 16 * dim * 4, 16)
    retrieval = sum(p.numel() for p in method.retrieval[0].parameters())
    assert use.statistics_bytes == 2 * 4 * retrieval
    assert (
        retrieval == 12 * dim**2 + 4 * dim + 4 * dim + dim + 6 * dim + 4 * dim
    )  # weights, biases, norms, prompts


# --- fixed views


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the videos that are decoded and the clips that CLIP encodes."""
    counts = {"decoded": 0, "encoded": 0}
    read, encode = loading.read_frames, ClipTrunk.encode_frames

    def reading(*arguments: Any, **more: Any) -> Any:
        counts["decoded"] += 1
        return read(*arguments, **more)

    def encoding(trunk: ClipTrunk, clips: Tensor, *arguments: Any, **more: Any) -> Any:
        counts["encoded"] += len(clips)
        return encode(trunk, clips, *arguments, **more)

    monkeypatch.setattr(loading, "read_frames", reading)
    monkeypatch.setattr(ClipTrunk, "encode_frames", encoding)
    return counts


@pytest.mark.parametrize(("views", "passes"), [("fixed", 1), ("random", 3)])
def test_with_fixed_views_videos_are_decoded_and_encoded_once_however_many_epochs(
    views: str, passes: int, work: dict[str, int], trunk: Any, tiny: Any
) -> None:
    method = method_of(trunk, tiny, 1, views=views, epochs=3, rehearsal_epochs=3)
    videos = len(stream_of(tiny, sizes=(2, 2)).task(0).train)
    stored = 0 if views == "fixed" else method.memory_use().videos
    assert work == dict.fromkeys(("decoded", "encoded"), passes * videos + stored)
    assert len(losses_of(method, "task 1")) == len(losses_of(method, "task 1 rehearsal")) == 3


# --- resuming


@pytest.mark.parametrize("views", ["random", pytest.param("fixed", marks=pytest.mark.slow)])
def test_it_goes_on_where_it_was_stopped_in_either_stage(views: str, trunk: Any, tmp_path: Path) -> None:
    """Stopped after the first batch, after the last of the first stage, and in the rehearsal."""
    values = quick_values(ESSENTIAL) | {"views": views, "lr": 0.1, "epochs": 1, "rehearsal_epochs": 1}
    config, _ = ESSENTIAL.resolve_config(PROTOCOL, values)
    runs = SmallRuns(ESSENTIAL, config, trunk, MemorySpec(per_class=2, frames=4))
    tasks = SmallData(tmp_path).tasks((2, 1))[:1]
    whole = runs.learn_all(tasks)
    assert whole.batches == [4]  # two of eight videos, two of as many that are kept
    resumed = runs.resume_with_stops(None, tasks, tmp_path / "resumed", [1, 1, 1])
    assert moved(whole.states[-1], resumed.states[-1]) == set()
    assert resumed.losses == whole.losses


# --- refusals


@pytest.mark.parametrize(
    "changes", [{"frames_per_video": 0}, {"path_dropout": 1.0}, {"rehearsal_epochs": -1}, {"lr": 0.0}]
)
def test_values_that_no_run_can_use_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        config_of(ESSENTIAL, **changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"frames_per_video": 5}, "at most 4"), ({"head_width": 48}, "do not divide the feature size 128")],
)
def test_what_does_not_fit_clips_or_features_is_refused_before_any_work(
    changes: dict[str, Any], text: str, trunk: Any, tiny: Any
) -> None:
    with pytest.raises(ConfigError, match=text):
        ESSENTIAL(config_of(ESSENTIAL, **changes), context_of(trunk, tiny.protocol))


def test_a_protocol_without_room_is_refused(trunk: Any, tiny: Any) -> None:
    config, stream = config_of(ESSENTIAL), stream_of(tiny)
    with pytest.raises(MemoryBudgetError, match="2 frames of a video"):
        learn(ESSENTIAL, config, trunk, stream, tiny, steps=1, memory__frames=1)


def test_recipes_follow_the_scripts() -> None:
    def of(protocol: str) -> tuple[int, ...]:
        c = method_class("essential").resolve_config(protocol, {})[0]
        return c.epochs, c.rehearsal_epochs, c.videos_per_class, c.frames_per_video, c.temporal_layers

    assert of("vclimb_ucf101_20") == (30, 20, 16, 2, 1)
    assert of("tcd_ssv2_10x9") == (50, 25, 4, 4, 3)
    assert of("tcd_hmdb51_5x5") == (30, 20, 10, 2, 1)
