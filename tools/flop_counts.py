"""Operations of a whole run, counted on small ones: a method's own code, on the real network at full size.

A run of three tasks with a few videos each is counted phase by phase by the harness's own counter
(``vcil_bench/training/flops.py``), together with what each phase visits: videos of the task, exemplars of new
and of old classes, for how many epochs. ``work`` multiplies that by the visits of a protocol. Tests hold it to
what records of whole runs have counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pretended_compute import Pretended

from vcil_bench.data.clips import SecondClip
from vcil_bench.data.loader import PLAIN, VIEWS, Batch, ClipLoader, Item, RowBatch, Sample
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.parallel.team import Team
from vcil_bench.protocol import Protocol
from vcil_bench.run import seeded
from vcil_bench.run.loop import within_reach
from vcil_bench.run.plan import plain_values
from vcil_bench.stream import Task
from vcil_bench.training import Trainer
from vcil_bench.training.flops import FlopCount

TASKS, CLASSES, VIDEOS, FRAMES = 3, 2, 2, 32  # of the small run: classes a task, videos a class, frames a video
SEED = 1


@dataclass(frozen=True)
class Visits:
    """What a phase passes over: shares of the videos of the task and of exemplars of new and old classes.

    Attributes:
        task: Share of the task's training videos.
        new: Exemplars of new classes, as a share of what the memory keeps of them.
        old: The same of old classes.
        rows: Rows that a method holds itself, per training video of the task.
        epochs: Passes.
        batch: Videos a step, where an epoch leaves its incomplete last batch out; None where it does not.
    """

    task: float = 0.0
    new: float = 0.0
    old: float = 0.0
    rows: float = 0.0
    epochs: int = 1
    batch: int | None = None

    def clips(self, videos: float, new: float, old: float) -> float:
        """Return the clips of a pass, given the videos of the task and the exemplars."""
        clips = self.task * videos + self.new * new + self.old * old + self.rows * videos
        return clips // self.batch * self.batch if self.batch and clips >= self.batch else clips


@dataclass(frozen=True)
class Line:
    """A phase of a task's training.

    Attributes:
        phase: Its name; of a pass that trains nothing, "".
        flops: Floating-point operations for a clip, or a row.
        visits: What it passes over.
    """

    phase: str
    flops: float
    visits: Visits


@dataclass(frozen=True)
class Counted:
    """A method on a backbone, counted.

    Attributes:
        method: Its name.
        backbone: Of the backbone.
        config: The method's, as resolved for the protocol it was counted on.
        frames: Of a clip.
        learn: Phases of each task of the small run.
        test: Operations of predicting a clip after each.
        state_bytes: What a saved state takes after each.
        trainable: Parameters that train, in each.
    """

    method: str
    backbone: str
    config: dict[str, Any]
    frames: int
    learn: list[list[Line]]
    test: list[float]
    state_bytes: list[int]
    trainable: list[int]


LATER = ", later"  # the end of what the counter calls the epochs of a phase after its first


class _Ledger(FlopCount):
    """The harness's counter, which also keeps what was counted phase by phase."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.visits: dict[str | None, Visits] = {}  # by phase; None for a pass that trains nothing
        self.epochs: dict[str, int] = {}  # of phases, as the method asked for them
        super().__init__("cpu", counts=True)

    @contextmanager
    def standing_for(self, others: float, name: str | None = None) -> Iterator[None]:
        before = self.total or 0.0
        with super().standing_for(others, name):
            yield
        counted = (self.total or 0.0) - before
        if counted:
            later = name is not None and name.endswith(LATER)
            visits = self.visits[name.removesuffix(LATER) if name is not None else None]
            clips = dataclasses.replace(visits, batch=None).clips(self.videos, CLASSES, self.old)
            epochs = visits.epochs - 1 if later else 1
            self.lines.append(Line(name or "", counted / clips, dataclasses.replace(visits, epochs=epochs)))

    def begin(self, task: Task) -> None:
        """Follow the training of a task."""
        self.lines = []
        self.visits.clear()
        self.task = task
        self.videos, self.old = len(task.train), task.num_old

    def note(self, samples: Sequence[Sample], phase: str | None, batch: int | None = None) -> None:
        """Note what a pass goes over; of a class that is there whole, these are the task's videos."""
        of = Counter(sample.label for sample in samples)
        own = {sample.label for sample in self.task.train}
        whole = sum(count for label, count in of.items() if label in own and count >= VIDEOS)
        new = sum(count for label, count in of.items() if label in own and count < VIDEOS)
        old = len(samples) - whole - new
        epochs = self.epochs.get(phase, 1) if phase is not None else 1
        self.visits[phase] = Visits(
            whole / self.videos, new / CLASSES, old / self.old if old else 0.0, 0.0, epochs, batch
        )

    def note_rows(self, count: int, phase: str) -> None:
        """Note a pass over rows that a method holds."""
        self.visits[phase] = Visits(rows=count / self.videos, epochs=self.epochs.get(phase, 1))


class _NoiseLoader(ClipLoader):
    """Gives noise for clips, without reading videos, and tells the ledger what is asked for."""

    ledger: _Ledger

    def training(
        self, samples: Sequence[Sample], epochs: int, batch_size: int, phase: str, **options: Any
    ) -> Iterator[Batch]:
        self.ledger.note(samples, phase, batch_size if options.get("drop_last") else None)
        return super().training(samples, epochs, batch_size, phase, **options)

    def plain(self, samples: Sequence[Sample], batch_size: int) -> Iterator[Batch]:
        self.ledger.note(samples, None)
        return super().plain(samples, batch_size)

    def rows(self, count: int, epochs: int, batch_size: int, phase: str, **options: Any) -> Iterator[RowBatch]:
        self.ledger.note_rows(count, phase)
        return super().rows(count, epochs, batch_size, phase, **options)

    def _batches(
        self,
        samples: Sequence[Sample],
        plan: Iterator[list[Item]],
        shape: tuple[int, ...],
        phase: str,
        team: Team,
        second: SecondClip | None = None,
    ) -> Iterator[Batch]:
        side = self.spec.size
        for items in plan:
            # Of a batch that trains its first and its last will do, since the counter takes them for the others.
            batch = items if items[0][0] in (PLAIN, VIEWS) else list(dict.fromkeys([items[0], items[-1]]))
            clips = torch.randint(0, 256, (len(batch), *shape[1:], self.spec.frames, 3, side, side)).byte()
            labels = torch.tensor([samples[position].label for _, position in batch])
            yield Batch(clips, labels) if second is None else Batch(clips[:, 0], labels, None, clips[:, 1])


class _ShortTrainer(Trainer):
    """Trains two epochs of every phase, the first and one of those that follow."""

    def epochs(self, *arguments: Any, num_epochs: int, phase: str, **options: Any) -> Iterator[Any]:
        self.flops.epochs[phase] = num_epochs  # type: ignore[attr-defined]
        return super().epochs(*arguments, num_epochs=min(2, num_epochs), phase=phase, **options)

    def row_epochs(self, *arguments: Any, num_epochs: int, phase: str, **options: Any) -> Iterator[Any]:
        self.flops.epochs[phase] = num_epochs  # type: ignore[attr-defined]
        return super().row_epochs(*arguments, num_epochs=min(2, num_epochs), phase=phase, **options)


def count(
    cls: type[Method], protocol: Protocol, name: str | None = None, *, pretend: bool = True, **config: Any
) -> Counted:
    """Count a method by a small run.

    Args:
        cls: The method.
        protocol: Whose recipe, clips and exemplar frames are taken.
        name: Of the backbone; by default the one the method takes on the protocol.
        pretend: Do not compute the networks' products.
        config: What differs from the method's config on the protocol.
    """
    spec = protocol.spec
    name = name or cls.backbone_for(spec.name)[0]
    resolved = cls.resolve_config(spec.name, config)[0]
    cpu = torch.device("cpu")
    ledger = _Ledger()
    with Pretended() if pretend else nullcontext():
        trunk = backbone(name).load("random")
        loader = _NoiseLoader(spec.clip, decoder="pyav", workers=0, device=cpu, seed=SEED)
        loader.ledger = ledger
        trainer = _ShortTrainer(cpu, "fp32", loader)
        trainer.flops = ledger
        memory = spec.memory and dataclasses.replace(spec.memory, per_class=1, total=None)
        context = RunContext(cpu, "fp32", loader, trunk, memory, trainer, TASKS)
        method = seeded.construct(cls, resolved, context, SEED)
        learn, test, state_bytes, trainable = [], [], [], []
        for index in range(TASKS):
            task = _task(index, cumulative=cls.data_access == "cumulative")
            trainer.begin_task(index)
            ledger.begin(task)
            with within_reach(method, context, task):
                seeded.grow(method, task, SEED)
                seeded.learn(method, task, SEED)
            ledger.stop()
            learn.append(ledger.lines)
            method.eval()
            clips = torch.randint(0, 256, (1, spec.clip.frames, 3, spec.clip.size, spec.clip.size)).byte()
            with torch.inference_mode(), ledger.apart() as numbers:
                method.predict(clips)
            test.append(float(numbers[0]))
            state_bytes.append(sum(t.numel() * t.element_size() for t in method.state_dict().values()))
            trainable.append(sum(p.numel() for p in method.parameters() if p.requires_grad))
    return Counted(cls.name, name, plain_values(resolved), spec.clip.frames, learn, test, state_bytes, trainable)


def _task(index: int, *, cumulative: bool) -> Task:
    """Return a task of the small run."""
    old = CLASSES * index
    ids = tuple(range(old, old + CLASSES))
    train = tuple(
        Sample(f"{label}/{number}", f"{label}/{number}.avi", label, FRAMES)
        for label in range(0 if cumulative else old, old + CLASSES)
        for number in range(VIDEOS)
    )
    return Task(index, ids, tuple(f"class {i}" for i in ids), old, train)


@dataclass(frozen=True)
class Step:
    """Work of one task of a full run, in videos.

    Attributes:
        videos: Training videos; for a method with cumulative access of all tasks so far.
        new: Exemplars kept of its classes.
        old: Exemplars kept of older classes when it begins.
        tested: Test videos of all classes so far.
    """

    videos: float
    new: float
    old: float
    tested: float


@dataclass(frozen=True)
class Work:
    """Operations and clips of a task of a full run: training, then the tests after it."""

    train_flops: float
    test_flops: float
    train_clips: float
    test_clips: float


def work(counted: Counted, steps: Sequence[Step], views: int = 1) -> list[Work]:
    """Extrapolate from a small run: tasks after the third go on growing as from the second to the third.

    Args:
        counted: The small run.
        steps: Of the full run.
        views: Clips and crops of a test video.
    """
    made = []
    for number, step in enumerate(steps):
        train = growing([_train_flops(lines, step) for lines in counted.learn], number)
        test = growing(counted.test, number)
        lines = counted.learn[min(number, TASKS - 1)]
        clips = sum(
            v.epochs * dataclasses.replace(v, rows=0.0).clips(step.videos, step.new, step.old)
            for v in (line.visits for line in lines)
        )
        tested = step.tested * views
        made.append(Work(train, test * tested, clips, tested))
    return made


def growing(values: Sequence[float], number: int) -> float:
    """Return a quantity of a task from those of the first three: it goes on as from the second to the third."""
    return values[number] if number < TASKS else values[-1] + (number - TASKS + 1) * (values[-1] - values[-2])


def _train_flops(lines: Sequence[Line], step: Step) -> float:
    return sum(
        line.flops * line.visits.epochs * line.visits.clips(step.videos, step.new, step.old) for line in lines
    )
