"""Centre-pivot 4-D convolution and resizing of correlation volumes: a value per two positions of two maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CentrePivotConv4d(nn.Module):
    """A 4-D convolution of which only the weights through either centre are kept: two 2-D convolutions.

    Source: HSNet (Min et al., ICCV 2021), Sec. 4.2: the kernel's entries that move in the first pair of
    dimensions at the centre of the second, plus those that move in the second at the centre of the first.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Make a kernel of side 3 in all four dimensions; one bias per output channel."""
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, stride: int = 1) -> Tensor:
        """Convolve, keeping the first pair of positions.

        Args:
            x: [N, C, H, W, U, V].
            stride: Of the last pair of positions.

        Returns:
            [N, C', H, W, U', V'].
        """
        n, _, h, w = x.shape[:4]
        pruned = x[..., ::stride, ::stride]
        u, v = pruned.shape[-2:]
        first = self.first(pruned.permute(0, 4, 5, 1, 2, 3).flatten(0, 2))  # [N*U'*V', C', H, W]
        first = first.unflatten(0, (n, u, v)).permute(0, 3, 4, 5, 1, 2)
        second = F.conv2d(
            x.permute(0, 2, 3, 1, 4, 5).flatten(0, 2), self.second.weight, stride=stride, padding=1
        )  # [N*H*W, C', U', V']
        second = second.unflatten(0, (n, h, w)).permute(0, 3, 1, 2, 4, 5)
        return first + second


def average_last_pair(x: Tensor, side: int) -> Tensor:
    """Average (or repeat) the last pair of positions to a side: [N, C, H, W, side, side]."""
    if x.shape[-2:] == (side, side):
        return x
    # As a product, since adaptive pooling's gradient is not deterministic on GPUs.
    by_rows, by_columns = (_averaging(size, side, x) for size in x.shape[-2:])
    return by_rows.T @ x @ by_columns


def _averaging(size: int, side: int, like: Tensor) -> Tensor:
    """Return the matrix [size, side] of adaptive average pooling."""
    return F.adaptive_avg_pool1d(torch.eye(size, dtype=like.dtype, device=like.device), side)


def upsample_first_pair(x: Tensor, side: int) -> Tensor:
    """Interpolate the first pair of positions to a side: [N, C, side, side, U, V]."""
    if x.shape[2:4] == (side, side):
        return x
    flat = x.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)  # [N, C*U*V, H, W]
    flat = F.interpolate(flat, (side, side), mode="bilinear", align_corners=False)
    return flat.unflatten(1, (x.shape[1], *x.shape[4:])).permute(0, 1, 4, 5, 2, 3)
