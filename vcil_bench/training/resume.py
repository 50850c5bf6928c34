"""Checkpoints in the middle of a task: saves and restores a phase of training between two of its steps.

``learn`` is one function that each method writes in its own order, so it cannot be entered in the middle. A
resumed run calls it again from the state the task began with; whatever it computes outside of training (an old
model's copy, importance, exemplars) comes out as before, and a phase of training (``Trainer.epochs``) whose end
or middle was saved is restored and yields only the steps that are left. So ``learn`` must keep what it carries
from one step of a phase to the next in parameters or buffers.

Saved per phase: the module's state, the optimiser's and the schedule's, the trainer's, all random generators.
Gradients are not: what is to outlive a step is the optimiser's state or the module's.
"""

from __future__ import annotations

import dataclasses
import glob
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from vcil_bench.common.files import remove
from vcil_bench.common.stopping import StopRequest
from vcil_bench.identity import differences, in_words
from vcil_bench.nets.parallel.team import Team

from . import checkpoint


@dataclasses.dataclass
class PhaseProgress:
    """Epoch and step that a phase of training has reached.

    Attributes:
        epoch: Epoch in work, from 0; the number of epochs when the phase is over.
        step: Steps of it that are done.
        sums: Sum of every loss term over these steps.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = dataclasses.field(default_factory=dict)


class Resumable(Protocol):
    """What else changes while training, with plain data as its state: a ``Trainer``."""

    device: torch.device

    def state_dict(self) -> dict[str, Any]:
        """Return its state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A phase of training: its name, and what changes in it and is saved.

    Attributes:
        name: Unlike that of any other phase of the task.
        module: Has all the networks that train.
        optimiser: Steps its parameters.
        schedule: Of the rate; None where that is constant.
        trainer: What else changes.
    """

    name: str
    module: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: LRScheduler | None
    trainer: Resumable


class PhaseSaver:
    """Saves and restores the phases of the task in work; without a path nothing is saved."""

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
            path: The record's; states lie beside it, one file a phase. None saves nothing.
            identity: What must agree for a run to go on.
            every_s: Seconds between two states of a phase; its end is saved in any case.
            team: The processes of the run, of which the first writes.
            stop: Tells whether the process was asked to stop.
        """
        self._path = path
        self._identity = identity
        self._every_s = every_s
        self._team = team or Team()
        self._stop = stop or StopRequest()
        self._names: list[str] = []
        self._rng_state: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._task = 0
        self._saved = time.perf_counter()

    def begin_task(self, task: int) -> None:
        """Begin a task; states left over from another one are of no use any more."""
        self._names = []
        self._task = task
        self._saved = time.perf_counter()

    def end_task(self) -> None:
        """Drop the states of a task whose result is safe."""
        self._team.barrier()
        if self._team.is_main:
            self.clear()

    def any_saved(self) -> bool:
        """Tell whether the task can be resumed in its middle."""
        return bool(self._files())

    def clear(self) -> None:
        """Delete all states of phases."""
        for path in self._files():
            remove(path)

    def restore(self, phase: Phase) -> PhaseProgress:
        """Begin a phase, or put its saved state in place and return how far it had come.

        Raises:
            CheckpointError: The state is damaged or of another run.
        """
        assert phase.name not in self._names, f"two phases of a task are named {phase.name!r}"
        self._names.append(phase.name)
        path = self._file()
        if path is None or not path.exists():
            return PhaseProgress()
        tensors, meta = checkpoint.read(path, ("task", "phase"))
        if meta["task"] != self._task:
            return PhaseProgress()
        check_identity(path, meta["identity"], self._identity or {})
        assert meta["phase"] == phase.name, f"{path}: {meta['phase']!r} is saved where {phase.name!r} begins"
        phase.module.load_state_dict(checkpoint.under("state/", tensors))
        _load_optimiser(phase.optimiser, checkpoint.under("optimiser/", tensors), meta["groups"])
        if phase.schedule is not None:
            phase.schedule.load_state_dict(phase.schedule.state_dict() | meta["schedule"])
        phase.trainer.load_state_dict(meta["trainer"])
        self._rng_state = checkpoint.under("rng/", tensors), meta["rng"]
        self._team.barrier()  # or the first process might write before the others have read
        self._saved = time.perf_counter()
        return PhaseProgress(meta["epoch"], meta["step"], checkpoint.under("sums/", tensors))

    def restore_rng_state(self, device: torch.device) -> None:
        """Put the random generators back where a restored phase left them, its data being under way."""
        if self._rng_state is not None:
            _set_rng_state(*self._rng_state, device)
            self._rng_state = None

    def maybe_save(self, phase: Phase, progress: PhaseProgress, *, is_end: bool = False) -> None:
        """Save the state between two steps if it is time, or if this is the end of the phase.

        Raises:
            StorageError: The file cannot be written.
            KeyboardInterrupt: The process was asked to stop, and the state is safe.
        """
        asked = self._team.any(self._stop.asked)
        due = is_end or asked or time.perf_counter() - self._saved >= self._every_s
        path = self._file()
        if due and path is not None and self._team.is_main:
            self._save(path, phase, progress)
        if due:
            self._saved = time.perf_counter()
        if asked:
            self._team.shutdown()  # together, or the first might be ended with the others before it has saved
            raise KeyboardInterrupt

    def save_if_stopped(self, phase: Phase, progress: PhaseProgress) -> None:
        """Follow a request to stop where no batch comes any more: the same signal has ended the workers.

        Raises:
            StorageError: The file cannot be written.
            KeyboardInterrupt: The process was asked to stop, and the state is safe.
        """
        if self._stop.asked and self._team.size == 1:  # others may be in the middle of a step
            self.maybe_save(phase, progress)

    @contextmanager
    def deferring_signals(self) -> Iterator[None]:
        """Take a request to stop as one to save first, while a phase trains."""
        with self._stop.held_back(even_twice=self._team.size > 1):
            yield

    def _file(self) -> Path | None:
        """Return where the state of the phase in work lies."""
        return None if self._path is None else phase_path(self._path, len(self._names))

    def _files(self) -> list[Path]:
        return [] if self._path is None else phase_files(self._path)

    def _save(self, path: Path, phase: Phase, progress: PhaseProgress) -> None:
        moments, groups = _optimiser_state(phase.optimiser)
        rng, plain_rng = _rng_state(phase.trainer.device)
        parts = {"state": phase.module.state_dict(), "optimiser": moments, "rng": rng, "sums": progress.sums}
        meta = {
            "identity": self._identity,
            "task": self._task,
            "phase": phase.name,
            "epoch": progress.epoch,
            "step": progress.step,
            "groups": groups,
            "schedule": _plain(phase.schedule.state_dict()) if phase.schedule is not None else {},
            "trainer": phase.trainer.state_dict(),
            "rng": plain_rng,
        }
        tensors = {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()}
        checkpoint.write(path, tensors, meta)


def check_identity(path: Path, saved: dict[str, str], now: dict[str, str]) -> None:
    """Refuse a state made under other conditions, since what follows would be neither run's result.

    Raises:
        CheckpointError: Names what has changed.
    """
    changed = differences(saved, now)
    if changed:
        raise checkpoint.CheckpointError(
            f"{path}: saved by a run with another {in_words(changed)}; restore these, or {checkpoint.ADVICE}"
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


def _rng_state(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
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


def _set_rng_state(tensors: dict[str, Tensor], plain: dict[str, Any], device: torch.device) -> None:
    kind, position, has_gauss, gauss = plain["numpy"]
    version, next_gauss = plain["python"]
    torch.set_rng_state(tensors["torch"])
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate((version, tuple(tensors["python"].tolist()), next_gauss))
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)


def phase_path(record: Path, number: int) -> Path:
    """Return where the state of a task's phase lies; the first has number 1."""
    return record.with_name(f"{record.stem}.phase-{number}.safetensors")


def phase_files(record: Path) -> list[Path]:
    """Return the states of phases that are there."""
    return sorted(record.parent.glob(f"{glob.escape(record.stem)}.phase-*.safetensors"))
