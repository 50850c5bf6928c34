"""Heads on pretrained features against their authors' code: SimpleCIL, APER, FeCAM, EASE, SSIAT."""

from __future__ import annotations

import pytest
import torch
from golden_files import DTYPES, close, tensors
from torch import Tensor

from vcil_bench.gaussians import class_gaussians, sample, scaled_means
from vcil_bench.losses import cosface, task_cross_entropy
from vcil_bench.methods.ease import complete_prototypes, reweighted_scores
from vcil_bench.methods.fecam import distances, normalise_covariance, shrink_covariance
from vcil_bench.methods.ssiat import align, mean_shift
from vcil_bench.nets.heads import cosine_scores, prototypes

# --- SimpleCIL and APER


@DTYPES
@pytest.mark.parametrize("method", ["simplecil", "aper"])
def test_prototypes_equal_the_authors(method: str, precision: str) -> None:
    data = tensors("aper_40", precision)
    sizes = data["classes_per_task"].tolist()

    def features(key: str) -> Tensor:
        both = [data[f"{key}_pretrained"], data[f"{key}_tuned"]]
        return torch.cat(both, dim=1) if method == "aper" else both[0]

    seen = torch.empty(0)
    for task in range(len(sizes)):
        x, y = features(f"task{task}_features"), data[f"task{task}_labels"]
        new = prototypes(x, y, sum(sizes[: task + 1]))[sum(sizes[:task]) :]
        seen = torch.cat([seen.to(new), new]) if task else new
        close(seen, data[f"{method}_task{task}_prototypes"])
        close(cosine_scores(features("test_features"), seen), data[f"{method}_task{task}_test_logits"])


@DTYPES
def test_cosines_of_raw_means_are_ranpacs_nearest_mean(precision: str) -> None:
    data = tensors("ranpac_39", precision)
    sizes = data["classes_per_task"].tolist()
    x = torch.cat([data[f"task{task}_features"] for task in range(3)])
    y = torch.cat([data[f"task{task}_labels"] for task in range(3)])
    means = prototypes(x, y, sum(sizes))
    close(means, data["ncm_task2_weight"])
    close(cosine_scores(data["test_features"], means), data["ncm_task2_test_logits"])


def test_a_class_without_samples_scores_nothing() -> None:
    means = prototypes(torch.ones(2, 3), torch.tensor([1, 1]), 2)
    assert means.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert cosine_scores(torch.ones(1, 3), means)[0, 0] == 0


# --- FeCAM


@DTYPES
def test_fecam_for_transformers_equals_the_authors(precision: str) -> None:
    data = tensors("fecam_44", precision)
    x = torch.nn.functional.normalize(data["features"], dim=1)
    means, covariances = class_gaussians(x, data["labels"], 4)
    close(means, data["vit_means"])
    close(covariances, data["vit_covs"])
    shrunk = shrink_covariance(covariances, float(data["alpha_vit"]))
    close(shrunk, data["vit_shrunk"])
    finished = normalise_covariance(shrunk)
    close(finished, data["vit_normalised"])
    found = distances(data["test_features"], means, finished)
    close(found, data["vit_distances"])
    assert found.argmin(dim=1).tolist() == data["vit_pred"].tolist()


@DTYPES
def test_fecam_for_resnets_equals_the_authors(precision: str) -> None:
    data = tensors("fecam_44", precision)
    power = float(data["tukey_beta"])
    _, covariances = class_gaussians(data["features"].pow(power), data["labels"], 4)
    finished = normalise_covariance(shrink_covariance(covariances, float(data["alpha_cnn"])))
    means = prototypes(data["features"], data["labels"], 4)
    found = distances(data["test_features"], means, finished, tukey=power)
    close(found, data["cnn_tukey_distances"])
    assert found.argsort(dim=1)[:, :3].tolist() == data["cnn_tukey_top3"].tolist()


# --- EASE


@DTYPES
@pytest.mark.parametrize("kind", ["reset", "plain", "reset_ptm"])
def test_ease_equals_the_authors(kind: str, precision: str) -> None:
    data = tensors("ease_41", precision)
    sizes: list[int] = []
    first = 0 if kind == "reset_ptm" else 1  # entry 0 of the features is the untuned network
    seen = torch.empty(0)
    for task in range(int(data["num_tasks"])):
        sizes.append(int(data["increment"] if task else data["init_classes"]))
        x, y = data[f"task{task}_features"][:, first : task + 2], data[f"task{task}_labels"]
        new = prototypes(x.flatten(1), y, sum(sizes))[sum(sizes[:-1]) :].unflatten(1, (-1, x.shape[2]))
        room = new.new_zeros(len(seen), 1, x.shape[2])
        seen = torch.cat([torch.cat([seen, room], dim=1), new]) if task else new
        tuned = complete_prototypes(seen[:, 1 - first :], sizes, reset=kind != "plain")
        completed = torch.cat([seen[:, : 1 - first], tuned], dim=1)
        close(completed.flatten(1), data[f"{kind}_task{task}_weight"])
        query = data["test_features"][:, first : task + 2]
        beta = float(data["beta"]) if kind == "reset_ptm" else None
        scores = reweighted_scores(query, completed, sizes, float(data["alpha"]), beta)
        close(scores, data[f"{kind}_task{task}_test_logits"])
        plain = cosine_scores(query.flatten(1), completed.flatten(1))
        close(plain, data[f"{kind}_task{task}_test_logits_unweighted"])
        if kind == "plain":  # what was synthesised stays
            seen = completed


# --- SSIAT


@DTYPES
def test_the_shift_of_means_equals_the_authors(precision: str) -> None:
    data = tensors("ssiat_42", precision)
    shift = mean_shift(
        data["shift_features_before"],
        data["shift_features_after"],
        data["shift_class_means"],
        float(data["shift_sigma"]),
    )
    close(shift, data["displacement"])


@DTYPES
@pytest.mark.parametrize("number", [0, 1, 2])
def test_cosface_equals_the_authors(number: int, precision: str) -> None:
    data = tensors("ssiat_42", precision)
    cosines = data["cosines"].requires_grad_()
    loss = cosface(cosines, data["labels"], float(data["scale"]), float(data["margins"][number]))
    close(loss, data[f"cosface_margin{number}"])
    loss.backward()
    close(cosines.grad, data[f"cosface_margin{number}_grad_cosines"])


@DTYPES
def test_alignment_equals_the_authors(precision: str) -> None:
    data = tensors("ssiat_42", precision)
    heads = [data[f"head{task}_weight"] for task in range(3)]
    weight = torch.cat(heads)
    kept = weight.clone()
    means = scaled_means(data["means"], data["task_sizes"].tolist(), released=True)
    first = sample(means, data["covs"], data["normal_draws"][0]).flatten(0, 1)[data["permutations"][0]]
    logits = float(data["scale"]) * cosine_scores(first[:256], weight)
    close(logits, data["first_batch_ce_input"])
    aligned, losses = align(
        weight,
        means,
        data["covs"],
        list(data["normal_draws"]),
        list(data["permutations"]),
        scale=float(data["scale"]),
        lr=float(data["learning_rate"]),
        weight_decay=float(data["weight_decay"]),
    )
    close(losses, data["losses"])
    close(aligned, torch.cat([data[f"final_head{task}_weight"] for task in range(3)]))
    assert torch.equal(weight, kept)


# --- classes that compete


def test_other_outputs_do_not_compete() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 9.0]], requires_grad=True)
    loss = task_cross_entropy(logits, torch.tensor([2]), range(1, 3))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[:, 1:3], torch.tensor([1])))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, [0, 3]].tolist() == [0, 0]


def test_classes_that_compete_may_lie_apart_and_come_in_any_order() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = task_cross_entropy(logits, torch.tensor([5, 0, 3, 0]), [4, 0, 5, 3])
    alone = torch.nn.functional.cross_entropy(logits[:, [0, 3, 4, 5]], torch.tensor([3, 0, 1, 0]))
    torch.testing.assert_close(loss, alone)


def test_what_does_not_vary_is_correlated_with_nothing() -> None:
    covariance = torch.tensor([[4.0, 0.0, 2.0], [0.0, 0.0, 0.0], [2.0, 0.0, 4.0]])
    expected = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.5, 0.0, 1.0]])
    torch.testing.assert_close(normalise_covariance(covariance), expected)
