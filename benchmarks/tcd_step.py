"""What one training step of TCD costs, and what it spends its time on.

Run ``python benchmarks/tcd_step.py`` (``--device cuda`` on a GPU); the table goes to ``benchmarks/tcd_step.md``.
The parts are those of the method itself, timed one after the other; random weights cost what trained ones do.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from tabulate import tabulate

from vcil_bench import protocol
from vcil_bench.data.loader import ClipLoader
from vcil_bench.method import RunContext
from vcil_bench.methods.tcd import TCD
from vcil_bench.nets.backbones import backbone
from vcil_bench.stream import Task

PROTOCOL = "tcd_ucf101_10x5"
BACKBONE = "tsm_resnet34"


class Clock:
    """Sums up seconds by name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work and add its time."""
        started = self._now()
        found = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - started
        return found

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def make_method(device: torch.device) -> tuple[TCD, Task]:
    """Return TCD in the first increment, and that task."""
    spec = protocol.load(PROTOCOL).spec
    loader = ClipLoader(spec.clip, decoder="auto", workers=0, device=device, seed=0)
    trunk = backbone(BACKBONE).load("random")
    context = RunContext(device, "fp32", 0, loader, trunk, spec.memory, Progress(disable=True))
    method = TCD(TCD.resolve_config(PROTOCOL, {})[0], context)
    first, second = spec.tasks.sizes[:2]
    for index, (old, new) in enumerate([(0, first), (first, second)]):
        ids = tuple(range(old, old + new))
        task = Task(index, ids, tuple(map(str, ids)), old, ())
        method.grow(task)
    return method.to(device).train(), task


def step(
    method: TCD, task: Task, old: Any, optimiser: Any, clips: torch.Tensor, labels: torch.Tensor, clock: Clock
) -> None:
    """Take one training step of an increment, part by part."""
    found = clock("forward", lambda: method.features(clips))
    before = clock("forward of the old model", lambda: old.features(clips))
    loss = clock("losses", lambda: sum(method.losses(found, before, labels, task).values()))

    def backward() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()

    clock("backward", backward)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(
            [p for p in method.parameters() if p.requires_grad], method.config.clip_norm
        )
        optimiser.step()

    clock("clipping and update", update)


def measure(device: torch.device, batch: int, size: int, repeats: int) -> tuple[dict[str, float], float]:
    """Return mean seconds per part of a step, and the peak memory in GiB (of the process, or of the GPU)."""
    method, task = make_method(device)
    old = method.old_model()
    old.network.to(device)
    optimiser = method.optimiser()
    frames = method.context.loader.spec.frames
    clips = torch.randint(0, 256, (batch, frames, 3, size, size), dtype=torch.uint8, device=device)
    labels = torch.arange(batch, device=device)
    step(method, task, old, optimiser, clips, labels, Clock(device))  # allocations and kernels are made once
    clock = Clock(device)
    for _ in range(repeats):
        step(method, task, old, optimiser, clips, labels, clock)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {name: seconds / repeats for name, seconds in clock.seconds.items()}, peak


def machine(device: torch.device) -> str:
    """Describe what the figures were measured on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    device = torch.device(options.device)
    seconds, peak = measure(device, options.batch, options.size, options.repeats)
    total = sum(seconds.values())
    rows = [[name, f"{s:.2f}", f"{100 * s / total:.0f} %"] for name, s in seconds.items()]
    rows.append(["whole step", f"{total:.2f}", "100 %"])
    table = tabulate(rows, headers=["part", "seconds", "share"], tablefmt="github")
    text = (
        f"# One training step of TCD\n\n{BACKBONE}, {options.batch} clips of 8 frames of {options.size} pixels, "
        f"fp32, an increment with both distillations and the frame decorrelation.\n\n{table}\n\n"
        f"Peak memory: {peak:.2f} GiB ({'GPU' if device.type == 'cuda' else 'whole process'}). "
        f"Mean of {options.repeats} steps after one to warm up. {machine(device)}.\n\n"
        "Made by `python benchmarks/tcd_step.py`.\n"
    )
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
