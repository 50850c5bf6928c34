"""BiC: bias correction of the newest outputs, for large scale incremental learning (Wu et al., CVPR 2019).

Training in two stages: the network, on exemplars and new videos with distillation; then two numbers that
correct the new classes' logits, on videos that were held out. On videos it was published in vCLIMB, whose code
this follows: ojedaf/vCLIMB_Benchmark @ 05c14f4a, model/iCaRL_bic_v2.py and main_bic_v2.py.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vcil_bench.classifier import LINEAR_STD, ClipClassifier, VCLIMBConfig
from vcil_bench.common.config import check_numbers
from vcil_bench.data.loader import Batch, Sample
from vcil_bench.losses import consistency_cross_entropy, logit_distillation
from vcil_bench.memory import herding_order
from vcil_bench.method import RunContext
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.rehearsal import ConsistencyConfig, RehearsalClassifier
from vcil_bench.stream import Task
from vcil_bench.training import TrainingError, sgd


@dataclass(frozen=True, kw_only=True)
class BiCConfig(VCLIMBConfig, ConsistencyConfig):
    """Hyper-parameters of BiC in vCLIMB, which published no configuration of it: that of its iCaRL is taken.

    On the embedded protocols the network is trained by the classifiers' common recipe, and ``bias_lr`` times the
    steps of the second stage is what it is on vCLIMB's UCF101 (0.2); no other rate was tried.

    Attributes:
        held_out: Share of every class's videos, exemplars or new, that trains the correction and not the
            network: the last of their list, of exemplars those chosen last. In no published file; BiC's paper
            holds out one of ten. 0 trains the correction on the videos that trained the network.
        distillation: Hold the old classes' logits, with the share of old classes for its weight.
        temperature: Of the distillation.
        bias: Correct the logits. Without, the second stage is left out, and no video is held out for it.
        bias_lr: Rate of the correction's SGD, without momentum or decay, for as many epochs as the network's.
        released: Split as the released code does, where of a class with a single video none trains the network.
            Without, that video does. If then no video of an old class is held out, none of a new one is, and the
            new classes' logits are left as they are: held-out videos of new classes alone would only raise them.
    """

    held_out: float = 0.1
    distillation: bool = True
    temperature: float = 2.0
    bias: bool = True
    bias_lr: float = 1e-3
    released: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, positive=("temperature", "bias_lr"), below_one=("held_out",))


class BiC(RehearsalClassifier):
    """Rehearsal and distillation, then a linear correction of the new classes' logits.

    Attributes:
        alphas, betas: Of each task's correction; the newest is trained, all stay in force.
    """

    name = "bic"
    paper = "Wu et al., BiC, CVPR 2019; on videos as in Villa et al., vCLIMB, CVPR 2022"
    readouts = ("cnn",)
    splits_batches = True
    Config = BiCConfig
    recipes: ClassVar = {
        "synthetic_*": {
            "weight_decay": 5e-4,
            "head_lr": 5.0,
            "optim_policies": True,
            "partial_bn": True,
            "bias_lr": 0.05,
        },
    }

    config: BiCConfig
    model: ClipClassifier[GrowingLinear]

    def __init__(self, config: BiCConfig, context: RunContext) -> None:
        """Make network and memory, and places for corrections."""
        super().__init__(config, context)
        self.alphas, self.betas = nn.ParameterList(), nn.ParameterList()
        self._splits: list[int] = []

    def make_head(self, dim: int) -> GrowingLinear:
        """Return a linear head."""
        return GrowingLinear(dim, LINEAR_STD)

    def grow(self, task: Task) -> None:
        """Add outputs, room for exemplars, and a correction that changes nothing yet."""
        super().grow(task)
        self.alphas.requires_grad_(False).append(nn.Parameter(torch.ones(())))
        self.betas.requires_grad_(False).append(nn.Parameter(torch.zeros(())))
        for newest in (self.alphas[-1], self.betas[-1]):
            newest.requires_grad_(task.index > 0 and self.config.bias)
        self._splits.append(task.num_seen)

    def learn(self, task: Task) -> None:
        """Train the network, then the correction, and choose exemplars among all videos of the task."""
        config, model = self.config, self.model
        samples = [*task.train, *self.memory.samples()]
        held_out: list[Sample] = []
        if task.index > 0 and config.bias:
            samples, held_out = hold_out(samples, config.held_out, task.num_old, released=config.released)
        old = model.frozen_copy() if task.index > 0 and config.distillation else None
        second_clip = config.second_clip(self.memory.budget)
        for epoch in self.task_epochs(task, samples, second=second_clip):
            for batch in epoch:
                logits, second = self._logits(batch)
                if old is None:
                    loss = consistency_cross_entropy(logits, second, batch.labels, config.tc_weight)
                    losses = {"cross_entropy": loss}
                else:
                    with torch.no_grad():
                        before = self.corrected(old.logits(batch.clips))
                    losses = network_terms(
                        logits, before, batch.labels, task.num_old, second, config.tc_weight, config.temperature
                    )
                epoch.step(losses, clip_norm=config.clip_norm)
        if task.index > 0 and config.bias:
            self._train_correction(task, held_out if config.held_out else samples)
        self.choose_exemplars(task, herding_order)

    def _train_correction(self, task: Task, samples: Sequence[Sample]) -> None:
        """Train the newest correction behind the network as it is in testing; without samples leave it."""
        config, model = self.config, self.model
        if not samples:
            return
        newest = [self.alphas[-1], self.betas[-1]]
        self.zero_grad(set_to_none=True)  # or processes would go on summing up what is left of the network's
        optimiser = sgd(self.context, newest, lr=config.bias_lr, momentum=0.0, weight_decay=0.0)
        model.eval()
        for epoch in self.train_epochs(
            samples,
            optimiser,
            num_epochs=config.epochs,
            batch_size=config.batch_size,
            phase=f"task {task.index + 1} bias",
            drop_last=config.drop_last,
            second=config.second_clip(self.memory.budget),
        ):
            for batch in epoch:
                logits, second = self._logits(batch, network_trains=False)
                loss = consistency_cross_entropy(logits, second, batch.labels, config.tc_weight)
                epoch.step({"bias": loss})
        model.train()

    def _logits(self, batch: Batch, *, network_trains: bool = True) -> tuple[Tensor, Tensor | None]:
        """Return the corrected logits of a batch's clips and of its second clips, if it has some."""
        with torch.set_grad_enabled(network_trains):
            logits = self.model.logits(batch.clips)
            second = self.model.logits(batch.second) if batch.second is not None else None
        return self.corrected(logits), self.corrected(second) if second is not None else None

    def corrected(self, logits: Tensor) -> Tensor:
        """Return logits [B, K] with every task's correction."""
        return correct(logits, self._splits, list(self.alphas), list(self.betas))

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the corrected logits."""
        return {"cnn": self.corrected(self.model.logits(clips))}


def correct(
    logits: Tensor, splits: Sequence[int], alphas: Sequence[Tensor] | Tensor, betas: Sequence[Tensor] | Tensor
) -> Tensor:
    """Correct the logits of every task: ``alpha_i g + beta_i``; those of a single task stay as they are.

    Source: vCLIMB model/iCaRL_bic_v2.py, forward.

    Args:
        logits: [B, K].
        splits: Classes known after each task.
        alphas: Of each task.
        betas: Of each task.

    Returns:
        [B, K].
    """
    if len(splits) == 1:
        return logits
    starts = [0, *splits[:-1]]
    blocks = [
        alphas[i] * logits[:, start:end] + betas[i]
        for i, (start, end) in enumerate(zip(starts, splits, strict=True))
    ]
    return torch.cat(blocks, dim=1)


def network_loss(
    logits: Tensor,
    old_logits: Tensor,
    labels: Tensor,
    num_old: int,
    second: Tensor | None = None,
    weight: float = 0.0,
    temperature: float = 2.0,
) -> Tensor:
    """Return the loss that trains the network in an increment, the sum of ``network_terms``."""
    terms = network_terms(logits, old_logits, labels, num_old, second, weight, temperature)
    return torch.stack(list(terms.values())).sum()


def network_terms(
    logits: Tensor,
    old_logits: Tensor,
    labels: Tensor,
    num_old: int,
    second: Tensor | None,
    weight: float,
    temperature: float,
) -> dict[str, Tensor]:
    """Return cross-entropy and distillation, weighted by the shares of new and of old classes.

    Source: vCLIMB model/iCaRL_bic_v2.py, train_step (stage 0).

    Args:
        logits: [B, K] corrected logits.
        old_logits: [B, >= num_old] corrected logits of the network as it was; others than the first
            ``num_old`` are not read.
        labels: [B].
        num_old: Old classes.
        second: [B, K] corrected logits of second clips, which are not distilled; None for none.
        weight: Of the second clips in the cross-entropy.
        temperature: Of the distillation.
    """
    share = num_old / logits.shape[1]
    if num_old == 0:
        return {"cross_entropy": consistency_cross_entropy(logits, second, labels, weight)}
    distillation = logit_distillation(logits[:, :num_old], old_logits[:, :num_old], temperature)
    cross_entropy = consistency_cross_entropy(logits, second, labels, weight)
    return {"cross_entropy": (1 - share) * cross_entropy, "distillation": share * distillation}


def hold_out(
    samples: Sequence[Sample], share: float, num_old: int, *, released: bool = False
) -> tuple[list[Sample], list[Sample]]:
    """Split videos class by class: the first ``floor(n (1 - share))`` for the network, the rest held out.

    Source: vCLIMB utils/bic_dataset_frames_selfsup_v2.py.

    Args:
        samples: Videos.
        share: Of each class, to hold out.
        num_old: Old classes.
        released: See ``BiCConfig``.

    Returns:
        Videos for the network, and those held out: none if none is of an old class.

    Raises:
        TrainingError: As released, nothing would train the network.
    """
    of_class: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        of_class[sample.label].append(sample)
    first, rest = [], []
    for videos in of_class.values():
        count = math.floor(round(len(videos) * (1 - share), 9))  # 1 - 0.8 is a little less than 0.2
        if not released:
            count = max(1, count)
        first += videos[:count]
        rest += videos[count:]
    if not first:
        most = max(len(videos) for videos in of_class.values())
        raise TrainingError(
            f"method 'bic': with released=true and held_out={share}, all of at most {most} videos of a class "
            "are held out and none trains the network; leave released at false, lower held_out, or keep more "
            "exemplars (--set protocol.memory.per_class=5)"
        )
    if not released and all(sample.label >= num_old for sample in rest):
        return list(samples), []
    return first, rest
