"""SSIAT: one chain of adapters tuned through all tasks, class Gaussians moved along (Tan et al., CVPR 2024).

Semantic shift incremental adapter tuning: nothing holds the adapters back; instead the means of old classes are
moved by how the new task's features moved, and all heads are aligned on samples of the class Gaussians. A task
of one class has nothing to tell apart and tunes nothing; its class enters by its Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.data.loader import Sample
from vcil_bench.gaussians import ClassStatistics, Spread, sample, scaled_means
from vcil_bench.losses import cosface
from vcil_bench.method import RunContext
from vcil_bench.nets.heads import cosine_scores
from vcil_bench.nets.parallel.batch_part import computing
from vcil_bench.pretrained import SMALL_RECIPE, PretrainedConfig, PretrainedMethod
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task
from vcil_bench.training import cosine, evaluating

JITTER = 1e-3  # on the variances (models/base.py)


@dataclass(frozen=True, kw_only=True)
class SSIATConfig(PretrainedConfig):
    """Hyper-parameters; the defaults are the authors' (exps/adapter_*.json, SSITA_adapter.py).

    Attributes:
        epochs: Epochs of each later task.
        scale: Factor on cosines in all losses.
        margin: Of the CosFace loss.
        sigma: Width of the Gaussian that weighs samples near an old mean, in ``sigma_unit``.
        sigma_unit: ``feature``, as published, a width made for the unprojected features of an image ViT; or
            ``median``, the median distance of samples and old means: where features are longer or shorter,
            4 weighs all samples alike, or a single one.
        shift: Move the means of old classes.
        paired: Measure the shift on the same plain clip before and after. The released code draws both from the
            shuffled and augmented training loader, so that it takes one video from another.
        alignment_epochs, alignment_lr: Of the alignment of all heads; 0 epochs leave it out, and then a class
            that is a task of its own keeps a random weight.
        samples_per_class: Gaussian samples of a class in each epoch of the alignment.
        covariance: One for each ``class``, K x D x D numbers; ``pooled``, one for all; ``diagonal``, variances.
        released_scaling: Take the task of a class by the size of the present task, as the released code does.
    """

    epochs: int = 10
    scale: float = 20.0
    margin: float = 0.0
    sigma: float = 4.0
    sigma_unit: Literal["feature", "median"] = "feature"
    shift: bool = True
    paired: bool = True
    alignment_epochs: int = 5
    alignment_lr: float = 0.01
    samples_per_class: int = 256
    covariance: Spread = "class"
    released_scaling: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self,
            positive=("epochs", "scale", "sigma", "alignment_lr", "samples_per_class"),
            not_negative=("margin", "alignment_epochs"),
        )
        if self.tuning == "none":
            raise ConfigError("tuning: none leaves nothing whose shift could be followed; take another tuning")


class SSIAT(PretrainedMethod):
    """Adapters through all tasks, shifted means, aligned cosine heads."""

    name = "ssiat"
    paper = "Tan et al., Semantically-Shifted Incremental Adapter-Tuning, CVPR 2024"
    readouts = ("cnn",)
    needs = frozenset({"adapters"})
    Config = SSIATConfig
    recipes: ClassVar = {"synthetic_*": {**SMALL_RECIPE, "epochs": 4}}

    config: SSIATConfig

    def __init__(self, config: SSIATConfig, context: RunContext) -> None:
        """Make adapters, a head without classes, and no statistics."""
        super().__init__(config, context)
        tuning = config.network_tuning(context.loader.spec.frames, features=config.features)
        self.network = context.backbone.network(tuning)
        dim = self.network.dim
        self.weight = nn.Parameter(torch.empty(0, dim))
        self.statistics = ClassStatistics(dim, config.covariance, JITTER)
        self._sizes: list[int] = []  # of the tasks; a run that goes on replays grow

    def grow(self, task: Task) -> None:
        """Add the new classes' weights and room for their statistics."""
        dim = self.network.dim
        new = torch.empty(task.num_new, dim).uniform_(-(dim**-0.5), dim**-0.5)
        self.weight = nn.Parameter(torch.cat([self.weight.data, new.to(self.weight.device)]))
        self.statistics.grow(task.num_new)
        self._sizes.append(task.num_new)

    def learn(self, task: Task) -> None:
        """Tune on the new classes, move the old means, take the new ones in, and align all heads."""
        config = self.config
        # Drawn first: a run that goes on inside the training finds the random state here as it was.
        draws = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        moves = task.index > 0 and task.num_new > 1 and config.shift
        before = self._features_to_compare(task, "before") if moves else None
        if task.num_new > 1:
            self._tune(task)
        if before is not None:
            means = self.statistics.means[: task.num_old]
            after = self._features_to_compare(task, "after")
            means += mean_shift(before, after, means, self._sigma(before, means))
        self.statistics.take_in(*self.features_of(task.train), range(task.num_old, task.num_seen))
        if task.index > 0 and config.alignment_epochs:
            self._align(draws)

    def features(self, clips: Tensor) -> Tensor:
        """Return the means over frames of the network's features."""
        with self.context.autocast():
            frames = self.network(clips)
        return frames.float().mean(dim=1)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the cosine with every class's weight."""
        return {"cnn": cosine_scores(self.features(clips), self.weight)}

    def memory_use(self) -> MemoryUse:
        """Return the size of means and covariances."""
        return MemoryUse(statistics_bytes=self.statistics.nbytes)

    def _tune(self, task: Task) -> None:
        """Train adapters and the new classes' weights by CosFace among the new classes.

        Old weights get no gradient, but the decay shortens them, as in the authors' code.
        """
        config = self.config
        num_epochs = config.epochs_first if task.index == 0 else config.epochs
        for epoch in self.tuning_epochs(task, list(self.parameters()), num_epochs):
            for batch in epoch:
                cosines = cosine_scores(self.features(batch.clips), self.weight)[:, task.num_old :]
                loss = cosface(cosines, batch.labels - task.num_old, config.scale, config.margin)
                epoch.step({"cosface": loss})

    def _features_to_compare(self, task: Task, when: str) -> Tensor:
        """Return the features [N, D] of the task's videos from which the shift is measured."""
        if self.config.paired:
            return self.features_of(task.train)[0]
        return self._features_in_training(task.train, f"task {task.index + 1} {when}")

    def _features_in_training(self, samples: Sequence[Sample], phase: str) -> Tensor:
        """Return features [N, D] of random crops and frames, in an order of their own."""
        features = []
        with evaluating(self):
            for batch in self.context.loader.training(samples, 1, self.config.batch_size, phase):
                with computing(batch.part):
                    features.append(self.features(batch.clips))
        return torch.cat(features)

    def _sigma(self, features: Tensor, means: Tensor) -> float:
        """Return the width of the weights in the unit of features."""
        if self.config.sigma_unit == "feature":
            return self.config.sigma
        return self.config.sigma * float(torch.cdist(features, means).median())

    def _align(self, draws: torch.Generator) -> None:
        """Train all heads together on samples of the class Gaussians."""
        config, statistics = self.config, self.statistics
        classes, dim = statistics.means.shape
        device = statistics.means.device

        def normal() -> Iterator[Tensor]:  # drawn on the CPU, so that devices agree; an epoch at a time
            for _ in range(config.alignment_epochs):
                yield torch.randn(classes, config.samples_per_class, dim, generator=draws).to(device)

        number = classes * config.samples_per_class
        orders = [torch.randperm(number, generator=draws).to(device) for _ in range(config.alignment_epochs)]
        self.weight.data, _ = align(
            self.weight,
            scaled_means(statistics.means, self._sizes, config.released_scaling),
            statistics.covariances,
            normal(),
            orders,
            scale=config.scale,
            lr=config.alignment_lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )


def mean_shift(before: Tensor, after: Tensor, means: Tensor, sigma: float) -> Tensor:
    """Return how far old class means moved, judged by how the new task's features did.

    ``sum_n w_n (after_n - before_n)`` with weights ``exp(-|before_n - mean|^2 / (2 sigma^2)) + 1e-5``, brought
    to a sum of 1. Source: SSIAT models/base.py, displacement.

    Args:
        before: [N, D] features before the task's training.
        after: [N, D] of the same samples, after it.
        means: [K, D] old means.
        sigma: Width.

    Returns:
        [K, D], what is added to the means.
    """
    apart = torch.cdist(means, before, compute_mode="donot_use_mm_for_euclid_dist")  # [K, N]
    weights = torch.exp(-apart.square() / (2 * sigma**2)) + 1e-5
    return weights / weights.sum(dim=1, keepdim=True) @ (after - before)


def align(
    weight: Tensor,
    means: Tensor,
    covariances: Tensor,
    draws: Iterable[Tensor],
    permutations: Sequence[Tensor],
    *,
    scale: float = 20.0,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> tuple[Tensor, Tensor]:
    """Train cosine weights of all classes together on samples of their Gaussians.

    SGD over K batches an epoch, the rate falling to zero by a cosine. Source: SSIAT models/base.py,
    _stage2_compact_classifier.

    Args:
        weight: [K, D]; not changed.
        means: [K, D], scaled.
        covariances: As ``gaussians.sample`` takes them.
        draws: Per epoch, [K, n, D] standard normal.
        permutations: Per epoch, order [K n] of the samples, which come class by class.
        scale: Factor on the cosines.
        lr: First rate.
        momentum: Momentum.
        weight_decay: Weight decay.

    Returns:
        Aligned weight [K, D], and the loss of every step [epochs, K].
    """
    aligned = nn.Parameter(weight.detach().clone())
    optimiser = torch.optim.SGD([aligned], lr=lr, momentum=momentum, weight_decay=weight_decay)
    schedule = cosine(optimiser, len(permutations))
    losses = []
    for normal, permutation in zip(draws, permutations, strict=True):
        classes, number = normal.shape[:2]
        features = sample(means, covariances, normal).flatten(0, 1)[permutation]
        labels = torch.arange(classes, device=weight.device).repeat_interleave(number)[permutation]
        for x, y in zip(features.split(number), labels.split(number), strict=True):
            with torch.enable_grad():
                loss = F.cross_entropy(scale * cosine_scores(x, aligned), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        schedule.step()
    return aligned.detach(), torch.stack(losses).unflatten(0, (len(permutations), -1))
