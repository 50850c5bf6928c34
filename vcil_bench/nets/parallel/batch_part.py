"""Which rows of a whole batch a pass of a network computes, so that parts of it draw the whole's dropout masks.

A pass may see a chunk of the batch (micro-batches) or one process's part of it. Masks drawn for the part alone
would be others than the whole batch's; here every part draws the masks of the whole and takes its own rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from .team import Team


@dataclass(frozen=True)
class Rows:
    """Where a part lies in the batch; rows are frames, the first dimension inside a network.

    Attributes:
        start: First row of the part.
        total: Rows of the whole batch. A part may reach beyond, into rows that only pad it.
        team: The processes that hold the other parts; None where this process computes them all.
    """

    start: int
    total: int
    team: Team | None = None


_current: ContextVar[Rows | None] = ContextVar("rows", default=None)


@contextmanager
def rows(part: Rows | None) -> Iterator[None]:
    """Say that passes inside compute this part; None means the whole batch."""
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)


def current_rows() -> Rows | None:
    """Return the part that is being computed, None for the whole batch."""
    return _current.get()


class RowDropout(nn.Dropout):
    """Dropout whose mask of a part is the part of the whole batch's mask."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of [rows, ...]; for the whole batch exactly what ``nn.Dropout`` does."""
        part = current_rows()
        if part is None or not self.training:
            return super().forward(x)
        start = min(part.start, part.total)
        valid = min(len(x), part.total - start)  # what lies beyond only pads the part
        others = (0, 0) * (x.dim() - 1)
        # Torch's own dropout of the part in its place, so that mask and rounding are its own on every device.
        whole = F.dropout(F.pad(x[:valid], (*others, start, part.total - start - valid)), self.p)
        return F.pad(whole[start : start + valid], (*others, 0, len(x) - valid))
