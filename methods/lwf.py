"""LwF.MC: learning without forgetting in its multi-class form, exemplar-free (the "LwFMC" rows of VCIL tables).

Li and Hoiem, ECCV 2016, as iCaRL's authors turned it into a classifier over all classes (Rebuffi et al., CVPR
2017, Sec. 4): the old model's outputs are the targets of the old classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from vcil_bench.classifier import LINEAR_STD, Classifier, ClassifierConfig, ClipClassifier
from vcil_bench.data.loader import Batch
from vcil_bench.losses import logit_distillation, multi_class_loss
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.stream import Task


@dataclass(frozen=True, kw_only=True)
class LwFConfig(ClassifierConfig):
    """Hyper-parameters; what trained the published rows on videos is unknown, so the recipe is TCD's.

    Attributes:
        loss: ``sigmoid`` is LwF.MC, which the tables name: binary cross-entropy of every output, old ones
            against the old model's sigmoids. Summed over classes, where iCaRL's code takes the mean with a rate
            of 2.0: at this recipe's rate a mean over 101 classes would not train. ``softmax`` is PyCIL's LwF
            (models/lwf.py): cross-entropy among the new classes plus three times the softened distillation.
    """

    loss: Literal["sigmoid", "softmax"] = "sigmoid"


class LwF(Classifier):
    """Distillation of the old classes' outputs on the new task's videos alone."""

    name = "lwf"
    paper = "Li and Hoiem, Learning without Forgetting, ECCV 2016; multi-class form of Rebuffi et al., CVPR 2017"
    splits_batches = True
    Config = LwFConfig

    config: LwFConfig

    def make_head(self, dim: int) -> GrowingLinear:
        """Return a linear head."""
        return GrowingLinear(dim, LINEAR_STD)

    def learn(self, task: Task) -> None:
        """Train on the task's videos, held to the old model's outputs (Rebuffi et al., Sec. 4, LwF.MC)."""
        old = self.model.frozen_copy() if task.index > 0 else None
        for epoch in self.task_epochs(task, task.train):
            for batch in epoch:
                losses = self.losses(batch, task, old)
                epoch.step(losses, clip_norm=self.config.clip_norm)

    def losses(self, batch: Batch, task: Task, old: ClipClassifier[GrowingLinear] | None) -> dict[str, Tensor]:
        """Return the loss terms of a batch."""
        logits = self.model.logits(batch.clips)
        old_logits = old.logits(batch.clips)[:, : task.num_old] if old is not None else None
        return lwf_losses(self.config.loss, logits, old_logits, batch.labels)


def lwf_losses(
    kind: Literal["sigmoid", "softmax"], logits: Tensor, old_logits: Tensor | None, labels: Tensor
) -> dict[str, Tensor]:
    """Return the terms of LwF's loss, see ``LwFConfig.loss``.

    Args:
        kind: ``sigmoid`` or ``softmax``.
        logits: [B, K] of all classes seen.
        old_logits: [B, num_old] of the old model, None in the base task.
        labels: [B]; of new classes only.
    """
    if kind == "sigmoid":
        return {"binary": multi_class_loss(logits, old_logits, labels)}
    if old_logits is None:
        return {"cross_entropy": F.cross_entropy(logits, labels)}
    num_old = old_logits.shape[1]
    return {
        "cross_entropy": F.cross_entropy(logits[:, num_old:], labels - num_old),
        "distillation": 3 * logit_distillation(logits[:, :num_old], old_logits),
    }
