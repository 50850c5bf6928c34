"""What a network does where several processes share a batch: compute the own clips, hand out those of all.

Team and total come from ``team``; a batch is shared where ``team.total`` says how many clips it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .batch_part import Rows

if TYPE_CHECKING:
    from .team import Team


def own_rows(team: Team | None, clips: Tensor) -> Rows | None:
    """Return which frames of the whole batch these clips [c, T, ...] are; None where they are all of it."""
    if team is None or team.total is None:
        return None
    count, frames = clips.shape[:2]
    return Rows(team.rank * count * frames, team.total * frames, team)


def whole(team: Team | None, local: Tensor) -> Tensor:
    """Return the features [total, ...] of the whole batch from those of this process's clips [c, ...]."""
    return local if team is None or team.total is None else team.gather(local, team.total)


def handed_out(team: Team | None, local: Tensor) -> tuple[Tensor, Tensor]:
    """Return a feature map as the caller sees it, of all clips, and the own part of it to go on with.

    Going on from the gathered map keeps it on the way to the frame features, so that gradients with respect to
    it exist and are those of the whole batch.
    """
    gathered = whole(team, local)
    if team is None or team.total is None:
        return gathered, gathered
    return gathered, _Own.apply(gathered, team, len(local))


class _Own(torch.autograd.Function):
    """The own part of what was gathered; backward, the gradients of all parts together."""

    @staticmethod
    def forward(context: Any, gathered: Tensor, team: Team, count: int) -> Tensor:
        context.team, context.total = team, len(gathered)
        own = gathered[team.rank * count : (team.rank + 1) * count]
        return F.pad(own, (0, 0) * (own.dim() - 1) + (0, count - len(own)))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return context.team.gather(gradient, context.total), None, None
