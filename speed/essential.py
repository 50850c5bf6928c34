"""ESSENTIAL's epochs: fixed views are read and encoded once a task, random ones in every epoch."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import Row, hand_over
from made_videos import UCF101, make

from vcil_bench import protocol
from vcil_bench.data.loader import ClipLoader, Sample
from vcil_bench.doctor.steady import PROTOCOL, trunk_of
from vcil_bench.method import RunContext
from vcil_bench.methods.essential import ESSENTIAL
from vcil_bench.stream import Task
from vcil_bench.training import Trainer

BACKBONE, CLASSES, VIDEOS, BATCH, EPOCHS = "clip_vit_b16", 4, 8, 4, 2


@dataclass
class Epochs:
    """In a tracker's place: the moments at which epochs end, and how long the run had waited for data.

    Attributes:
        loader: Whose waiting counts.
        moments: Seconds on the clock and seconds waited, at the start and at the end of every epoch.
    """

    loader: ClipLoader
    moments: list[tuple[float, float]] = field(default_factory=list)

    def note(self) -> None:
        """Note the moment."""
        self.moments.append((time.perf_counter(), self.loader.clock.waited))

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Note the end of an epoch."""
        self.note()

    def close(self) -> None:
        """End."""

    def spans(self) -> list[tuple[float, float]]:
        """Return seconds and seconds waited of every epoch; the first with what was done before it."""
        pairs = zip(self.moments, self.moments[1:], strict=False)
        return [(end - start, later - waited) for (start, waited), (end, later) in pairs]


def main() -> None:
    """Measure and hand over."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [make(UCF101, number, Path(folder)) for number in range(VIDEOS)]
        found = {views: epochs(paths, views) for views in ("fixed", "random")}
    how = (
        f"ViT-B-16, fp32; {VIDEOS} videos {UCF101.name} ({UCF101}), decoded in this process; batches of {BATCH}"
    )
    rows = []
    for views, spans in found.items():
        stage = spans[:EPOCHS]
        first, (later, waited) = stage[0], (mean(column) for column in zip(*stage[1:], strict=True))
        rows += [
            Row(f"{views} views, first epoch", f"{first[0]:.2f} s, {first[1]:.2f} s waiting for data", note=how),
            Row(f"{views} views, a later epoch", f"{later:.2f} s, {waited:.2f} s waiting for data"),
            Row(f"{views} views, a step of a later epoch", f"{1000 * later * BATCH / VIDEOS:.0f} ms"),
        ]
    rehearsal = found["fixed"][EPOCHS:]
    later, waited = (mean(column) for column in zip(*rehearsal[1:], strict=True))
    rows.append(Row("rehearsal, a later epoch", f"{later:.2f} s, {waited:.2f} s waiting for data"))
    of_random = mean(span for span, _ in found["random"][1:EPOCHS])
    share = mean(span for span, _ in found["fixed"][1:EPOCHS]) / of_random
    none = all(wait == 0 for _, wait in found["fixed"][1:])
    rows.append(
        Row(
            "later epochs, fixed against random views",
            f"{share:.3f}",
            "no wait for data",
            none,
            "one run of each",
        )
    )
    hand_over(rows)


def epochs(paths: list[Path], views: str) -> list[tuple[float, float]]:
    """Train one task and return what its epochs took, those of the rehearsal behind those of the first stage."""
    cpu, spec = torch.device("cpu"), protocol.load(PROTOCOL).spec
    loader = ClipLoader(spec.clip, decoder="pyav", workers=0, device=cpu, seed=0)
    tracker: Any = Epochs(loader)
    trainer = Trainer(cpu, "fp32", loader, tracker=tracker)
    context = RunContext(cpu, "fp32", loader, trunk_of(BACKBONE, cpu), spec.memory, trainer)
    values = {"views": views, "epochs": EPOCHS, "rehearsal_epochs": EPOCHS, "batch_size": BATCH}
    method = ESSENTIAL(ESSENTIAL.resolve_config(PROTOCOL, values)[0], context)
    samples = tuple(
        Sample(path.stem, str(path), number % CLASSES, UCF101.frames) for number, path in enumerate(paths)
    )
    ids = tuple(range(CLASSES))
    task = Task(0, ids, tuple(map(str, ids)), 0, samples)
    method.grow(task)
    method.train()
    trainer.begin_task(0)
    tracker.note()
    method.learn(task)
    return tracker.spans()


if __name__ == "__main__":
    main()
