"""Batch norm whose statistics in training are those of the whole batch, wherever its parts are computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .rows import current_rows


class TeamBatchNorm2d(nn.BatchNorm2d):
    """A batch norm as torch has it, unless several processes share the batch.

    Torch's ``SyncBatchNorm`` does not run on CPUs and counts rows that only pad a process's part.
    """

    @classmethod
    def taking_over(cls, norm: nn.BatchNorm2d) -> TeamBatchNorm2d:
        """Return one that has another batch norm's parameters and statistics."""
        found = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        found._parameters, found._buffers = norm._parameters, norm._buffers
        return found.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [rows, C, H, W]."""
        part = current_rows()
        if part is None or part.team is None or not self.training:
            return super().forward(x)
        valid = x[: max(0, part.total - part.start)].float()
        count = part.total * x.shape[2] * x.shape[3]
        mean = part.team.sum(valid.sum(dim=(0, 2, 3))) / count
        # Around the mean rather than from squares, which would lose digits.
        deviations = valid - mean[:, None, None]
        variance = part.team.sum(deviations.square().sum(dim=(0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        factor = self.weight * (variance + self.eps).rsqrt()
        y = (x.float() - mean[:, None, None]) * factor[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards a batch's, as torch does: of the variance, the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
