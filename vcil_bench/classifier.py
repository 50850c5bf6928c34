"""Frame classifiers: network, dropout and head in one module, and the training that the ResNet era shares.

LwF, LwM, iCaRL, UCIR, PODNet, TCD and HCE differ in their losses, their heads and the order of their steps. What
they have in common in every published comparison is here, once: ``ClipClassifier``, which is the model in
training and, as a frozen copy, the model to distil from; and SGD with a stepped rate. Exemplars:
``rehearsal.py``.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from .common.config import ConfigError, check_numbers
from .data.clips import SecondClip
from .data.loader import Sample
from .method import Method, RunContext
from .nets.heads import Head
from .nets.network import Features, VideoNetwork
from .nets.precision import Precision, autocast
from .nets.trunk import Tuning
from .nets.tuning_config import SMALL_TUNING, TuningConfig
from .stream import Task
from .training import Epoch, evaluating, multistep, sgd


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(TuningConfig):
    """The training recipe that VCIL tables share; the defaults are TCD's (opts.py, scripts/ucf101).

    Attributes:
        lr, momentum, weight_decay, batch_size: SGD.
        epochs_first: Epochs of the base task.
        epochs: Epochs of each later task.
        milestones: Epochs of every task after which the rate is multiplied by ``lr_decay``.
        lr_decay: See ``milestones``.
        clip_norm: Largest norm of the gradient.
        head_lr: Factor on the rate of the head.
        optim_policies: Train batch norms and the head's bias without decay, and that bias at twice the head's
            rate, as in TCD's get_optim_policies. Without, these are trained like all else.
        dropout: Of the frame features in front of the head, while training.
        partial_bn: Of a ResNet: keep every batch norm after the first as it is.
        drop_last: Leave out an epoch's incomplete last batch, as TCD's loaders do; a batch that is the only
            one is kept, where their code would train on nothing.
        adapter_lr: Of a CLIP: factor on the rate of what ``tuning`` trains in it. Adapters start at zero behind
            a scale of 0.1, and at a rate made for fine-tuning a ResNet hardly move; 10 gives the 0.01 at which
            StPR trains them.
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
    optim_policies: bool = True
    dropout: float = 0.8
    partial_bn: bool = True
    drop_last: bool = True
    adapter_lr: float = 10.0

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self,
            positive=(
                *("lr", "batch_size", "epochs_first", "epochs", "lr_decay", "clip_norm", "head_lr"),
                "adapter_lr",
            ),
            not_negative=("weight_decay",),
            below_one=("momentum", "dropout"),
        )
        if any(m < 1 for m in self.milestones) or list(self.milestones) != sorted(set(self.milestones)):
            raise ConfigError(f"milestones: {list(self.milestones)} must be ascending epochs from 1")


@dataclass(frozen=True, kw_only=True)
class VCLIMBConfig(ClassifierConfig):
    """Trained by vCLIMB's recipe, the rate constant and the same for all.

    From its configuration of iCaRL on UCF101, the only published one of a rehearsal method. The file names steps
    of the rate, and the network factors of rate and decay for some parameters; the code reads neither.
    """

    weight_decay: float = 1e-4
    batch_size: int = 50
    milestones: tuple[int, ...] = ()
    head_lr: float = 1.0
    optim_policies: bool = False
    dropout: float = 0.5
    partial_bn: bool = False


# The same for methods that are trained by it on vCLIMB's protocols alone.
VCLIMB_RECIPE: dict[str, Any] = {
    field.name: list(field.default) if isinstance(field.default, tuple) else field.default
    for field in dataclasses.fields(VCLIMBConfig)
    if field.default != getattr(ClassifierConfig, field.name)
}

# The backbones on which the protocols' tables were made. TCD published UCF101 scripts only, with ResNet-34;
# papers that compare on its other protocols use ResNet-50 (SFCL, and the re-implementation of NinV). vCLIMB's
# backbone is TSN, without shift.
TABLE_BACKBONES = {
    "tcd_ucf101_*": "tsm_resnet34",
    "tcd_hmdb51_*": "tsm_resnet50",
    "tcd_ssv2_*": "tsm_resnet50",
    "vclimb_*": "tsn_resnet34",
    "kinetics400_*": "tsn_resnet34",
}

LINEAR_STD = 1e-3  # of a linear head's new weights, as in TSN, TSM and TCD (ops/models.py, _prepare_tsn)

HeadT = TypeVar("HeadT", bound=Head)


class ClipClassifier(nn.Module, Generic[HeadT]):
    """Network, dropout and head: class logits of a clip are the head's logits of its frames, averaged.

    Attributes:
        network: From clips to frame features.
        dropout: Of frame features in front of the head, while training.
        head: From frame features to class logits.
    """

    head: HeadT

    def __init__(self, network: VideoNetwork, head: HeadT, dropout: float, precision: Precision) -> None:
        """Put the parts together; the network runs at ``precision``, the head in float32."""
        super().__init__()
        self.network = network
        self.dropout = nn.Dropout(dropout)
        self.head = head
        self._precision: Precision = precision

    def frame_features(self, clips: Tensor) -> Tensor:
        """Return float32 frame features [B, T, D] of uint8 clips [B, T, 3, S, S], without dropout."""
        with autocast(clips.device, self._precision):
            return self.network(clips).float()

    def features_with_maps(self, clips: Tensor) -> Features:
        """Return float32 frame features, and the feature maps on the way to them."""
        with autocast(clips.device, self._precision):
            features = self.network.features(clips)
        return Features(features.frames.float(), features.blocks)

    def logits(self, clips: Tensor) -> Tensor:
        """Return the class logits [B, K] of clips, behind the dropout while training."""
        return self.mean_logits(self.dropout(self.frame_features(clips)))

    def mean_logits(self, frames: Tensor) -> Tensor:
        """Return the head's logits of frame features [B, T, D], averaged over the frames [B, K]."""
        return self.head(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(dim=1)

    def with_head(self, head: HeadT) -> ClipClassifier[HeadT]:
        """Return a model of another head on the same network, not on a copy of it."""
        return ClipClassifier(self.network, head, self.dropout.p, self._precision)

    def frozen_copy(self) -> ClipClassifier[HeadT]:
        """Return the model as it is now, without training and dropout: the old model of a distillation.

        Taken in ``learn``, it has outputs for the new classes already: read its first ``task.num_old``. Keep it
        in a local variable, not as an attribute of the method, or every saved state holds it.
        """
        twin = ClipClassifier(self.network.frozen_copy(), copy.deepcopy(self.head), 0.0, self._precision)
        return twin.eval().requires_grad_(False)


class Classifier(Method):
    """A method whose model is a ``ClipClassifier``.

    Class attributes:
        final_relu: Whether a ResNet's features end in a ReLU; cosine heads go without.

    Attributes:
        model: The model in training.
    """

    readouts: ClassVar[tuple[str, ...]] = ("cnn",)
    backbone = "tsm_resnet34"
    backbones: ClassVar = TABLE_BACKBONES
    # Small clips, a small network and minutes on two cores: few epochs, the rate at which fine-tuning learns the
    # base task, and little dropout, since a feature has 192 channels, not 512 or 2048.
    recipes: ClassVar = {
        "synthetic_*": {
            "lr": 0.006,
            "batch_size": 20,
            "epochs_first": 10,
            "epochs": 4,
            "milestones": [7, 9],
            "dropout": 0.2,
            **SMALL_TUNING,
        },
    }
    final_relu: ClassVar[bool] = True

    config: ClassifierConfig
    model: ClipClassifier[Any]

    def __init__(self, config: Any, context: RunContext) -> None:
        """Make the network from pretrained weights and a head without classes."""
        super().__init__(config, context)
        network = context.backbone.network(self.tuning())
        self.model = ClipClassifier(network, self.make_head(network.dim), config.dropout, context.precision)

    def tuning(self) -> Tuning:
        """Return how the network is to be trained."""
        frames = self.context.loader.spec.frames
        return self.config.network_tuning(frames, partial_bn=self.config.partial_bn, final_relu=self.final_relu)

    @abstractmethod
    def make_head(self, dim: int) -> Head:
        """Return a head without classes for frame features of ``dim`` channels."""

    def grow(self, task: Task) -> None:
        """Add the new classes' outputs."""
        self.model.head.grow(task.num_new)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the head."""
        return {"cnn": self.model.logits(clips)}

    def task_epochs(
        self,
        task: Task,
        samples: Sequence[Sample],
        optimiser: torch.optim.Optimizer | None = None,
        *,
        second: SecondClip | None = None,
    ) -> Iterator[Epoch]:
        """Yield the epochs of a task's training over the samples, at the config's stepped rate.

        Args:
            task: The task.
            samples: Its videos, with or without exemplars.
            optimiser: By default ``self.optimiser()``.
            second: Give batches a second clip of every video; None for none.
        """
        if optimiser is None:
            optimiser = self.optimiser()
        return self.train_epochs(
            samples,
            optimiser,
            multistep(optimiser, self.config.milestones, self.config.lr_decay),
            num_epochs=self.config.epochs_first if task.index == 0 else self.config.epochs,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1}",
            drop_last=self.config.drop_last,
            second=second,
        )

    def optimiser(
        self,
        *,
        head_groups: Sequence[dict[str, Any]] | None = None,
        extra_groups: Sequence[dict[str, Any]] = (),
    ) -> torch.optim.Optimizer:
        """Return the optimiser of everything that requires gradients, the head at its own rate.

        Args:
            head_groups: Parameter groups in place of ``self.head_groups()``.
            extra_groups: Parameter groups of what is trained beside network and head.
        """
        if head_groups is None:
            head_groups = self.head_groups()
        return self.make_optimiser([*self.network_groups(), *extra_groups, *head_groups])

    def make_optimiser(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return SGD over groups of parameters."""
        config = self.config
        return sgd(
            self.context, groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )

    def network_groups(self) -> list[dict[str, Any]]:
        """Return the network's parameter groups: no decay on batch norms, as in TCD's get_optim_policies."""
        network = self.model.network
        trained = [p for p in network.parameters() if p.requires_grad]
        norms = {id(p) for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
        rate = self.config.lr * (1.0 if network.trains_whole else self.config.adapter_lr)
        if not self.config.optim_policies:
            return [{"params": trained, "lr": rate}]
        return [
            {"params": [p for p in trained if id(p) not in norms], "lr": rate},
            {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
        ]

    def head_groups(self) -> list[dict[str, Any]]:
        """Return the head's parameter groups: its bias at twice the rate, without decay.

        As in TCD ops/models.py, get_optim_policies.
        """
        rate = self.config.lr * self.config.head_lr
        named = [(name, p) for name, p in self.model.head.named_parameters() if p.requires_grad]
        if not self.config.optim_policies:
            return [{"params": [p for _, p in named], "lr": rate}]
        return [
            {"params": [p for name, p in named if name != "bias"], "lr": rate},
            {"params": [p for name, p in named if name == "bias"], "lr": 2 * rate, "weight_decay": 0.0},
        ]

    def video_features(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Return a feature [N, D] and a label [N] of each sample, from its middle frames and centre crop.

        A video's feature is the mean of its frame features.
        """
        features, labels = [], []
        with evaluating(self):
            for batch in self.context.centre_clips(samples):
                features.append(self.model.frame_features(batch.clips).mean(dim=1))
                labels.append(batch.labels)
        return torch.cat(features), torch.cat(labels)
