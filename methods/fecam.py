"""FeCAM: nearest class mean by Mahalanobis distance, a covariance for each class (Goswami et al., NeurIPS 2023).

Nothing is trained (``adapt=none``, the default), or the network on the first task (``adapt=first``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.gaussians import ClassStatistics, Spread
from vcil_bench.method import RunContext
from vcil_bench.nets.heads import prototypes
from vcil_bench.pretrained import SMALL_RECIPE, FirstTaskConfig, FirstTaskMethod
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task


@dataclass(frozen=True, kw_only=True)
class FeCAMConfig(FirstTaskConfig):
    """Hyper-parameters; the defaults are those of the authors' script for frozen ViTs.

    Attributes:
        alpha: Strength of the shrinkage, without which classes of fewer than D videos have no inverse.
        tukey: None for frozen transformers: statistics of unit features. A number for ResNets: the power to
            which features are raised first, which asks for values that are not negative; the authors take 0.5,
            and 1 for ``alpha``.
        covariance: One for each ``class``, K x D x D numbers; ``pooled``, one for all; ``diagonal``, variances
            alone, each class's divided by their mean, since normalised they would all be 1.
    """

    alpha: float = 10.0
    tukey: float | None = None
    covariance: Spread = "class"

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, positive=("alpha",))
        if self.tukey is not None and not 0 < self.tukey <= 1:
            raise ConfigError(f"tukey: {self.tukey} must be above 0 and at most 1, or null for no transform")


class FeCAM(FirstTaskMethod):
    """Mahalanobis distance to class means under shrunk and normalised covariances."""

    name = "fecam"
    paper = "Goswami et al., FeCAM, NeurIPS 2023"
    readouts = ("mahalanobis",)
    Config = FeCAMConfig
    recipes: ClassVar = {"synthetic_*": SMALL_RECIPE}

    config: FeCAMConfig
    precisions: Tensor

    @classmethod
    def needs_with(cls, config: Any) -> frozenset[str]:
        """Ask for features that can be raised to a power where they are to be."""
        return super().needs_with(config) | ({"non_negative"} if config.tukey is not None else set())

    def __init__(self, config: FeCAMConfig, context: RunContext) -> None:
        """Make the network, and start without classes."""
        super().__init__(config, context)
        self.statistics = ClassStatistics(self.network.dim, config.covariance)
        self.register_buffer("precisions", torch.zeros_like(self.statistics.covariances))

    def grow(self, task: Task) -> None:
        """Make room for the new classes' statistics and for what is computed from them."""
        super().grow(task)
        self.statistics.grow(task.num_new)
        added = len(self.statistics.covariances) - len(self.precisions)  # none of the one that is pooled
        self.precisions = torch.cat(
            [self.precisions, self.precisions.new_zeros(added, *self.precisions.shape[1:])]
        )

    def take_in(self, task: Task, features: Tensor, labels: Tensor) -> None:
        """Set the new classes' statistics, and invert what videos are read out by."""
        new = range(task.num_old, task.num_seen)
        tukey = self.config.tukey
        if tukey is None:
            self.statistics.take_in(F.normalize(features, dim=1), labels, new)
        else:  # covariances of the powers, but means of the features themselves, as in models/base.py
            self.statistics.take_in(features.pow(tukey), labels, new)
            self.statistics.means[new.start :] = prototypes(features, labels, new.stop)[new.start :]
        for i in range(len(self.precisions)) if self.config.covariance == "pooled" else new:
            spread = self.statistics.covariances[i].double()  # one by one: inverting takes memory
            self.precisions[i] = self._inverse(spread).to(self.precisions)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by minus the squared distance to every class."""
        x, means = transformed(self.features(clips), self.statistics.means, self.config.tukey)
        return {"mahalanobis": -squared_mahalanobis(x, means, self.precisions)}

    def memory_use(self) -> MemoryUse:
        """Return the size of means and covariances."""
        return MemoryUse(statistics_bytes=self.statistics.nbytes)

    def _inverse(self, spread: Tensor) -> Tensor:
        """Return the inverse of a finished covariance [D, D], or of variances [D]; 1 where nothing varies."""
        if not spread.any():  # a class of one video
            return torch.ones_like(spread) if spread.dim() == 1 else torch.eye(len(spread)).to(spread)
        if spread.dim() == 1:
            shrunk = spread + self.config.alpha * spread.mean()
            return shrunk.mean() / shrunk
        finished = normalise_covariance(shrink_covariance(spread, self.config.alpha))
        return torch.linalg.pinv(finished, hermitian=True)


def shrink_covariance(covariances: Tensor, alpha: float) -> Tensor:
    """Shrink covariances towards their mean variance and their mean covariance, by the same factor.

    Source: FeCAM FeCAM_vit_imagenet-r.py, shrink_cov.

    Args:
        covariances: [..., D, D].
        alpha: Of both.

    Returns:
        [..., D, D].
    """
    diagonal = torch.eye(covariances.shape[-1], dtype=torch.bool, device=covariances.device)
    others = covariances.masked_fill(diagonal, 0)
    counted = (others != 0).sum(dim=(-2, -1), keepdim=True).clamp_min(1)
    covariance = others.sum(dim=(-2, -1), keepdim=True) / counted  # zeros do not count in the authors' mean
    variance = covariances.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    return covariances + alpha * torch.where(diagonal, variance, covariance)


def normalise_covariance(covariances: Tensor) -> Tensor:
    """Return the correlations [..., D, D] of covariances: classes of wide spread get no advantage.

    What does not vary, as all of a class of one video, is correlated with nothing: zero.
    """
    deviation = covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    deviation = torch.where(deviation > 0, deviation, 1)
    return covariances / (deviation[..., :, None] * deviation[..., None, :])


def distances(features: Tensor, means: Tensor, covariances: Tensor, tukey: float | None = None) -> Tensor:
    """Return squared Mahalanobis distances to class means.

    Source: FeCAM FeCAM_vit_imagenet-r.py (``tukey`` None), models/base.py, _maha_dist.

    Args:
        features: [B, D], as the network gives them.
        means: [K, D]: of unit features, or with ``tukey`` of raw ones.
        covariances: [K, D, D], shrunk and normalised.
        tukey: See ``FeCAMConfig``.

    Returns:
        [B, K].
    """
    x, centres = transformed(features, means, tukey)
    return squared_mahalanobis(x, centres, torch.linalg.pinv(covariances, hermitian=True))


def transformed(features: Tensor, means: Tensor, tukey: float | None) -> tuple[Tensor, Tensor]:
    """Return features [B, D] and class means [K, D] as they are compared."""
    if tukey is None:
        return F.normalize(features, dim=1), means
    unit = features / (features.norm(dim=1, keepdim=True) + 1e-8)
    return F.normalize(unit.pow(tukey), dim=1), F.normalize(means.pow(tukey), dim=1)


def squared_mahalanobis(features: Tensor, means: Tensor, precisions: Tensor) -> Tensor:
    """Return ``(x - m)^T P (x - m)`` of features [B, D] and means [K, D] as [B, K].

    Args:
        features: [B, D].
        means: [K, D].
        precisions: [K, D, D], one for all classes [1, D, D], or of diagonal covariances [K, D].
    """
    apart = features - means[:, None]  # [K, B, D]
    weighted = apart * precisions[:, None] if precisions.dim() == 2 else apart @ precisions
    return (weighted * apart).sum(dim=-1).T
