"""Class Gaussians: means and covariances of features, and samples drawn from them in place of old videos.

The statistics of SSIAT, FeCAM and SFCL, each of which keeps K x D x D numbers for K classes unless it is told
to keep less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Spread = Literal["class", "pooled", "diagonal"]


def class_gaussians(
    features: Tensor, labels: Tensor, num_classes: int, jitter: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return each class's mean and unbiased covariance.

    Source: SLCA models/base.py, SSIAT models/base.py (_compute_class_mean).

    Args:
        features: [N, D].
        labels: [N] in 0..num_classes-1.
        num_classes: K.
        jitter: Added to the diagonals, so that they can be factored though a class has fewer samples than D.

    Returns:
        Means [K, D] and covariances [K, D, D]. A class of one sample has covariance 0 (plus ``jitter``), since
        one sample says nothing of the spread; a class without samples has mean 0 as well.
    """
    dim = features.shape[1]
    means = features.new_zeros(num_classes, dim)
    covariances = features.new_zeros(num_classes, dim, dim)
    for label in range(num_classes):
        rows = features[labels == label]
        if len(rows):
            means[label] = rows.mean(dim=0)
            centred = rows - means[label]
            covariances[label] = centred.T @ centred / max(1, len(rows) - 1)
    covariances.diagonal(dim1=1, dim2=2).add_(jitter)
    return means, covariances


def scaled_means(means: Tensor, sizes: Sequence[int], released: bool = False) -> Tensor:
    """Return the means from which the classifier is aligned: those of early tasks a little shorter.

    ``mean_c (0.9 + 0.1 (u + 1) / T)`` with u the task of class c and T the number of tasks. Source: SLCA
    models/slca.py, _stage2_compact_classifier.

    Args:
        means: [K, D].
        sizes: Classes of each task so far, whose sum is K.
        released: Take ``floor(c / classes of the present task)`` for u, as the code does; this is the task only
            where all tasks are alike.

    Returns:
        [K, D].
    """
    if released:
        task = torch.arange(len(means), device=means.device) // sizes[-1]
    else:
        counts = torch.tensor(sizes, device=means.device)
        task = torch.arange(len(sizes), device=means.device).repeat_interleave(counts)
    factor = 0.9 + 0.1 * (task + 1).to(means) / len(sizes)
    return means * factor[:, None]


def sample(means: Tensor, covariances: Tensor, draws: Tensor) -> Tensor:
    """Turn normal draws into samples of class Gaussians: ``mean + L draw``, ``L L^T`` the covariance.

    Args:
        means: [K, D].
        covariances: [K, D, D], or one for all classes [1, D, D], positive definite; or variances [K, D].
        draws: [K, n, D] standard normal.

    Returns:
        [K, n, D].
    """
    if covariances.dim() == 2:
        return means[:, None] + covariances.sqrt()[:, None] * draws
    factor = torch.linalg.cholesky(covariances)
    return means[:, None] + draws @ factor.mT


class ClassStatistics(nn.Module):
    """Means and covariances of the classes learnt so far, kept in full or in a form that takes less memory.

    Attributes:
        means: [K, D].
        covariances: ``class``: one for each, [K, D, D]; ``pooled``: one for all, of the deviations from the
            classes' own means, [1, D, D]; ``diagonal``: variances, [K, D]. With the jitter in them.
        freedom: Degrees of freedom behind the pooled covariance, a scalar.
    """

    means: Tensor
    covariances: Tensor
    freedom: Tensor

    def __init__(self, dim: int, spread: Spread, jitter: float = 0.0) -> None:
        """Start without classes.

        Args:
            dim: D.
            spread: What is kept of the covariances.
            jitter: Added to every variance.
        """
        super().__init__()
        self.spread: Spread = spread
        self.jitter = jitter
        shape = {"class": (0, dim, dim), "pooled": (1, dim, dim), "diagonal": (0, dim)}[spread]
        self.register_buffer("means", torch.zeros(0, dim))
        self.register_buffer("covariances", torch.zeros(shape))
        self.register_buffer("freedom", torch.zeros((), dtype=torch.long))

    @property
    def nbytes(self) -> int:
        """Bytes that the statistics take."""
        return self.means.nbytes + self.covariances.nbytes

    def grow(self, num_new: int) -> None:
        """Make room for classes."""
        self.means = F.pad(self.means, (0, 0, 0, num_new))
        if self.spread == "class":
            self.covariances = F.pad(self.covariances, (0, 0, 0, 0, 0, num_new))
        elif self.spread == "diagonal":
            self.covariances = F.pad(self.covariances, (0, 0, 0, num_new))

    def take_in(self, features: Tensor, labels: Tensor, new: range) -> None:
        """Set the statistics of new classes.

        Args:
            features: [N, D].
            labels: [N], all in ``new``.
            new: The new classes' labels.
        """
        places = labels - new.start
        means, covariances = class_gaussians(features.double(), places, len(new))
        self.means[new.start : new.stop] = means.to(self.means)
        if self.spread == "pooled":
            self._pool(covariances, torch.bincount(places, minlength=len(new)))
            return
        covariances.diagonal(dim1=1, dim2=2).add_(self.jitter)
        kept = covariances if self.spread == "class" else covariances.diagonal(dim1=1, dim2=2)
        self.covariances[new.start : new.stop] = kept.to(self.covariances)

    def _pool(self, covariances: Tensor, counts: Tensor) -> None:
        """Mix new classes' covariances into the pooled one, each by its degrees of freedom."""
        free = (counts - 1).clamp_min(0)
        old = self.covariances[0].double()
        if self.freedom > 0:
            old.diagonal().sub_(self.jitter)
        total = old * self.freedom + (free[:, None, None] * covariances).sum(dim=0)
        self.freedom += free.sum()
        pooled = total / self.freedom.clamp_min(1)
        pooled.diagonal().add_(self.jitter)
        self.covariances.copy_(pooled[None])
