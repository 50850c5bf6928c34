"""SFCL: its formulas against a second computation, and that every part of it is alive in training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_files import DTYPES, close, tensors
from small_runs import clips_of, config_of, context_of, learn, method_class, stream_of, untried_switches
from torch import Tensor

from vcil_bench.classifier import ClassifierConfig
from vcil_bench.common.config import ConfigError
from vcil_bench.gaussians import class_gaussians
from vcil_bench.methods.sfcl import (
    SFCL,
    Branch,
    folded_distillation,
    folded_probabilities,
    mixed_branches,
    mixed_linear,
)
from vcil_bench.nets.backbones import backbone
from vcil_bench.protocol import MemorySpec
from vcil_bench.run import seeded
from vcil_bench.testing.contract import quick_values
from vcil_bench.testing.small_data import SmallData
from vcil_bench.testing.small_runs import SmallRuns

CLASS = method_class("sfcl")
VARIANTS: list[dict[str, Any]] = [
    *({"replay": False}, {"alpha": 0.0}, {"beta": 0.0}, {"gamma": 10.0}, {"gate_epochs": 2}),
    *({"covariance": "pooled"}, {"covariance": "diagonal"}),
]

# --- formulas


def branch(data: dict[str, Tensor], kind: str) -> Branch:
    """Return a branch of the recorded weights."""
    made = Branch(6, 10).to(data["features"].dtype)
    made.grow(7)
    parts = {"bottleneck.weight": "bottleneck_weight", "bottleneck.bias": "bottleneck_bias"}
    names = parts | {"up": "up_weight", "down": "down_weight"}
    made.load_state_dict({ours: data[f"{kind}_{theirs}"] for ours, theirs in names.items()})
    return made


@DTYPES
def test_mixed_branches_and_losses_equal_the_second_computation(precision: str) -> None:
    data = tensors("sfcl_01", precision)
    fast, slow = branch(data, "fast").requires_grad_(False), branch(data, "slow")
    gate_weight = data["gate_weight"].requires_grad_()
    x, num_old = data["features"], int(data["num_old"])
    gate = F.linear(x, gate_weight, data["gate_bias"])[:, 0].sigmoid()
    close(gate.detach(), data["gate"])
    bottleneck, logits = mixed_branches(x, gate, fast, slow)
    close(bottleneck.detach(), data["bottleneck"])
    close(logits.detach(), data["logits"])
    close(folded_probabilities(logits, num_old).detach(), data["folded_probability"])
    teacher = F.linear(x, data["teacher_bottleneck_weight"], data["teacher_bottleneck_bias"])
    losses = {
        "main": F.cross_entropy(logits, data["labels"]),
        "feature": F.mse_loss(bottleneck, teacher),
        "probability": folded_distillation(logits, data["teacher_logits"]),
    }
    for name, loss in losses.items():
        close(loss.detach(), data[f"loss_{name}"])
    total = torch.stack(list(losses.values())).sum()
    close(total.detach(), data["loss_total"])
    total.backward()
    for name, parameter in (
        ("slow_bottleneck_weight", slow.bottleneck.weight),
        ("slow_bottleneck_bias", slow.bottleneck.bias),
        ("slow_up_weight", slow.up),
        ("slow_down_weight", slow.down),
        ("gate_weight", gate_weight),
    ):
        assert parameter.grad is not None
        close(parameter.grad, data[f"grad_{name}"])


@DTYPES
def test_a_mixed_layer_is_the_layer_of_mixed_weights(precision: str) -> None:
    data = tensors("sfcl_01", precision)
    x, gate = data["features"], data["gate"]
    parts = [data[f"{kind}_bottleneck_{part}"] for part in ("weight", "bias") for kind in ("fast", "slow")]
    found = mixed_linear(x, gate, *parts)
    for row, a, expected in zip(x, gate, found, strict=True):
        weight, bias = (a * parts[i] + (1 - a) * parts[i + 1] for i in (0, 2))
        close(F.linear(row, weight, bias), expected)


@DTYPES
def test_statistics_of_a_class_equal_the_second_computation(precision: str) -> None:
    data = tensors("sfcl_01", precision)
    means, covariances = class_gaussians(data["class_features"], torch.zeros(7, dtype=torch.long), 1)
    close(means[0], data["class_mean"])
    close(covariances[0], data["class_covariance"])


def test_folded_probabilities_are_probabilities_and_their_divergence_stays_finite() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [-400.0, 0.0, -500.0, 0.0]], requires_grad=True)
    folded = folded_probabilities(logits, 2)
    torch.testing.assert_close(folded.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(folded[1], torch.tensor([0.25, 0.75]))
    far = torch.tensor([[500.0, 0.0, -500.0]], requires_grad=True)
    loss = folded_distillation(far, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert loss.isfinite()
    assert far.grad is not None
    assert far.grad.isfinite().all()


# --- training


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


def learnt(trunk: Any, tiny: Any, steps: int = 2, **changes: Any) -> SFCL:
    method = learn(CLASS, config_of(CLASS, **changes), trunk, stream_of(tiny, sizes=(2, 2)), tiny, steps=steps)
    assert isinstance(method, SFCL)
    return method


@pytest.fixture(scope="module")
def first(trunk: Any, tiny: Any) -> SFCL:
    return learnt(trunk, tiny, steps=1)


@pytest.fixture(scope="module")
def both(trunk: Any, tiny: Any) -> SFCL:
    return learnt(trunk, tiny)


def moved(before: torch.nn.Module, after: torch.nn.Module, prefix: str = "") -> bool:
    states = before.state_dict(), after.state_dict()
    return any(not torch.equal(states[0][key], states[1][key]) for key in states[0] if key.startswith(prefix))


def test_the_base_task_trains_network_and_bottleneck_and_later_tasks_leave_them(
    first: SFCL, both: SFCL, trunk: Any
) -> None:
    fresh = trunk.network(first.tuning()).state_dict()
    assert any(not torch.equal(value, fresh[key]) for key, value in first.model.network.state_dict().items())
    identity = torch.eye(trunk.dim)
    assert not torch.equal(first.fast.bottleneck.weight, identity)
    assert torch.equal(first.fast.bottleneck.weight, first.model.head.bottleneck.weight)
    assert not moved(first.model, both.model)
    assert not moved(first.fast, both.fast, "bottleneck")
    assert not moved(first.fast, both.fast, "up")


def test_the_fast_branch_is_the_ridge_regression_of_all_videos_so_far(both: SFCL, tiny: Any) -> None:
    stream = stream_of(tiny, sizes=(2, 2))
    features, labels = both.video_features([*stream.task(0).train, *stream.task(1).train])
    x = both.fast.expanded(features).double().detach()
    gram = x.T @ x + both.config.gamma * torch.eye(x.shape[1])
    solved = torch.linalg.solve(gram, x.T @ F.one_hot(labels).double()).T
    torch.testing.assert_close(both.fast.down.double(), solved, rtol=1e-4, atol=1e-4 * float(solved.abs().max()))


def test_slow_branch_and_gate_are_trained_in_every_task(first: SFCL, both: SFCL, trunk: Any, tiny: Any) -> None:
    for part in ("bottleneck", "up", "down"):
        assert moved(first.fast, first.slow, part)  # from the copy that it began as
    fresh = seeded.construct(CLASS, config_of(CLASS), context_of(trunk, tiny.protocol), 1)
    assert moved(fresh.gate, first.gate)
    assert moved(first.gate, both.gate)
    for old, new in zip(first.slow.parameters(), both.slow.parameters(), strict=True):
        assert not torch.equal(old, new[: len(old)])


def test_new_outputs_of_the_slow_branch_start_as_the_fast_branch_has_them(trunk: Any, tiny: Any) -> None:
    still = learnt(trunk, tiny, lr=1e-12)
    torch.testing.assert_close(still.slow.down[2:], still.fast.down[2:])


def test_each_branch_is_a_readout_and_the_gate_mixes_them(both: SFCL, tiny: Any) -> None:
    clips = clips_of(stream_of(tiny, sizes=(2, 2)), both, 2)
    with torch.no_grad():
        scores = both.predict(clips)
        features = both.model.frame_features(clips).mean(dim=1)
        for name, share in (("fast", 1.0), ("slow", 0.0)):
            gate = torch.full((len(clips),), share)
            torch.testing.assert_close(mixed_branches(features, gate, both.fast, both.slow)[1], scores[name])
    assert list(scores) == ["cnn", "fast", "slow"]
    assert not torch.allclose(scores["fast"], scores["slow"])
    assert not torch.allclose(scores["cnn"], scores["fast"])
    assert not torch.allclose(scores["cnn"], scores["slow"])


def test_pseudo_features_stand_for_old_classes_as_new_ones_have_videos(first: SFCL, tiny: Any) -> None:
    task = stream_of(tiny, sizes=(2, 2)).task(1)
    features, labels = first._pseudo_features(task, torch.Generator().manual_seed(0))
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1]  # three videos of each new class
    means, covariances = first.statistics.means, first.statistics.covariances
    assert features.shape == (6, means.shape[1])
    many = dataclasses.replace(task, train=task.train[:1] * 2000)
    features, labels = first._pseudo_features(many, torch.Generator().manual_seed(0))
    for label in (0, 1):
        rows = features[labels == label]
        spread = covariances[label].diagonal().sqrt()
        assert ((rows.mean(dim=0) - means[label]).abs() / spread).max() < 0.2
        torch.testing.assert_close(rows.std(dim=0), spread, rtol=0.15, atol=0)


def test_a_batch_mixes_videos_and_pseudo_features_as_the_sets_mix(
    trunk: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[int]]] = []
    losses = SFCL._losses

    def watched(self: SFCL, features: Tensor, labels: Tensor, teacher: Any, num_old: int) -> dict[str, Tensor]:
        seen.append((num_old, labels.tolist()))
        return losses(self, features, labels, teacher, num_old)

    monkeypatch.setattr(SFCL, "_losses", watched)
    learn(CLASS, config_of(CLASS), trunk, stream_of(tiny, sizes=(2, 1, 1)), tiny, steps=3)
    for num_old, labels in seen:
        old = [label for label in labels if label < num_old]
        videos = {0: (4, 2), 2: (1,), 3: (1,)}[
            num_old
        ]  # of a batch of four; six videos make a full one and a half
        assert len(labels) - len(old) in videos
        assert len(old) == num_old  # for each new video one of each old class


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_switch_changes_the_scores(changes: dict[str, Any], both: SFCL, trunk: Any, tiny: Any) -> None:
    clips = clips_of(stream_of(tiny, sizes=(2, 2)), both, 2)
    changed = learnt(trunk, tiny, **changes)
    with torch.no_grad():
        ours, plain = changed.predict(clips)["cnn"], both.predict(clips)["cnn"]
    assert ours.isfinite().all()
    assert not torch.allclose(ours, plain)


def test_every_switch_is_among_the_variants() -> None:
    assert untried_switches(CLASS, VARIANTS, ClassifierConfig) == []


def test_no_videos_are_kept_and_statistics_are_counted(both: SFCL, trunk: Any) -> None:
    use, dim = both.memory_use(), trunk.dim
    assert (use.videos, use.frames, use.bytes) == (0, 0, 0)
    assert use.statistics_bytes == 4 * (4 * dim + 4 * dim**2) + 8 * 32**2  # four classes; the inverse in float64


@pytest.mark.parametrize("changes", [{"gamma": 0.0}, {"expansion": 0}, {"gate_epochs": 0}, {"alpha": -1.0}])
def test_values_that_no_run_can_use_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        config_of(CLASS, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    return SmallData(tmp_path_factory.mktemp("videos"))


@pytest.mark.slow
@pytest.mark.parametrize("stops", [[1], [5], [2, 3, 2], [3, 4]])
@pytest.mark.parametrize("task", [0, 1])
def test_a_run_goes_on_where_it_was_stopped_in_every_phase(
    task: int, stops: list[int], data: SmallData, tmp_path: Path
) -> None:
    config = config_of(CLASS, **quick_values(CLASS))
    runs = SmallRuns(CLASS, config, backbone("tsm_tiny").load(None), MemorySpec(per_class=1))
    tasks = data.tasks((2, 2))[: task + 1]
    whole = runs.learn_all(tasks)
    assert whole.batches[-1] > sum(stops)
    before = whole.states[0] if task else None
    resumed = runs.resume_with_stops(before, tasks, tmp_path, stops)
    assert resumed.losses[-1] == whole.losses[-1]
    for key, value in whole.states[-1].items():
        assert torch.equal(resumed.states[-1][key], value), key
