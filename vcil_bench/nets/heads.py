"""Classification heads that grow with the tasks: linear, cosine with proxies, nearest mean of exemplars."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """From features [B, D] to class logits [B, K], K growing with the tasks."""

    @abstractmethod
    def grow(self, num_new: int) -> None:
        """Append outputs for ``num_new`` classes; those of old classes keep their weights."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, D] to logits [B, K]."""


class GrowingLinear(Head):
    """A linear classifier to which each task adds outputs; the outputs of old classes keep their weights."""

    def __init__(self, in_features: int, std: float | None = None) -> None:
        """Make a head without outputs.

        Args:
            in_features: Feature size D.
            std: Deviation of new weights, their bias then 0; None starts them as ``nn.Linear`` does.
        """
        super().__init__()
        self._std = std
        self.weight = nn.Parameter(torch.empty(0, in_features))
        self.bias = nn.Parameter(torch.empty(0))

    def grow(self, num_new: int) -> None:
        """Append ``num_new`` fresh outputs."""
        new = nn.Linear(self.weight.shape[1], num_new)
        if self._std is not None:
            nn.init.normal_(new.weight, std=self._std)
            nn.init.zeros_(new.bias)
        new = new.to(self.weight.device)
        self.weight = nn.Parameter(torch.cat([self.weight.data, new.weight.data]))
        self.bias = nn.Parameter(torch.cat([self.bias.data, new.bias.data]))

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, D] to logits [B, outputs]."""
        return F.linear(features, self.weight, self.bias)


class CosineHead(Head):
    """Cosine classifier with one or more proxies a class: UCIR's ``cc`` or PODNet's and TCD's ``lsc``.

    ``cc`` scores ``sigma cos(x, w)``. ``lsc`` scores minus the squared distance of ``sigma x/|x|`` and
    ``sigma w/|w|``, softly pooled over a class's proxies; while training it is ``eta (score - margin)``. The
    margin is taken from every class alike, as in the authors' code, so it cancels in every loss and prediction.
    Source: TCD cl_methods/cosine_linear.py (CosineLinear, SplitCosineLinear, _reduce_proxies).

    Attributes:
        weight: Proxies of the newest task's classes (of all, before any growth), [classes * proxies, D], the
            proxies of a class side by side.
        old_weight: Proxies of the classes of earlier tasks, in the same form.
        sigma: Learned scale [1].
        eta: Learned scale [1] of ``lsc``; ``cc`` ignores it.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        proxies: int = 1,
        kind: Literal["lsc", "cc"] = "lsc",
        margin: float = 0.6,
    ) -> None:
        """Make a head.

        Args:
            in_features: Feature size D.
            num_classes: Outputs.
            proxies: Proxies per class.
            kind: ``lsc`` or ``cc``.
            margin: Of ``lsc`` while training.
        """
        super().__init__()
        self.proxies = proxies
        self.kind: Literal["lsc", "cc"] = kind
        self.margin = margin
        self.weight = nn.Parameter(_proxies(num_classes * proxies, in_features, kind))
        self.old_weight = nn.Parameter(torch.empty(0, in_features))
        self.sigma = nn.Parameter(torch.ones(1))
        self.eta = nn.Parameter(torch.ones(1), requires_grad=kind == "lsc")

    def grow(self, num_new: int) -> None:
        """Count the present classes among the old and add ``num_new`` fresh ones; the scales stay."""
        device, dim = self.weight.device, self.weight.shape[1]
        self.old_weight = nn.Parameter(torch.cat([self.old_weight.data, self.weight.data]))
        self.weight = nn.Parameter(_proxies(num_new * self.proxies, dim, self.kind).to(device))

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, D] to similarities [B, classes], old classes first."""
        x = F.normalize(features, dim=1)
        w = F.normalize(torch.cat([self.old_weight, self.weight]), dim=1)
        if self.kind == "cc":
            return self.sigma * pool_proxies(F.linear(x, w), self.proxies)
        scores = pool_proxies(-squared_distances(self.sigma * x, self.sigma * w), self.proxies)
        return self.eta * (scores - self.margin) if self.training else scores


def pool_proxies(scores: Tensor, proxies: int) -> Tensor:
    """Pool the scores of each class's proxies, weighted by their softmax: [B, K * proxies] to [B, K]."""
    if proxies == 1:
        return scores
    grouped = scores.unflatten(1, (-1, proxies))  # [B, K, proxies]
    return (grouped.softmax(dim=-1) * grouped).sum(dim=-1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared Euclidean distances [N, M] of rows [N, D] and [M, D], rounding below 0 cut off.

    Source: TCD cl_methods/cl_utils.py, stable_cosine_distance (``|a|^2 + |b|^2 - 2 a.b``).
    """
    squares = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1) - 2 * a @ b.T
    return squares.clamp_min(0)


def imprinted_proxies(
    features: Tensor,
    labels: Tensor,
    classes: range,
    old_weight: Tensor,
    *,
    kind: Literal["lsc", "cc"],
    proxies: int = 1,
) -> Tensor:
    """Return starting proxies for new classes from their features, as long as the old ones are on average.

    ``cc``: the direction of the mean of unit features. ``lsc``: the plain mean, which is shorter than the old
    ones unless all features agree; with several proxies the centres of k-means, seeded by the class, where the
    authors' is not seeded at all. Source: TCD cl_methods/cl_utils.py, init_cosine_classifier.

    Args:
        features: [N, D] video features.
        labels: [N] labels.
        classes: New labels, in head order.
        old_weight: Old proxies [rows, D].
        kind: Kind of head.
        proxies: Proxies per class; a class of fewer videos repeats its centres.

    Returns:
        [len(classes) * proxies, D], class-major.
    """
    length = old_weight.norm(dim=1).mean()
    unit = F.normalize(features, dim=1)
    rows = []
    for label in classes:
        own = unit[labels == label]
        if proxies > 1:
            rows.append(_centres(own, proxies, label))
        else:
            mean = own.mean(dim=0, keepdim=True)
            rows.append(F.normalize(mean, dim=1) if kind == "cc" else mean)
    return length * torch.cat(rows)


def _centres(features: Tensor, count: int, seed: int) -> Tensor:
    """Return ``count`` k-means centres [count, D] of rows [N, D]."""
    from sklearn.cluster import KMeans

    rows = np.unique(features.cpu().double().numpy(), axis=0)
    found = min(count, len(rows))
    centres = KMeans(found, n_init=10, random_state=seed).fit(rows).cluster_centers_
    return torch.from_numpy(centres[np.arange(count) % found]).to(features)


def _proxies(rows: int, dim: int, kind: str) -> Tensor:
    """Draw proxies as the authors' code does."""
    weight = torch.empty(rows, dim)
    if rows and kind == "lsc":
        nn.init.kaiming_normal_(weight, nonlinearity="linear")
    else:
        nn.init.uniform_(weight, -(dim**-0.5), dim**-0.5)
    return weight


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return each class's mean direction: rows normalised, averaged, normalised again.

    Source: TCD cl_methods/classifer.py, compute_class_mean; iCaRL (Rebuffi et al., CVPR 2017), Alg. 1.

    Args:
        features: [N, D] video features (means over frames).
        labels: [N] in 0..num_classes-1.
        num_classes: K.

    Returns:
        [K, D]; a class without features has a row of zeros.
    """
    unit = F.normalize(features, dim=-1)
    # A product, since adding by index is not deterministic on GPUs. The count drops out of the direction.
    member = F.one_hot(labels, num_classes).to(unit).T  # [K, N]
    return F.normalize(member @ unit, dim=-1)


def prototypes(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return each class's plain mean: its prototype for ``cosine_scores``.

    Other than ``class_means``, which averages directions, long features count for more. Source: LAMDA-PILOT
    models/simplecil.py, replace_fc.

    Args:
        features: [N, D].
        labels: [N] in 0..num_classes-1.
        num_classes: K.

    Returns:
        [K, D]; a class without features has a row of zeros.
    """
    member = F.one_hot(labels, num_classes).to(features).T  # [K, N]
    return member @ features / member.sum(dim=1, keepdim=True).clamp_min(1)


def cosine_scores(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return the cosines [B, K] of features [B, D] and prototypes [K, D]; those of a row of zeros are 0."""
    return F.linear(F.normalize(features, dim=-1), F.normalize(prototypes, dim=-1))


def nearest_mean_scores(features: Tensor, means: Tensor) -> Tensor:
    """Score by nearest mean of exemplars: minus the Euclidean distance of the direction to each class mean.

    Averaging these scores over a video's crops is TCD's multi-crop rule (cl_methods/classifer.py, nme).

    Args:
        features: [B, D] video features.
        means: [K, D] class means.

    Returns:
        [B, K].
    """
    return -torch.cdist(F.normalize(features, dim=-1), means, compute_mode="donot_use_mm_for_euclid_dist")
