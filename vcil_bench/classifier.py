"""What the classifiers of the ResNet era share: a network, a head, one training recipe, exemplars.

LwF, LwM, iCaRL, UCIR, PODNet, TCD and HCE differ in their losses, their heads and the order of their steps. What
they have in common in every published comparison is here, once: frame features with dropout, a head whose
scores are averaged over the frames, SGD with a stepped rate and clipped gradients; and for those that rehearse,
the memory and the nearest mean of exemplars.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .common.config import ConfigError, check_numbers
from .data.clips import exemplar_indices
from .data.loader import Sample
from .memory import ExemplarMemory
from .method import MemoryUse, Method, RunContext
from .nets.heads import CosineHead, class_means, imprinted_proxies, nearest_mean_scores
from .nets.network import AdapterConfig, Features, Tuning
from .protocol import MemorySpec
from .stream import Task
from .training import Epoch, evaluating, multistep, sgd

Ranking = Callable[[Tensor, int], list[int]]


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The training recipe that VCIL tables share; the defaults are TCD's (opts.py, scripts/ucf101).

    Attributes:
        lr, momentum, weight_decay, batch_size: SGD.
        epochs_first: Epochs of the base task.
        epochs: Epochs of each later task.
        milestones: Epochs of every task after which the rate is multiplied by ``lr_decay``.
        lr_decay: See ``milestones``.
        clip_norm: Largest norm of the gradient.
        head_lr: Factor on the rate of the head.
        dropout: Of the frame features in front of the head, while training.
        partial_bn: Of a ResNet: keep every batch norm after the first as it is.
        drop_last: Leave out an epoch's incomplete last batch, as TCD's loaders do; a batch that is the only
            one is kept, where their code would train on nothing.
        adapter_bottleneck, adapter_scale, adapter_dropout: Of a CLIP: AdaptFormer's shape; its own weights stay
            frozen. A ResNet trains whole and has none.
        adapter_lr: Of a CLIP: factor on the rate of the adapters. They start at zero behind a scale of 0.1, and
            at a rate made for fine-tuning a ResNet hardly move; 10 gives the 0.01 at which StPR trains them.
    """

    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 32
    epochs_first: int = 50
    epochs: int = 50
    milestones: tuple[int, ...] = (20, 30)
    lr_decay: float = 0.1
    clip_norm: float = 20.0
    head_lr: float = 5.0
    dropout: float = 0.8
    partial_bn: bool = True
    drop_last: bool = True
    adapter_bottleneck: int = 64
    adapter_scale: float = 0.1
    adapter_dropout: float = 0.1
    adapter_lr: float = 10.0

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_numbers(
            self,
            positive=(
                *("lr", "batch_size", "epochs_first", "epochs", "lr_decay", "clip_norm", "head_lr"),
                *("adapter_bottleneck", "adapter_lr"),
            ),
            not_negative=("weight_decay", "adapter_scale"),
            below_one=("momentum", "dropout", "adapter_dropout"),
        )
        if any(m < 1 for m in self.milestones) or list(self.milestones) != sorted(set(self.milestones)):
            raise ConfigError(f"milestones: {list(self.milestones)} must be ascending epochs from 1")


LINEAR_STD = 1e-3  # of a linear head's new weights, as in TSN, TSM and TCD (ops/models.py, _prepare_tsn)

# Small clips, a small network and minutes on two cores: few epochs, the rate at which the base task's training
# loss fell lowest for most methods, and little dropout, since a feature has 192 channels, not 512 or 2048.
SYNTHETIC_RECIPE: dict[str, Any] = {
    "lr": 0.005,
    "batch_size": 20,
    "epochs_first": 6,
    "epochs": 4,
    "milestones": [3, 5],
    "dropout": 0.2,
    "adapter_bottleneck": 16,
}


class Classifier(Method):
    """A network with a head on its frame features; a clip's scores are the mean over its frames.

    Attributes:
        network: From clips to frame features.
        head: From frame features to class scores; it has ``grow``.
        final_relu: Whether a ResNet's features end in a ReLU; cosine heads go without.
    """

    readouts: ClassVar[tuple[str, ...]] = ("cnn",)
    backbone = "tsm_resnet34"
    # TCD published UCF101 scripts only, with ResNet-34; papers that compare on its other protocols use ResNet-50
    # (SFCL, and the re-implementation of NinV). vCLIMB's backbone is TSN, without shift.
    backbones: ClassVar = {
        "tcd_hmdb51_*": "tsm_resnet50",
        "tcd_ssv2_*": "tsm_resnet50",
        "vclimb_*": "tsn_resnet34",
        "kinetics400_*": "tsn_resnet34",
    }
    final_relu: ClassVar[bool] = True

    config: ClassifierConfig
    head: nn.Module

    def __init__(self, config: Any, context: RunContext) -> None:
        """Make the network from pretrained weights; the head comes with the first task."""
        super().__init__(config, context)
        self.network = context.backbone.network(
            Tuning(
                adapters=AdapterConfig(
                    bottleneck=config.adapter_bottleneck,
                    scale=config.adapter_scale,
                    dropout=config.adapter_dropout,
                ),
                partial_bn=config.partial_bn,
                final_relu=self.final_relu,
            )
        )
        self.drop = nn.Dropout(config.dropout)
        self.head = self.make_head()

    @abstractmethod
    def make_head(self) -> nn.Module:
        """Return a head without classes."""

    def grow(self, task: Task) -> None:
        """Add the new classes' outputs."""
        self.head.grow(task.num_new)  # type: ignore[operator]

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the head."""
        return {"cnn": self.scores(self.frames(clips))}

    def frames(self, clips: Tensor) -> Tensor:
        """Return float32 frame features [B, T, D] of clips."""
        with self.context.autocast():
            return self.network(clips).float()

    def features(self, clips: Tensor) -> Features:
        """Return frame features, and the feature maps on the way, float32."""
        with self.context.autocast():
            found = self.network.features(clips)
        return Features(found.frames.float(), found.blocks)

    def scores(self, frames: Tensor) -> Tensor:
        """Score frame features [B, T, D]: the head's scores of the frames, averaged [B, K]."""
        return self.head(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(dim=1)

    def old_model(self) -> OldModel:
        """Return the model as it is now, frozen, to distil from."""
        return OldModel(self)

    def optimiser(self) -> torch.optim.Optimizer:
        """Return SGD over everything that requires gradients, the head at its own rate.

        As in TCD ops/models.py, get_optim_policies: no decay on batch norms and on the head's bias, the latter
        at twice the head's rate.
        """
        config = self.config
        return sgd(
            self.context,
            [*self.network_groups(), *self.head_groups()],
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )

    def network_groups(self) -> list[dict[str, Any]]:
        """Return the network's parameter groups."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        norms = {id(p) for m in self.network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
        rate = self.config.lr * (1.0 if self.network.trains_whole else self.config.adapter_lr)
        return [
            {"params": [p for p in trained if id(p) not in norms], "lr": rate},
            {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
        ]

    def head_groups(self) -> list[dict[str, Any]]:
        """Return the head's parameter groups."""
        rate = self.config.lr * self.config.head_lr
        named = [(name, p) for name, p in self.head.named_parameters() if p.requires_grad]
        return [
            {"params": [p for name, p in named if name != "bias"], "lr": rate},
            {"params": [p for name, p in named if name == "bias"], "lr": 2 * rate, "weight_decay": 0.0},
        ]

    def training_epochs(
        self, task: Task, optimiser: torch.optim.Optimizer, samples: Sequence[Sample]
    ) -> Iterator[Epoch]:
        """Yield the epochs of a task's training over the samples, at the stepped rate."""
        return self.train_epochs(
            samples,
            optimiser,
            multistep(optimiser, self.config.milestones, self.config.lr_decay),
            num_epochs=self.config.epochs_first if task.index == 0 else self.config.epochs,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1}",
            drop_last=self.config.drop_last,
        )

    def embed(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Return video features [N, D] and labels [N] of samples as a test with one centre crop sees them.

        A video's feature is the mean of its frame features.
        """
        features, labels = [], []
        with evaluating(self):
            for batch in self.context.centre_clips(samples):
                features.append(self.frames(batch.clips).mean(dim=1))
                labels.append(batch.labels)
        return torch.cat(features), torch.cat(labels)


class OldModel:
    """The model of the task before: frozen, without dropout, and no part of the method's state."""

    def __init__(self, method: Classifier) -> None:
        """Copy network and head."""
        self._context = method.context
        self.network = method.network.frozen_copy()
        self._head = copy.deepcopy(method.head).eval().requires_grad_(False)

    @torch.no_grad()
    def features(self, clips: Tensor) -> Features:
        """Return frame features [B, T, D] and feature maps, float32."""
        return self._features(clips)

    @torch.no_grad()
    def frames(self, clips: Tensor) -> Tensor:
        """Return frame features [B, T, D], float32."""
        with self._context.autocast():
            return self.network(clips).float()

    def differentiable_features(self, clips: Tensor) -> Features:
        """Return features that scores can be differentiated by; the model itself stays as it is."""
        self.network.requires_grad_(True)
        found = self._features(clips)
        self.network.requires_grad_(False)
        return found

    def scores(self, frames: Tensor, num_old: int) -> Tensor:
        """Score frame features [B, T, D] against the old classes [B, num_old]."""
        each = self._head(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return each.mean(dim=1)[:, :num_old]  # the head has outputs for the new classes already

    def _features(self, clips: Tensor) -> Features:
        with self._context.autocast():
            found = self.network.features(clips)
        return Features(found.frames.float(), found.blocks)


class RehearsalClassifier(Classifier):
    """A classifier that keeps exemplars, and reads out by their class means as well.

    Attributes:
        memory: The exemplars.
        means: Unit class means of the exemplars' features [K, D], as of the last task learnt.
    """

    readouts: ClassVar[tuple[str, ...]] = ("cnn", "nme")
    uses_memory = True

    means: Tensor

    def __init__(self, config: Any, context: RunContext) -> None:
        """Make the network and an empty memory."""
        super().__init__(config, context)
        assert isinstance(context.budget, MemorySpec)  # refused before any work where there is none
        self.memory = ExemplarMemory(context.budget, context.loader.spec)
        self.register_buffer("means", torch.empty(0, context.backbone.dim))

    def grow(self, task: Task) -> None:
        """Add outputs, room for exemplars, and rows for class means."""
        super().grow(task)
        self.memory.grow(task)
        self.means = F.pad(self.means, (0, 0, 0, task.num_new))

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the head (``cnn``) and by the nearest mean of exemplars (``nme``)."""
        assert self.means.any(), "class means are all zero: learn must end in update_means"
        frames = self.frames(clips)
        both = {"cnn": self.scores(frames), "nme": nearest_mean_scores(frames.mean(dim=1), self.means)}
        return {name: both[name] for name in self.readouts}

    def memory_use(self) -> MemoryUse:
        """Return what the memory keeps."""
        return self.memory.use()

    def choose_exemplars(self, task: Task, rank: Ranking) -> None:
        """Choose the new classes' exemplars by their features under the present model.

        Args:
            task: The task just learnt.
            rank: ``nearest_to_mean_order`` or ``herding_order``.
        """
        candidates = [s for label in range(task.num_old, task.num_seen) for s in self.memory.candidates(label)]
        features, labels = self.embed(candidates)
        share, ranking = self.memory.share(task.num_seen), {}
        for label in range(task.num_old, task.num_seen):
            own = features[labels == label]
            ranking[label] = rank(own, share)
        self.memory.store(task, ranking)

    def imprint(self, task: Task) -> None:
        """Start the new classes' proxies of a cosine head from their features under the old model.

        Frames are those of TCD's validation rule, as in its init_cosine_classifier.
        """
        head = self.head
        assert isinstance(head, CosineHead)
        length = self.context.loader.spec.frames
        samples = [
            dataclasses.replace(s, stored=tuple(sorted(set(exemplar_indices(s.frames, length).tolist()))))
            for s in task.train
        ]
        head.weight.data = imprinted_proxies(
            *self.embed(samples),
            range(task.num_old, task.num_seen),
            head.old_weight,
            kind=head.kind,
            proxies=head.proxies,
        )

    def update_means(self) -> None:
        """Compute the class means of all exemplars under the present model."""
        features, labels = self.embed(self.memory.samples())
        self.means.copy_(class_means(features, labels, len(self.means)))

    def tune_head(
        self,
        task: Task,
        optimiser: torch.optim.Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        num_epochs: int,
    ) -> None:
        """Train the head alone on the exemplars, as many of each class: class-balanced fine-tuning.

        Args:
            task: The task just learnt; its exemplars have been chosen.
            optimiser: Of the head's parameters; its rate stays as it is.
            loss: Of scores [B, K] and labels [B].
            num_epochs: Passes over the exemplars.
        """
        for epoch in self.train_epochs(
            self.memory.samples(),
            optimiser,
            num_epochs=num_epochs,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1} balanced",
            drop_last=self.config.drop_last,
        ):
            for batch in epoch:
                with torch.no_grad():
                    frames = self.frames(batch.clips)
                value = loss(self.scores(self.drop(frames)), batch.labels)
                epoch.step({"balanced": value}, clip_norm=self.config.clip_norm)
