"""Pretrained features: a network that is frozen, or trained on the first task alone, under a head of statistics.

SimpleCIL, APER, RanPAC, FeCAM, SSIAT and EASE differ in their heads. What they have in common is here, once:
what the feature of a video is, and the training of LAMDA-PILOT's adapters. None of them keeps a video.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .common.config import ConfigError, check_numbers
from .data.loader import Sample
from .method import Method, RunContext
from .nets.heads import CosineHead
from .nets.network import VideoNetwork
from .nets.trunk import FrameFeatures, Tuning
from .nets.tuning_config import SMALL_TUNING, TuningConfig
from .stream import Task
from .training import Epoch, cosine, evaluating, sgd

# On the embedded clips: the rate, batch size and epochs of the other methods on the small CLIP.
SMALL_RECIPE = {"lr": 0.015, "batch_size": 10, "epochs_first": 14, **SMALL_TUNING}


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig(TuningConfig):
    """What the methods on pretrained features share; the defaults are LAMDA-PILOT's (exps/aper_adapter.json).

    Attributes:
        features: What stands for a frame of a CLIP: the class token in the ``joint`` space of images and texts,
            or ``unprojected``, before the last projection, as the code for image ViTs has it. A video's feature
            is the mean of its frames', not normalised. No paper says which to take on videos; ours is what the
            other CLIP methods here work on.
        lr, momentum, weight_decay, batch_size: SGD, cosine decay to zero, where something is trained.
        epochs_first: Epochs of the first task.
    """

    features: FrameFeatures = "joint"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 48
    epochs_first: int = 20

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self,
            positive=("lr", "batch_size", "epochs_first"),
            not_negative=("weight_decay",),
            below_one=("momentum",),
        )


@dataclass(frozen=True, kw_only=True)
class FirstTaskConfig(PretrainedConfig):
    """The same for a network that is trained on the first task, or not at all.

    Attributes:
        adapt: ``none``: the pretrained network as it is. ``first``: trained on the first task by cross-entropy
            under a cosine head, which is thrown away, and frozen from then on; of a CLIP the adapters alone. A
            first task of one class has nothing to tell apart and trains nothing.
    """

    adapt: Literal["none", "first"] = "none"

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        if self.adapt == "first" and self.tuning == "none":
            raise ConfigError("adapt: first trains what the tuning makes, and tuning=none makes nothing")
        if self.adapt == "none" and self.tuning not in ("adaptformer", "none"):
            raise ConfigError(
                f"tuning: {self.tuning} would stay untrained with adapt=none; add --set adapt=first, or leave "
                "it out"
            )


class PretrainedMethod(Method):
    """A method that reads videos out by statistics of their features; ``features`` says what these are."""

    splits_batches = True

    config: PretrainedConfig

    @classmethod
    def needs_with(cls, config: Any) -> frozenset[str]:
        """Ask for a projection where features before it are wanted."""
        return super().needs_with(config) | needs_of_features(config.features)

    @abstractmethod
    def features(self, clips: Tensor) -> Tensor:
        """Return the float32 video features [B, D] of uint8 clips [B, T, 3, S, S]."""

    def features_of(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Return a feature [N, D] and a label [N] of each sample, from its middle frames and centre crop."""
        features, labels = [], []
        with evaluating(self):
            for batch in self.context.centre_clips(samples):
                features.append(self.features(batch.clips))
                labels.append(batch.labels)
        return torch.cat(features), torch.cat(labels)

    def tuning_epochs(self, task: Task, parameters: Sequence[nn.Parameter], num_epochs: int) -> Iterator[Epoch]:
        """Yield epochs of training parameters on the task's videos, the rate falling to zero by a cosine."""
        optimiser = sgd(
            self.context,
            parameters,
            lr=self.config.lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
        )
        return self.train_epochs(
            task.train,
            optimiser,
            cosine(optimiser, num_epochs),
            num_epochs=num_epochs,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1}",
        )


class FirstTaskMethod(PretrainedMethod):
    """A method whose network is frozen, at once or after the first task.

    Attributes:
        network: From clips to frame features.
        base_head: Cosine head of the first task's training; gone after it.
    """

    config: FirstTaskConfig

    def __init__(self, config: Any, context: RunContext) -> None:
        """Make the network, of a CLIP with what its tuning trains if it is to be trained."""
        super().__init__(config, context)
        self.network = _network(config, context, trains=config.adapt == "first")
        if config.adapt == "first":
            self.base_head = CosineHead(self.network.dim, 0, kind="cc")

    def grow(self, task: Task) -> None:
        """Make the first task's head; after that task remove it and freeze the network."""
        if self.config.adapt == "first" and task.index == 0:
            self.base_head.grow(task.num_new)
        elif self.config.adapt == "first" and task.index == 1:
            del self.base_head
            self.network.requires_grad_(False)

    def learn(self, task: Task) -> None:
        """Train the network on the first task if asked to, then take the task's features in."""
        # Drawn first: a run that goes on inside the training finds the random state here as it was.
        order = torch.randperm(len(task.train))
        if task.index == 0 and self.config.adapt == "first" and task.num_new > 1:
            self._adapt(task)
        features, labels = self.features_of(task.train)
        order = order.to(labels.device)
        self.take_in(task, features[order], labels[order])

    @abstractmethod
    def take_in(self, task: Task, features: Tensor, labels: Tensor) -> None:
        """Update the head's statistics.

        Args:
            task: The task.
            features: [N, D] of its training videos, shuffled.
            labels: [N].
        """

    def features(self, clips: Tensor) -> Tensor:
        """Return what the statistics are of and videos are read out by: the network's features."""
        return self.network_features(clips)

    def network_features(self, clips: Tensor) -> Tensor:
        """Return the means over frames of the network's features [B, D], which the first task trains."""
        with self.context.autocast():
            frames = self.network(clips)
        return frames.float().mean(dim=1)

    def _adapt(self, task: Task) -> None:
        """Train the network on the first task under a cosine head with a learned scale.

        Source: LAMDA-PILOT models/aper_adapter.py, _train; RanPAC.py. The scale starts at 1 as published, so
        that the softmax begins nearly flat.
        """
        trained = [*self.network.parameters(), *self.base_head.parameters()]
        for epoch in self.tuning_epochs(task, trained, self.config.epochs_first):
            for batch in epoch:
                logits = self.base_head(self.network_features(batch.clips))
                epoch.step({"cross_entropy": F.cross_entropy(logits, batch.labels)})


def needs_of_features(features: FrameFeatures) -> frozenset[str]:
    """Return what a backbone must provide for a choice of frame features, see ``Method.needs``."""
    return frozenset({"projection"} if features == "unprojected" else ())


def _network(config: PretrainedConfig, context: RunContext, *, trains: bool) -> VideoNetwork:
    """Return the backbone's network; one that does not train is frozen, and a CLIP then is the CLIP alone."""
    if trains:
        tuning = config.network_tuning(context.loader.spec.frames, features=config.features)
        return context.backbone.network(tuning)
    return context.backbone.network(Tuning(kind="none", features=config.features)).frozen_copy()
