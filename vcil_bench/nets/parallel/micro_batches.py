"""A batch computed in chunks with the results of the whole, for batches whose activations do not fit in memory.

Losses of this field are coupled over the batch, so that adding up gradients of smaller batches trains something
else. Here only networks run in chunks; their activations are forgotten and computed again in the backward pass
(Chen et al. 2016, "Training deep nets with sublinear memory cost"), and losses see the features of all clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .batch_part import BatchPart, computing, current_part


def in_chunks(compute: Callable[[slice], Sequence[Tensor]], clips: Tensor, size: int) -> list[Tensor]:
    """Run a computation on chunks of the clips as it would run on all of them.

    Args:
        compute: Takes the numbers of b clips and returns their features [b, ...]; may drop out with
            ``RowDropout``.
        clips: [B, T, ...].
        size: Clips per chunk.

    Returns:
        The features [B, ...].
    """
    around = current_part() or BatchPart(0, len(clips), len(clips))
    state = torch.get_rng_state()
    device_state = torch.cuda.get_rng_state(clips.device) if clips.is_cuda else None
    parts = []
    for first in range(0, len(clips), size):
        # Each chunk draws the masks of the whole batch; the last leaves the generators where one pass would.
        torch.set_rng_state(state)
        if device_state is not None:
            torch.cuda.set_rng_state(device_state, clips.device)
        count = min(size, len(clips) - first)
        with computing(BatchPart(around.first + first, count, around.total, around.team)):
            parts.append(compute(slice(first, first + count)))
    return [torch.cat(part) for part in zip(*parts, strict=True)]


def recomputed(compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Compute without keeping activations; the backward pass computes them again, with the same masks."""
    part = current_part()

    def run(*inputs: Tensor) -> Tensor:
        with computing(part):  # the backward pass runs where no part is set
            return compute(*inputs)

    result: Tensor = checkpoint(run, *inputs, use_reentrant=False)
    return result
