"""Loss functions that methods share, as pure functions of tensors."""

from __future__ import annotations

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
