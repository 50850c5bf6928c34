"""Loss functions that methods share, as pure functions of tensors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Negatives = Literal["seen", "current", "batch"]


def contrastive_loss(
    video: Tensor,
    texts: Tensor,
    labels: Tensor,
    *,
    scale: float,
    negatives: Negatives = "seen",
    num_old: int = 0,
) -> Tensor:
    """Symmetric contrastive loss between videos and class texts.

    ``seen`` (default) and ``current`` average two directions: cross-entropy of each video over the class
    texts (all seen, or the current task's), and of each sample's class text over the batch's videos with the
    videos of its class as equal targets (the soft-target form of ActionCLIP utils/KLLoss.py, without its
    constant entropy). ``batch`` is PIVOT's literal in-batch form, each sample's own index as its target, where
    samples of one class are each other's false negatives.

    Args:
        video: [B, D] unit-length video features.
        texts: [K, D] unit-length class texts, in label order.
        labels: [B] labels in 0..K-1.
        scale: Inverse temperature on the cosines.
        negatives: Which texts a video is held against.
        num_old: First label of the current task, for ``current``.

    Returns:
        Scalar.
    """
    own = scale * texts[labels] @ video.T  # [B texts, B videos]
    if negatives == "batch":
        index = torch.arange(len(labels), device=labels.device)
        return (F.cross_entropy(own, index) + F.cross_entropy(own.T, index)) / 2
    first = num_old if negatives == "current" else 0
    video_to_text = F.cross_entropy(scale * video @ texts[first:].T, labels - first)
    same = (labels[:, None] == labels[None, :]).to(own.dtype)
    text_to_video = F.cross_entropy(own, same / same.sum(dim=1, keepdim=True))
    return (video_to_text + text_to_video) / 2


def nca_loss(similarities: Tensor, targets: Tensor, exclude_positive: bool = True) -> Tensor:
    """NCA loss over class similarities, as PODNet and TCD train their LSC head.

    With ``exclude_positive`` the authors' code does not leave the positive out of the denominator: it sets its
    exponent to 0 after subtracting the row's maximum, so that it counts as ``exp(0)``. Where the target is the
    maximum this equals the cross-entropy. Source: TCD cl_methods/distillation.py, nca_loss.

    Args:
        similarities: [B, K].
        targets: [B] labels.
        exclude_positive: As published; False is the plain cross-entropy.

    Returns:
        Scalar, mean over the batch.
    """
    if not exclude_positive:
        return F.cross_entropy(similarities, targets)
    shifted = similarities - similarities.amax(dim=1, keepdim=True)
    positive = F.one_hot(targets, similarities.shape[1]).bool()
    others = shifted.masked_fill(positive, 0.0)  # exp(0) in the positive's place
    own = shifted.gather(1, targets[:, None]).squeeze(1)  # for an index by mask a GPU must be waited for
    return (others.logsumexp(dim=1) - own).mean()


def feature_distillation(features: Tensor, old: Tensor, importance: Tensor | None = None) -> Tensor:
    """Squared distance of unit frame features between new and old model, weighted per frame and channel.

    ``(1/T) mean_b sum_{t,c} F[t,c] (f^ - g^)^2``. Source: TCD cl_methods/distillation.py, lf_dist_tcd.

    Args:
        features: [B, T, D] of the new model.
        old: [B, T, D] of the old model.
        importance: F [T, D], or None for 1.

    Returns:
        Scalar.
    """
    drift = (F.normalize(features, dim=-1) - F.normalize(old, dim=-1)).square()  # [B, T, D]
    if importance is not None:
        drift = importance * drift
    return drift.sum(dim=(1, 2)).mean() / features.shape[1]


def feature_map_distillation(
    maps: Sequence[Tensor], old_maps: Sequence[Tensor], importance: Sequence[Tensor] | None = None
) -> Tensor:
    """Distance of squared, unit-length feature maps per channel and frame, weighted, averaged over stages.

    Per stage ``(1/sqrt(T)) mean_{b,c,t} F[t,c] |a^ - b^|`` with ``a^`` the map squared elementwise and brought
    to unit length over its positions. Source: TCD cl_methods/distillation.py, feat_dist.

    Args:
        maps: Per stage [B, T, C, H, W] of the new model.
        old_maps: The same of the old model; no gradient flows there.
        importance: Per stage F [T, C], or None for 1.

    Returns:
        Scalar.
    """
    total = maps[0].new_zeros(())
    for i, (new, old) in enumerate(zip(maps, old_maps, strict=True)):
        a, b = (F.normalize(m.square().flatten(3), dim=-1) for m in (new, old.detach()))  # [B, T, C, HW]
        distance = torch.linalg.vector_norm(a - b, dim=-1)  # [B, T, C]
        if importance is not None:
            distance = importance[i] * distance
        total = total + distance.mean() / new.shape[1] ** 0.5
    return total / len(maps)


def frame_decorrelation(maps: Sequence[Tensor]) -> Tensor:
    """Correlation between the frames of a clip, per channel: TCD's regulariser against redundant frames.

    Per video and channel the cosines R of its T maps; ``|R - I|_F / (T (T-1))`` summed over channels, averaged
    over videos and stages. Source: TCD ops/models.py, TSN._get_div, and train/train_i_cl.py (``loss_div``).

    Args:
        maps: Per stage [B, T, C, H, W]; with T = 1 there is nothing to decorrelate and the loss is 0.

    Returns:
        Scalar.
    """
    length = maps[0].shape[1]
    total = maps[0].new_zeros(())
    if length == 1:
        return total
    identity = torch.eye(length, dtype=total.dtype, device=total.device)
    for stage in maps:
        f = stage.flatten(3).transpose(1, 2)  # [B, C, T, HW]
        norms = torch.linalg.vector_norm(f, dim=-1, keepdim=True)
        cosines = f @ f.mT / (norms @ norms.mT + 1e-6)  # [B, C, T, T]
        off = torch.linalg.matrix_norm(cosines - identity)
        total = total + off.sum() / (length * (length - 1)) / len(stage)
    return total / len(maps)


def logit_distillation(logits: Tensor, old_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """Cross-entropy of softened predictions against the old model's, without a factor of T^2.

    Source: PyCIL models/lwf.py and models/icarl.py, _KD_loss.

    Args:
        logits: [B, C] of the new model, old classes only.
        old_logits: [B, C] of the old model.
        temperature: T.

    Returns:
        Scalar, mean over the batch.
    """
    targets = (old_logits / temperature).softmax(dim=1)
    return F.cross_entropy(logits / temperature, targets)


def sigmoid_distillation(logits: Tensor, old_logits: Tensor) -> Tensor:
    """Binary cross-entropy against the old model's sigmoids, summed over classes, averaged over the batch.

    Source: vCLIMB model/iCaRL.py and iCaRL_conLoss.py, train; the form of iCaRL's paper (Alg. 3).

    Args:
        logits: [B, C] of the new model, old classes only.
        old_logits: [B, C] of the old model.

    Returns:
        Scalar.
    """
    each = F.binary_cross_entropy_with_logits(logits, old_logits.sigmoid(), reduction="none")
    return each.sum(dim=1).mean()


def consistency_cross_entropy(logits: Tensor, second: Tensor | None, labels: Tensor, weight: float) -> Tensor:
    """Cross-entropy shared between two clips of every video: vCLIMB's temporal consistency.

    ``weight CE(second) + (1 - weight) CE(logits)``. Source: vCLIMB model/consistency_loss.py, get_robust_loss.

    Args:
        logits: [B, K] of the clips.
        second: [B, K] of the second clips; None where there are none, which leaves the plain cross-entropy.
        labels: [B].
        weight: Of the second clips.

    Returns:
        Scalar.
    """
    loss = F.cross_entropy(logits, labels)
    return loss if second is None else weight * F.cross_entropy(second, labels) + (1 - weight) * loss


def multi_class_loss(logits: Tensor, old_logits: Tensor | None, labels: Tensor) -> Tensor:
    """Binary cross-entropy of every output: old classes against the old sigmoids, new ones against the label.

    Source: iCaRL (Rebuffi et al., CVPR 2017), Alg. 3; summed over classes, averaged over the batch.

    Args:
        logits: [B, K].
        old_logits: [B, num_old] of the old model, or None for none.
        labels: [B]; where a sample is of an old class its label counts for nothing, as in the paper.

    Returns:
        Scalar.
    """
    targets = F.one_hot(labels, logits.shape[1]).to(logits)
    if old_logits is not None:
        targets = torch.cat([old_logits.sigmoid(), targets[:, old_logits.shape[1] :]], dim=1)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1).mean()


def margin_ranking(
    scores: Tensor, targets: Tensor, num_old: int, *, margin: float = 0.5, negatives: int = 2
) -> Tensor:
    """UCIR's inter-class separation: old exemplars keep a margin to their hardest new classes.

    Over the samples of old classes and their K best new-class scores: ``[margin - s_y + s_n]+``, averaged; 0 if
    the batch holds no old sample. Source: UCIR utils_incremental/incremental_train_and_eval_MR_LF.py.

    Args:
        scores: [B, C] cosines before the scale.
        targets: [B] labels.
        num_old: Labels below this are old.
        margin: Least distance between scores.
        negatives: K; fewer if there are fewer new classes.

    Returns:
        Scalar.
    """
    old = (targets < num_old)[:, None]  # [B, 1]; to take these rows alone, a GPU must be waited for
    hardest = scores[:, num_old:].topk(min(negatives, scores.shape[1] - num_old), dim=1).values
    own = scores.gather(1, targets[:, None])
    gaps = (margin - own + hardest).clamp_min(0).masked_fill(~old, 0.0)
    return gaps.sum() / (old.sum() * gaps.shape[1]).clamp_min(1)


def cosine_embedding(features: Tensor, old: Tensor) -> Tensor:
    """UCIR's less-forget constraint and PODNet's flat term: mean of ``1 - cos`` of features [B, D]."""
    return (1 - F.cosine_similarity(features, old, dim=1, eps=1e-12)).mean()


def pooled_outputs_distillation(maps: Sequence[Tensor], old_maps: Sequence[Tensor]) -> Tensor:
    """PODNet's spatial loss: distance of the maps pooled over their height and over their width.

    Per stage the squared maps are summed over one side and over the other, the two results joined and brought
    to unit length, and compared; averaged over samples and stages. Source: PODNet inclearn/lib/losses/
    distillation.py, pod with ``collapse_channels=spatial`` and ``normalize``.

    Args:
        maps: Per stage [N, C, H, W] of the new model.
        old_maps: The same of the old model.

    Returns:
        Scalar.
    """
    total = maps[0].new_zeros(())
    for new, old in zip(maps, old_maps, strict=True):
        a, b = (
            F.normalize(torch.cat([m.square().sum(dim=3).flatten(1), m.square().sum(dim=2).flatten(1)], dim=1))
            for m in (new, old)
        )
        total = total + torch.linalg.vector_norm(a - b, dim=1).mean()
    return total / len(maps)


def attention_distillation(attention: Tensor, old: Tensor) -> Tensor:
    """LwM's attention loss: L1 distance of unit-length attention maps.

    Source: Learning without Memorizing (Dhar et al., CVPR 2019), Eq. 7: each map is made a vector and divided
    by its Euclidean norm.

    Args:
        attention: [N, H, W] of the new model.
        old: [N, H, W] of the old model.

    Returns:
        Scalar, mean over maps.
    """
    a, b = (F.normalize(m.flatten(1), dim=1) for m in (attention, old))
    return (a - b).abs().sum(dim=1).mean()


def cosface(cosines: Tensor, labels: Tensor, scale: float, margin: float = 0.0) -> Tensor:
    """CosFace: cross-entropy of scaled cosines, the label's own lessened by a margin.

    Source: CosFace (Wang et al., CVPR 2018), as in SSIAT utils/loss.py, AngularPenaltySMLoss.

    Args:
        cosines: [B, K].
        labels: [B].
        scale: Factor on the cosines.
        margin: Taken off the label's cosine.

    Returns:
        Scalar, mean over the batch.
    """
    target = F.one_hot(labels, cosines.shape[1]).to(cosines)
    return F.cross_entropy(scale * (cosines - margin * target), labels)


def task_cross_entropy(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Cross-entropy among some classes alone, the other outputs masked out.

    Args:
        logits: [B, K].
        labels: [B], all of them among ``classes``.
        classes: Labels that compete.

    Returns:
        Scalar, mean over the batch.
    """
    competing = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    for _, run in itertools.groupby(enumerate(sorted(classes)), lambda item: item[1] - item[0]):
        labels_of_run = [label for _, label in run]
        competing[labels_of_run[0] : labels_of_run[-1] + 1] = True  # by slices: a GPU would be waited for else
    return F.cross_entropy(logits.masked_fill(~competing, -torch.inf), labels)


def parameter_penalty(
    parameters: Mapping[str, Tensor],
    centres: Sequence[Mapping[str, Tensor]],
    importances: Sequence[Mapping[str, Tensor]],
) -> Tensor:
    """Squared distance of parameters to those after earlier tasks, each weighted by its importance there.

    ``sum_i sum_p I_i[p] (star_i[p] - theta[p])^2`` over tasks i and parameters p, without a factor 1/2. Its maps
    and its time grow with the tasks: ``consolidation.QuadraticPenalty`` is the same sum in two maps. Source:
    vCLIMB utils/EWC.py and utils/MAS.py, get_regularized_loss.

    Args:
        parameters: theta by name.
        centres: Per task, star by name; of a parameter that has grown since, the rows that it had.
        importances: Per task, I by name, of the shape of star.

    Returns:
        Scalar, without lambda; 0 without a task.
    """
    total = next(iter(parameters.values())).new_zeros(())
    for centre, importance in zip(centres, importances, strict=True):
        for name, star in centre.items():
            total = total + (importance[name] * (star - parameters[name][: len(star)]).square()).sum()
    return total
