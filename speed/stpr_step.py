"""What distillation adds to a training step of StPR, in time and in memory.

Whole tasks are learnt, through the harness's own loop, on clips that cost nothing to load. Operations are
counted as for a record. From the first adapter on no token of the old model is one of the new model's. So the
least that distillation adds are the old model's blocks between the first and the last, and keys and values of
the last, of which the class token alone is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import torch
from common import Row, hand_over

from vcil_bench.data.loader import Batch, Sample
from vcil_bench.doctor.steady import SteadyClips, learn, stpr, trunk_of
from vcil_bench.nets.clip import ClipTrunk
from vcil_bench.nets.trunk import ADAPTFORMER
from vcil_bench.training.flops import FlopCount

BACKBONE, BATCH, STEPS, ROUNDS = "clip_vit_b16", 2, 4, 4


class CountedClips(SteadyClips):
    """Steady clips that count the operations of the first step.

    Attributes:
        operations: Of a clip of it.
    """

    operations = 0.0

    def training(self, samples: Sequence[Sample], *arguments: Any, **more: Any) -> Iterator[Batch]:
        """Yield the batches; the first is away for a step that is counted."""
        for number, batch in enumerate(super().training(samples, *arguments, **more)):
            with FlopCount(counts=number == 0).apart() as counts:
                yield batch
            if counts:
                self.operations = counts[0] / len(batch)


def whole_blocks(trunk: ClipTrunk, frames: int) -> float:
    """Return the operations, a clip, of all blocks but the first and the last, with their adapters."""
    width, patch = trunk.width, trunk.model.visual.patch_size[0]
    tokens = 1 + (trunk.image_size // patch) ** 2
    # Query, key, value, output and an MLP of four times the width; the two products of attention; the adapter.
    of_token = 12 * width**2 + 2 * tokens * width + 2 * ADAPTFORMER.bottleneck * width
    return 2.0 * (trunk.num_blocks - 2) * frames * tokens * of_token


def main() -> None:
    """Measure and hand over."""
    device = torch.device("cpu")
    trunk = trunk_of(BACKBONE, device)
    assert isinstance(trunk, ClipTrunk)
    weights = trunk.num_parameters
    loader = CountedClips(BATCH, STEPS, device, few=2)
    ways = {name: stpr(trunk, loader, device, fssd=name == "with") for name in ("without", "with")}
    times: dict[str, list[float]] = {name: [] for name in ways}
    operations: dict[str, float] = {}  # a clip
    for number in range(ROUNDS + 1):
        for name, (method, task) in ways.items():
            spent = learn(method, task)  # but for the first step, which is counted
            operations[name] = loader.operations
            if number:  # the first round warms up
                times[name].append(spent)
    by_operations = operations["with"] / operations["without"] - 1
    least = whole_blocks(trunk, loader.spec.frames) / operations["without"]
    added = median(a / b for a, b in zip(times["with"], times["without"], strict=True)) - 1
    method, _ = ways["with"]
    old = sum(p.numel() for p in method.encoder.frozen_copy().parameters())
    how = f"ViT-B-16, {BATCH} clips of 8 frames of 224 pixels, fp32; median of {ROUNDS} x {STEPS - 2} steps"
    hand_over(
        [
            Row(
                "distillation adds to a step, by operations",
                f"{100 * by_operations:.1f} %",
                "<= 45 %",
                by_operations <= 0.45,
                f"{operations['with'] / 1e9:.1f} against {operations['without'] / 1e9:.1f} GFLOP a clip",
            ),
            Row(
                "of that, the old model's blocks between the first and the last",
                f"{100 * least:.1f} %",
                note="no token of them is the new model's; nothing of them can be left out",
            ),
            Row("distillation adds to a step, by time", f"{100 * added:.0f} %", note=how),
            Row("a step without", f"{median(times['without']):.2f} s"),
            Row("a step with", f"{median(times['with']):.2f} s"),
            Row(
                "weights that the old model holds beside the shared backbone",
                f"{100 * old / weights:.1f} % of the backbone's",
                "no second copy",
                old < 0.05 * weights,
                f"{old / 1e6:.2f} M in adapters, {weights / 1e6:.0f} M in the backbone",
            ),
        ]
    )


if __name__ == "__main__":
    main()
