"""Training of a method over small tasks, in memory: seeded, limited and restored as a run does it.

All that the contract's checks take from the run's machinery is taken here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vcil_bench.common.stopping import StopRequest
from vcil_bench.data.loader import Batch, ClipLoader, RowBatch, Sample
from vcil_bench.memory import exemplars_of
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.trunk import Trunk
from vcil_bench.protocol import ClipSpec, MemorySpec
from vcil_bench.run import seeded
from vcil_bench.run.global_state import SETTINGS
from vcil_bench.run.loop import within_reach
from vcil_bench.stream import Task
from vcil_bench.training import Trainer, checkpoint
from vcil_bench.training.resume import PhaseSaver

SEED = 1
SHRINKING = MemorySpec(total=4, frames=4)  # two exemplars of each of two classes, one of each of three
ONE_EACH = MemorySpec(per_class=1, frames=4)
State = dict[str, Tensor]


@dataclasses.dataclass
class _Stop:
    """A request to stop once so many training batches have been handed out.

    Attributes:
        request: Told to stop.
        at: Number of the batch, from 1; 0 for never.
        batches: Training batches handed out so far.
    """

    request: StopRequest = dataclasses.field(default_factory=StopRequest)
    at: int = 0
    batches: int = 0

    def count_batch(self) -> None:
        """Note that a training batch is handed out, and ask to stop at the one it was set to."""
        self.batches += 1
        if self.batches == self.at:
            self.request.ask()

    def restart(self) -> None:
        """Count from the beginning again."""
        self.batches = 0


class _CountingLoader(ClipLoader):
    """Counts training batches, and asks the run to stop at one of them."""

    def __init__(self, spec: ClipSpec, stop: _Stop) -> None:
        super().__init__(spec, decoder="pyav", workers=0, device=torch.device("cpu"), seed=SEED)
        self._stop = stop

    def training(self, *arguments: Any, **options: Any) -> Iterator[Batch]:
        for batch in super().training(*arguments, **options):
            self._stop.count_batch()
            yield batch

    def rows(self, *arguments: Any, **options: Any) -> Iterator[RowBatch]:
        for batch in super().rows(*arguments, **options):
            self._stop.count_batch()
            yield batch


@dataclasses.dataclass(frozen=True)
class Learnt:
    """A method after some tasks, and what was seen on the way.

    Attributes:
        method: In evaluation mode.
        states: Its state dict after each task.
        losses: Per task, the mean loss terms of every epoch.
        batches: Training batches of each task.
        exemplars: After each task, the exemplars in its memories.
        uses: What ``memory_use`` said after each task.
        reshaped: Names of parameters and buffers that ``learn`` made, dropped or gave another shape.
    """

    method: Method
    states: list[State] = dataclasses.field(default_factory=list)
    losses: list[list[dict[str, float | int | str]]] = dataclasses.field(default_factory=list)
    batches: list[int] = dataclasses.field(default_factory=list)
    exemplars: list[list[Sample]] = dataclasses.field(default_factory=list)
    uses: list[Any] = dataclasses.field(default_factory=list)
    reshaped: list[str] = dataclasses.field(default_factory=list)


class SmallRuns:
    """Runs of one method on one backbone.

    Attributes:
        changed: What calls of the method have changed in the process around them, put back since.
    """

    def __init__(self, cls: type[Method], config: Any, trunk: Trunk, budget: MemorySpec) -> None:
        """Fix what all runs share."""
        self.cls = cls
        self.config = config
        self.trunk = trunk
        self.budget = budget
        self.changed: list[str] = []
        self._clip = ClipSpec(frames=4, size=trunk.image_size, train_crop="center", flip=False)

    def construct(self, seed: int = SEED, stop: _Stop | None = None, saved: Path | None = None) -> Method:
        """Construct the method as a run does.

        Args:
            seed: Of its initial weights.
            stop: Interrupts its training.
            saved: The run's record, beside which the state inside a task is saved; None saves nothing.
        """
        stop = stop or _Stop()
        cpu, loader = torch.device("cpu"), _CountingLoader(self._clip, stop)
        trainer = Trainer(cpu, "fp32", loader, saver=PhaseSaver(saved, {}, stop=stop.request))
        context = RunContext(cpu, "fp32", loader, self.trunk, self.budget, trainer)
        with self._watched("__init__"):
            return seeded.construct(self.cls, self.config, context, seed)

    def grow(self, method: Method, task: Task) -> None:
        """Let the method grow by a task, its videos out of reach."""
        with self._watched("grow"), method.context.loader.limited_to((), lambda: ()):
            seeded.grow(method, task, SEED)

    def learn(self, method: Method, task: Task) -> None:
        """Let a method that has grown learn the task, whose videos and exemplars alone are in reach."""
        method.context.trainer.begin_task(task.index)
        with self._watched("learn"), within_reach(method, method.context, task):
            seeded.learn(method, task, SEED)
        method.eval()

    def learn_all(self, tasks: list[Task]) -> Learnt:
        """Construct the method and let it learn the tasks in turn."""
        stop = _Stop()
        learnt = Learnt(self.construct(stop=stop))
        for task in tasks:
            self._learn_next(learnt, task, stop)
        return learnt

    def resume(self, state: State, tasks: list[Task], folder: Path) -> Learnt:
        """Restore the method from its state after all tasks but the last, and let it learn that one.

        Args:
            state: The state dict.
            tasks: The tasks.
            folder: An empty folder for the state's file.
        """
        stop = _Stop()
        learnt = Learnt(self.restored(state, tasks[:-1], folder, stop=stop))
        self._learn_next(learnt, tasks[-1], stop)
        return learnt

    def resume_with_stops(
        self, state: State | None, tasks: list[Task], folder: Path, stops: list[int]
    ) -> Learnt:
        """Do as ``resume``, but interrupt the training and resume from what it saved.

        Args:
            state: The state dict after all tasks but the last; None where there is one task.
            tasks: The tasks.
            folder: An empty folder for the states' files.
            stops: Batches after which each session but the last is interrupted.
        """
        record = folder / "run.json"
        for number, at in enumerate(stops):
            stop = _Stop(at=at)
            method = self.restored(state, tasks[:-1], folder / str(number), stop=stop, saved=record)
            self.grow(method, tasks[-1])
            try:
                self.learn(method, tasks[-1])
            except KeyboardInterrupt:
                if not stop.request.asked:
                    raise
        stop = _Stop()
        learnt = Learnt(self.restored(state, tasks[:-1], folder / "last", stop=stop, saved=record))
        self._learn_next(learnt, tasks[-1], stop)
        return learnt

    def restored(
        self,
        state: State | None,
        tasks: list[Task],
        folder: Path,
        *,
        seed: int = SEED,
        stop: _Stop | None = None,
        saved: Path | None = None,
    ) -> Method:
        """Construct the method anew, replay ``grow`` and load a state through a file, as a resumed run does."""
        folder.mkdir(parents=True, exist_ok=True)
        method = self.construct(seed, stop, saved)
        if state is None:
            return method
        path = folder / "state.safetensors"
        checkpoint.write(path, state, {})
        for task in tasks:
            self.grow(method, task)
        method.load_state_dict(checkpoint.read(path)[0])
        return method.eval()

    def clips(self, samples: list[Sample]) -> Tensor:
        """Return the test clips of videos [B, T, 3, S, S] uint8."""
        loader = _CountingLoader(self._clip, _Stop())
        return torch.cat([batch.clips[:, 0] for batch in loader.views(samples, len(samples))])

    def predict(self, method: Method, clips: Tensor) -> dict[str, Tensor]:
        """Return what ``predict`` gives, called as a run calls it."""
        with self._watched("predict"), torch.inference_mode():
            return method.predict(clips)

    def _learn_next(self, learnt: Learnt, task: Task, stop: _Stop) -> None:
        method = learnt.method
        self.grow(method, task)
        before = {name: tensor.shape for name, tensor in method.state_dict().items()}
        stop.restart()
        self.learn(method, task)
        state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        after = {name: tensor.shape for name, tensor in state.items()}
        learnt.reshaped.extend(sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n)))
        learnt.states.append(state)
        learnt.losses.append(list(method.context.trainer.losses))
        learnt.batches.append(stop.batches)
        learnt.exemplars.append(exemplars_of(method))
        learnt.uses.append(method.memory_use())

    @contextmanager
    def _watched(self, call: str) -> Iterator[None]:
        """Put back what a call of the method's code changes in the process around it, and note it."""
        before = [setting.read() for setting in SETTINGS]
        with ExitStack() as stack:
            for setting, old in zip(SETTINGS, before, strict=True):
                stack.callback(self._put_back, call, setting, old)
            yield

    def _put_back(self, call: str, setting: Any, old: Any) -> None:
        now = setting.read()
        if now != old:
            self.changed.append(f"{call} changed {setting.name} from {old} to {now}")
            setting.put_back(old)
