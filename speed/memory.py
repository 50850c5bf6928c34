"""Peak memory of a training step of StPR with and without micro-batches, and of testing with 26 experts.

Each in a process of its own, since what a process has held at most cannot be reset.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from common import Row, hand_over, peak_gib

from vcil_bench.doctor.steady import SteadyClips, learn, stpr, trunk_of
from vcil_bench.nets.compute import ComputeOptions

BACKBONE, BATCH = "clip_vit_b16", 4
WAYS = ("backbone", "step", "step in micro-batches", "testing, 1 expert", "testing, 26 experts")


def work(way: str) -> float:
    """Do one of the ways and return the peak memory of this process in GiB."""
    device = torch.device("cpu")
    trunk = trunk_of(BACKBONE, device, ComputeOptions(micro_batch=1 if "micro" in way else None))
    loader = SteadyClips(BATCH, 3, device, few=2)
    if way.startswith("step"):
        learn(*stpr(trunk, loader, device))
    elif way.startswith("testing"):
        method, _ = stpr(trunk, loader, device, tasks=26 if "26" in way else 1)
        method.eval()
        method.anchors.normal_()
        with torch.inference_mode():
            method.predict(loader.clips)
    return peak_gib()


def main() -> None:
    """Measure and hand over."""
    if len(sys.argv) > 1:
        print(work(sys.argv[1]))
        return
    found = {}
    # Or the C library keeps what is freed, and the peak is that of its fragments.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    for way in WAYS:
        command = [sys.executable, __file__, way]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        found[way] = float(done.stdout.splitlines()[-1])
    beside = {way: peak - found["backbone"] for way, peak in found.items()}
    share = beside["step in micro-batches"] / beside["step"]
    hand_over(
        [
            Row("process with the backbone alone", f"{found['backbone']:.2f} GiB", note="ViT-B-16, fp32"),
            Row(
                "a step with distillation, beside that",
                f"{beside['step']:.2f} GiB",
                note=f"{BATCH} clips of 8 frames of 224 pixels",
            ),
            Row("the same in micro-batches of 1", f"{100 * share:.0f} % of that", note="the same result"),
            Row("testing with 1 expert, beside the backbone", f"{beside['testing, 1 expert']:.2f} GiB"),
            Row(
                "testing with 26 experts",
                f"{beside['testing, 26 experts']:.2f} GiB",
                note="26 x 9.46 M weights, held a second time side by side while testing",
            ),
        ]
    )


if __name__ == "__main__":
    main()
