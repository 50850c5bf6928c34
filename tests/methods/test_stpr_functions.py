from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import golden
from torch import Tensor

from vcil_bench.losses import contrastive_loss
from vcil_bench.methods.stpr import (
    channel_importance,
    fuse,
    routing_scores,
    routing_weights,
    shared_semantic_distillation,
    temporal_dynamics,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
FEATURES = pytest.mark.parametrize("scaled", ["raw", "unit"])


def inputs(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return golden arrays as tensors, floats in the working precision."""
    tensors = {key: torch.from_numpy(array) for key, array in golden(name).items()}
    return {key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors.items()}


def close(actual: Tensor, expected: Tensor) -> None:
    """Compare at the precision of ``actual``, whose type must be that of the inputs."""
    assert actual.dtype == expected.dtype
    rtol, atol = (1e-9, 1e-11) if actual.dtype == torch.float64 else (1e-4, 1e-5)
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def unit(features: Tensor, scaled: str) -> Tensor:
    return F.normalize(features, dim=-1) if scaled == "unit" else features


# --- importance and distillation


@DTYPES
@FEATURES
def test_channel_importance_equals_the_formula(scaled: str, dtype: torch.dtype) -> None:
    data = inputs("stpr_01", dtype)
    features, labels = unit(data["frame_features"].mean(dim=1), scaled), data["labels"]
    counts = labels.bincount()
    assert counts.min() == 1 < counts.max()  # one class has a single video, whose variance is 0
    for clamp, key in ((False, "importance_signed"), (True, "importance_clamped0")):
        importance = torch.stack(
            [
                channel_importance(features[labels == c], text, floor=float(data["var_floor"]), clamp=clamp)
                for c, text in enumerate(data["text_embeddings"])
            ]
        )
        close(importance, data[f"{scaled}_{key}"])
    close(importance.mean(dim=0), data[f"{scaled}_importance_classmean_clamped0"])


def test_channel_importance_clamps_and_takes_the_papers_floor_by_default() -> None:
    data = inputs("stpr_01", torch.float64)
    features, labels = data["frame_features"].mean(dim=1), data["labels"]
    single = int(labels.bincount().argmin())
    importance = channel_importance(features[labels == single], data["text_embeddings"][single])
    close(importance, data["raw_importance_clamped0"][single])
    assert importance.min() == 0


@DTYPES
def test_distillation_and_its_gradient_equal_the_formula(dtype: torch.dtype) -> None:
    data = inputs("stpr_02", dtype)
    signed = data["importance_signed"]
    for key, per_class in (("signed", signed), ("clamped0", signed.clamp_min(0))):
        new = data["feat_new"].clone().requires_grad_()
        loss = shared_semantic_distillation(new, data["feat_old"], per_class[data["labels"]])
        close(loss.detach(), data[f"fssd_{key}"])
        close((data["w"] * loss).detach(), data[f"fssd_{key}_times_w"])
        close(torch.autograd.grad(loss, new)[0], data[f"fssd_{key}_grad_new"])
    stored = signed.clamp_min(0).mean(dim=0).expand_as(data["feat_new"])
    loss = shared_semantic_distillation(data["feat_new"], data["feat_old"], stored)
    close(loss, data["fssd_storedmean_clamped0"])


# --- temporal decomposition


@DTYPES
def test_temporal_dynamics_equal_both_forms_of_the_decomposition(dtype: torch.dtype) -> None:
    data = inputs("stpr_03", dtype)
    spatiotemporal = (data["attention"][..., None] * data["frames"]).sum(dim=1)
    for v_st in (data["v_st"], spatiotemporal):
        dynamics = temporal_dynamics(v_st, data["frames"])
        close(dynamics, data["v_tem"])
        close(dynamics, data["v_tem_by_deviation_formula"])


# --- routing and fusion


def routed(data: dict[str, Tensor], scaled: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return V̄s [B, 1, D], V_st [B, K, D] and the routing scores [B, K] of the golden test videos."""
    spatial = unit(data["v_bar"], scaled)[:, None]
    dynamic = unit(data["v_st_per_expert"], scaled).transpose(0, 1)
    cues = torch.stack([temporal_dynamics(v_st, spatial) for v_st in dynamic.unbind(dim=1)], dim=1)
    close(cues.transpose(0, 1), data[f"{scaled}_v_tem"])
    return spatial, dynamic, routing_scores(cues, data["anchors"], data["class_to_expert"])


@DTYPES
def test_anchors_are_class_means_of_the_dynamics(dtype: torch.dtype) -> None:
    data = inputs("stpr_04", dtype)
    dynamics = temporal_dynamics(data["train_v_st"], data["train_v_bar"][:, None])
    anchors = [dynamics[data["train_labels"] == c].mean(dim=0) for c in range(len(data["anchors"]))]
    close(torch.stack(anchors), data["anchors"])


@DTYPES
@FEATURES
def test_routing_scores_equal_the_formula(scaled: str, dtype: torch.dtype) -> None:
    data = inputs("stpr_04", dtype)
    assert data["class_to_expert"].bincount().unique().numel() > 1  # experts differ in their classes
    close(routed(data, scaled)[2], data[f"{scaled}_routing_cosine"])


@DTYPES
@FEATURES
@pytest.mark.parametrize("kind", ["literal", "softmax"])
def test_fusion_equals_the_formula(kind: str, scaled: str, dtype: torch.dtype) -> None:
    data = inputs("stpr_04", dtype)
    spatial, dynamic, scores = routed(data, scaled)
    fused = fuse(spatial, dynamic, routing_weights(scores, kind))
    close(fused, data[f"{scaled}_fused_{kind}"])
    best = (F.normalize(fused, dim=-1) @ F.normalize(data["text_embeddings"], dim=-1).T).argmax(dim=1)
    assert best.tolist() == data[f"{scaled}_pred_{kind}"].tolist()


def test_fusion_averages_the_frames() -> None:
    frames = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])  # mean (2, 2)
    dynamic = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert fuse(frames, dynamic, torch.tensor([[0.5, -1.0]])).tolist() == [[2.5, 1.0]]


def test_an_expert_is_scored_by_its_own_best_anchor_alone() -> None:
    # Anchors east, north, west; expert 0 owns two of them, expert 1 one, expert 2 none.
    anchors = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    owner = torch.tensor([0, 1, 0])
    west = torch.tensor([-5.0, 0.0]).expand(1, 3, 2)
    north = torch.tensor([0.0, 0.1]).expand(1, 3, 2)
    scores = routing_scores(torch.cat([west, north]), anchors, owner)
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]]))


def test_scores_do_not_depend_on_the_order_of_anchors() -> None:
    data = inputs("stpr_04", torch.float64)
    cues = data["raw_v_tem"].transpose(0, 1)
    shuffled = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    scores = routing_scores(cues, data["anchors"][shuffled], data["class_to_expert"][shuffled])
    close(scores, data["raw_routing_cosine"])


# --- contrastive loss


@DTYPES
@pytest.mark.parametrize("scale", ["logit_scale", "logit_scale_soft"])
def test_contrastive_loss_and_its_gradient_equal_the_formula(scale: str, dtype: torch.dtype) -> None:
    data = inputs("stpr_05", dtype)
    factor = float(data[scale])
    video = data["video"].clone().requires_grad_()
    loss = contrastive_loss(video, data["class_text"], data["labels"], scale=factor)
    close(loss.detach(), data[f"s{factor:.0f}_symmetric_default"])
    close(torch.autograd.grad(loss, video)[0], data[f"s{factor:.0f}_symmetric_default_grad_video"])


@DTYPES
@pytest.mark.parametrize("scale", ["logit_scale", "logit_scale_soft"])
def test_batch_negatives_are_the_in_batch_form(scale: str, dtype: torch.dtype) -> None:
    data = inputs("stpr_05", dtype)
    factor = float(data[scale])
    loss = contrastive_loss(
        data["video"], data["class_text"], data["labels"], scale=factor, negatives="batch", num_old=2
    )
    close(loss, data[f"s{factor:.0f}_inbatch_index_symmetric"])


def test_current_negatives_are_a_cross_entropy_over_the_current_classes() -> None:
    data = inputs("stpr_05", torch.float64)
    num_old, scale = 2, float(data["logit_scale_soft"])
    new = data["labels"] >= num_old
    video, labels = data["video"][new], data["labels"][new]
    texts = data["class_text"]
    assert 1 < len(labels) < len(new)

    def loss(negatives: Any) -> Tensor:
        return contrastive_loss(video, texts, labels, scale=scale, negatives=negatives, num_old=num_old)

    seen = F.cross_entropy(scale * video @ texts.T, labels)
    current = F.cross_entropy(scale * video @ texts[num_old:].T, labels - num_old)
    assert not torch.isclose(seen, current)
    # The other direction, texts to videos, is common to both.
    close(loss("seen") - loss("current"), (seen - current) / 2)


# --- smallest inputs


@pytest.mark.parametrize("negatives", ["seen", "current", "batch"])
def test_contrastive_loss_of_one_video_of_one_class_is_zero(negatives: Any) -> None:
    video = F.normalize(torch.ones(1, 4), dim=-1).requires_grad_()
    text = F.normalize(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), dim=-1)
    loss = contrastive_loss(video, text, torch.tensor([0]), scale=100.0, negatives=negatives)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, video)[0].isfinite().all()


@pytest.mark.parametrize("negatives", ["seen", "current", "batch"])
def test_contrastive_loss_of_a_batch_of_one_class_is_finite(negatives: Any) -> None:
    video = F.normalize(torch.arange(12.0).reshape(3, 4), dim=-1).requires_grad_()
    text = F.normalize(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), dim=-1)
    loss = contrastive_loss(video, text, torch.tensor([0, 0, 0]), scale=100.0, negatives=negatives)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, video)[0].isfinite().all()


def test_importance_of_one_video_and_of_constant_features_is_finite() -> None:
    text = torch.tensor([0.5, -0.5, 0.0])
    one = channel_importance(torch.tensor([[0.6, 0.8, 0.1]]), text)
    np.testing.assert_allclose(one, [0.3e6, 0, 0], rtol=1e-6)
    constant = channel_importance(torch.tensor([[0.6, 0.8, 0.1]] * 5), text)
    np.testing.assert_allclose(constant, one, rtol=1e-6)


def test_routing_survives_features_without_dynamics() -> None:
    still = torch.zeros(2, 1, 4, requires_grad=True)
    scores = routing_scores(still, torch.ones(1, 4), torch.tensor([0]))
    assert scores.tolist() == [[0.0], [0.0]]
    assert torch.autograd.grad(scores.sum(), still)[0].isfinite().all()
    assert routing_scores(torch.ones(2, 1, 4), torch.zeros(1, 4), torch.tensor([0])).tolist() == [[0.0]] * 2
    for kind in ("literal", "softmax"):
        assert routing_weights(scores.detach(), kind).isfinite().all()


def test_one_frame_has_no_dynamics() -> None:
    frames = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    assert (temporal_dynamics(frames[:, 0], frames) == 0).all()
