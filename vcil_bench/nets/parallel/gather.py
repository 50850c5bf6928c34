"""Gather (all-gather with gradients): a network's features of all clips, where several processes share a batch.

Where no batch is shared (``current_part``) these return what they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .batch_part import current_part

if TYPE_CHECKING:
    from .team import Team


def gather_batch(local: Tensor) -> Tensor:
    """Return the features [total, ...] of the whole batch from those of this process's clips [c, ...]."""
    part = current_part()
    return local if part is None or part.team is None else part.team.gather(local, part.total)


def gather_maps(local: Tensor) -> tuple[Tensor, Tensor]:
    """Return a feature map of all clips, for the caller, and this process's part of it, to continue with.

    Continuing from the gathered map keeps it on the way to the frame features, so that gradients with respect to
    it exist and are those of the whole batch.

    Args:
        local: [c, ...] of this process's clips.

    Returns:
        [total, ...] and [c, ...].
    """
    part = current_part()
    if part is None or part.team is None:
        return local, local
    gathered = part.team.gather(local, part.total)
    return gathered, _LocalPart.apply(gathered, part.team, len(local))


def local_part(whole: Tensor) -> Tensor:
    """Return this process's part of what every process has alike, as what enters its networks.

    Args:
        whole: [total, ...] of all clips, or [1, ...] for all of them.

    Returns:
        [c, ...] of this process's clips, or [1, ...]. The gradient of ``whole`` is that of all parts together.
    """
    part = current_part()
    if part is None or part.team is None:
        return whole
    if len(whole) == 1:
        return _ForAll.apply(whole, part.team)
    return _LocalPart.apply(whole, part.team, part.count)


class _ForAll(torch.autograd.Function):
    """The same on every process; backward, the gradients of all processes added up."""

    @staticmethod
    def forward(context: Any, whole: Tensor, team: Team) -> Tensor:
        context.team = team
        return whole.view_as(whole)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return context.team.sum(gradient), None


class _LocalPart(torch.autograd.Function):
    """This process's part of what was gathered; backward, the gradients of all parts together."""

    @staticmethod
    def forward(context: Any, gathered: Tensor, team: Team, count: int) -> Tensor:
        context.team, context.total = team, len(gathered)
        local = gathered[team.rank * count : (team.rank + 1) * count]
        return F.pad(local, (0, 0) * (local.dim() - 1) + (0, count - len(local)))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return context.team.gather(gradient, context.total), None, None
