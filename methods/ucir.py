"""UCIR: a unified classifier learned by rebalancing (Hou et al., CVPR 2019).

Code: hshustc/CVPR19_Incremental_Learning @ e5a90ae.

Cosine head with imprinted weights, less-forget constraint on the features' direction, and a margin between old
exemplars and the new classes nearest to them. An image method; a video's feature is the mean of its frames'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from vcil_bench.classifier import ClassifierConfig, ClipClassifier
from vcil_bench.common.config import check_numbers
from vcil_bench.losses import cosine_embedding, margin_ranking
from vcil_bench.memory import herding_order
from vcil_bench.nets.heads import CosineHead
from vcil_bench.rehearsal import RehearsalClassifier
from vcil_bench.stream import Task


@dataclass(frozen=True, kw_only=True)
class UCIRConfig(ClassifierConfig):
    """Hyper-parameters; the defaults of UCIR's scripts (class_incremental_cosine_*.py), trained by TCD's recipe.

    How TCD's authors trained UCIR on videos is unknown.

    Attributes:
        less_forget: Base weight of the less-forget constraint; it counts times sqrt(old / new classes).
            Their runs on ImageNet (run_all.sh) set 10.
        margin: Least distance of an old exemplar's score to the new classes' scores.
        negatives: New classes that each old exemplar is held against.
        ranking: Weight of that margin loss.
    """

    less_forget: float = 5.0
    margin: float = 0.5
    negatives: int = 2
    ranking: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, positive=("negatives",), not_negative=("less_forget", "margin", "ranking"))


class UCIR(RehearsalClassifier):
    """Cosine normalisation, less-forget constraint, inter-class separation."""

    name = "ucir"
    paper = "Hou et al., Learning a Unified Classifier Incrementally via Rebalancing, CVPR 2019"
    final_relu = False
    splits_batches = True
    Config = UCIRConfig
    recipes: ClassVar = {"synthetic_*": {"lr": 0.01}}

    config: UCIRConfig
    model: ClipClassifier[CosineHead]

    def make_head(self, dim: int) -> CosineHead:
        """Return a cosine head (Sec. 3.2)."""
        return CosineHead(dim, 0, kind="cc")

    def grow(self, task: Task) -> None:
        """Add outputs; the old classes' weights stay as they are from here on (learning rate 0 in the code)."""
        super().grow(task)
        self.model.head.old_weight.requires_grad_(False)

    def learn(self, task: Task) -> None:
        """Imprint the new weights, train on videos and exemplars, then choose exemplars by herding."""
        config, model = self.config, self.model
        old = model.frozen_copy() if task.index > 0 else None
        if old is not None:
            self.imprint(model.head, task)
        less_forget = config.less_forget * (task.num_old / task.num_new) ** 0.5
        for epoch in self.task_epochs(task, [*task.train, *self.memory.samples()]):
            for batch in epoch:
                frames = model.frame_features(batch.clips)
                logits = model.mean_logits(model.dropout(frames))
                losses = {"cross_entropy": F.cross_entropy(logits, batch.labels)}
                if old is not None:
                    old_video = old.frame_features(batch.clips).mean(dim=1)
                    # Less-forget constraint, Sec. 3.3.
                    losses["less_forget"] = less_forget * cosine_embedding(frames.mean(dim=1), old_video)
                    # Inter-class separation, Sec. 3.4.
                    losses["ranking"] = config.ranking * margin_ranking(
                        logits / model.head.sigma,  # the cosines
                        batch.labels,
                        task.num_old,
                        margin=config.margin,
                        negatives=config.negatives,
                    )
                epoch.step(losses, clip_norm=config.clip_norm)
        self.choose_exemplars(task, herding_order)
        self.update_exemplar_means()
