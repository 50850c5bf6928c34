"""Batch part: which clips of a batch a pass computes, in micro-batches or as one of several processes.

The training loop says it of a process's part, ``micro_batches`` of a chunk; networks read it. Dropout masks
drawn for a part alone would be others than the whole batch's: here every part draws the masks of the whole and
takes its own rows.
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
class BatchPart:
    """Where a part lies in its batch.

    Attributes:
        first: Number of its first clip in the batch.
        count: Clips of the part. It may reach beyond the batch, with clips that only pad it.
        total: Clips of the whole batch.
        team: The processes that hold the other parts; None where this process computes them all.
    """

    first: int
    count: int
    total: int
    team: Team | None = None


# What loops have said, the innermost last; each in a list of its own, by which it is taken away again.
_told: ContextVar[tuple[list[BatchPart | None], ...]] = ContextVar("batch_parts", default=())


@contextmanager
def computing(part: BatchPart | None) -> Iterator[None]:
    """Say that passes inside compute this part; None means the whole batch.

    Loops over batches hold it, and one that an error broke off ends whenever it is collected: perhaps inside a
    later pass, whose part is not its to take away.
    """
    mine = [part]
    _told.set((*_told.get(), mine))
    try:
        yield
    finally:
        _told.set(tuple(told for told in _told.get() if told is not mine))


def current_part() -> BatchPart | None:
    """Return the part that is being computed, None for the whole batch."""
    told = _told.get()
    return told[-1][0] if told else None


class RowDropout(nn.Dropout):
    """Dropout whose mask of a part is the part of the whole batch's mask."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of [rows, ...], clip after clip; of the whole batch just as ``nn.Dropout`` does."""
        part = current_part()
        if part is None or not self.training:
            return super().forward(x)
        rows = len(x) // part.count  # of a clip: its frames
        total = part.total * rows
        start = min(part.first * rows, total)
        valid = min(len(x), total - start)  # what lies beyond only pads the part
        others = (0, 0) * (x.dim() - 1)
        # Torch's own dropout of the part in its place, so that mask and rounding are its own on every device.
        whole = F.dropout(F.pad(x[:valid], (*others, start, total - start - valid)), self.p)
        return F.pad(whole[start : start + valid], (*others, 0, len(x) - valid))
