"""Stages: what lets a run that dies inside a task go on from its last minutes instead of the task's beginning.

``learn`` is one function that each method writes in its own order, so it cannot be entered in the middle. A
resumed run calls it again from the state the task began with; whatever it computes outside of training (an old
model's copy, importance, exemplars) comes out as before, and a stage of training (``training.epochs``) whose end
or middle was saved puts that state in place and yields only the steps that are left. So ``learn`` must keep what
it carries from one step of a stage to the next in parameters or buffers.

Saved per stage: the method's state, the optimiser's and the schedule's, gradients that pile up outside the
optimiser, all random generators, losses and seconds so far.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vcil_bench.common.files import remove
from vcil_bench.identity import differences, in_words
from vcil_bench.nets.parallel.team import Team
from vcil_bench.run.files import stage_files, stage_path
from vcil_bench.run.stopping import StopRequest

from . import checkpoint

if TYPE_CHECKING:
    from vcil_bench.method import RunContext


@dataclasses.dataclass
class Place:
    """Where a stage stands.

    Attributes:
        epoch: Epoch in work; the number of epochs when the stage is over.
        step: Steps of it that are done.
        sums: Sum of every loss term over these steps.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = dataclasses.field(default_factory=dict)


class Stages:
    """The stages of the task in work; without a folder nothing is saved."""

    def __init__(
        self,
        path: Path | None = None,
        identity: dict[str, str] | None = None,
        every_s: float = float("inf"),
        team: Team | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        """Remember where states go.

        Args:
            path: The record's; states lie beside it, one file a stage. None saves nothing.
            identity: What must agree for a run to go on.
            every_s: Seconds between two states of a stage; its end is saved in any case.
            team: The processes of the run, of which the first writes.
            stop: Tells whether the process was asked to stop.
        """
        self.resumed = False
        self._path = path
        self._identity = identity
        self._every_s = every_s
        self._team = team or Team()
        self._stop = stop or StopRequest()
        self._names: list[str] = []
        self._draws: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._task = 0
        self._started = self._saved = time.perf_counter()
        self._spent_s = 0.0
        self._peak_mb = 0.0

    def begin(self, task: int) -> None:
        """Begin a task; states left over from another one are of no use any more."""
        self.resumed = False
        self._names = []
        self._task = task
        self._started = self._saved = time.perf_counter()
        self._spent_s = self._peak_mb = 0.0

    def end(self) -> None:
        """Drop the states of a task whose result is safe."""
        self._team.wait()
        if self._team.leads:
            self.clear()

    def any_saved(self) -> bool:
        """Tell whether the task can be gone on with from its middle."""
        return bool(self._files())

    def clear(self) -> None:
        """Delete all states of stages."""
        for path in self._files():
            remove(path)

    def train_s(self) -> float:
        """Return the seconds spent on the task's training, those of sessions that died included."""
        return self._spent_s + time.perf_counter() - self._started

    def peak_mb(self, now: float) -> float:
        """Return the largest memory use of all sessions of the task."""
        return max(self._peak_mb, now)

    def enter(
        self,
        context: RunContext,
        stage: str,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None,
    ) -> Place:
        """Begin a stage, or put its saved state in place.

        Raises:
            CheckpointError: The state is damaged or of another run.
        """
        assert stage not in self._names, f"two stages of a task are named {stage!r}"
        self._names.append(stage)
        path = self._file()
        if path is None or not path.exists():
            return Place()
        tensors, meta = checkpoint.read(path, ("task", "stage"))
        if meta["task"] != self._task:
            return Place()
        check_identity(path, meta["identity"], self._identity or {})
        assert meta["stage"] == stage, f"{path}: {meta['stage']!r} is saved where {stage!r} begins"
        self._restore(context, optimiser, schedule, tensors, meta)
        self._team.wait()  # or the first process might write before the others have read
        self.resumed = True
        self._spent_s, self._peak_mb = meta["train_s"], meta["peak_mb"]
        self._started = self._saved = time.perf_counter()
        return Place(meta["epoch"], meta["step"], checkpoint.under("sums/", tensors))

    def set_draws(self, context: RunContext) -> None:
        """Put the random generators back where a resumed stage left them, its data being under way."""
        if self._draws is not None:
            _set_draws(*self._draws, context.device)
            self._draws = None

    def passed(
        self,
        context: RunContext,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None,
        place: Place,
        *,
        is_end: bool = False,
    ) -> None:
        """Save the state between two steps if it is time, or if this is the end of the stage.

        Raises:
            StorageError: The file cannot be written.
            KeyboardInterrupt: The process was asked to stop, and the state is safe.
        """
        asked = self._team.any(self._stop.asked)
        due = is_end or asked or time.perf_counter() - self._saved >= self._every_s
        path = self._file()
        if due and path is not None and self._team.leads:
            self._save(context, optimiser, schedule, place, path)
        if due:
            self._saved = time.perf_counter()
        if asked:
            self._team.leave()  # together, or the first might be ended with the others before it has saved
            raise KeyboardInterrupt

    def lost_data(
        self,
        context: RunContext,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None,
        place: Place,
    ) -> None:
        """Follow a request to stop where no batch comes any more: the same signal has ended the workers.

        Raises:
            StorageError: The file cannot be written.
            KeyboardInterrupt: The process was asked to stop, and the state is safe.
        """
        if self._stop.asked and self._team.size == 1:  # others may be in the middle of a step
            self.passed(context, optimiser, schedule, place)

    @contextmanager
    def stopping_softly(self) -> Iterator[None]:
        """Take a request to stop as one to save first, while a stage trains."""
        with self._stop.held_back(even_twice=self._team.size > 1):
            yield

    def _file(self) -> Path | None:
        """Return where the state of the stage in work lies."""
        return None if self._path is None else stage_path(self._path, len(self._names))

    def _files(self) -> list[Path]:
        return [] if self._path is None else stage_files(self._path)

    def _save(
        self,
        context: RunContext,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None,
        place: Place,
        path: Path,
    ) -> None:
        method = context.method
        assert method is not None
        moments, groups = _optimiser_state(optimiser)
        draws, plain_draws = _draws(context.device)
        own = {id(p) for group in optimiser.param_groups for p in group["params"]}
        piled = {n: p.grad for n, p in method.named_parameters() if p.grad is not None and id(p) not in own}
        parts = {
            "state": method.state_dict(),
            "optimiser": moments,
            "gradient": piled,
            "draws": draws,
            "sums": place.sums,
        }
        meta = {
            "identity": self._identity,
            "task": self._task,
            "stage": self._names[-1],
            "epoch": place.epoch,
            "step": place.step,
            "losses": context.losses,
            "epochs_done": context.epochs_done,
            "groups": groups,
            "schedule": _plain(schedule.state_dict()) if schedule is not None else {},
            "scaler": context.scaler.state_dict(),
            "draws": plain_draws,
            "train_s": self.train_s(),
            "peak_mb": self.peak_mb(context.peak_mb()),
            "waited_s": context.loader.clock.waited,
        }
        tensors = {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()}
        checkpoint.write(path, tensors, meta)

    def _restore(
        self,
        context: RunContext,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
    ) -> None:
        method = context.method
        assert method is not None
        method.load_state_dict(checkpoint.under("state/", tensors))
        piled = checkpoint.under("gradient/", tensors)
        for name, parameter in method.named_parameters():
            parameter.grad = piled[name].to(parameter.device) if name in piled else None
        _load_optimiser(optimiser, checkpoint.under("optimiser/", tensors), meta["groups"])
        if schedule is not None:
            schedule.load_state_dict(schedule.state_dict() | meta["schedule"])
        context.scaler.load_state_dict(meta["scaler"])
        context.losses[:] = meta["losses"]
        context.epochs_done = meta["epochs_done"]
        context.loader.clock.waited = meta["waited_s"]
        self._draws = checkpoint.under("draws/", tensors), meta["draws"]


def check_identity(path: Path, saved: dict[str, str], now: dict[str, str]) -> None:
    """Refuse a state made under other conditions, since what follows would be neither run's result.

    Raises:
        CheckpointError: Names what has changed.
    """
    changed = differences(saved, now)
    if changed:
        raise checkpoint.CheckpointError(
            f"{path}: saved by a run with another {in_words(changed)}; go on under the same conditions, or "
            f"{checkpoint.ADVICE}"
        )


def _optimiser_state(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return an optimiser's tensors by ``<parameter>/<name>``, and the plain values of its groups."""
    state = optimiser.state_dict()
    tensors = {
        f"{number}/{name}": value
        for number, values in state["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    return tensors, [_plain(group) for group in state["param_groups"]]


def _load_optimiser(
    optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    state = optimiser.state_dict()
    state["state"] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition("/")
        state["state"].setdefault(int(number), {})[key] = tensor
    for group, saved in zip(state["param_groups"], groups, strict=True):
        group.update(saved)
    optimiser.load_state_dict(state)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers, texts and lists of floats of a state; what else it has comes from its constructor."""

    def plain(value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return all(isinstance(each, float) for each in value)
        return isinstance(value, (bool, int, float, str))

    return {key: value for key, value in state.items() if key != "params" and plain(value)}


def _draws(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of every global random generator."""
    kind, numbers, position, has_gauss, gauss = np.random.get_state()
    version, words, next_gauss = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(numbers, dtype=np.int64)),
        "python": torch.tensor(words, dtype=torch.int64),
    }
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    return tensors, {"numpy": [kind, position, has_gauss, gauss], "python": [version, next_gauss]}


def _set_draws(tensors: dict[str, Tensor], plain: dict[str, Any], device: torch.device) -> None:
    kind, position, has_gauss, gauss = plain["numpy"]
    version, next_gauss = plain["python"]
    torch.set_rng_state(tensors["torch"])
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate((version, tuple(tensors["python"].tolist()), next_gauss))
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)
