"""What one training step of TCD costs, and what it spends its time on.

The parts are those of the method itself, timed one after the other; random weights cost what trained ones do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import Row, hand_over, peak_gib, seconds

from vcil_bench import protocol
from vcil_bench.data.loader import ClipLoader
from vcil_bench.method import RunContext
from vcil_bench.methods.tcd import TCD
from vcil_bench.nets.backbones import backbone
from vcil_bench.stream import Task
from vcil_bench.training import Trainer

PROTOCOL = "tcd_ucf101_10x5"
BACKBONE = "tsm_resnet34"
SIZE = 224


class Clock:
    """Sums up seconds by name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work and add its time."""
        found = []
        taken = seconds(lambda: found.append(work()), self.device)
        self.spent[name] = self.spent.get(name, 0.0) + taken
        return found[0]


def make_method(device: torch.device) -> tuple[TCD, Task]:
    """Return TCD in the first increment, and that task."""
    spec = protocol.load(PROTOCOL).spec
    loader = ClipLoader(spec.clip, decoder="auto", workers=0, device=device, seed=0)
    trunk = backbone(BACKBONE).load("random")
    context = RunContext(device, "fp32", loader, trunk, spec.memory, Trainer(device, "fp32", loader))
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
    new = clock("forward", lambda: method.model.features_with_maps(clips))
    before = clock("forward of the old model", lambda: old.features_with_maps(clips))
    loss = clock("losses", lambda: sum(method.losses(new, before, labels, task).values()))

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


def measure(device: torch.device, batch: int, repeats: int) -> tuple[dict[str, float], float]:
    """Return mean seconds per part of a step, and the peak memory in GiB (of the process, or of the GPU)."""
    method, task = make_method(device)
    old = method.model.frozen_copy()
    optimiser = method.training_optimiser()
    frames = method.context.loader.spec.frames
    clips = torch.randint(0, 256, (batch, frames, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
    labels = torch.arange(batch, device=device)
    step(method, task, old, optimiser, clips, labels, Clock(device))  # allocations and kernels are made once
    clock = Clock(device)
    for _ in range(repeats):
        step(method, task, old, optimiser, clips, labels, clock)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else peak_gib()
    return {name: spent / repeats for name, spent in clock.spent.items()}, peak


def main() -> None:
    """Measure and hand over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    spent, peak = measure(torch.device(options.device), options.batch, options.repeats)
    total = sum(spent.values())
    how = (
        f"{BACKBONE}, {options.batch} clips of 8 frames of {SIZE} pixels, fp32, in an increment with both "
        f"distillations and the frame decorrelation; mean of {options.repeats} steps"
    )
    rows = [Row("a step", f"{total:.2f} s", note=how)]
    rows += [Row(name, f"{100 * s / total:.0f} % of it") for name, s in spent.items()]
    rows.append(Row("peak memory of the process (of the GPU)", f"{peak:.2f} GiB"))
    hand_over(rows)


if __name__ == "__main__":
    main()
