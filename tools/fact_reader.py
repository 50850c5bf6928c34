"""Linear readers of what is true of a still, to help a pretraining and to be dropped after it.

Both embedded networks learn from stills whose facts are known exactly. A reader asks the features for every
fact separately, so that each has its own share of the loss from the first batch on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class FactReader(nn.Module):
    """One linear reader for each fact, on features of one width.

    Args:
        width: Width of the features.
        sizes: How many values each fact may take.
        scale: Factor of the features. About the square root of their width gives features of unit length
            the size that a linear layer expects.
    """

    def __init__(self, width: int, sizes: Sequence[int], scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, features: Tensor, facts: Tensor) -> Tensor:
        """Return the mean cross-entropy of features [B, D] against facts [B, F], -1 is unstated."""
        losses = [
            functional.cross_entropy(head(self.scale * features), facts[:, i], ignore_index=-1, reduction="sum")
            / (facts[:, i] >= 0).sum().clamp(min=1)
            for i, head in enumerate(self.heads)
        ]
        return torch.stack(losses).mean()

    def read(self, features: Tensor) -> Tensor:
        """Return the likeliest value of each fact [B, F] for features [B, D]."""
        return torch.stack([head(self.scale * features).argmax(1) for head in self.heads], 1)
