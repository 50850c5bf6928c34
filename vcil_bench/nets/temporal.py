"""The spatio-temporal encoder: self-attention over the frames of a clip, read out at a learned token."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError


class TemporalEncoder(nn.Module):
    """Pre-norm transformer over frame features, with a learned CLS token in front and, on demand, prompts.

    Three layers of width 512 with a feed-forward of 2048 have 9,457,664 parameters with the token, which is
    StPR's "about 9 M per expert"; the same shape is PIVOT's temporal module (model/temporal_module.py):
    pre-norm layers, sinusoidal positions, learned CLS, its output read, no norm after the last layer. What is
    PIVOT's own, ReLU and positions counted from the token, is to be asked for.
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int = 3,
        head_width: int = 64,
        ratio: int = 4,
        dropout: float = 0.1,
        readout: Literal["cls", "mean"] = "cls",
        activation: Literal["gelu", "relu"] = "gelu",
        cls_position: bool = False,
    ) -> None:
        """Make the encoder.

        Args:
            dim: Feature size D.
            layers: Transformer layers.
            head_width: Width of an attention head; must divide ``dim``.
            ratio: Feed-forward width as a multiple of ``dim``.
            dropout: Dropout rate inside the layers.
            readout: The output at the CLS token, or the mean of the outputs at the frames.
            activation: Of the feed-forward.
            cls_position: Whether the CLS token has position 0 and the first frame 1; otherwise the token has
                none and the first frame 0.

        Raises:
            ConfigError: ``head_width`` does not divide ``dim``.
        """
        super().__init__()
        if dim % head_width:
            raise ConfigError(f"heads of width {head_width} do not divide the feature size {dim}")
        self.readout = readout
        self.cls_position = cls_position
        self.heads = dim // head_width
        self.cls = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        # Not nn.TransformerEncoder, which copies one layer, so that all would start from the same weights.
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim,
                self.heads,
                dim * ratio,
                dropout,
                activation=activation,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )

    def forward(self, frames: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Aggregate frame features to one spatio-temporal feature.

        Args:
            frames: [B, T, D].
            prompts: [B, L, D] tokens in front of all others, without positions; the mean of their outputs is
                read in place of ``readout``. None for none.

        Returns:
            [B, D].
        """
        batch, length, dim = frames.shape
        cls = self.cls.to(frames.dtype).expand(batch, 1, dim)
        if self.cls_position:
            x = torch.cat([cls, frames], dim=1)
            x = x + sinusoidal_positions(1 + length, dim, frames.device, frames.dtype)
        else:
            x = frames + sinusoidal_positions(length, dim, frames.device, frames.dtype)
            x = torch.cat([cls, x], dim=1)  # [B, 1 + T, D]
        if prompts is not None:
            x = torch.cat([prompts.to(x.dtype), x], dim=1)  # [B, L + 1 + T, D]
        for layer in self.layers:
            x = layer(x)
        if prompts is not None:
            return x[:, : prompts.shape[1]].mean(dim=1)
        return x[:, 0] if self.readout == "cls" else x[:, 1:].mean(dim=1)


def sinusoidal_positions(length: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return fixed sine and cosine position codes [length, dim] (Vaswani et al. 2017, Sec. 3.5).

    Computed in float32, or in float64 where that is wanted; given in ``dtype``.
    """
    wide = torch.promote_types(dtype, torch.float32)
    position = torch.arange(length, device=device, dtype=wide)[:, None]
    rate = torch.exp(
        torch.arange(0, dim, 2, device=device, dtype=wide)
        * (-torch.log(torch.tensor(10000.0, dtype=wide)) / dim).item()
    )
    angles = position * rate  # [length, ceil(dim / 2)]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim].to(dtype)
