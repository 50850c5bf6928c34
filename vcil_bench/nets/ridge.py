"""Ridge regression heads: analytic classifiers on fixed features, solved at once (RanPAC) or recursively (ACIL).

Both are sums over samples, so neither the order of the tasks nor how they are cut into batches changes the
result but by rounding. Everything is computed in float64: Gram matrices of expanded features are so badly
conditioned that float32 loses every digit at small ridges.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def random_features(features: Tensor, projection: Tensor) -> Tensor:
    """Expand features by a fixed random projection and a ReLU.

    Source: RanPAC RanPAC.py; ACIL analytic/Buffer.py (RandomBuffer).

    Args:
        features: [N, D].
        projection: [M, D].

    Returns:
        [N, M].
    """
    return F.linear(features, projection).relu()


def ridge_losses(features: Tensor, targets: Tensor, ridges: Sequence[float]) -> Tensor:
    """Return the squared error of each ridge on the last fifth of the rows, fitted on those before.

    All ridges are solved from one eigendecomposition, of whichever of the two Gram matrices is smaller.
    Source: RanPAC RanPAC.py, optimise_ridge_parameter.

    Args:
        features: [N, M], N at least 2, in an order that means nothing.
        targets: [N, K] one-hot.
        ridges: R positive values.

    Returns:
        [R], means over the rows ``floor(0.8 N)..`` and over all K columns.
    """
    first = int(0.8 * len(features))
    x, y = features[:first].double(), targets[:first].double()
    held_out, wanted = features[first:].double(), targets[first:].double()
    if len(x) >= x.shape[1]:  # (X^T X + r)^-1 X^T Y
        values, vectors = torch.linalg.eigh(x.T @ x)
        left, right = held_out @ vectors, vectors.T @ (x.T @ y)
    else:  # the same as X^T (X X^T + r)^-1 Y
        values, vectors = torch.linalg.eigh(x @ x.T)
        left, right = (held_out @ x.T) @ vectors, vectors.T @ y
    losses = [(left @ (right / (values + ridge)[:, None]) - wanted).square().mean() for ridge in ridges]
    return torch.stack(losses).to(features.dtype)


def choose_ridge(features: Tensor, targets: Tensor, ridges: Sequence[float]) -> float:
    """Return the ridge of the least ``ridge_losses``, the first on ties."""
    return float(ridges[int(ridge_losses(features.double(), targets, ridges).argmin())])


def solve_ridge(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Solve ridge regression from its sums.

    Args:
        gram: X^T X [M, M].
        cross: X^T Y [M, K].
        ridge: Positive.

    Returns:
        Weight [K, M], ``((gram + ridge 1)^-1 cross)^T``.
    """
    a = gram.double()
    a = a + ridge * torch.eye(len(a), dtype=a.dtype, device=a.device)
    return torch.linalg.solve(a, cross.double()).T.to(gram.dtype)


class RecursiveRidge(nn.Module):
    """Ridge regression that takes its samples in any portions and its classes as they come.

    After any updates ``weight`` is ``((X^T X + gamma)^-1 X^T Y)^T`` over all samples so far, by the Woodbury
    identity, without a sample being kept. Source: ACIL (Zhuang et al., NeurIPS 2022), Eq. 12-14; its code
    analytic/AnalyticLinear.py, RecursiveLinear.fit.

    Attributes:
        weight: [K, M] float64.
        inverse: ``(X^T X + gamma)^-1`` [M, M] float64.
    """

    weight: Tensor
    inverse: Tensor

    def __init__(self, in_features: int, gamma: float) -> None:
        """Start without samples and classes.

        Args:
            in_features: M.
            gamma: Ridge.
        """
        super().__init__()
        self.register_buffer("weight", torch.zeros(0, in_features, dtype=torch.float64))
        self.register_buffer("inverse", torch.eye(in_features, dtype=torch.float64) / gamma)

    def grow(self, num_new: int) -> None:
        """Append classes; that no sample so far is theirs is what a weight of zero says."""
        self.weight = F.pad(self.weight, (0, 0, 0, num_new))

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take samples in.

        Args:
            features: [n, M]; the smaller n, the smaller the system that is solved.
            labels: [n] in 0..K-1.
        """
        x = features.to(self.inverse)
        y = F.one_hot(labels, len(self.weight)).to(x)
        projected = self.inverse @ x.T  # [M, n]
        inner = x @ projected
        inner.diagonal().add_(1)
        self.inverse -= projected @ torch.linalg.solve(inner, projected.T)
        self.inverse.copy_((self.inverse + self.inverse.T) / 2)  # rounding would grow lopsided over thousands
        self.weight += (y - x @ self.weight.T).T @ (x @ self.inverse)

    def forward(self, features: Tensor) -> Tensor:
        """Score features [B, M] by the linear prediction [B, K], in their own precision."""
        return F.linear(features.to(self.weight), self.weight).to(features.dtype)
