"""What distillation adds to a training step of StPR, in time and in memory.

Whole tasks are learnt, through the harness's own loop, on clips that cost nothing to load.
"""

from __future__ import annotations

from statistics import median

import torch
from common import Row, hand_over

from vcil_bench.doctor.steady import SteadyClips, learn, stpr, trunk_of

BACKBONE, BATCH, STEPS, ROUNDS = "clip_vit_b16", 2, 4, 4


def main() -> None:
    """Measure and hand over."""
    device = torch.device("cpu")
    trunk = trunk_of(BACKBONE, device)
    weights = trunk.num_parameters
    loader = SteadyClips(BATCH, STEPS, device, few=2)
    ways = {name: stpr(trunk, loader, device, fssd=name == "with") for name in ("without", "with")}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, (method, task) in ways.items():
            spent = learn(method, task)
            if number:  # the first round warms up
                times[name].append(spent)
    added = median(a / b for a, b in zip(times["with"], times["without"], strict=True)) - 1
    method, _ = ways["with"]
    old = sum(p.numel() for p in method.encoder.frozen_copy().parameters())
    how = f"ViT-B-16, {BATCH} clips of 8 frames of 224 pixels, fp32; median of {ROUNDS} x {STEPS - 2} steps"
    hand_over(
        [
            Row("distillation adds to a step", f"{100 * added:.0f} %", "<= 45 %", added <= 0.45, how),
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
