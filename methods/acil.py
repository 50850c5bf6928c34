"""ACIL: a recursive ridge classifier on the frozen network of the base task (Zhuang et al., NeurIPS 2022).

A ResNet is trained on the base task as the other classifiers are and frozen then; beside a frozen CLIP nothing
is trained at all. Later tasks update an analytic head, whose result is that of all videos at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vcil_bench.classifier import LINEAR_STD, Classifier, ClassifierConfig
from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.method import RunContext
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.nets.ridge import RecursiveRidge, random_features
from vcil_bench.nets.trunk import FrameFeatures, Tuning
from vcil_bench.pretrained import needs_of_features
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task

PORTION = 256  # samples an update takes; any gives the same result


@dataclass(frozen=True, kw_only=True)
class ACILConfig(ClassifierConfig):
    """Hyper-parameters; the training of the base task is the classifiers', the rest the authors' code's.

    Attributes:
        base_training: Train on the base task: ``auto`` does so where the network trains whole, a ResNet, and not
            where it is a frozen CLIP; ``always`` trains a CLIP's adapters too; ``never`` leaves a ResNet as it
            was pretrained.
        features: What stands for a frame of a CLIP, see ``PretrainedConfig``.
        expansion: Size of the random expansion; 0 leaves it out.
        gamma: Ridge; the code's option, where its class says 1e-3.
    """

    base_training: Literal["auto", "always", "never"] = "auto"
    features: FrameFeatures = "joint"
    expansion: int = 8192
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, positive=("gamma",), not_negative=("expansion",))
        if self.base_training == "always" and self.tuning == "none":
            raise ConfigError(
                "base_training: always trains what the tuning makes, and tuning=none makes nothing"
            )
        if self.base_training != "always" and self.tuning not in ("adaptformer", "none"):
            raise ConfigError(
                f"tuning: {self.tuning} would stay untrained with base_training={self.base_training}; add --set "
                "base_training=always, or leave it out"
            )


class ACIL(Classifier):
    """Recursive ridge regression on expanded features of a frozen network."""

    name = "acil"
    paper = "Zhuang et al., ACIL, NeurIPS 2022"
    readouts = ("ridge",)
    splits_batches = True
    Config = ACILConfig
    recipes: ClassVar = {"synthetic_*": {"expansion": 1000}}

    config: ACILConfig
    projection: Tensor

    def __init__(self, config: ACILConfig, context: RunContext) -> None:
        """Make the network, draw the projection, and start without samples."""
        super().__init__(config, context)
        dim = self.model.network.dim
        bound = dim**-0.5  # of nn.Linear, from which the code's RandomBuffer takes its weights
        self.register_buffer("projection", torch.empty(config.expansion, dim).uniform_(-bound, bound))
        self.ridge = RecursiveRidge(config.expansion or dim, config.gamma)
        if not self.trains:
            self.model.requires_grad_(False)

    @classmethod
    def needs_with(cls, config: ACILConfig) -> frozenset[str]:
        """Ask for a projection where features before it are wanted."""
        return super().needs_with(config) | needs_of_features(config.features)

    @property
    def trains(self) -> bool:
        """Whether the base task trains the network."""
        how = self.config.base_training
        return how == "always" or (how == "auto" and self.model.network.trains_whole)

    def tuning(self) -> Tuning:
        """Take a CLIP alone where nothing of it is trained."""
        given = dataclasses.replace(super().tuning(), features=self.config.features)
        if self.config.base_training == "always":
            return given
        return dataclasses.replace(given, kind="none", adapters=None)

    def make_head(self, dim: int) -> GrowingLinear:
        """Return the linear head of the base task's training."""
        return GrowingLinear(dim, LINEAR_STD)

    def grow(self, task: Task) -> None:
        """Add the new classes to the analytic head; after the base task freeze the network."""
        self.ridge.grow(task.num_new)
        if task.index == 0 and self.trains:
            self.model.head.grow(task.num_new)
        elif task.index == 1:
            self.model.requires_grad_(False)

    def learn(self, task: Task) -> None:
        """Train the network on the base task, then take the task's features into the analytic head."""
        if task.index == 0 and self.trains:
            for epoch in self.task_epochs(task, task.train):
                for batch in epoch:
                    loss = F.cross_entropy(self.model.logits(batch.clips), batch.labels)
                    epoch.step({"cross_entropy": loss}, clip_norm=self.config.clip_norm)
        features, labels = self.video_features(task.train)
        for some, their_labels in zip(features.split(PORTION), labels.split(PORTION), strict=True):
            self.ridge.update(self._expanded(some), their_labels)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the analytic head."""
        return {"ridge": self.ridge(self._expanded(self.model.frame_features(clips).mean(dim=1)))}

    def memory_use(self) -> MemoryUse:
        """Return the size of the inverse, in which the old samples stand."""
        return MemoryUse(statistics_bytes=self.ridge.inverse.nbytes)

    def _expanded(self, features: Tensor) -> Tensor:
        return random_features(features, self.projection) if self.config.expansion else features
