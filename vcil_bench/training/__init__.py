"""The parts of a training loop that no method needs to differ in: optimiser, schedule, epochs, one step.

The loop itself stays in the method: ``for epoch in epochs(...): for batch in epoch: ...``.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vcil_bench.common.errors import TrainingError as TrainingError
from vcil_bench.common.errors import UserError
from vcil_bench.data.loader import Batch, Sample, batches_per_epoch

from .resume import Place

if TYPE_CHECKING:
    from vcil_bench.method import RunContext


def sgd(
    context: RunContext,
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Return SGD over parameters that require gradients, or over groups of them; fused on a GPU.

    Not under a scaler (fp16): it leaves it to a fused kernel to skip steps whose gradients overflow, and torch's
    makes the momentum in the first step without writing it if it skips, so that the next takes what lay there.

    Args:
        context: The run.
        parameters: Parameters, of which those that require no gradient are passed over, or groups for torch.
        lr: Learning rate, of groups that name none.
        momentum: Momentum.
        weight_decay: Weight decay, of groups that name none.
    """
    trained, groups = [], []
    for given in parameters:
        if isinstance(given, dict):
            groups.append(given)
        elif given.requires_grad:
            trained.append(given)
    if not groups:
        groups = [{"params": trained}]
    return torch.optim.SGD(
        groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fuses(context) or None
    )


def fuses(context: RunContext) -> bool:
    """Tell whether torch's fused SGD is to be taken; ``sgd`` says why not under a scaler."""
    return context.device.type == "cuda" and not context.scaler.is_enabled()


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

    def __init__(
        self, batches: Iterator[Batch], context: RunContext, optimiser: torch.optim.Optimizer, place: Place
    ) -> None:
        self._batches = batches
        self._context = context
        self._optimiser = optimiser
        self._place = place

    def __iter__(self) -> Iterator[Batch]:
        return self._batches

    def step(self, losses: Mapping[str, Tensor], clip_norm: float | None = None) -> None:
        """Take one optimiser step on the sum of the loss terms and remember each for the record.

        Args:
            losses: Terms by name.
            clip_norm: Largest norm of the gradient over the optimiser's parameters; None for no limit.
        """
        self.backward(losses)
        self.update(clip_norm)

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Put the gradients of the sum of the loss terms in place, in place of those of the step before.

        The first half of ``step``, for what has to happen to gradients between the two. They are those of the
        whole batch on every process, and unscaled (fp16) where the optimiser has the parameter.

        Args:
            losses: Terms by name, remembered for the record.
        """
        optimiser, scaler, team = self._optimiser, self._context.scaler, self._context.team
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        if team.total is not None:
            networks = self._context.network_parameters()
            team.sum_gradients(networks)
            shared = {id(p) for p in networks}
            team.take_gradients(p for p in self._parameters() if id(p) not in shared)
        scaler.unscale_(optimiser)
        for name, value in losses.items():
            self._place.sums[name] = self._place.sums.get(name, 0) + value.detach()

    def update(self, clip_norm: float | None = None) -> None:
        """Step the optimiser by the gradients that are there; under fp16 not if one of them overflowed.

        Args:
            clip_norm: As in ``step``.
        """
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters(), clip_norm)
        self._context.scaler.step(self._optimiser)
        self._context.scaler.update()

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self._optimiser.param_groups for p in group["params"]]

    def means(self) -> dict[str, float]:
        """Return the mean of each loss term over the epoch's steps."""
        return {name: float(total) / self._place.step for name, total in self._place.sums.items()}


def gradients(
    value: Tensor, by: Sequence[Tensor], *, scale: float, differentiable: bool = False
) -> list[Tensor]:
    """Return the gradients of a value that is not the training's loss, which ``Epoch.step`` takes care of.

    In an fp16 network whatever is below 6e-8 becomes 0 on its way back, and gradients with respect to the values
    of feature maps are that small. So they are taken of a multiple and divided after.

    Args:
        value: Scalar.
        by: What it is differentiated by.
        scale: The multiple, a power of two: without fp16 it then changes no bit.
        differentiable: Whether the gradients are to be trained on.
    """
    found = torch.autograd.grad(scale * value, by, create_graph=differentiable, retain_graph=differentiable)
    return [gradient / scale for gradient in found]


def batches(
    context: RunContext, samples: Sequence[Sample], *, batch_size: int, stage: str, drop_last: bool = False
) -> Iterator[Batch]:
    """Yield the shuffled, augmented batches of one pass that trains nothing, with a progress bar.

    With several processes each has all clips of every batch, so that gradients of feature maps are at hand.
    """
    per_epoch = batches_per_epoch(len(samples), batch_size, drop_last=drop_last)
    bar = context.progress.add_task(stage, total=per_epoch)
    for batch in context.loader.whole().training(samples, 1, batch_size, stage, drop_last=drop_last):
        yield batch
        context.progress.advance(bar)
    context.progress.remove_task(bar)


def epochs(
    context: RunContext,
    samples: Sequence[Sample],
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    *,
    num_epochs: int,
    batch_size: int,
    stage: str,
    drop_last: bool = False,
) -> Iterator[Epoch]:
    """Yield the epochs of one stage of training, with a progress bar that shows the losses.

    A stage that was cut off goes on from its last saved step: what happened before is not yielded again. So what
    the loop carries from step to step must be in the method's parameters and buffers.

    Args:
        context: The run.
        samples: Training videos.
        optimiser: Steps its parameters.
        schedule: Stepped after every epoch; None leaves the rate as it is.
        num_epochs: Passes over the samples.
        batch_size: Videos per step; the last batch of an epoch may be smaller.
        stage: Name of the stage, which keys its random draws; different for every stage of a task.
        drop_last: Leave out an incomplete last batch, unless it would be the only one.

    Raises:
        TrainingError: A loss term of an epoch is not finite; names the terms.
    """
    per_epoch = batches_per_epoch(len(samples), batch_size, drop_last=drop_last)
    stages, team = context.stages, context.team
    place = stages.enter(context, stage, optimiser, schedule)
    stream = context.loader.training(
        samples, num_epochs, batch_size, stage, drop_last=drop_last, start=(place.epoch, place.step)
    )
    # Workers start with the first batch, and torch draws a seed for them: so that comes before draws are put
    # back.
    stream = itertools.chain(list(itertools.islice(stream, 1)), stream)
    stages.set_draws(context)
    bar = context.progress.add_task(stage, total=num_epochs * per_epoch)
    context.progress.update(bar, completed=place.epoch * per_epoch + place.step)

    def batches() -> Iterator[Batch]:
        while place.step < per_epoch:
            try:
                batch = next(stream)
            except UserError:
                stages.lost_data(context, optimiser, schedule, place)
                raise
            team.total = len(batch.labels) if team.size > 1 else None
            yield batch
            team.total = None
            place.step += 1
            context.progress.advance(bar)
            stages.passed(context, optimiser, schedule, place)

    try:
        with stages.stopping_softly():
            while place.epoch < num_epochs:
                epoch = Epoch(batches(), context, optimiser, place)
                yield epoch
                assert place.step == per_epoch, "every batch of an epoch must be taken"
                means = epoch.means()
                number = place.epoch + 1
                bad = [name for name, mean in means.items() if not math.isfinite(mean)]
                if bad:
                    raise TrainingError(
                        f"{stage}, epoch {number}: the loss {', '.join(bad)} is not finite; all terms: {means}"
                    )
                context.losses.append({"stage": stage, "epoch": number, **means})
                context.epochs_done += 1
                context.tracker.scalars({f"loss/{k}": v for k, v in means.items()}, context.epochs_done)
                text = " ".join(f"{name} {mean:.3g}" for name, mean in means.items())
                context.progress.update(bar, description=f"{stage}, epoch {number}/{num_epochs}: {text}")
                if schedule is not None:
                    with warnings.catch_warnings():
                        # The epoch's steps may have been taken by a process that died, which torch cannot know.
                        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                        schedule.step()
                place.epoch, place.step, place.sums = number, 0, {}
                if number == num_epochs:
                    stages.passed(context, optimiser, schedule, place, is_end=True)
    finally:
        context.progress.remove_task(bar)
