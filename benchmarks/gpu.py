"""ViT-B-16 on a GPU: a training step of StPR with and without distillation, for whoever has one.

bf16, 40 clips of 8 frames, the paper's batch. Clips come from a frame store through the loader, so that the wait
for data is that of a real run; the videos are made here.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import Row, hand_over, machine
from steady import NEW, OLD, PROTOCOL, SteadyClips, learn, stpr, trunk_of
from torch.utils.flop_counter import FlopCounterMode

from vcil_bench import protocol
from vcil_bench.data.frame_store import FrameStore
from vcil_bench.data.loader import ClipLoader, Sample
from vcil_bench.methods.stpr import StPR
from vcil_bench.stream import Task

STEPS, VIDEOS, FRAMES = 12, 200, 60


def make_store(folder: Path) -> tuple[FrameStore, list[Sample]]:
    """Fill a store with made videos of UCF101's size."""
    store = FrameStore(folder)
    samples = []
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        ground = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        sha = f"{number:064x}"
        store.write(sha, ((t, np.roll(ground, t, axis=1)) for t in range(FRAMES)), FRAMES)
        samples.append(Sample(str(number), f"{number}.avi", OLD + number % NEW, FRAMES, sha256=sha))
    return store, samples


def main() -> None:
    """Measure and hand over; on a CPU with a small backbone, to see that it works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="clip_vit_b16")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    how = f"{options.backbone}, {options.precision}, {options.batch} clips of 8 frames"
    rows = [Row("machine", machine(device))]
    trunk = trunk_of(options.backbone, device, options.precision)
    if options.compile:
        trunk.compile()
    for name, fssd in (("without distillation", False), ("with distillation", True)):
        loader = SteadyClips(options.batch, STEPS, device, trunk.image_size)
        method, task = stpr(trunk, loader, device, options.precision, fssd=fssd)
        flops = flops_of(method, task, options.batch)
        learn(method, task)  # warms up
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        step = learn(method, task)
        rows += [
            Row(f"a step {name}", f"{1000 * step:.0f} ms", note=how),
            Row(f"achieved {name}", f"{flops / step / 1e12:.1f} TFLOP/s", note="matrix products and attention"),
        ]
        if on_gpu:
            peak = torch.cuda.max_memory_allocated(device) / 2**30
            rows.append(Row(f"peak memory {name}", f"{peak:.1f} GiB"))
    rows += with_data(options, device, trunk, how)
    hand_over(rows)


def flops_of(method: StPR, task: Task, batch: int) -> int:
    """Count the operations of a step: of a task with one step more, without what stands beside the steps."""
    counts = []
    for steps in (3, 4):
        with FlopCounterMode(display=False) as counter:
            learn(method, dataclasses.replace(task, train=task.train[: steps * batch]))
        counts.append(counter.get_total_flops())
    return counts[1] - counts[0]


def with_data(options: argparse.Namespace, device: torch.device, trunk, how: str) -> list[Row]:  # type: ignore[no-untyped-def]
    """Measure steps whose clips come from a frame store, and the share of time spent waiting for them."""
    spec = dataclasses.replace(
        protocol.load(PROTOCOL).spec.clip, size=trunk.image_size, short_side=trunk.image_size
    )
    workers = min(16, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        store, samples = make_store(Path(folder))
        loader = ClipLoader(spec, decoder="auto", workers=workers, device=device, seed=0, store=store)
        steady = SteadyClips(options.batch, 1, device, trunk.image_size)
        method, task = stpr(trunk, steady, device, options.precision)
        method.context.loader = loader
        method.train()
        task = dataclasses.replace(task, train=tuple(samples))
        method.context.stages.begin(0)
        method.learn(task)  # warms up
        loader.clock.waited = 0.0
        method.context.stages.begin(1)
        start = time.perf_counter()
        method.learn(task)
        spent = time.perf_counter() - start
    share = loader.clock.waited / spent
    return [
        Row(
            "waiting for data",
            f"{100 * share:.0f} % of an epoch",
            note=f"{how}, {workers} workers, {VIDEOS} clips from the frame store; statistics of the task and "
            "the start of the workers included",
        ),
        Row("clips through an epoch", f"{VIDEOS / spent:.0f} clips/s"),
    ]


if __name__ == "__main__":
    main()
