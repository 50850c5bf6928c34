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
from torch.amp.grad_scaler import GradScaler

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
    kind: type[torch.optim.SGD] = torch.optim.SGD,
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
        kind: The class.
    """
    trained, groups = [], []
    for given in parameters:
        if isinstance(given, dict):
            groups.append(given)
        elif given.requires_grad:
            trained.append(given)
    if not groups:
        groups = [{"params": trained}]
    fused = context.device.type == "cuda" and not context.scaler.is_enabled()
    return kind(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused or None)


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
        self._own = {id(p) for group in optimiser.param_groups for p in group["params"]}

    def __iter__(self) -> Iterator[Batch]:
        return self._batches

    def step(
        self,
        losses: Mapping[str, Tensor],
        *,
        clip_norm: float | None = None,
        clipped: Sequence[nn.Parameter] | None = None,
    ) -> None:
        """Take one optimiser step on the sum of the loss terms and remember each for the record.

        Args:
            losses: Terms by name.
            clip_norm: Largest norm of the gradient; None for no limit.
            clipped: Parameters over whose gradients the norm is taken, by default the optimiser's; gradients of
                the others among them are never cleared, and pile up.
        """
        optimiser, scaler, team = self._optimiser, self._context.scaler, self._context.team
        total = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        others = [p for p in clipped or () if id(p) not in self._own]
        piled = [p.grad for p in others]
        for parameter in others:
            parameter.grad = None  # what has piled up is neither summed over processes nor scaled again
        scaler.scale(total).backward()
        if team.total is not None:
            networks = self._context.network_parameters()
            team.sum_gradients(networks)
            shared = {id(p) for p in networks}
            given = [p for group in optimiser.param_groups for p in group["params"]]
            team.take_gradients(p for p in (*given, *others) if id(p) not in shared)
        if clip_norm is not None:
            scaler.unscale_(optimiser)
        for parameter, before in zip(others, piled, strict=True):
            parameter.grad = _piled_up(before, parameter.grad, scaler)
        if clip_norm is not None:
            if clipped is None:
                clipped = [p for group in optimiser.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(clipped, clip_norm)
        scaler.step(optimiser)
        scaler.update()
        for name, value in losses.items():
            self._place.sums[name] = self._place.sums.get(name, 0) + value.detach()

    def means(self) -> dict[str, float]:
        """Return the mean of each loss term over the epoch's steps."""
        return {name: float(total) / self._place.step for name, total in self._place.sums.items()}


def _piled_up(before: Tensor | None, new: Tensor | None, scaler: GradScaler) -> Tensor | None:
    """Add a step's gradient to those that have piled up; one that fp16 overflowed counts as zero."""
    if new is not None and scaler.is_enabled():
        scale = scaler.scale(new.new_ones(()))  # unlike get_scale, which waits for the device
        new = torch.where(new.isfinite().all(), new / scale, 0.0)
    if before is None or new is None:
        return new if before is None else before
    return before + new


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
