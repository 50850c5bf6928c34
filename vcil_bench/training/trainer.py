"""Trainer: the training loop of a run, with batches, epochs, optimiser steps, mixed precision, mean losses.

It knows no method: what trains is a module that is handed to ``Trainer.epochs``.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from vcil_bench.common.errors import TrainingError, UserError
from vcil_bench.data.clips import SecondClip
from vcil_bench.data.loader import Batch, ClipLoader, RowBatch, Sample, batches_per_epoch
from vcil_bench.nets.network import VideoNetwork
from vcil_bench.nets.parallel.batch_part import computing, current_part
from vcil_bench.nets.parallel.team import Team
from vcil_bench.nets.precision import Precision
from vcil_bench.trackers import NoTracker, Tracker

from .flops import FlopCount
from .optimisers import StepSchedule
from .resume import Phase, PhaseProgress, PhaseSaver

AnyBatch = TypeVar("AnyBatch", Batch, RowBatch)
EpochKind = TypeVar("EpochKind", bound="Epoch")


class Trainer:
    """What changes while a run trains, beside the module, its optimiser and its schedule.

    Attributes:
        device: Where tensors live.
        loader: Batches of clips.
        team: The processes that work on the run.
        saver: Saves and restores training in the middle of a task.
        tracker: Takes the losses as they come.
        progress: The terminal's progress bars.
        scaler: The scale of the loss under which fp16 gradients do not vanish; of other precisions, none.
        losses: Mean of every loss term per epoch of the task in work, for the record.
        epochs_done: Epochs of all tasks so far, the tracker's step.
        flops: Floating-point operations of the task in work.
    """

    def __init__(
        self,
        device: torch.device,
        precision: Precision,
        loader: ClipLoader,
        *,
        team: Team | None = None,
        saver: PhaseSaver | None = None,
        tracker: Tracker | None = None,
        progress: Progress | None = None,
        count_flops: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Begin a run; by default alone, without saving, tracking or showing anything.

        Args:
            device: Where tensors live.
            precision: ``fp32``, ``tf32``, ``bf16`` or ``fp16``.
            loader: Batches of clips.
            team: The processes that work on the run.
            saver: Saves and restores training in the middle of a task.
            tracker: Takes the losses as they come.
            progress: The terminal's progress bars.
            count_flops: Count operations; then ``flops.stop`` is due after an error.
            say: Takes the lines a user reads.
        """
        self.device = device
        self.loader = loader
        self.team = team or Team()
        self.saver = saver or PhaseSaver()
        self.tracker: Tracker = tracker or NoTracker()
        self.progress = progress or Progress(disable=True)
        self.scaler = GradScaler(device.type, enabled=precision == "fp16")
        self.losses: list[dict[str, float | int | str]] = []
        self.epochs_done = 0
        self.flops = FlopCount(device.type, counts=count_flops)
        self._say = say
        self._begin_costs()

    def begin_task(self, task: int) -> None:
        """Forget the losses and costs of the task before."""
        self.losses.clear()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._begin_costs()
        self.flops.begin_task()
        self.saver.begin_task(task)

    def _begin_costs(self, seconds: float = 0.0, waited_s: float = 0.0, peak_mb: float = 0.0) -> None:
        """Count from now on, on top of what earlier sessions of the task took."""
        self._started = time.perf_counter()
        self._waited_until_then = self.loader.clock.waited
        self._earlier_s, self._earlier_waited_s, self._earlier_peak_mb = seconds, waited_s, peak_mb

    def resume(self, epochs_done: int, scaler: Mapping[str, Any]) -> None:
        """Continue after the tasks of an earlier process: take its count of epochs and its scale of the loss."""
        self.epochs_done = epochs_done
        self.scaler.load_state_dict(dict(scaler))

    def train_s(self) -> float:
        """Return the seconds since the task began, those of sessions that died included."""
        return self._earlier_s + time.perf_counter() - self._started

    def waited_s(self) -> float:
        """Return the seconds that the task has waited for batches, in all its sessions, tests included."""
        return self._earlier_waited_s + self.loader.clock.waited - self._waited_until_then

    def peak_mb(self) -> float:
        """Return the most memory in MiB that the GPU held in all sessions of the task; 0 on a CPU."""
        now = torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else 0.0
        return max(self._earlier_peak_mb, now)

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on inside a task needs of this, as plain data."""
        return {
            "losses": self.losses,
            "epochs_done": self.epochs_done,
            "scaler": self.scaler.state_dict(),
            "train_s": self.train_s(),
            "peak_mb": self.peak_mb(),
            "waited_s": self.waited_s(),
            "flops": self.flops.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned in another process."""
        self.losses[:] = state["losses"]
        self.epochs_done = state["epochs_done"]
        self.scaler.load_state_dict(state["scaler"])
        self._begin_costs(state["train_s"], state["waited_s"], state["peak_mb"])
        self.flops.load_state_dict(state["flops"])

    def batches(
        self, samples: Sequence[Sample], *, batch_size: int, phase: str, drop_last: bool = False
    ) -> Iterator[Batch]:
        """Yield the shuffled, augmented batches of one pass that trains nothing, with a progress bar.

        With several processes each has all clips of every batch, so that gradients of feature maps are at hand.

        Args:
            samples: The videos.
            batch_size: Videos per batch.
            phase: Keys the draws, and stands beside the progress bar.
            drop_last: Leave out an incomplete last batch, unless it would be the only one.
        """
        per_epoch = batches_per_epoch(len(samples), batch_size, drop_last=drop_last)
        bar = self.progress.add_task(phase, total=per_epoch)
        clips = _taken(len(samples), batch_size, drop_last=drop_last)
        for batch in self.loader.whole().training(samples, 1, batch_size, phase, drop_last=drop_last):
            with computing(batch.part), self.flops.standing_for(clips / len(batch), phase):
                yield batch
            self.progress.advance(bar)
        self.progress.remove_task(bar)

    def epochs(
        self,
        module: nn.Module,
        samples: Sequence[Sample],
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
        *,
        num_epochs: int,
        batch_size: int,
        phase: str,
        drop_last: bool = False,
        second: SecondClip | None = None,
    ) -> Iterator[Epoch]:
        """Yield the epochs of one phase of training, with a progress bar that shows the losses.

        A phase that was cut off is restored before the first epoch is yielded: module, optimiser, schedule,
        random generators and losses. Epochs and batches that were done before are not yielded again.

        Args:
            module: Whose state is saved and restored; it has all the networks that train.
            samples: Training videos.
            optimiser: Steps its parameters.
            schedule: Stepped after every epoch, a ``StepSchedule`` after every batch; None leaves the rate as
                it is.
            num_epochs: Passes over the samples.
            batch_size: Videos per step; the last batch of an epoch may be smaller.
            phase: Name of the phase, which keys its random draws; different for every phase of a task.
            drop_last: Leave out an incomplete last batch, unless it would be the only one.
            second: Give batches a second clip of every video.

        Raises:
            TrainingError: A loss term of an epoch is not finite; names the terms.
            CheckpointError: The saved state is damaged or of another run.
        """
        per_epoch = batches_per_epoch(len(samples), batch_size, drop_last=drop_last)
        clips = _taken(len(samples), batch_size, drop_last=drop_last)

        def stream(start: tuple[int, int]) -> Iterator[Batch]:
            return self.loader.training(
                samples, num_epochs, batch_size, phase, drop_last=drop_last, start=start, second=second
            )

        state = Phase(phase, module, optimiser, schedule, self)
        return self._phase(state, stream, num_epochs, per_epoch, Epoch, clips)

    def row_epochs(
        self,
        module: nn.Module,
        count: int,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
        *,
        num_epochs: int,
        batch_size: int,
        phase: str,
        drop_last: bool = False,
    ) -> Iterator[RowEpoch]:
        """Yield the epochs of a phase that trains on what the module holds; else as ``epochs``.

        No video is read and no network of the backbone may be run: processes that share a run each compute the
        whole batch.

        Args:
            module: Whose state is saved and restored.
            count: Rows that it holds.
            optimiser: Steps its parameters.
            schedule: As in ``epochs``.
            num_epochs: Passes over the rows.
            batch_size: Rows per step.
            phase: Name of the phase.
            drop_last: Leave out an incomplete last batch, unless it would be the only one.

        Raises:
            TrainingError, CheckpointError: As in ``epochs``.
        """
        per_epoch = batches_per_epoch(count, batch_size, drop_last=drop_last)
        rows = _taken(count, batch_size, drop_last=drop_last)

        def stream(start: tuple[int, int]) -> Iterator[RowBatch]:
            return self.loader.rows(count, num_epochs, batch_size, phase, drop_last=drop_last, start=start)

        state = Phase(phase, module, optimiser, schedule, self)
        return self._phase(state, stream, num_epochs, per_epoch, RowEpoch, rows)

    def _phase(
        self,
        state: Phase,
        batches_from: Callable[[tuple[int, int]], Iterator[AnyBatch]],
        num_epochs: int,
        per_epoch: int,
        kind: type[EpochKind],
        taken: int,
    ) -> Iterator[EpochKind]:
        """Yield what is left of the epochs of a phase.

        Args:
            state: What changes in it.
            batches_from: Gives the batches that follow an epoch and a step of it.
            num_epochs: Epochs in all.
            per_epoch: Steps of each.
            kind: Of an epoch.
            taken: Clips or rows of an epoch.
        """
        saver, phase, schedule = self.saver, state.name, state.schedule
        reached = saver.restore(state)
        if reached.epoch == num_epochs:
            self._say(f"phase {phase!r}: done before")
        elif reached.epoch or reached.step:
            self._say(f"phase {phase!r}: continuing at epoch {reached.epoch + 1}, step {reached.step + 1}")
        stream = batches_from((reached.epoch, reached.step))
        # Workers start with the first batch, and torch draws a seed for them: so that comes before the random
        # generators are put back.
        stream = itertools.chain(list(itertools.islice(stream, 1)), stream)
        saver.restore_rng_state(self.device)
        bar = self.progress.add_task(phase, total=num_epochs * per_epoch)
        self.progress.update(bar, completed=reached.epoch * per_epoch + reached.step)

        def batches() -> Iterator[AnyBatch]:
            while reached.step < per_epoch:
                try:
                    batch = next(stream)
                except UserError:
                    saver.save_if_stopped(state, reached)
                    raise
                # The first epoch stands for itself, the second for all that follow.
                epochs, name = (num_epochs - 1, f"{phase}, later") if reached.epoch else (1, phase)
                with computing(batch.part), self.flops.standing_for(epochs * taken / len(batch), name):
                    yield batch
                reached.step += 1
                if isinstance(schedule, StepSchedule):
                    _step(schedule)
                self.progress.advance(bar)
                saver.maybe_save(state, reached)

        try:
            with saver.deferring_signals():
                while reached.epoch < num_epochs:
                    epoch = kind(batches(), self, state.module, state.optimiser, reached)
                    yield epoch
                    assert reached.step == per_epoch, "every batch of an epoch must be taken"
                    number = reached.epoch + 1
                    means = epoch.means()
                    self._end_epoch(phase, number, means)
                    text = " ".join(f"{name} {mean:.3g}" for name, mean in means.items())
                    self.progress.update(bar, description=f"{phase}, epoch {number}/{num_epochs}: {text}")
                    if schedule is not None and not isinstance(schedule, StepSchedule):
                        _step(schedule)
                    reached.epoch, reached.step, reached.sums = number, 0, {}
                    if number == num_epochs:
                        saver.maybe_save(state, reached, is_end=True)
        finally:
            self.progress.remove_task(bar)

    def _end_epoch(self, phase: str, number: int, means: dict[str, float]) -> None:
        """Keep the losses of an epoch.

        Raises:
            TrainingError: One is not finite; names it.
        """
        bad = [name for name, mean in means.items() if not math.isfinite(mean)]
        if bad:
            raise TrainingError(
                f"{phase}, epoch {number}: the loss {', '.join(bad)} is not finite; all terms: {means}"
            )
        self.losses.append({"phase": phase, "epoch": number, **means})
        self.epochs_done += 1
        self.tracker.scalars({f"loss/{k}": v for k, v in means.items()}, self.epochs_done)


class Epoch:
    """One pass over the training samples: iterate for its batches, ``step`` for each."""

    def __init__(
        self,
        batches: Iterator[Batch] | Iterator[RowBatch],
        trainer: Trainer,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        reached: PhaseProgress,
    ) -> None:
        self._batches = batches
        self._trainer = trainer
        self._module = module
        self._optimiser = optimiser
        self._reached = reached

    def __iter__(self) -> Iterator[Batch]:
        return cast("Iterator[Batch]", self._batches)

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
        scaler, part = self._trainer.scaler, current_part()
        self._optimiser.zero_grad(set_to_none=True)
        scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        if part is not None and part.team is not None:
            networks = _network_parameters(self._module)
            part.team.sum_gradients(networks)
            shared = {id(p) for p in networks}
            part.team.take_gradients(p for p in self._parameters() if id(p) not in shared)
        scaler.unscale_(self._optimiser)
        for name, value in losses.items():
            self._reached.sums[name] = self._reached.sums.get(name, 0) + value.detach()

    def update(self, clip_norm: float | None = None) -> None:
        """Step the optimiser by the gradients that are there; under fp16 not if one of them overflowed.

        Args:
            clip_norm: As in ``step``.
        """
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters(), clip_norm)
        self._trainer.scaler.step(self._optimiser)
        self._trainer.scaler.update()

    def means(self) -> dict[str, float]:
        """Return the mean of each loss term over the epoch's steps, in the order of their names."""
        return {name: float(total) / self._reached.step for name, total in sorted(self._reached.sums.items())}

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self._optimiser.param_groups for p in group["params"]]


def _taken(count: int, batch_size: int, *, drop_last: bool) -> int:
    """Return how many of so many clips or rows an epoch takes."""
    return count // batch_size * batch_size if drop_last and count >= batch_size else count


class RowEpoch(Epoch):
    """One pass over what a module holds: iterate over ``rows`` for its batches."""

    def rows(self) -> Iterator[RowBatch]:
        """Return the batches of places."""
        return cast("Iterator[RowBatch]", iter(self))


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


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Put a module's buffers back afterwards, such as what a pass in training mode does to batch norms."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in module.named_buffers():
            buffer.copy_(before[name])


def _step(schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Go on to a schedule's next rate."""
    with warnings.catch_warnings():
        # The optimiser's steps may have been taken by a process that died, which torch cannot know.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        schedule.step()


def _network_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a module's networks, of which a process computes its own clips' share."""
    networks = [m for m in module.modules() if isinstance(m, VideoNetwork)]
    return [p for network in networks for p in network.parameters()]
