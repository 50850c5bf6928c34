"""PODNet: pooled outputs distillation (Douillard et al., ECCV 2020).

Code: arthurdouillard/incremental_learning.pytorch @ c09fc54.

LSC head with several proxies a class and NCA loss, distillation of the maps pooled over either side, and a
balanced fine-tuning of the head. An image method; each frame is an image here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vcil_bench.classifier import ClassifierConfig, ClipClassifier
from vcil_bench.common.config import check_numbers
from vcil_bench.losses import cosine_embedding, nca_loss, pooled_outputs_distillation
from vcil_bench.memory import herding_order
from vcil_bench.nets.heads import CosineHead
from vcil_bench.rehearsal import RehearsalClassifier
from vcil_bench.stream import Task
from vcil_bench.training import sgd


@dataclass(frozen=True, kw_only=True)
class PODNetConfig(ClassifierConfig):
    """Hyper-parameters; PODNet's on CIFAR-100 (its options for ImageNet have 8 and 10), trained by TCD's recipe.

    How TCD's authors trained PODNet on videos is unknown.

    Attributes:
        proxies: Per class.
        pod_spatial: Weight of the pooled maps' distillation; it counts times sqrt(seen / new classes).
        pod_flat: Weight of the frame features' distillation, scaled alike.
        balanced_epochs: Epochs of the head's fine-tuning on exemplars.
        balanced_lr: Its rate, half the training's as on CIFAR-100.
    """

    proxies: int = 10
    pod_spatial: float = 3.0
    pod_flat: float = 1.0
    balanced_epochs: int = 20
    balanced_lr: float = 5e-4

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self,
            positive=("proxies", "balanced_epochs", "balanced_lr"),
            not_negative=("pod_spatial", "pod_flat"),
        )


class PODNet(RehearsalClassifier):
    """Spatial and flat distillation of pooled outputs, local similarity classifier."""

    name = "podnet"
    paper = "Douillard et al., PODNet, ECCV 2020"
    needs = frozenset({"maps"})
    splits_batches = True
    final_relu = False
    Config = PODNetConfig
    recipes: ClassVar = {"synthetic_*": {"balanced_epochs": 3, "balanced_lr": 0.0025, "proxies": 2}}

    config: PODNetConfig
    model: ClipClassifier[CosineHead]

    def make_head(self, dim: int) -> CosineHead:
        """Return an LSC head (Sec. 3.2)."""
        return CosineHead(dim, 0, proxies=self.config.proxies)

    def learn(self, task: Task) -> None:
        """Imprint proxies, train on videos and exemplars, choose exemplars, fine-tune the head in balance."""
        config, model, head = self.config, self.model, self.model.head
        old = model.frozen_copy() if task.index > 0 else None
        if old is not None:
            self.imprint(head, task)
        scale = (task.num_seen / task.num_new) ** 0.5
        # Old proxies wait for the fine-tuning (their options: ``old_weights: 0``).
        trained = {"params": [head.weight, head.sigma, head.eta], "lr": config.lr * config.head_lr}
        optimiser = self.optimiser(head_groups=[trained])
        for epoch in self.task_epochs(task, [*task.train, *self.memory.samples()], optimiser):
            for batch in epoch:
                new = model.features_with_maps(batch.clips)
                losses = {"nca": nca_loss(model.mean_logits(model.dropout(new.frames)), batch.labels)}
                if old is not None:  # POD, Sec. 3.1; every frame is an image
                    before = old.features_with_maps(batch.clips)
                    flat = cosine_embedding(new.frames.flatten(0, 1), before.frames.flatten(0, 1))
                    spatial = pooled_outputs_distillation(
                        [m.flatten(0, 1) for m in new.maps], [m.flatten(0, 1) for m in before.maps]
                    )
                    losses["pod_flat"] = config.pod_flat * scale * flat
                    losses["pod_spatial"] = config.pod_spatial * scale * spatial
                epoch.step(losses, clip_norm=config.clip_norm)
        self.choose_exemplars(task, herding_order)
        if task.index > 0:
            balanced = sgd(
                self.context,
                head.parameters(),
                lr=config.balanced_lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
            )
            self.tune_head(task, balanced, nca_loss, config.balanced_epochs)
        self.update_exemplar_means()
