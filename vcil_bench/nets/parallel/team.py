"""Data-parallel training of one run (torchrun): each process computes its part of every batch on its own GPU.

Losses of this field look at a batch as a whole (contrasts between its videos, hard negatives, decorrelation),
so a mean of losses over parts, as ``DistributedDataParallel`` takes it, would train something else. Here
networks run on a process's own clips and hand out the features of the whole batch, gathered from all; what
stands behind them (heads, experts, losses) is computed by every process alike. A process's gradient of a
network is then the share of its own clips, and their sum is the gradient that a single process has.

What every process computes alike must stay alike. Where nothing is exchanged, GPUs that add in another order let
it drift: so the first process's gradients of heads and experts are everybody's, and after a task all states are
compared.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

PREPARING = timedelta(days=1)  # for what all wait for the first process to do: reading a large dataset
# GPUs may add in any order, which buffers that were computed and not exchanged show (means, importance); more
# than this share of a buffer's largest value is no rounding, not even in bf16.
ROUNDING = 1e-2


class TeamError(RuntimeError):
    """Another process of the run has gone, says nothing, or holds something else."""


@dataclass
class Team:
    """The processes of a run.

    Attributes:
        rank: This process, 0 for the one that writes.
        size: Number of processes.
        aside: What processes say to each other besides tensors of the training, through the processors: there a
            wait ends with an error, while a GPU that waits lets no signal through.
        preparing: The same, for waits of hours.
    """

    rank: int = 0
    size: int = 1
    aside: dist.ProcessGroup | None = None
    preparing: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

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
        with _speaking():
            dist.all_reduce(together)
        _spread(together, gradients)

    def take_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Take the first process's gradients of what every process computes alike."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        together = torch.cat([gradient.flatten() for gradient in gradients])
        with _speaking():
            dist.broadcast(together, 0)
        _spread(together, gradients)

    def check_alike(self, state: Mapping[str, Tensor], computed: Iterable[str]) -> None:
        """Refuse to go on where processes hold different states; of rounding, all take the first process's.

        Costs one pass over the state, and one exchange of a number per tensor.

        Args:
            state: Parameters and buffers by name, the same names everywhere.
            computed: Names of floating buffers, which may differ in rounding. All others are the same to the bit
                by what is exchanged in training.

        Raises:
            TeamError: Names the first tensor that differs, and a process that holds another.
        """
        if self.size == 1:
            return
        for name in computed:
            self._take(name, state[name])
        own = torch.stack([_bits(tensor) for tensor in state.values()])
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with _speaking():
            dist.all_gather(parts, own, group=self.aside)
        for rank, part in enumerate(parts):
            different = (part != parts[0]).nonzero().flatten().tolist()
            if different:
                self._wait_to_leave()  # all know it, and all shall say it
                raise _unlike(list(state)[different[0]], rank)

    def _take(self, name: str, tensor: Tensor) -> None:
        """Put the first process's values in the place of a tensor's, if they are the same to rounding."""
        first = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        with _speaking():
            dist.broadcast(first, 0, group=self.aside)
        own = tensor.detach().cpu()
        scale = float(first.nan_to_num(0.0, 0.0, 0.0).abs().amax()) if first.numel() else 0.0
        # NaN is equal to itself here: it may stand for what is not known yet.
        close = torch.isclose(own.double(), first.double(), rtol=0, atol=ROUNDING * scale, equal_nan=True).all()
        far = torch.zeros(self.size, dtype=torch.int64)
        far[self.rank] = int(not close)
        with _speaking():
            dist.all_reduce(far, group=self.aside)
        if far.any():
            self._wait_to_leave()
            raise _unlike(name, int(far.argmax()))
        with torch.no_grad():
            tensor.copy_(first)

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            with _speaking():
                dist.barrier(group=self.aside)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the first process do, for hours if it must, what it finds done afterwards by the others."""
        if not self.is_main:
            self._wait_for_leader()
        yield
        if self.is_main:
            self._wait_for_leader()

    def _wait_for_leader(self) -> None:
        if self.size > 1:
            with _speaking():
                dist.barrier(group=self.preparing)

    def broadcast(self, value: bool) -> bool:
        """Return what the first process says."""
        if self.size == 1:
            return value
        said = torch.tensor([int(value)])
        with _speaking():
            dist.broadcast(said, 0, group=self.aside)
        return bool(said.item())

    def any(self, value: bool) -> bool:
        """Return whether any process says so."""
        if self.size == 1:
            return value
        said = torch.tensor([int(value)])
        with _speaking():
            dist.all_reduce(said, dist.ReduceOp.MAX, group=self.aside)
        return bool(said.item())

    def gather_rows(self, rows: Tensor, total: int) -> Tensor:
        """Return the rows of all processes in order; process r holds rows r, r + size, ... of ``total``."""
        if self.size == 1:
            return rows
        longest = -(-total // self.size)
        padded = rows.new_zeros(longest, *rows.shape[1:], device="cpu")
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with _speaking():
            dist.all_gather(parts, padded, group=self.aside)
        return torch.stack(parts, dim=1).flatten(0, 1)[:total].to(rows.device)

    def shutdown(self) -> None:
        """Part from the other processes when all are here, so that none is taken for one that died."""
        if self.size > 1:
            self._wait_to_leave()
            dist.destroy_process_group()

    def _wait_to_leave(self) -> None:
        """Wait until all are here or gone: who has seen all may leave before the last one has."""
        with contextlib.suppress(TeamError):
            self.barrier()


class _Gather(torch.autograd.Function):
    """All parts one after the other; backward, the own part of a gradient that is the same everywhere."""

    @staticmethod
    def forward(context, local: Tensor, rank: int, size: int) -> Tensor:  # type: ignore[no-untyped-def]
        context.own = slice(rank * len(local), (rank + 1) * len(local))
        parts = [torch.empty_like(local) for _ in range(size)]
        with _speaking():
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
        with _speaking():
            dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        summed = gradient.clone()
        with _speaking():
            dist.all_reduce(summed)
        return summed


def size_of_team() -> int:
    """Return the number of processes that ``torchrun`` has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def init(device: torch.device, minutes: float) -> Team:
    """Meet the other processes that ``torchrun`` has started.

    Args:
        device: This process's.
        minutes: How long a process may say nothing, before the others give up.

    Raises:
        TeamError: They are not there.
    """
    if size_of_team() == 1:
        return Team()
    limit = timedelta(minutes=minutes)
    with _speaking():
        if device.type == "cuda":
            # A GPU's watchdog ends the process without a word to the user, so it speaks last.
            dist.init_process_group("nccl", timeout=limit + timedelta(minutes=1), device_id=device)
            aside = dist.new_group(backend="gloo", timeout=limit)
        else:
            dist.init_process_group("gloo", timeout=limit)
            aside = None
        preparing = dist.new_group(backend="gloo", timeout=PREPARING)
    return Team(dist.get_rank(), dist.get_world_size(), aside=aside, preparing=preparing)


@contextmanager
def _speaking() -> Iterator[None]:
    """Tell an exchange that failed from what fails in this process.

    Raises:
        TeamError: The cause, and what to do.
    """
    try:
        yield
    except torch.OutOfMemoryError:  # this process's own
        raise
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[0]
        raise TeamError(
            "another process of this run has ended, or said nothing for longer than rank_timeout_minutes "
            f"({cause}); see what it has written; run the same command to continue from the last state"
        ) from error


def _unlike(name: str, rank: int) -> TeamError:
    return TeamError(
        f"process {rank} holds another {name!r} than process 0, though all compute it alike: the method depends "
        "on the process or on clips that are not gathered, or machines are of different kinds; run it in one "
        "process"
    )


def _spread(together: Tensor, gradients: list[Tensor]) -> None:
    """Put parts of a flat tensor back where they came from."""
    parts = together.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _bits(tensor: Tensor) -> Tensor:
    """Return a sum on the CPU that every bit of a tensor changes: eight bytes at a time, times their place."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    places = 2 * torch.arange(2**20, device=tensor.device) + 1  # odd, so that no bit is lost in what overflows
    total = torch.zeros((), dtype=torch.int64)
    for part in flat.split(8 * len(places)):
        words = torch.nn.functional.pad(part, (0, -len(part) % 8)).clone().view(torch.int64)  # aligned
        total = 31 * total + (words * places[: len(words)]).sum().cpu()
    return total
