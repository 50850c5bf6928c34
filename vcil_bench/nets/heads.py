"""Classification heads that grow with the tasks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GrowingLinear(nn.Module):
    """A linear classifier to which each task adds outputs; the outputs of old classes keep their weights."""

    def __init__(self, in_features: int) -> None:
        """Make a head without outputs."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, in_features))
        self.bias = nn.Parameter(torch.empty(0))

    def grow(self, num_new: int) -> None:
        """Append ``num_new`` outputs, initialised as ``nn.Linear`` does."""
        new = nn.Linear(self.weight.shape[1], num_new).to(self.weight.device)
        self.weight = nn.Parameter(torch.cat([self.weight.data, new.weight.data]))
        self.bias = nn.Parameter(torch.cat([self.bias.data, new.bias.data]))

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, D] to logits [B, outputs]."""
        return F.linear(features, self.weight, self.bias)
