"""Several processes that work on one run, one per GPU: each computes its part of every batch.

Started by ``torchrun``. Losses of this field look at a batch as a whole (contrasts between its videos, hard
negatives, decorrelation), so a mean of losses over parts, as ``DistributedDataParallel`` takes it, would train
something else. Here networks run on a process's own clips and hand out the features of the whole batch, gathered
from all; what stands behind them (heads, experts, losses) is computed by every process alike. A process's
gradient of a network is then the share of its own clips, and their sum is the gradient that a single process
has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass
class Team:
    """The processes of a run.

    Attributes:
        rank: This process, 0 for the one that writes.
        size: Number of processes.
        total: Clips of the batch in work, of which this process holds its part; None where clips are whole.
    """

    rank: int = 0
    size: int = 1
    total: int | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def part(self) -> slice:
        """Return which clips of the batch in work are this process's, without those that pad its part."""
        assert self.total is not None
        size = -(-self.total // self.size)
        return slice(min(self.rank * size, self.total), min((self.rank + 1) * size, self.total))

    def gather(self, local: Tensor, total: int) -> Tensor:
        """Put the parts of all processes together.

        Args:
            local: [c, ...] of this process's clips, c the same for all, padded at the end of the batch.
            total: Clips of the batch.

        Returns:
            [total, ...], the same on all processes; the gradient reaches this process's own part.
        """
        gathered: Tensor = _Gather.apply(local.contiguous(), self.rank, self.size)
        return gathered[:total]

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes; gradients are added up as well."""
        summed: Tensor = _Sum.apply(tensor)
        return summed

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of networks, to which every process contributes its own clips' share."""
        # A process whose part is all padding has gradients too, zero ones: what has none has none anywhere.
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        together = torch.cat([gradient.flatten() for gradient in gradients])  # one exchange instead of hundreds
        dist.all_reduce(together)
        parts = together.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the first process do what it finds done afterwards by the others."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def agree(self, value: bool) -> bool:
        """Return what the first process says."""
        if self.size == 1:
            return value
        said = torch.tensor([int(value)], device=_comm_device())
        dist.broadcast(said, 0)
        return bool(said.item())

    def collect(self, rows: Tensor, total: int) -> Tensor:
        """Return the rows of all processes in order; process r holds rows r, r + size, ... of ``total``."""
        if self.size == 1:
            return rows
        longest = -(-total // self.size)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded, device=_comm_device()) for _ in range(self.size)]
        dist.all_gather(parts, padded.to(_comm_device()))
        return torch.stack(parts, dim=1).flatten(0, 1)[:total].to(rows.device)


class _Gather(torch.autograd.Function):
    """All parts one after the other; backward, the own part of a gradient that is the same everywhere."""

    @staticmethod
    def forward(context, local: Tensor, rank: int, size: int) -> Tensor:  # type: ignore[no-untyped-def]
        context.own = slice(rank * len(local), (rank + 1) * len(local))
        parts = [torch.empty_like(local) for _ in range(size)]
        dist.all_gather(parts, local)
        return torch.cat(parts)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return gradient[context.own], None, None


class _Sum(torch.autograd.Function):
    """The sum over processes; every process's result depends on every process's part, and so do gradients."""

    @staticmethod
    def forward(context, tensor: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed


def size_of_team() -> int:
    """Return the number of processes that ``torchrun`` has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> Team:
    """Meet the other processes that ``torchrun`` has started."""
    if size_of_team() == 1:
        return Team()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Preparing a large dataset, for which the others wait, takes hours.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=2))
    return Team(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _comm_device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
