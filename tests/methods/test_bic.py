"""BiC: its formulas as vCLIMB's code has them, who trains what, and tasks too small to hold out from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_files import DTYPES, close, tensors
from small_runs import clips_of, config_of, context_of, learn, method_class
from torch import Tensor

from vcil_bench.classifier import ClipClassifier
from vcil_bench.common.errors import TrainingError
from vcil_bench.data.loader import ClipLoader, Sample
from vcil_bench.losses import consistency_cross_entropy
from vcil_bench.methods import bic as bic_module
from vcil_bench.methods.bic import correct, hold_out, network_loss
from vcil_bench.nets.backbones import backbone
from vcil_bench.run import seeded
from vcil_bench.stream import TaskStream

BIC = method_class("bic")
LIVELY = {"lr": 0.02, "dropout": 0.2, "epochs": 3, "batch_size": 4, "bias_lr": 0.1}


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("tsm_tiny").load(None)


def bic(trunk: Any, stream: TaskStream, tiny: Any, steps: int = 3, per_class: int = 2, **changes: Any) -> Any:
    config = config_of(BIC, **(LIVELY | {"held_out": 0.5} | changes))  # of classes of two or three videos
    return learn(BIC, config, trunk, stream, tiny, steps, memory__per_class=per_class)


def corrections(method: Any) -> list[tuple[float, float]]:
    return [(float(a.detach()), float(b.detach())) for a, b in zip(method.alphas, method.betas, strict=True)]


def splits_of(data: dict[str, Tensor]) -> list[int]:
    return [int(split) for split in data["splits"]]


# --- formulas


@DTYPES
@pytest.mark.parametrize("which", ["logits", "old_network_logits"])
def test_corrected_logits_equal_vclimb(which: str, precision: str) -> None:
    data = tensors("vclimb_32", precision)
    corrected = correct(data[which], splits_of(data), data["alphas"], data["betas"])
    close(corrected, data[f"corrected_{which}"])
    first = correct(data[which], splits_of(data)[-1:], data["alphas"][-1:], data["betas"][-1:])
    assert torch.equal(first, data[which])
    if which == "logits":
        close(first, data["corrected_logits_first_task"])


@DTYPES
def test_the_loss_of_the_network_equals_vclimb(precision: str) -> None:
    data = tensors("vclimb_32", precision)
    splits, alphas, betas = splits_of(data), data["alphas"], data["betas"]
    logits, second = (data[name].clone().requires_grad_() for name in ("logits", "logits_aug"))
    loss = network_loss(
        correct(logits, splits, alphas, betas),
        correct(data["old_network_logits"], splits, alphas, betas),
        data["labels"],
        splits[-2],
        correct(second, splits, alphas, betas),
        float(data["adv_lambda"]),
        float(data["temperature"]),
    )
    close(loss.detach(), data["stage0_loss"])
    for found, key in zip(torch.autograd.grad(loss, (logits, second)), ("logits", "logits_aug"), strict=True):
        close(found, data[f"stage0_loss_grad_{key}"])


@DTYPES
def test_the_loss_of_the_correction_equals_vclimb(precision: str) -> None:
    data = tensors("vclimb_32", precision)
    splits, labels, weight = splits_of(data), data["labels"], float(data["adv_lambda"])
    alphas, betas = (list(data[name].clone()) for name in ("alphas", "betas"))
    newest = alphas[-1].requires_grad_(), betas[-1].requires_grad_()
    logits, second = (correct(data[name], splits, alphas, betas) for name in ("logits", "logits_aug"))
    loss = consistency_cross_entropy(logits, second, labels, weight)
    close(loss.detach(), data["stage1_loss"])
    for found, key in zip(torch.autograd.grad(loss, newest), ("alpha", "beta"), strict=True):
        close(found, data[f"stage1_loss_grad_{key}"])
    first = consistency_cross_entropy(data["logits"], data["logits_aug"], labels, weight)
    close(first, data["first_task_loss"])


# --- which videos train what


def videos(counts: dict[int, int]) -> list[Sample]:
    return [Sample(f"c{label}v{i}", "", label, 8) for label, count in counts.items() for i in range(count)]


def names(samples: list[Sample]) -> list[str]:
    return [sample.id for sample in samples]


def test_the_last_tenth_of_every_class_is_held_out_by_position() -> None:
    first, rest = hold_out(videos({5: 29, 0: 20, 1: 11}), 0.1, 5)
    assert [sum(s.label == label for s in first) for label in (5, 0, 1)] == [26, 18, 9]
    assert names(rest) == ["c5v26", "c5v27", "c5v28", "c0v18", "c0v19", "c1v9", "c1v10"]


@pytest.mark.parametrize(("count", "for_network"), [(2, 1), (5, 4), (9, 8), (10, 9), (11, 9)])
def test_few_exemplars_keep_all_but_one_for_the_network(count: int, for_network: int) -> None:
    for released in (False, True):
        first, rest = hold_out(videos({0: count, 1: count}), 0.1, 1, released=released)
        assert len(first) == 2 * for_network
        assert len(rest) == 2 * (count - for_network)


@pytest.mark.parametrize(("share", "number", "kept"), [(0.8, 100, 20), (0.9, 100, 10), (0.3, 90, 63)])
def test_shares_are_exact(share: float, number: int, kept: int) -> None:
    first, rest = hold_out(videos({0: number}), share, 1)
    assert (len(first), len(rest)) == (kept, number - kept)


def test_without_old_classes_the_loss_of_the_network_is_the_cross_entropy() -> None:
    logits, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(network_loss(logits, logits, labels, 0), expected)


def test_a_single_exemplar_trains_the_network_or_as_released_the_correction() -> None:
    samples = videos({0: 1, 1: 20})
    first, rest = hold_out(samples, 0.1, 1)
    assert "c0v0" in names(first)
    assert rest == []  # without an old class the correction would only raise the new
    assert names(first) == names(samples)  # nor is a new one's kept from the network then
    first, rest = hold_out(samples, 0.1, 1, released=True)
    assert "c0v0" in names(rest)
    assert {s.label for s in first} == {1}


def test_as_released_single_videos_of_all_classes_are_refused_with_the_way_out() -> None:
    with pytest.raises(TrainingError, match=r"released=true.*released at false.*per_class=5"):
        hold_out(videos({0: 1, 1: 1}), 0.1, 1, released=True)


def test_what_is_held_out_trains_the_correction_alone_and_may_be_an_exemplar(
    trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list[Sample]] = {}
    original = ClipLoader.training

    def spy(loader: Any, samples: Any, epochs: int, batch: int, phase: str, **more: Any) -> Any:
        asked[phase] = list(samples)
        return original(loader, samples, epochs, batch, phase, **more)

    monkeypatch.setattr(ClipLoader, "training", spy)
    method = bic(trunk, stream, tiny)
    assert list(asked) == ["task 1", "task 2", "task 2 bias", "task 3", "task 3 bias"]
    assert sorted(names(asked["task 1"])) == sorted(names(list(stream.task(0).train)))
    network, correction = set(names(asked["task 3"])), set(names(asked["task 3 bias"]))
    assert not network & correction
    assert network | correction >= set(names(list(stream.task(2).train)))
    assert {s.label for s in asked["task 3"]} == {s.label for s in asked["task 3 bias"]} == {0, 1, 2, 3}
    exemplars = set(names(method.memory.of_class(3)))
    assert len(exemplars) == 2
    # Chosen from all of the task's three videos, by herding.
    assert exemplars <= set(names(list(stream.task(2).train)))


def test_every_stage_trains_its_own_parameters(
    trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, dict[str, Tensor]] = {}
    original = BIC._train_correction  # type: ignore[attr-defined]

    def watched(method: Any, task: Any, samples: Any) -> None:
        seen["before"] = {key: t.clone() for key, t in method.state_dict().items()}
        assert method.model.training
        original(method, task, samples)
        assert method.model.training
        seen["after"] = {key: t.clone() for key, t in method.state_dict().items()}

    monkeypatch.setattr(BIC, "_train_correction", watched)
    method = bic(trunk, stream, tiny)
    assert corrections(method)[0] == (1, 0)
    changed = {key for key, tensor in seen["before"].items() if not torch.equal(tensor, seen["after"][key])}
    assert changed == {"alphas.2", "betas.2"}  # batch norms too are as in testing
    assert float(seen["before"]["alphas.2"]) == 1
    assert float(seen["before"]["alphas.1"]) != 1  # that of the task before stays in force
    with torch.inference_mode():
        clips = clips_of(stream, method, 3)
        expected = method.corrected(method.model.logits(clips))
        assert torch.equal(method.predict(clips)["cnn"], expected)
        assert not torch.equal(expected, method.model.logits(clips))


def test_the_old_network_distils_behind_its_corrections(
    trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: list[Tensor] = []
    taken: list[Tensor] = []
    copied, terms = ClipClassifier.frozen_copy, bic_module.network_terms

    def watched(model: Any) -> Any:
        plain.clear()
        twin = copied(model)
        logits = twin.logits

        def noted(clips: Tensor) -> Tensor:
            plain.append(logits(clips))
            return plain[-1]

        twin.logits = noted  # type: ignore[method-assign]
        return twin

    def spy(logits: Tensor, before: Tensor, *more: Any) -> Any:
        assert not before.requires_grad
        taken.append(before)
        return terms(logits, before, *more)

    monkeypatch.setattr(ClipClassifier, "frozen_copy", watched)
    monkeypatch.setattr(bic_module, "network_terms", spy)
    method = bic(trunk, stream, tiny)
    (alpha, beta) = corrections(method)[1]
    assert alpha != 1
    for before, raw in zip(taken[-len(plain) :], plain, strict=True):
        assert torch.equal(before[:, :2], raw[:, :2])  # the base task has none, the newest changes nothing yet
        torch.testing.assert_close(before[:, 2], alpha * raw[:, 2] + beta)
        assert torch.equal(before[:, 3], raw[:, 3])


# --- tasks that are too small


def test_one_class_tasks_with_one_exemplar_train_without_a_correction(
    trunk: Any, stream: TaskStream, tiny: Any
) -> None:
    method = bic(trunk, stream, tiny, per_class=1, held_out=0.1)
    assert corrections(method) == [(1, 0)] * 3
    with torch.inference_mode():
        assert method.predict(clips_of(stream, method, 3))["cnn"].isfinite().all()


def test_one_class_tasks_with_five_exemplars_have_a_correction_as_on_hmdb51() -> None:
    """tcd_hmdb51_1x25: 26 base classes and then one at a time, five exemplars each."""
    first, rest = hold_out(videos({26: 70} | dict.fromkeys(range(26), 5)), 0.1, 26)
    assert len(first) == 63 + 26 * 4
    assert len(rest) == 7 + 26


# --- switches


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": False},
        {"distillation": False},
        pytest.param({"temperature": 20.0}, marks=pytest.mark.slow),
        pytest.param({"held_out": 0.0}, marks=pytest.mark.slow),
        pytest.param({"tc_clip": "spread", "tc_weight": 0.9}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_part_changes_the_scores(
    changes: dict[str, Any], plain: Tensor, trunk: Any, stream: TaskStream, tiny: Any
) -> None:
    scores = scores_of(bic(trunk, stream, tiny, **changes), stream)
    assert scores.isfinite().all()
    other = plain
    if "tc_weight" in changes:
        other = scores_of(bic(trunk, stream, tiny, tc_clip="spread"), stream)
    assert not torch.allclose(scores, other, rtol=0, atol=1e-6)


def scores_of(method: Any, stream: TaskStream) -> Tensor:
    with torch.inference_mode():
        return method.predict(clips_of(stream, method, 3))["cnn"]


@pytest.fixture(scope="module")
def plain(trunk: Any, stream: TaskStream, tiny: Any) -> Tensor:
    return scores_of(bic(trunk, stream, tiny), stream)


def test_as_released_a_single_exemplar_changes_the_scores(trunk: Any, stream: TaskStream, tiny: Any) -> None:
    released, meant = (
        scores_of(bic(trunk, stream, tiny, per_class=1, held_out=0.1, released=released), stream)
        for released in (True, False)
    )
    assert not torch.allclose(released, meant, rtol=0, atol=1e-6)


def test_it_is_trained_by_vclimbs_recipe(trunk: Any, tiny: Any, stream: TaskStream) -> None:
    config, _ = BIC.resolve_config("vclimb_ucf101_20", {})
    icarl, _ = method_class("icarl").resolve_config("vclimb_ucf101_20", {})
    shared = ("lr", "momentum", "weight_decay", "batch_size", "epochs", "milestones", "dropout", "partial_bn")
    assert [getattr(config, key) for key in shared] == [getattr(icarl, key) for key in shared]
    assert config.milestones == ()
    method: Any = seeded.construct(BIC, config, context_of(trunk, tiny.protocol), 1)
    seeded.grow(method, stream.task(0), 1)
    groups = method.optimiser().param_groups
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(1e-3, 1e-4)}
    assert not any(p is q for g in groups for p in g["params"] for q in (*method.alphas, *method.betas))
