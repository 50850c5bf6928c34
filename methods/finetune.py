"""Fine-tuning: network, temporal encoder and linear head trained on each task, with no protection.

The lower bound of the field. On a CLIP it has the trainable parts of an adapter method with one expert, so that
what it forgets is due to the missing protection, not to missing capacity. On TCD's and vCLIMB's protocols it
runs on the ResNet of their tables, as the other rows do: a linear head on the mean of the frame features,
trained by the classifiers' rate and epochs. The bound of CLIP methods there:
``--set backbone=clip_vit_b16 temporal=encoder lr=0.01 batch_size=40 epochs_first=60 epochs=30``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vcil_bench.classifier import TABLE_BACKBONES
from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.data.loader import Sample
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.nets.temporal import TemporalEncoder
from vcil_bench.nets.tuning_config import SMALL_TUNING, TuningConfig
from vcil_bench.stream import Task
from vcil_bench.training import cosine, sgd


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TuningConfig):
    """Hyper-parameters; optimiser, epochs and shapes are StPR's, those on a table's ResNet the classifiers'.

    Attributes:
        lr, momentum, weight_decay, batch_size: SGD.
        schedule: Of the rate in every task: ``cosine`` decay to zero, or ``constant``.
        epochs_first: Epochs of the base task.
        epochs: Epochs of each later task.
        temporal: What stands between frames and head: the temporal ``encoder``, or the ``mean`` over frames,
            which on features of single frames cannot tell the direction of time.
        dropout: Of the frame features, while training.
        partial_bn: Of a ResNet: keep every batch norm after the first as it is, as the classifiers do.
        clip_norm: Largest norm of the gradient; None for any.
        drop_last: Leave out an epoch's incomplete last batch, unless it is the only one.
        head_std: Deviation of the head's new weights, whose bias then starts at 0; None for torch's own start.
        encoder_layers, encoder_head_width, encoder_ratio, encoder_dropout: Shape of the temporal encoder.
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 40
    schedule: Literal["cosine", "constant"] = "cosine"
    epochs_first: int = 60
    epochs: int = 30
    temporal: Literal["encoder", "mean"] = "encoder"
    dropout: float = 0.0
    partial_bn: bool = True
    clip_norm: float | None = None
    drop_last: bool = False
    head_std: float | None = None
    encoder_layers: int = 3
    encoder_head_width: int = 64
    encoder_ratio: int = 4
    encoder_dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self,
            positive=(
                *("lr", "batch_size", "epochs_first", "epochs"),
                *("encoder_layers", "encoder_head_width", "encoder_ratio"),
            ),
            not_negative=("weight_decay",),
            below_one=("momentum", "dropout", "encoder_dropout"),
        )
        for key in ("clip_norm", "head_std"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ConfigError(f"{key}: {value} must be above 0, or null for none")


# Of ``ClassifierConfig``, by which the other rows of TCD's and vCLIMB's tables are trained here.
TABLE_RECIPE = {"temporal": "mean", "lr": 1e-3, "batch_size": 32, "epochs_first": 50, "epochs": 50}


class Finetune(Method):
    """Cross-entropy over all classes seen, on the new task's videos alone."""

    name = "finetune"
    paper = "lower bound: sequential fine-tuning without protection"
    readouts = ("cnn",)
    splits_batches = True
    Config = FinetuneConfig
    backbones: ClassVar = TABLE_BACKBONES
    recipes: ClassVar = {
        **dict.fromkeys(TABLE_BACKBONES, TABLE_RECIPE),
        "synthetic_*": {
            # On the small CLIP, as StPR's recipe; a higher rate makes the cross-entropy diverge.
            "lr": 0.015,
            "batch_size": 10,
            "epochs_first": 14,
            "epochs": 4,
            **SMALL_TUNING,
            "encoder_layers": 2,
        },
    }

    config: FinetuneConfig

    def __init__(self, config: FinetuneConfig, context: RunContext) -> None:
        """Make the network, the temporal encoder and a head without outputs."""
        super().__init__(config, context)
        tuning = config.network_tuning(context.loader.spec.frames, partial_bn=config.partial_bn)
        self.encoder = context.backbone.network(tuning)
        self.dropout = nn.Dropout(config.dropout)
        dim = self.encoder.dim
        if config.temporal == "encoder":
            self.temporal = TemporalEncoder(
                dim,
                layers=config.encoder_layers,
                head_width=config.encoder_head_width,
                ratio=config.encoder_ratio,
                dropout=config.encoder_dropout,
            )
        self.head = GrowingLinear(dim, config.head_std)

    def grow(self, task: Task) -> None:
        """Add the new classes' outputs."""
        self.head.grow(task.num_new)

    def learn(self, task: Task) -> None:
        """Train everything on the task's videos."""
        self.train_on(task.train, task)

    def train_on(self, samples: Sequence[Sample], task: Task) -> None:
        """Train everything on samples, for the epochs of the task.

        Args:
            samples: Videos of any classes seen.
            task: The task, which says how many epochs and names the phase.
        """
        config = self.config
        num_epochs = config.epochs_first if task.index == 0 else config.epochs
        optimiser = sgd(
            self.context,
            self.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        for epoch in self.train_epochs(
            samples,
            optimiser,
            cosine(optimiser, num_epochs) if config.schedule == "cosine" else None,
            num_epochs=num_epochs,
            batch_size=config.batch_size,
            phase=f"task {task.index + 1}",
            drop_last=config.drop_last,
        ):
            for batch in epoch:
                loss = F.cross_entropy(self.logits(batch.clips), batch.labels)
                epoch.step({"cross_entropy": loss}, clip_norm=config.clip_norm)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the head's logits."""
        return {"cnn": self.logits(clips)}

    def logits(self, clips: Tensor) -> Tensor:
        """Return the logits [B, num_seen] of clips [B, T, 3, S, S]."""
        with self.context.autocast():
            frames = self.dropout(self.encoder(clips))  # [B, T, D]
            pooled = self.temporal(frames) if self.config.temporal == "encoder" else frames.mean(dim=1)
        return self.head(pooled.float())
