"""Classification heads against the authors' code, and what growing and imprinting must leave alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import DTYPES, close, tensors
from torch import Tensor

from vcil_bench.nets.heads import (
    CosineHead,
    class_means,
    imprinted_proxies,
    nearest_mean_scores,
    pool_proxies,
    squared_distances,
)

KINDS = pytest.mark.parametrize("kind", ["cc", "lsc"])
Kind = Literal["lsc", "cc"]


def cosine_head(data: dict[str, Tensor], kind: Kind, proxies: int, *, split: bool) -> CosineHead:
    """Return the recorded head: the first block's classes alone, or both blocks after a growth."""
    blocks = [data[f"w{i}_proxy{proxies}"] for i in (1, 2)]
    head = CosineHead(
        blocks[0].shape[1], len(blocks[0]) // proxies, proxies, kind, margin=float(data["nca_margin"])
    )
    head.to(blocks[0].dtype)
    if split:
        head.grow(len(blocks[1]) // proxies)
        head.to(blocks[0].dtype)
        head.old_weight.data.copy_(blocks[0])
    head.weight.data.copy_(blocks[1] if split else blocks[0])
    head.sigma.data.fill_(float(data["sigma"]))
    head.eta.data.fill_(float(data["eta"]))
    return head


# --- cosine head


@DTYPES
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("split", [False, True], ids=["single", "split"])
@pytest.mark.parametrize(("kind", "proxies"), [("cc", 1), ("lsc", 1), ("lsc", 3)])
def test_scores_equal_the_authors(kind: Kind, proxies: int, split: bool, mode: str, precision: str) -> None:
    data = tensors("tcd_05", precision)
    head = cosine_head(data, kind, proxies, split=split).train(mode == "train")
    scores = head(data["x"]).detach()
    close(scores, data[f"{'split' if split else 'single'}_{kind}_proxy{proxies}_{mode}"])
    key = f"video_preds_split_{kind}_proxy{proxies}_train"
    if split and mode == "train" and proxies == 1:
        close(scores.unflatten(0, (-1, int(data["num_segments"]))).mean(dim=1), data[key])


@DTYPES
@pytest.mark.parametrize("proxies", [1, 3])
def test_gradients_of_scores_equal_the_authors(proxies: int, precision: str) -> None:
    data = tensors("tcd_05", precision)
    head = cosine_head(data, "lsc", proxies, split=True).train()
    head(data["x"]).square().sum().backward()
    found = {"w1": head.old_weight, "w2": head.weight, "sigma": head.sigma, "eta": head.eta}
    for key, parameter in found.items():
        assert parameter.grad is not None
        # Sums of many large terms of both signs: the authors' own float32 run is 2e-4 off.
        least = 5e-4 if precision == "float32" else 0.0
        close(parameter.grad, data[f"split_lsc_proxy{proxies}_gradsq_{key}"], least=least)


@DTYPES
def test_pooling_over_proxies_equals_the_authors(precision: str) -> None:
    data = tensors("tcd_05", precision)
    for proxies in (1, 2, 3, 4):
        close(pool_proxies(data["sim_for_reduce"], proxies), data[f"reduce_proxies_{proxies}"])


@DTYPES
def test_squared_distances_equal_the_authors(precision: str) -> None:
    data = tensors("tcd_05", precision)
    distances = squared_distances(data["dist_a"], data["dist_b"])
    close(distances, data["stable_distance_squared"])
    assert torch.equal(data["dist_a"][3], data["dist_b"][2])
    assert (distances >= 0).all()


def test_rounding_makes_no_distance_negative() -> None:
    rows = F.normalize(torch.randn(200, 50, generator=torch.Generator().manual_seed(0)), dim=1)
    assert squared_distances(rows, rows).diagonal().min() == 0


@DTYPES
def test_scores_equal_podnets_head(precision: str) -> None:
    data = tensors("podnet_21", precision)
    many, names = int(data["proxy_per_class"]), ("weights_task1", "weights_task2")
    for proxies, key in ((many, "softmax_logits"), (1, "1proxy_logits")):
        old, new = (data[name][: len(data[name]) // many * proxies] for name in names)
        head = CosineHead(old.shape[1], len(new) // proxies, proxies, margin=0.0).to(old.dtype)
        head.old_weight.data, head.weight.data = old, new
        expected = data[f"lsc_neg_stable_cosine_distance_{key}"]
        close(head.eval()(data["features"]).detach(), expected)
        head.eta.data.fill_(float(data["scale_eta"]))
        if proxies > 1:
            close(head.train()(data["features"]).detach(), data["post_processed_logits"])


@pytest.mark.parametrize(("kind", "proxies"), [("cc", 1), ("lsc", 1), ("lsc", 3)])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_growing_keeps_old_scores_and_scales(kind: Kind, proxies: int, mode: str) -> None:
    torch.manual_seed(0)
    head = CosineHead(6, 0, proxies, kind)
    head.grow(2)
    head.sigma.data.fill_(3.5)
    head.eta.data.fill_(0.25)
    head.train(mode == "train")
    features = torch.randn(7, 6)
    for seen, new in ((2, 3), (5, 1)):
        before = head(features)
        weights = torch.cat([head.old_weight, head.weight])
        head.grow(new)
        after = head(features)
        assert before.shape == (7, seen)
        assert after.shape == (7, seen + new)
        assert head.weight.shape == (new * proxies, 6)
        assert torch.equal(head.old_weight, weights)
        torch.testing.assert_close(after[:, :seen], before, rtol=1e-6, atol=1e-6)
        assert (head.kind, head.proxies, head.training) == (kind, proxies, mode == "train")
        assert (head.sigma.item(), head.eta.item()) == (3.5, 0.25)


@KINDS
def test_only_the_scales_that_count_are_trained(kind: Kind) -> None:
    head = CosineHead(6, 2, kind=kind)
    head.grow(2)
    (gradient,) = torch.autograd.grad(head(torch.randn(3, 6))[:, 0].sum(), [head.sigma])
    assert gradient.abs() > 0
    assert head.eta.requires_grad == (kind == "lsc")
    head(torch.randn(3, 6)).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in head.parameters())


def test_a_head_without_classes_scores_none() -> None:
    assert CosineHead(6, 0)(torch.randn(3, 6)).shape == (3, 0)


def test_proxies_of_new_classes_differ_and_can_be_repeated() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        head = CosineHead(6, 0, proxies=2)
        head.grow(3)
        drawn.append(head.weight.detach())
    assert torch.equal(*drawn)
    assert len(drawn[0].unique(dim=0)) == 6


@KINDS
def test_scores_of_a_dead_feature_are_finite(kind: Kind) -> None:
    features = torch.zeros(2, 6, requires_grad=True)
    head = CosineHead(6, 3, proxies=2, kind=kind)
    scores = head(features)
    assert scores.isfinite().all()
    assert torch.autograd.grad(scores.square().sum(), features)[0].isfinite().all()


def test_a_head_keeps_its_state_over_a_checkpoint() -> None:
    first, second = (CosineHead(6, 0) for _ in range(2))
    for head in (first, second):
        head.grow(2)
        head.grow(1)
    first.sigma.data.fill_(2.0)
    second.load_state_dict(first.state_dict())
    features = torch.randn(3, 6)
    assert torch.equal(first(features), second(features))


# --- imprinting


@DTYPES
@KINDS
def test_imprinted_proxies_equal_the_authors(kind: Kind, precision: str) -> None:
    data = tensors("tcd_15", precision)
    num_old, expected = int(data["num_old"]), data[f"new_weight_{kind}"]
    rows = imprinted_proxies(
        data["features_frames"].mean(dim=1),
        data["labels"],
        range(num_old, num_old + len(expected)),
        data["old_weight"],
        kind=kind,
    )
    close(rows, expected, least=1e-6)  # the source works in float32 here


def clusters(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return features of three classes: two clusters of 6 and 3 videos, one video, four copies of a video."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(8, dtype=dtype)
    noise = 0.01 * torch.randn(9, 8, generator=generator, dtype=dtype)
    first = centres[[0] * 6 + [1] * 3] + noise
    features = torch.cat([first, 5 * centres[2:3], 2 * centres[3:4].expand(4, 8)])
    return features, torch.tensor([4] * 9 + [5] + [6] * 4)


def test_several_proxies_are_the_centres_of_clusters_as_long_as_old_proxies() -> None:
    features, labels = clusters()
    old = torch.tensor([[3.0] + [0.0] * 7, [0.0] * 7 + [1.0]])
    rows = imprinted_proxies(features, labels, range(4, 7), old, kind="lsc", proxies=2)
    assert rows.shape == (6, 8)
    assert rows.dtype == features.dtype
    unit = F.normalize(features, dim=1)
    centres = 2 * torch.stack([unit[:6].mean(dim=0), unit[6:9].mean(dim=0)])
    found = rows[:2][rows[:2, 0].argsort(descending=True)]
    torch.testing.assert_close(found, centres, atol=1e-5, rtol=0)
    # One video, or one video many times, makes one centre, which is repeated.
    torch.testing.assert_close(rows[2:4], 2 * torch.eye(8)[[2, 2]])
    torch.testing.assert_close(rows[4:], 2 * torch.eye(8)[[3, 3]])


def test_several_proxies_are_the_same_every_time() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 8, generator=generator)
    labels = torch.arange(40) % 2

    def rows() -> Tensor:
        np.random.seed(int(torch.randint(1000, ())))  # what an unseeded k-means would draw from
        return imprinted_proxies(features, labels, range(2), features[:3], kind="lsc", proxies=4)

    assert torch.equal(rows(), rows())


@pytest.mark.parametrize("videos", [1, 2, 3, 5])
def test_more_proxies_than_videos_repeat_centres(videos: int) -> None:
    features = torch.eye(8)[:videos]
    rows = imprinted_proxies(
        features, torch.zeros(videos, dtype=torch.long), range(1), torch.eye(8)[:1], kind="lsc", proxies=10
    )
    assert rows.shape == (10, 8)
    assert rows.isfinite().all()
    assert len(rows.unique(dim=0)) == videos


def test_nearly_equal_videos_make_proxies_without_a_warning() -> None:
    video = torch.tensor([0.3, 0.4, 0.5])
    features = torch.stack([video, video * (1 + 2e-7), video, video + torch.tensor([0.0, 1e-7, 0.0])])
    rows = imprinted_proxies(
        features, torch.zeros(4, dtype=torch.long), range(1), torch.eye(3), kind="lsc", proxies=3
    )
    torch.testing.assert_close(rows, F.normalize(video, dim=0).expand(3, 3))


@KINDS
def test_imprinted_proxies_are_as_long_as_old_ones_on_average(kind: Kind) -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 7.0], [5.0, 0.0]])
    old = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    rows = imprinted_proxies(features, torch.tensor([2, 2, 3]), range(2, 4), old, kind=kind)
    mean = torch.tensor([0.5, 0.5])
    expected = torch.stack([F.normalize(mean, dim=0) if kind == "cc" else mean, torch.tensor([1.0, 0.0])])
    torch.testing.assert_close(rows, 2 * expected)


# --- nearest mean of exemplars


@DTYPES
def test_class_means_and_nearest_mean_scores_equal_the_authors(precision: str) -> None:
    data = tensors("tcd_08", precision)
    means = class_means(data["exemplar_features_frames"].mean(dim=1), data["exemplar_labels"], 6)
    close(means, data["class_means"])
    crops = data["test_features_frames"].mean(dim=2)  # [N, crops, C]
    scores = nearest_mean_scores(crops.flatten(0, 1), means).unflatten(0, crops.shape[:2])
    close(scores[:, 0], data["nme_scores_single_crop"])
    close(scores.mean(dim=1), data["nme_scores"])
    assert scores.mean(dim=1).argmax(dim=1).tolist() == data["nme_pred"].tolist()


@DTYPES
@pytest.mark.parametrize("mode", ["unified", "reduce_construct"])
def test_nearest_mean_of_exemplars_equals_pycil(mode: str, precision: str) -> None:
    data = tensors("pycil_19", precision)
    features = data["train_features"][data[f"{mode}_memory_indices"]]
    means = class_means(features, data[f"{mode}_memory_labels"], len(data[f"{mode}_class_means"]))
    # They divide by the norm plus 1e-8.
    close(means, data[f"{mode}_class_means"], least=1e-7)
    best = nearest_mean_scores(data["test_features"], means).topk(3, dim=1).indices
    assert best.tolist() == data[f"{mode}_nme_top3"].tolist()


@DTYPES
def test_nearest_mean_of_exemplars_equals_vclimb(precision: str) -> None:
    data = tensors("vclimb_17", precision)
    classes, per_class = data["mem_features"].shape[:2]
    labels = torch.arange(classes).repeat_interleave(per_class)
    means = class_means(data["mem_features"].flatten(0, 1), labels, classes)
    close(means, data["classify_means"])
    predicted = nearest_mean_scores(data["query_features"], means).argmax(dim=1)
    assert predicted.tolist() == data["classify_pred"].tolist()


def test_means_do_not_depend_on_the_order_or_on_other_classes() -> None:
    features, labels = clusters(torch.float64)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    means = class_means(features[shuffled], labels[shuffled], 8)
    torch.testing.assert_close(means, class_means(features, labels, 8))
    torch.testing.assert_close(means[5], torch.eye(8, dtype=torch.float64)[2])
    assert (means[[0, 7]] == 0).all()  # classes without exemplars


def test_a_video_at_a_class_mean_scores_zero_there_whatever_its_length() -> None:
    means = F.normalize(torch.tensor([[1.0, 2.0], [2.0, -1.0]]), dim=1)
    scores = nearest_mean_scores(100 * means, means)
    torch.testing.assert_close(scores, torch.tensor([[0.0, -(2**0.5)], [-(2**0.5), 0.0]]), atol=1e-6, rtol=0)


def test_scores_stay_exact_where_features_are_close() -> None:
    # A matrix product would lose these differences to rounding.
    means = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1e-4]]), dim=1)
    scores = nearest_mean_scores(torch.tensor([[1.0, 3e-5]]), means)
    torch.testing.assert_close(scores, torch.tensor([[-3e-5, -7e-5]]), rtol=1e-2, atol=0)
