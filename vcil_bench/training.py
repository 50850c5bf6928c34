"""The parts of a training loop that no method needs to differ in: optimiser, schedule, epochs, one step.

The loop itself stays in the method: ``for epoch in epochs(...): for batch in epoch: ...``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .data.loader import Batch, Sample, batches_per_epoch
from .method import RunContext


class TrainingError(RuntimeError):
    """Training that cannot go on, such as a loss that is no longer a number."""


def sgd(
    parameters: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return SGD over the parameters that require gradients."""
    trained = [p for p in parameters if p.requires_grad]
    return torch.optim.SGD(trained, lr=lr, momentum=momentum, weight_decay=weight_decay)


def constant(optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a schedule that leaves the learning rate as it is."""
    return torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)


def cosine(optimiser: torch.optim.Optimizer, num_epochs: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a per-epoch cosine decay of the learning rate to zero, without warm-up."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(1, num_epochs))


def steps(
    optimiser: torch.optim.Optimizer, milestones: Sequence[int], factor: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a per-epoch schedule that multiplies the learning rate by ``factor`` at each milestone."""
    return torch.optim.lr_scheduler.MultiStepLR(optimiser, list(milestones), gamma=factor)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode without gradients, and back into its former mode afterwards."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


class Epoch:
    """One pass over the training samples: iterate for its batches, ``step`` for each."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def __iter__(self) -> Iterator[Batch]:
        return self._batches

    def step(
        self,
        optimiser: torch.optim.Optimizer,
        losses: Mapping[str, Tensor],
        *,
        clip_norm: float | None = None,
        clipped: Iterable[nn.Parameter] | None = None,
    ) -> None:
        """Take one optimiser step on the sum of the loss terms and remember each for the record.

        Args:
            optimiser: Steps its parameters; only their gradients are cleared before.
            losses: Terms by name.
            clip_norm: Largest norm of the gradient; None for no limit.
            clipped: Parameters over whose gradients the norm is taken, by default the optimiser's.
        """
        total = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        if clip_norm is not None:
            if clipped is None:
                clipped = [p for group in optimiser.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(list(clipped), clip_norm)
        optimiser.step()
        self._steps += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()

    def means(self) -> dict[str, float]:
        """Return the mean of each loss term over the epoch's steps."""
        return {name: float(total) / self._steps for name, total in self._sums.items()}


def batches(
    context: RunContext, samples: Sequence[Sample], *, batch_size: int, stage: str, drop_last: bool = False
) -> Iterator[Batch]:
    """Yield the shuffled, augmented batches of one pass that trains nothing, with a progress bar."""
    per_epoch = batches_per_epoch(len(samples), batch_size, drop_last=drop_last)
    bar = context.progress.add_task(stage, total=per_epoch)
    for batch in context.loader.training(samples, 1, batch_size, stage, drop_last=drop_last):
        yield batch
        context.progress.advance(bar)
    context.progress.remove_task(bar)


def epochs(
    context: RunContext,
    samples: Sequence[Sample],
    *,
    num_epochs: int,
    batch_size: int,
    stage: str,
    drop_last: bool = False,
) -> Iterator[Epoch]:
    """Yield the epochs of one training phase, with a progress bar and the mean losses recorded.

    Args:
        context: The run.
        samples: Training videos.
        num_epochs: Passes over them.
        batch_size: Clips per batch; the last batch of an epoch may be smaller.
        stage: Name of the phase, unique within the run (``task 2``): part of the key of every random draw.
        drop_last: Leave out a smaller last batch, unless it is the only one.

    Raises:
        TrainingError: A mean loss of an epoch is not finite; names the terms.
    """
    per_epoch = batches_per_epoch(len(samples), batch_size, drop_last=drop_last)
    stream = context.loader.training(samples, num_epochs, batch_size, stage, drop_last=drop_last)
    bar = context.progress.add_task(stage, total=num_epochs * per_epoch)

    def batches() -> Iterator[Batch]:
        for _ in range(per_epoch):
            yield next(stream)
            context.progress.advance(bar)

    try:
        for number in range(num_epochs):
            epoch = Epoch(batches())
            yield epoch
            means = epoch.means()
            bad = [name for name, mean in means.items() if not torch.tensor(mean).isfinite()]
            if bad:
                raise TrainingError(
                    f"{stage}, epoch {number + 1}: the loss {', '.join(bad)} is not finite; all terms: {means}"
                )
            context.losses.append({"stage": stage, "epoch": number + 1, **means})
            context.epochs_done += 1
            context.tracker.scalars({f"loss/{k}": v for k, v in means.items()}, context.epochs_done)
            text = " ".join(f"{name} {mean:.3g}" for name, mean in means.items())
            context.progress.update(bar, description=f"{stage}, epoch {number + 1}/{num_epochs}: {text}")
    finally:
        context.progress.remove_task(bar)
