"""What the harness adds to a training step, against a bare loop of the same operations.

Both decode the same clips in the same order, run the same network on them, take the same loss and step the same
optimiser. The bare loop has none of the harness's bookkeeping: no keyed plan, no progress, no sums of losses, no
place to resume from.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from common import Row, alternate, hand_over, ratio
from torch import nn

from vcil_bench import protocol
from vcil_bench.common.random_streams import numpy_stream
from vcil_bench.data import clips as clip_rules
from vcil_bench.data.datasets import adapter
from vcil_bench.data.loader import ClipLoader
from vcil_bench.data.prepare import prepare
from vcil_bench.data.video import read_frames
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.trunk import Tuning
from vcil_bench.stream import TaskStream
from vcil_bench.training import Trainer, sgd
from vcil_bench.training.resume import PhaseSaver

ROUNDS, BATCH, EPOCHS = 7, 20, 1


class Probe(Method):
    """A network and a head, as small a method as trains."""

    name = "probe"
    paper = "a benchmark"
    readouts = ("cnn",)

    def __init__(self, context: RunContext) -> None:
        """Make both."""
        super().__init__(None, context)
        self.network = context.backbone.network(Tuning())
        self.head = nn.Linear(self.network.dim, 12)

    def grow(self, task) -> None:  # type: ignore[no-untyped-def]
        """Nothing grows."""

    def learn(self, task) -> None:  # type: ignore[no-untyped-def]
        """Training is what the benchmark writes out."""

    def predict(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Score by the head."""
        return {"cnn": self.head(self.network(clips).mean(dim=1))}


def main() -> None:
    """Measure and hand over."""
    torch.set_num_threads(1)
    chosen = protocol.load("synthetic_3x4")
    source = adapter("synthetic")
    root = source.default_root()
    assert root is not None
    source.make_ready(root, lambda done, total: None)
    stream = TaskStream(chosen, prepare(source, root, "1"), chosen.spec.seeds[0])
    samples = stream.task(0).train[: 4 * BATCH]
    device = torch.device("cpu")
    loader = ClipLoader(chosen.spec.clip, decoder="auto", workers=0, device=device, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(device, "fp32", loader, saver=PhaseSaver(Path(folder) / "run.json", {}, 600.0))
        context = RunContext(device, "fp32", loader, backbone("clip_tiny").load(None), None, trainer)
        method = Probe(context).train()
        task = 0

        def with_harness() -> None:
            nonlocal task
            task += 1
            trainer.begin_task(task)
            optimiser = sgd(context, method.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
            for epoch in method.train_epochs(
                samples, optimiser, num_epochs=EPOCHS, batch_size=BATCH, phase=f"task {task}"
            ):
                for batch in epoch:
                    scores = method.predict(batch.clips)["cnn"]
                    epoch.step({"cross_entropy": F.cross_entropy(scores, batch.labels)})
            trainer.saver.clear()

        def bare() -> None:
            optimiser = torch.optim.SGD(
                [p for p in method.parameters() if p.requires_grad], lr=0.01, momentum=0.9, weight_decay=5e-4
            )
            spec = chosen.spec.clip
            for epoch in range(EPOCHS):
                order = numpy_stream(0, "shuffle", "bare", epoch).permutation(len(samples))
                for start in range(0, len(order), BATCH):
                    made, labels = [], []
                    for i in order[start : start + BATCH]:
                        sample = samples[i]
                        rng = numpy_stream(0, "clip", "bare", epoch, sample.id)
                        indices = clip_rules.segment_indices(sample.frames, spec.frames, rng)
                        frames = read_frames(sample.path, indices)
                        window = clip_rules.training_window(frames.shape[2], frames.shape[1], spec, rng)
                        shown = frames if window is None else window.of(frames)
                        made.append(clip_rules.planes(clip_rules.training_pixels(shown, spec, rng)).contiguous())
                        labels.append(sample.label)
                    scores = method.head(method.network(torch.stack(made)).mean(dim=1))
                    optimiser.zero_grad(set_to_none=True)
                    F.cross_entropy(scores, torch.tensor(labels)).backward()
                    optimiser.step()

        times = alternate({"harness": with_harness, "bare": bare}, ROUNDS)
    steps = EPOCHS * len(samples) // BATCH
    overhead = ratio(times, "harness", "bare") - 1
    hand_over(
        [
            Row(
                "overhead of the harness",
                f"{100 * overhead:.1f} % of a step",
                "<= 3 %",
                overhead <= 0.03,
                f"small CLIP, {BATCH} clips of 8 frames of 64 pixels, one thread, decoding and the final save "
                f"included; median of {ROUNDS} rounds of {steps} steps",
            ),
            Row("a step of the bare loop", f"{median(times['bare']) / steps:.3f} s"),
        ]
    )


if __name__ == "__main__":
    main()
