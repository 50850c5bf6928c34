"""Losses against the authors' code they were taken from, and on the smallest and emptiest inputs.

A loss that turns into NaN on a batch of one class or on a dead feature map ends a run hours after its start.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from golden_files import DTYPES, close, tensors
from torch import Tensor

from vcil_bench.losses import (
    attention_distillation,
    consistency_cross_entropy,
    cosine_embedding,
    feature_distillation,
    feature_map_distillation,
    frame_decorrelation,
    logit_distillation,
    margin_ranking,
    multi_class_loss,
    nca_loss,
    pooled_outputs_distillation,
    sigmoid_distillation,
)
from vcil_bench.methods import icarl, lwf
from vcil_bench.nets.heads import CosineHead


def leaf(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def check(loss: Tensor, value: Tensor, *gradients: tuple[Tensor, Tensor]) -> None:
    """Compare a loss and its derivatives by (leaf, recorded derivative)."""
    close(loss.detach(), value)
    found = torch.autograd.grad(loss, [of for of, _ in gradients], retain_graph=True)
    for actual, (_, expected) in zip(found, gradients, strict=True):
        close(actual, expected)


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


# --- TCD


@DTYPES
@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("exclude", [True, False])
def test_nca_loss_and_its_gradient_equal_the_authors(exclude: bool, case: int, precision: str) -> None:
    data = tensors("tcd_02", precision)
    key = f"c{case}_nca_excl_{str(exclude).lower()}"
    similarities = leaf(data[f"c{case}_similarities"])
    loss = nca_loss(similarities, data[f"c{case}_targets"], exclude)
    check(loss, data[key], (similarities, data[f"{key}_grad"]))


def test_nca_loss_leaves_the_positive_out_by_default() -> None:
    data = tensors("tcd_02", "float64")
    close(nca_loss(data["c0_similarities"], data["c0_targets"]), data["c0_nca_excl_true"])
    assert not torch.isclose(data["c0_nca_excl_true"], data["c0_nca_excl_false"])


@DTYPES
@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("weighted", [True, False])
def test_feature_distillation_and_its_gradient_equal_the_authors(
    weighted: bool, case: int, precision: str
) -> None:
    data = {key[3:]: t for key, t in tensors("tcd_03", precision).items() if key.startswith(f"c{case}_")}
    kind = "factor" if weighted else "nofactor"
    features = leaf(data["feat"])
    loss = feature_distillation(features, data["feat_old"], data["factor"] if weighted else None)
    check(loss, data[f"loss_{kind}"], (features, data[f"grad_feat_{kind}"]))


@DTYPES
@pytest.mark.parametrize("weighted", [True, False])
def test_feature_map_distillation_and_its_gradients_equal_the_authors(weighted: bool, precision: str) -> None:
    data = tensors("tcd_04", precision)
    layers, clip = range(int(data["num_layers"])), (-1, int(data["num_segments"]))
    kind = "factor" if weighted else "nofactor"
    frames = [leaf(data[f"l{i}_fmap"]) for i in layers]
    old = [leaf(data[f"l{i}_fmap_old"]).unflatten(0, clip) for i in layers]
    importance = [data[f"l{i}_factor"] for i in layers] if weighted else None
    loss = feature_map_distillation([m.unflatten(0, clip) for m in frames], old, importance)
    check(loss, data[f"loss_{kind}"], *((frames[i], data[f"l{i}_grad_{kind}"]) for i in layers))
    assert torch.autograd.grad(loss, old, allow_unused=True) == (None,) * len(old)


@DTYPES
def test_frame_decorrelation_and_its_gradient_equal_the_authors(precision: str) -> None:
    data = tensors("tcd_10", precision)
    layers, clip = range(int(data["num_layers"])), (-1, int(data["num_segments"]))
    assert (data["l0_fmap"][0, 1] == 0).all()  # a dead map
    frames = [leaf(data[f"l{i}_fmap"]) for i in layers]
    loss = frame_decorrelation([m.unflatten(0, clip) for m in frames])
    check(loss, data["loss_div"], (frames[-1], data[f"l{len(layers) - 1}_grad_loss_div"]))
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, frames))


# --- LwF and iCaRL


@DTYPES
@pytest.mark.parametrize("temperature", [1, 2, 4])
def test_logit_distillation_equals_pycil(temperature: int, precision: str) -> None:
    data = tensors("pycil_18", precision)
    known = leaf(data["logits"][:, : int(data["n_known"])])
    loss = logit_distillation(known, data["old_logits"], temperature)
    close(loss.detach(), data[f"kd_loss_T{temperature}"])
    if temperature == 2:
        close(torch.autograd.grad(loss, known)[0], data["kd_loss_T2_grad"])
        close(logit_distillation(known, data["old_logits"]).detach(), data["kd_loss_T2"])


@DTYPES
def test_the_softmax_form_of_lwf_equals_pycil(precision: str) -> None:
    data = tensors("pycil_18", precision)
    logits = leaf(data["logits"])
    loss = total(lwf.lwf_losses("softmax", logits, data["old_logits"], data["labels_new_only"]))
    check(loss, data["lwf_total_loss"], (logits, data["lwf_total_loss_grad_logits"]))


@DTYPES
def test_the_softmax_form_of_icarl_equals_pycil(precision: str) -> None:
    data = tensors("pycil_18", precision)
    logits = leaf(data["logits"])
    loss = total(icarl.icarl_losses("softmax", logits, data["old_logits"], data["labels_all"]))
    check(loss, data["icarl_total_loss"], (logits, data["icarl_total_loss_grad_logits"]))


@DTYPES
@pytest.mark.parametrize("step", ["first", "later"])
def test_the_default_form_of_icarl_equals_vclimb(step: str, precision: str) -> None:
    data = tensors("vclimb_17", precision)
    logits = leaf(data["loss_logits"])
    old = data["loss_old_logits"][:, : int(data["loss_n_known"])] if step == "later" else None
    assert icarl.ICaRLConfig().loss == "vclimb"
    loss = total(icarl.icarl_losses("vclimb", logits, old, data["loss_labels"]))
    check(loss, data[f"loss_plain_{step}_task"], (logits, data[f"loss_plain_{step}_task_grad_logits"]))


@DTYPES
@pytest.mark.parametrize("step", ["first", "later"])
def test_icarl_with_temporal_consistency_equals_vclimb(step: str, precision: str) -> None:
    data = tensors("vclimb_17", precision)
    logits = leaf(data["loss_logits"])
    old = data["loss_old_logits"][:, : int(data["loss_n_known"])] if step == "later" else None
    second, weight = data["loss_logits_aug"], float(data["loss_adv_lambda"])
    loss = total(icarl.icarl_losses("vclimb", logits, old, data["loss_labels"], second, weight))
    check(loss, data[f"loss_con_{step}_task"], (logits, data[f"loss_con_{step}_task_grad_logits"]))


@DTYPES
def test_the_cross_entropy_of_two_clips_equals_vclimb(precision: str) -> None:
    data = tensors("vclimb_17", precision)
    logits, second, labels = data["loss_logits"], data["loss_logits_aug"], data["loss_labels"]
    weight = float(data["loss_adv_lambda"])
    close(consistency_cross_entropy(logits, second, labels, weight), data["robust_loss_cr0"])
    assert torch.equal(consistency_cross_entropy(logits, None, labels, weight), F.cross_entropy(logits, labels))
    assert torch.equal(consistency_cross_entropy(logits, second, labels, 1.0), F.cross_entropy(second, labels))


def test_the_multi_class_form_takes_old_outputs_from_the_old_model_and_new_ones_from_the_label() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.5]], dtype=torch.float64)
    old = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    targets = [*old.sigmoid()[0].tolist(), 0.0, 1.0]
    p = logits.sigmoid()[0]
    expected = -sum(t * p[i].log() + (1 - t) * (1 - p[i]).log() for i, t in enumerate(targets))
    for found in (
        lwf.lwf_losses("sigmoid", logits, old, torch.tensor([3])),
        icarl.icarl_losses("paper", logits, old, torch.tensor([3])),
    ):
        torch.testing.assert_close(total(found), torch.as_tensor(expected))


def test_the_multi_class_form_is_summed_over_classes_and_averaged_over_the_batch() -> None:
    logits, labels = torch.zeros(5, 3), torch.tensor([0, 1, 2, 0, 1])
    loss = total(lwf.lwf_losses("sigmoid", logits, None, labels))
    torch.testing.assert_close(loss, 3 * torch.tensor(2.0).log())


def test_an_exemplars_label_counts_for_nothing_in_the_multi_class_form() -> None:
    logits, old = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[1.0, -2.0]])
    first, second = (multi_class_loss(logits, old, torch.tensor([label])) for label in (0, 1))
    assert first == second != multi_class_loss(logits, old, torch.tensor([2]))


# --- UCIR


@DTYPES
def test_the_sum_of_ucirs_losses_equals_the_authors(precision: str) -> None:
    data = tensors("ucir_20", precision)
    num_old = int(data["n_old"])
    features = leaf(data["feat_new"])
    head = CosineHead(8, 4, kind="cc").to(features.dtype)
    head.old_weight.data = data["w_old"]
    with torch.no_grad():
        head.weight.copy_(data["w_new"])
        head.sigma.fill_(float(data["sigma"]))
    logits = head(features)
    close(logits.detach(), data["logits"])
    scores = logits / head.sigma
    close(scores.detach(), data["scores_before_scale"])
    options = {"margin": float(data["margin_dist"]), "negatives": int(data["K"])}
    embedding = cosine_embedding(features, data["feat_old"])
    close(embedding.detach(), data["cos_embedding_loss_unweighted"])
    entropy = F.cross_entropy(logits, data["labels"])
    close(entropy.detach(), data["cross_entropy"])
    ranking = margin_ranking(scores, data["labels"], num_old, **options)
    close(ranking.detach(), data["margin_ranking_loss_unweighted"])
    loss = data["lamda"] * embedding + entropy + data["lw_mr"] * ranking
    check(loss, data["mr_lf_total_loss"], (features, data["mr_lf_grad_feat_new"]))

    labels = data["labels_no_old"]
    assert (data["labels"] < num_old).any()
    assert not (labels < num_old).any()
    ranking = margin_ranking(scores, labels, num_old, **options)
    assert ranking == 0
    loss = data["lamda"] * embedding + F.cross_entropy(logits, labels) + data["lw_mr"] * ranking
    close(loss.detach(), data["mr_lf_total_loss_no_old_in_batch"])


def test_margin_ranking_takes_the_hardest_new_classes_of_old_samples_alone() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.8, 0.2, 0.7], [0.0, 0.5, 0.4, 0.3, -1.0], [0.0, 0.0, 1.0, 1.0, 1.0]])
    labels = torch.tensor([0, 1, 2])  # classes 0 and 1 are old, and so is not the last sample
    gaps = [0.5 - 0.9 + 0.8, 0.5 - 0.9 + 0.7, 0.5 - 0.5 + 0.4, 0.5 - 0.5 + 0.3]
    torch.testing.assert_close(margin_ranking(scores, labels, 2), torch.tensor(sum(gaps) / 4))
    easy = scores - 5 * (torch.arange(5) >= 2)
    assert margin_ranking(easy, labels, 2) == 0


@DTYPES
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_losses_over_whole_batches_equal_those_over_the_rows_they_mean(share: float, precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = leaf(torch.randn(40, 12, generator=generator, dtype=getattr(torch, precision)))
    labels = torch.randint(5, 12, (40,), generator=generator)
    labels[: int(40 * share)] %= 5
    labels = labels[torch.randperm(40, generator=generator)]

    old = labels < 5
    hardest = scores[old, 5:].topk(2, dim=1).values
    gaps = (0.5 - scores[old].gather(1, labels[old, None]) + hardest).clamp_min(0)
    (expected,) = torch.autograd.grad(gaps.sum() / max(1, gaps.numel()), scores)
    ranking = margin_ranking(scores, labels, 5)
    torch.testing.assert_close(ranking.detach(), (gaps.sum() / max(1, gaps.numel())).detach())
    assert torch.equal(torch.autograd.grad(ranking, scores)[0], expected)  # bit for bit: so does training

    shifted = scores - scores.amax(dim=1, keepdim=True)
    positive = F.one_hot(labels, 12).bool()
    others = shifted.masked_fill(positive, 0.0).logsumexp(dim=1)
    reference = (others - shifted[positive]).mean()
    found = nca_loss(scores, labels)
    assert torch.equal(found, reference)
    assert torch.equal(torch.autograd.grad(found, scores)[0], torch.autograd.grad(reference, scores)[0])


def test_margin_ranking_makes_do_with_fewer_new_classes_than_negatives() -> None:
    scores = leaf(torch.tensor([[0.9, 0.1, 0.8], [0.0, 0.5, 0.4]]))
    loss = margin_ranking(scores, torch.tensor([0, 1]), 2, negatives=2)
    torch.testing.assert_close(loss.detach(), torch.tensor((0.4 + 0.4) / 2))
    assert torch.autograd.grad(loss, scores)[0].tolist() == [[-0.5, 0, 0.5], [0, -0.5, 0.5]]


# --- PODNet and LwM


@DTYPES
def test_pooled_outputs_distillation_and_its_gradient_equal_the_authors(precision: str) -> None:
    data = tensors("podnet_21", precision)
    layers = range(int(data["num_layers"]))
    new = [leaf(data[f"l{i}_att_new"]) for i in layers]
    loss = pooled_outputs_distillation(new, [data[f"l{i}_att_old"] for i in layers])
    check(loss, data["pod_spatial_norm"], (new[-1], data["pod_spatial_norm_grad_last"]))
    close(cosine_embedding(data["flat_new"], data["flat_old"]), data["pod_flat"])


@DTYPES
def test_the_loss_of_podnets_head_equals_the_authors(precision: str) -> None:
    data = tensors("podnet_21", precision)
    raw = leaf(data["lsc_neg_stable_cosine_distance_softmax_logits"])
    for exclude in (True, False):
        key = f"nca_excl_{str(exclude).lower()}"
        loss = nca_loss(data["scale_eta"] * (raw - data["margin"]), data["labels"], exclude)
        check(loss, data[key], (raw, data[f"{key}_grad_logits"]))
    num_old = raw.shape[1] - int(data["task_size"])
    ranking = margin_ranking(raw.detach(), data["labels"], num_old, margin=0.2, negatives=2)
    close(ranking, data["ucir_ranking_nb2_margin02"])


def test_attention_distillation_is_the_l1_distance_of_unit_length_maps() -> None:
    new = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 0.0]]])
    old = torch.tensor([[[0.0, 5.0], [0.0, 0.0]], [[9.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(attention_distillation(new, old), torch.tensor((0.6 + 1.0 + 0.8 + 0.0) / 2))


# --- smallest and emptiest inputs

Loss = Callable[[Tensor, Tensor], Tensor]
LABELS = torch.tensor([2, 2, 2])  # a batch of one class

# Of logits, [B, 5] of the new and [B, 2] of the old model.
OF_LOGITS: dict[str, Loss] = {
    "nca": lambda new, old: nca_loss(new, LABELS[: len(new)]),
    "nca plain": lambda new, old: nca_loss(new, LABELS[: len(new)], exclude_positive=False),
    "logit distillation": lambda new, old: logit_distillation(new[:, :2], old),
    "logit distillation at temperature 1": lambda new, old: logit_distillation(new[:, :2], old, 1.0),
    "sigmoid distillation": lambda new, old: sigmoid_distillation(new[:, :2], old),
    "ranking of old": lambda new, old: margin_ranking(new, LABELS[: len(new)], 3),
    "ranking of new": lambda new, old: margin_ranking(new, LABELS[: len(new)], 2),
    "ranking without new classes": lambda new, old: margin_ranking(new, LABELS[: len(new)], 5),
    "lwf sigmoid": lambda new, old: total(lwf.lwf_losses("sigmoid", new, old, LABELS[: len(new)])),
    "lwf softmax": lambda new, old: total(lwf.lwf_losses("softmax", new, old, LABELS[: len(new)])),
    "icarl vclimb": lambda new, old: total(icarl.icarl_losses("vclimb", new, old, LABELS[: len(new)])),
    "icarl paper": lambda new, old: total(icarl.icarl_losses("paper", new, old, LABELS[: len(new)])),
    "icarl softmax": lambda new, old: total(icarl.icarl_losses("softmax", new, old, LABELS[: len(new)])),
}
# Of features [B, T, D].
OF_FEATURES: dict[str, Loss] = {
    "features": feature_distillation,
    "features weighted": lambda new, old: feature_distillation(new, old, torch.ones(new.shape[1:])),
    "embedding": lambda new, old: cosine_embedding(new.mean(dim=1), old.mean(dim=1)),
}
# Of one stage's maps [B, T, C, H, W].
OF_MAPS: dict[str, Loss] = {
    "maps": lambda new, old: feature_map_distillation([new], [old]),
    "maps weighted": lambda new, old: feature_map_distillation([new], [old], [torch.ones(new.shape[1:3])]),
    "decorrelation": lambda new, old: frame_decorrelation([new]),
    "pooled": lambda new, old: pooled_outputs_distillation([new.flatten(0, 1)], [old.flatten(0, 1)]),
    "attention": lambda new, old: attention_distillation(new.mean(2).flatten(0, 1), old.mean(2).flatten(0, 1)),
}
VALUES = ["apart", "equal", "new zero", "old zero", "both zero"]


def pair(shape: tuple[int, ...], values: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    new, old = (torch.randn(shape, generator=generator) for _ in range(2))
    if values == "equal":
        old = new.clone()
    if values in ("new zero", "both zero"):
        new = torch.zeros(shape)
    if values in ("old zero", "both zero"):
        old = torch.zeros(shape)
    return new.requires_grad_(), old


def assert_finite(loss: Tensor, new: Tensor) -> None:
    assert loss.dim() == 0
    assert loss.isfinite()
    # As in training, where the terms are added up before they are differentiated.
    (gradient,) = torch.autograd.grad(loss + 0 * new.sum(), new)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", OF_LOGITS)
def test_a_loss_of_logits_is_finite_on_a_batch_of_one_class(name: str, batch: int, values: str) -> None:
    new, old = pair((batch, 5), values)
    assert_finite(OF_LOGITS[name](new, old[:, :2]), new)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (1, 4), (3, 1), (3, 4)])
@pytest.mark.parametrize("name", [*OF_FEATURES, *OF_MAPS])
def test_a_distillation_is_finite_on_one_video_or_frame_or_dead_maps(
    name: str, batch: int, frames: int, values: str
) -> None:
    shape = (batch, frames, 6) if name in OF_FEATURES else (batch, frames, 6, 3, 2)
    new, old = pair(shape, values)
    loss = (OF_FEATURES | OF_MAPS)[name](new, old)
    assert_finite(loss, new)
    if values in ("equal", "both zero") and name not in ("decorrelation", "embedding"):
        assert loss == 0


def test_a_map_of_one_position_and_features_of_one_channel_are_finite() -> None:
    for name, loss in (OF_FEATURES | OF_MAPS).items():
        new, old = pair((2, 2, 1) if name in OF_FEATURES else (2, 2, 1, 1, 1), "apart")
        assert_finite(loss(new, old), new)


def test_embedding_of_equal_features_is_zero_and_of_dead_ones_one() -> None:
    features = torch.tensor([[3.0, 4.0]])
    assert cosine_embedding(features, features) == pytest.approx(0, abs=1e-6)
    assert cosine_embedding(features, torch.zeros(1, 2)) == 1


def test_decorrelation_of_one_frame_is_zero_and_of_equal_frames_largest() -> None:
    still = torch.ones(2, 4, 3, 2, 2)
    assert frame_decorrelation([still[:, :1]]) == 0
    # Off the diagonal all T (T - 1) cosines are 1; summed over 3 channels.
    expected = torch.tensor(3 * 12**0.5 / 12)
    torch.testing.assert_close(frame_decorrelation([still]), expected, atol=1e-5, rtol=0)
    apart = torch.eye(4).reshape(1, 4, 1, 2, 2)
    assert frame_decorrelation([apart]) < 1e-5


def test_losses_over_stages_refuse_stages_that_do_not_match() -> None:
    new, old = torch.ones(1, 2, 3, 2, 2), torch.ones(1, 2, 3, 2, 2)
    for loss, args in (
        (feature_map_distillation, ([new], [old, old])),
        (pooled_outputs_distillation, ([new], [])),
    ):
        with pytest.raises(ValueError, match="zip"):
            loss(*args)
