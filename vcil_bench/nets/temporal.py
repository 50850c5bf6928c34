"""The spatio-temporal encoder: self-attention over the frames of a clip, read out at a learned token."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TemporalEncoder(nn.Module):
    """Pre-norm transformer over frame features, with a learned CLS token in front.

    Three layers of width 512 with a feed-forward of 2048 have 9,457,664 parameters with the token, which is
    StPR's "about 9 M per expert"; the same shape is PIVOT's temporal module (model/temporal_module.py):
    pre-norm layers, sinusoidal positions, learned CLS, its output read.
    """

    def __init__(self, dim: int, *, layers: int = 3, heads: int, ratio: int = 4, dropout: float = 0.1) -> None:
        """Make the encoder.

        Args:
            dim: Feature size D.
            layers: Transformer layers.
            heads: Attention heads; must divide ``dim``.
            ratio: Feed-forward width as a multiple of ``dim``.
            dropout: Dropout rate inside the layers.
        """
        super().__init__()
        self.cls = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        layer = nn.TransformerEncoderLayer(
            dim, heads, dim * ratio, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Aggregate frame features [B, T, D] to one spatio-temporal feature [B, D]."""
        batch, length, dim = frames.shape
        x = frames + sinusoidal_positions(length, dim, frames.device, frames.dtype)
        x = torch.cat([self.cls.to(x.dtype).expand(batch, 1, dim), x], dim=1)  # [B, 1 + T, D]
        return self.layers(x)[:, 0]


def sinusoidal_positions(length: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return fixed sine and cosine position codes [length, dim] (Vaswani et al. 2017, Sec. 3.5)."""
    position = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    rate = torch.exp(
        torch.arange(0, dim, 2, device=device, dtype=torch.float32)
        * (-torch.log(torch.tensor(10000.0)) / dim).item()
    )
    angles = position * rate  # [length, ceil(dim / 2)]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim].to(dtype)
