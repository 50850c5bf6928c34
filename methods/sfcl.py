"""SFCL: an analytic fast branch and a trained slow branch, mixed by a gate, on a frozen network (AAAI 2026).

Slow-fast collaborative learning trains its network on the base task alone and keeps no videos: old classes enter
the training of the slow branch as samples of the Gaussians of their features. Re-implemented from the paper, of
which no code is published.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcil_bench.classifier import LINEAR_STD, Classifier, ClassifierConfig, ClipClassifier
from vcil_bench.common.config import check_numbers
from vcil_bench.gaussians import ClassStatistics, Spread, sample
from vcil_bench.method import RunContext
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.nets.ridge import RecursiveRidge, random_features
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task
from vcil_bench.training import evaluating, multistep, sgd

JITTER = 1e-4  # on the variances, as in SLCA: classes of fewer videos than channels have no full covariance
PORTION = 256  # samples an update of the fast branch takes; any gives the same result


@dataclass(frozen=True, kw_only=True)
class SFCLConfig(ClassifierConfig):
    """Hyper-parameters; rate, momentum, decay, batch size, epochs, alpha and beta are the paper's.

    Readings where it is silent. The feature of a video is the mean over its frames. The bottleneck starts as the
    identity, so that the base task begins as that of the other classifiers, and is trained behind their dropout.
    Pseudo-features are drawn once in a task and taken in turn; a batch mixes them with videos as the two sets
    mix. The slow branch as the last task left it, without the fast one, is the teacher of both distillations,
    which see videos and pseudo-features. The slow branch starts its new outputs as the fast branch has them. It
    and the gate are trained in every task, on augmented clips, at the rate and the milestones of the base task.

    Attributes:
        epochs: Epochs of the slow branch in each later task.
        expansion: Size C_H of the random expansion; the paper says that it is larger than C, 8192 is ACIL's.
        gamma: Ridge of the fast branch; ACIL's.
        gate_epochs: Epochs of slow branch and gate in the base task; as many as in a later task, since the paper
            names no number.
        replay: Draw pseudo-features of old classes, of each as many as a new class has videos on average.
        alpha: Weight of the feature distillation.
        beta: Weight of the probability distillation.
        covariance: One for each ``class``, K x C x C numbers, as published; ``pooled``, one for all;
            ``diagonal``, variances.
    """

    epochs: int = 10
    expansion: int = 8192
    gamma: float = 0.1
    gate_epochs: int = 10
    replay: bool = True
    alpha: float = 1.0
    beta: float = 1.0
    covariance: Spread = "class"

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, positive=("expansion", "gamma", "gate_epochs"), not_negative=("alpha", "beta"))


class BottleneckHead(GrowingLinear):
    """The head of the base task's training: a linear bottleneck C -> C under a linear classifier."""

    def __init__(self, in_features: int) -> None:
        """Make a head without outputs, its bottleneck the identity."""
        super().__init__(in_features, LINEAR_STD)
        self.bottleneck = nn.Linear(in_features, in_features)
        nn.init.eye_(self.bottleneck.weight)
        nn.init.zeros_(self.bottleneck.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, C] to logits [B, K]."""
        return super().forward(self.bottleneck(features))


class Branch(nn.Module):
    """Bottleneck C -> C, expansion C -> C_H with a ReLU behind it, and class scores C_H -> K without bias.

    Attributes:
        bottleneck: With bias, without activation.
        up: Weight [C_H, C].
        down: Weight [K, C_H].
    """

    def __init__(self, dim: int, expansion: int) -> None:
        """Make a branch without classes, its expansion drawn at random as in ACIL's code."""
        super().__init__()
        self.bottleneck = nn.Linear(dim, dim)
        self.up = nn.Parameter(torch.empty(expansion, dim).uniform_(-(dim**-0.5), dim**-0.5))
        self.down = nn.Parameter(torch.empty(0, expansion))

    def grow(self, num_new: int) -> None:
        """Append outputs of weight zero."""
        self.down = nn.Parameter(F.pad(self.down.data, (0, 0, 0, num_new)), self.down.requires_grad)

    def expanded(self, features: Tensor) -> Tensor:
        """Return what the class scores are linear in [B, C_H] of features [B, C]."""
        return random_features(self.bottleneck(features), self.up)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return bottleneck features [B, C] and logits [B, K] of features [B, C]."""
        bottleneck = self.bottleneck(features)
        return bottleneck, F.linear(F.linear(bottleneck, self.up).relu(), self.down)


class SFCL(Classifier):
    """Recursive ridge regression beside a copy of it that is trained, mixed layer by layer.

    Attributes:
        fast: Its class scores are those of ridge regression; a float32 copy of ``ridge.weight``.
        slow: Trained in every task.
        gate: From a feature to the share of the fast branch, before the sigmoid.
        taken: Pseudo-features that the task's training has used, which it takes in turn; a scalar.
    """

    name = "sfcl"
    paper = "SFCL, Slow-Fast Collaborative Learning, AAAI 2026 (re-implemented from the paper)"
    readouts = ("cnn", "fast", "slow")
    splits_batches = True
    Config = SFCLConfig
    recipes: ClassVar = {
        "tcd_hmdb51_*": {"batch_size": 64},
        "tcd_ssv2_*": {"batch_size": 64},
        "synthetic_*": {"expansion": 1000, "gate_epochs": 4},
    }

    config: SFCLConfig
    model: ClipClassifier[BottleneckHead]
    taken: Tensor

    def __init__(self, config: SFCLConfig, context: RunContext) -> None:
        """Make the network, both branches, the gate, and no statistics."""
        super().__init__(config, context)
        dim = self.model.network.dim
        self.fast = Branch(dim, config.expansion).requires_grad_(False)
        self.slow = Branch(dim, config.expansion)
        self.gate = nn.Linear(dim, 1)
        self.ridge = RecursiveRidge(config.expansion, config.gamma)
        self.statistics = ClassStatistics(dim, config.covariance, JITTER)
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))

    def make_head(self, dim: int) -> BottleneckHead:
        """Return the head of the base task's training."""
        return BottleneckHead(dim)

    def grow(self, task: Task) -> None:
        """Add the new classes to both branches and the statistics; after the base task freeze the network."""
        if task.index == 0:
            self.model.head.grow(task.num_new)
        else:
            self.model.requires_grad_(False)
        for part in (self.fast, self.slow, self.ridge, self.statistics):
            part.grow(task.num_new)

    def learn(self, task: Task) -> None:
        """Train the network on the base task; then solve the fast branch and train slow branch and gate."""
        # Drawn first: a run that goes on inside the training finds the random state here as it was.
        draws = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        if task.index == 0:
            self._train_network(task)
            self.fast.bottleneck.load_state_dict(self.model.head.bottleneck.state_dict())
        features, labels = self.video_features(task.train)
        self._solve(features, labels)
        if task.index == 0:
            self.slow.load_state_dict(self.fast.state_dict())
            self._train_slow(task, None, None)
        else:
            teacher = copy.deepcopy(self.slow).requires_grad_(False)  # its first outputs are the old classes'
            self.slow.down.data[task.num_old :] = self.fast.down[task.num_old :]
            self._train_slow(task, teacher, self._pseudo_features(task, draws) if self.config.replay else None)
        self.statistics.take_in(features, labels, range(task.num_old, task.num_seen))

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by both branches mixed (``cnn``) and by each alone."""
        features = self.model.frame_features(clips).mean(dim=1)
        scores = {"fast": self.fast(features)[1], "slow": self.slow(features)[1]}
        return {"cnn": self.mixed(features)[1]} | scores

    def memory_use(self) -> MemoryUse:
        """Return the size of what stands for old videos: means, covariances, and the fast branch's inverse."""
        return MemoryUse(statistics_bytes=self.statistics.nbytes + self.ridge.inverse.nbytes)

    def mixed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return bottleneck features [B, C] and logits [B, K] of both branches, mixed by the gate (Eq. 10)."""
        return mixed_branches(features, self.gate(features)[:, 0].sigmoid(), self.fast, self.slow)

    def _train_network(self, task: Task) -> None:
        """Train network and bottleneck on the base task by cross-entropy."""
        for epoch in self.task_epochs(task, task.train):
            for batch in epoch:
                loss = F.cross_entropy(self.model.logits(batch.clips), batch.labels)
                epoch.step({"cross_entropy": loss}, clip_norm=self.config.clip_norm)

    @torch.no_grad()
    def _solve(self, features: Tensor, labels: Tensor) -> None:
        """Take features [N, C] into the fast branch, whose class scores are then those of all videos so far."""
        for some, their_labels in zip(features.split(PORTION), labels.split(PORTION), strict=True):
            self.ridge.update(self.fast.expanded(some), their_labels)
        self.fast.down.copy_(self.ridge.weight)

    @torch.no_grad()
    def _pseudo_features(self, task: Task, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw features [n, C] of old classes from their Gaussians, shuffled, with their labels [n].

        Of each old class as many as a new one has videos on average. Class by class and in float64: a factor
        takes as much memory as a covariance, and covariances of few videos are badly conditioned.
        """
        means, covariances = self.statistics.means, self.statistics.covariances
        per_class = max(1, round(len(task.train) / task.num_new))
        shape, pseudo = (1, per_class, means.shape[1]), []
        for label in range(task.num_old):
            normal = torch.randn(shape, generator=draws, dtype=torch.float64)  # on the CPU: alike on all devices
            place = 0 if self.config.covariance == "pooled" else label
            spread = covariances[place, None].double()
            pseudo.append(sample(means[label, None].double(), spread, normal.to(means.device))[0])
        order = torch.randperm(task.num_old * per_class, generator=draws)
        labels = torch.arange(task.num_old).repeat_interleave(per_class)[order]
        return torch.cat(pseudo)[order.to(means.device)].to(means), labels.to(means.device)

    def _train_slow(self, task: Task, teacher: Branch | None, pseudo: tuple[Tensor, Tensor] | None) -> None:
        """Train slow branch and gate on the task's videos and on pseudo-features of old classes.

        Args:
            task: The task.
            teacher: The slow branch as the last task left it; None in the base task.
            pseudo: Features and labels that stand for old videos; None for none.
        """
        config = self.config
        trained = [*self.slow.parameters(), *self.gate.parameters()]
        optimiser = sgd(
            self.context, trained, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        videos = config.batch_size
        if pseudo is not None:  # as many of a batch as there are among videos and pseudo-features
            videos = max(1, round(config.batch_size * task.num_new / task.num_seen))
        self.taken.zero_()
        for epoch in self.train_epochs(
            task.train,
            optimiser,
            multistep(optimiser, config.milestones, config.lr_decay),
            num_epochs=config.gate_epochs if task.index == 0 else config.epochs,
            batch_size=videos,
            phase=f"task {task.index + 1} slow branch",
            drop_last=config.drop_last,
        ):
            for batch in epoch:
                with evaluating(self.model):
                    features = self.model.frame_features(batch.clips).mean(dim=1)
                labels = batch.labels
                if pseudo is not None:
                    count = max(1, round(len(labels) * task.num_old / task.num_new))
                    rows = (self.taken + torch.arange(count, device=labels.device)) % len(pseudo[1])
                    features = torch.cat([features, pseudo[0].index_select(0, rows)])
                    labels = torch.cat([labels, pseudo[1].index_select(0, rows)])
                    self.taken += count
                epoch.step(self._losses(features, labels, teacher, task.num_old), clip_norm=config.clip_norm)

    def _losses(
        self, features: Tensor, labels: Tensor, teacher: Branch | None, num_old: int
    ) -> dict[str, Tensor]:
        """Return the weighted loss terms of features [B, C] with labels [B] (Eq. 14-17)."""
        bottleneck, logits = self.mixed(features)
        losses = {"cross_entropy": F.cross_entropy(logits, labels)}
        if teacher is not None:
            with torch.no_grad():
                old_bottleneck, old_logits = teacher(features)
            losses["feature"] = self.config.alpha * F.mse_loss(bottleneck, old_bottleneck)
            losses["probability"] = self.config.beta * folded_distillation(logits, old_logits[:, :num_old])
        return losses


def mixed_linear(
    features: Tensor,
    gate: Tensor,
    fast_weight: Tensor,
    slow_weight: Tensor,
    fast_bias: Tensor | None = None,
    slow_bias: Tensor | None = None,
) -> Tensor:
    """Apply the linear layer whose weights are those of two, mixed for each sample: ``a fast + (1 - a) slow``.

    Mixing what the layers give is the same and forms no weights. Source: SFCL, Eq. 10-13.

    Args:
        features: [B, D].
        gate: a, [B].
        fast_weight: [out, D].
        slow_weight: [out, D].
        fast_bias: [out], or None for none.
        slow_bias: [out], or None for none.

    Returns:
        [B, out].
    """
    a = gate[:, None]
    return a * F.linear(features, fast_weight, fast_bias) + (1 - a) * F.linear(features, slow_weight, slow_bias)


def mixed_branches(features: Tensor, gate: Tensor, fast: Branch, slow: Branch) -> tuple[Tensor, Tensor]:
    """Apply the branch whose layers are those of two, mixed.

    Args:
        features: [B, C].
        gate: Share of the fast branch [B].
        fast: The analytic branch.
        slow: The trained branch.

    Returns:
        Bottleneck features [B, C] and logits [B, K].
    """
    bottleneck = mixed_linear(
        features,
        gate,
        fast.bottleneck.weight,
        slow.bottleneck.weight,
        fast.bottleneck.bias,
        slow.bottleneck.bias,
    )
    expanded = mixed_linear(bottleneck, gate, fast.up, slow.up).relu()
    return bottleneck, mixed_linear(expanded, gate, fast.down, slow.down)


def folded_probabilities(logits: Tensor, num_old: int) -> Tensor:
    """Return probabilities of the old classes, that of all new ones shared out among them evenly.

    Source: SFCL, Eq. 16.

    Args:
        logits: [B, K].
        num_old: Old classes, the first of the K.

    Returns:
        [B, num_old], rows of sum 1.
    """
    return _log_folded(logits, num_old).exp()


def folded_distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the divergence of folded probabilities from the teacher's: ``KL(teacher || folded)``, batch mean.

    Source: SFCL, Eq. 16.

    Args:
        logits: [B, K].
        teacher_logits: [B, old classes].

    Returns:
        Scalar.
    """
    folded = _log_folded(logits, teacher_logits.shape[1])
    return F.kl_div(folded, teacher_logits.softmax(dim=1), reduction="batchmean")


def _log_folded(logits: Tensor, num_old: int) -> Tensor:
    """Return logarithms of ``folded_probabilities``, finite where these are too small for a float."""
    log_probabilities = logits.log_softmax(dim=1)
    share = log_probabilities[:, num_old:].logsumexp(dim=1, keepdim=True) - math.log(num_old)
    return torch.logaddexp(log_probabilities[:, :num_old], share)
