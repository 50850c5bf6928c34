"""StPR in its first increment on clips that cost nothing to load, so that a step's time is the step's alone.

What the doctor measures of a training step, and the benchmarks with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from vcil_bench import protocol, registry
from vcil_bench.data.loader import Batch, ClipLoader, LoaderClock, Sample
from vcil_bench.method import RunContext
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.compute import PLAIN, ComputeOptions
from vcil_bench.nets.trunk import Trunk
from vcil_bench.stream import Task
from vcil_bench.training import Trainer

PROTOCOL = "tcd_ucf101_10x5"
OLD, NEW = 4, 2


class SteadyClips:
    """In the loader's place: the same random clips again and again, and the moments at which they were taken."""

    def __init__(
        self, batch: int, steps: int, device: torch.device, size: int = 224, few: int | None = None
    ) -> None:
        """Make one batch of clips of the protocol's length.

        Args:
            batch: Clips of it.
            steps: How often it is yielded.
            device: Where it lies.
            size: Side of a frame in pixels.
            few: Samples of which ``plain`` gives a clip, the first ones; None for all.
        """
        self.spec = protocol.load(PROTOCOL).spec.clip
        self.clock = LoaderClock()
        self.steps = steps
        self.few = few
        self.taken: list[float] = []
        shape = (batch, self.spec.frames, 3, size, size)
        self.clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        self._device = device

    def training(self, samples: Sequence[Sample], *arguments: Any, **more: Any) -> Iterator[Batch]:
        """Yield the batch, all of it of new classes."""
        labels = OLD + torch.arange(len(self.clips), device=self._device) % NEW
        for _ in range(len(samples) // len(self.clips)):
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self.taken.append(time.perf_counter())
            yield Batch(self.clips, labels)

    def plain(self, samples: Sequence[Sample], batch_size: int) -> Iterator[Batch]:
        """Yield one clip of each sample, or of a few."""
        labels = torch.tensor([sample.label for sample in samples[: self.few]], device=self._device)
        yield Batch(self.clips[:1].expand(len(labels), -1, -1, -1, -1), labels)

    def step_s(self) -> float:
        """Return the mean seconds of the steps after the first, and forget them."""
        spans = [b - a for a, b in zip(self.taken[1:], self.taken[2:], strict=False)]
        self.taken.clear()
        return sum(spans) / len(spans)


def trunk_of(name: str, device: torch.device, compute: ComputeOptions = PLAIN) -> Trunk:
    """Load a backbone with random weights, which cost what trained ones do."""
    return backbone(name).load("random", compute).to(device)


def stpr(
    trunk: Trunk,
    loader: SteadyClips,
    device: torch.device,
    tasks: int = 2,
    read_from: ClipLoader | None = None,
    **config: Any,
) -> tuple[Any, Task]:
    """Return StPR grown to its last task, and that task with as many samples as the loader has steps for.

    Args:
        trunk: The backbone.
        loader: Gives the clips.
        device: Where to.
        tasks: Tasks grown, and so experts.
        read_from: Gives the clips instead.
        config: What differs from the paper's.
    """
    source: Any = read_from or loader
    precision = trunk.compute.precision
    context = RunContext(device, precision, source, trunk, None, Trainer(device, precision, source))
    values = {"epochs": 1, "epochs_first": 1, "batch_size": len(loader.clips)} | config
    cls = registry.find("stpr").cls
    assert cls is not None
    method = cls(cls.resolve_config("benchmark", values)[0], context)
    task = None
    for index in range(tasks):
        old = 0 if index == 0 else OLD + NEW * (index - 1)
        ids = tuple(range(old, old + (NEW if index else OLD)))
        names = tuple(f"class {i}" for i in ids)
        videos = len(loader.clips) * loader.steps
        samples = tuple(Sample(str(i), "", ids[i % len(ids)], 8) for i in range(videos))
        task = Task(index, ids, names, old, samples)
        method.grow(task)
        method.to(device)
    assert task is not None
    return method, task


def learn(method: Any, task: Task) -> float:
    """Train the task and return the mean seconds of a step."""
    loader = method.context.loader
    assert isinstance(loader, SteadyClips)
    method.train()
    method.context.trainer.begin_task(task.index)
    method.learn(task)
    if loader.taken and method.context.device.type == "cuda":
        torch.cuda.synchronize(method.context.device)
    return loader.step_s()
