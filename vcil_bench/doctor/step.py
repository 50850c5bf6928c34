"""A training step of StPR at full size: ``python -m vcil_bench.doctor.step --out FILE``, and for benchmarks.

Clips come from a frame store through the loader, so that the wait for data is that of a real run; the videos are
made here. Random weights cost what trained ones do.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vcil_bench import protocol
from vcil_bench.common import cpu_cores
from vcil_bench.data.loader import ClipLoader, Sample
from vcil_bench.data.store.frame_store import FrameStore
from vcil_bench.nets.compute import ComputeOptions, Precision
from vcil_bench.nets.trunk import Trunk
from vcil_bench.stream import Task
from vcil_bench.training.flops import FlopCount

from .steady import NEW, OLD, PROTOCOL, SteadyClips, learn, stpr, trunk_of

STEPS, BATCHES, FRAMES = 12, 5, 60
Figure = tuple[str, str]  # what was measured, and the figure with its unit


def measure(
    backbone: str, device: torch.device, precision: Precision, batch: int, *, compiled: bool
) -> list[Figure]:
    """Measure steps with and without distillation, and an epoch with its data."""
    on_gpu = device.type == "cuda"
    trunk = trunk_of(backbone, device, ComputeOptions(precision=precision))
    ways = {"without distillation": False, "with distillation": True}
    loader = SteadyClips(batch, STEPS, device, trunk.image_size, few=2)
    # Counted before anything is compiled, since the counter cannot look into compiled code.
    flops = {n: flops_of(*stpr(trunk, loader, device, fssd=fssd), batch) for n, fssd in ways.items()}
    if compiled:
        trunk = trunk_of(backbone, device, ComputeOptions(precision=precision, compile=True))
    figures: list[Figure] = []
    for name, fssd in ways.items():
        method, task = stpr(trunk, loader, device, fssd=fssd)
        learn(method, task)  # warms up
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        step = learn(method, task)
        figures.append((f"a step {name}", f"{1000 * step:.0f} ms"))
        figures.append((f"achieved {name}", f"{flops[name] / step / 1e12:.2f} TFLOP/s"))
        if on_gpu:
            peak = torch.cuda.max_memory_allocated(device) / 2**30
            figures.append((f"peak memory {name}", f"{peak:.1f} GiB"))
    return [*figures, *with_data(trunk, device, batch)]


def flops_of(method: Any, task: Task, batch: int) -> int:
    """Count the operations of a step: of a task with one step more, without what stands beside the steps."""
    counts = []
    for steps in (3, 4):
        with FlopCount(method.context.device.type, counts=True).apart() as numbers:
            learn(method, dataclasses.replace(task, train=task.train[: steps * batch]))
        counts += numbers
    return counts[1] - counts[0]


def with_data(trunk: Trunk, device: torch.device, batch: int) -> list[Figure]:
    """Measure steps whose clips come from a frame store, and the share of time spent waiting for them."""
    spec = dataclasses.replace(
        protocol.load(PROTOCOL).spec.clip, size=trunk.image_size, short_side=trunk.image_size
    )
    workers = cpu_cores.decode_workers(on_gpu=True)
    videos = BATCHES * batch
    with tempfile.TemporaryDirectory() as folder:
        store, samples = make_store(Path(folder), videos)
        loader = ClipLoader(spec, decoder="auto", workers=workers, device=device, seed=0, store=store)
        steady = SteadyClips(batch, 1, device, trunk.image_size)
        method, task = stpr(trunk, steady, device, read_from=loader)
        method.train()
        task = dataclasses.replace(task, train=tuple(samples))
        method.context.trainer.begin_task(0)
        method.learn(task)  # warms up
        method.context.trainer.begin_task(1)
        start = time.perf_counter()
        method.learn(task)
        spent = time.perf_counter() - start
    return [
        ("waiting for data", f"{100 * loader.clock.waited / spent:.0f} % of an epoch, {workers} workers"),
        ("clips through an epoch", f"{videos / spent:.0f} clips/s, statistics of the task included"),
    ]


def make_store(folder: Path, videos: int) -> tuple[FrameStore, list[Sample]]:
    """Fill a store with made videos of UCF101's size."""
    store = FrameStore(folder)
    samples = []
    rng = np.random.default_rng(0)
    for number in range(videos):
        ground = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        sha = f"{number:064x}"
        store.write(sha, ((t, np.roll(ground, t, axis=1)) for t in range(FRAMES)), FRAMES)
        samples.append(Sample(str(number), f"{number}.avi", OLD + number % NEW, FRAMES, sha256=sha))
    return store, samples


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--device", default="cuda")
    found.add_argument("--backbone", default="clip_vit_b16")
    found.add_argument("--precision", default="bf16")
    found.add_argument("--batch", type=int, default=40)
    found.add_argument("--compile", action="store_true")
    return found


def main() -> None:
    """Measure, and write the figures to a file."""
    found = parser()
    found.add_argument("--out", type=Path, required=True)
    options = found.parse_args()
    device = torch.device(options.device)
    figures = measure(options.backbone, device, options.precision, options.batch, compiled=options.compile)
    options.out.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
