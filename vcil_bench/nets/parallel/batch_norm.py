"""Batch norm whose statistics in training are exact, and of the whole batch wherever its parts are computed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .batch_part import BatchPart

AT_ONCE = 2**17  # values whose squares are added up in a processor's cache


class TeamBatchNorm2d(nn.BatchNorm2d):
    """A batch norm as torch has it, but for its statistics in training on a CPU and over several processes.

    On CPUs torch adds up in float32, value by value, where the channels of a map lie side by side: the variance
    over 32 clips of 8 frames of 112 x 112 comes out 0.3 % too small. Torch's ``SyncBatchNorm`` does not run on
    CPUs and counts rows that only pad a process's part.

    Attributes:
        part: Which clips of the batch are coming, None for all of it; the network sets it before each pass.
    """

    part: BatchPart | None = None

    @classmethod
    def taking_over(cls, norm: nn.BatchNorm2d) -> TeamBatchNorm2d:
        """Return one that has another batch norm's parameters and statistics."""
        found = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        found._parameters, found._buffers = norm._parameters, norm._buffers
        return found.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [rows, C, H, W]."""
        if self.training and self.part is not None:
            return self._shared(x, self.part)
        if self.training and x.device.type == "cpu":
            return self._on_cpu(x)
        return super().forward(x)

    @torch.compiler.disable
    def _on_cpu(self, x: Tensor) -> Tensor:
        """Normalise by statistics that are added up in float64."""
        values = x.detach().permute(0, 2, 3, 1).reshape(-1, x.shape[1])  # no copy of what lies channels last
        if len(values) == 1:
            raise ValueError(
                f"a batch norm in training needs more than one value a channel, not {list(x.shape)}"
            )
        sums = values.new_zeros(2, x.shape[1], dtype=torch.float64)
        for some in values.split(max(1, AT_ONCE // x.shape[1])):
            some = some.double()
            sums += torch.stack([some.sum(dim=0), some.square().sum(dim=0)])
        mean, squares = sums / len(values)
        variance = squares - mean.square()
        kind = self.weight.dtype
        self._follow(mean.to(kind), (variance * (len(values) / (len(values) - 1))).to(kind))
        normalised: Tensor = _Normalised.apply(
            x, self.weight, self.bias, mean.to(kind), variance.to(kind), self.eps
        )
        return normalised

    @torch.compiler.disable
    def _shared(self, x: Tensor, part: BatchPart) -> Tensor:
        """Normalise by the statistics of all processes' rows."""
        assert part.team is not None
        rows = len(x) // part.count  # of a clip: its frames
        valid = x[: max(0, part.total - part.first) * rows].float()
        count = part.total * rows * x.shape[2] * x.shape[3]
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


class _Normalised(torch.autograd.Function):
    """Torch's own normalisation and its gradient, by statistics of the same values that it is handed."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        context.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        context.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = context.saved_tensors
        found = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, scale, True, context.eps, list(context.needs_input_grad[:3])
        )
        return (*found, None, None, None)
