"""What the penalty of EWC costs after many tasks: the checkpoint's size, and the time of a training step.

Beside it the same penalty with maps of every task, which grows with them. One thread; random weights cost what
trained ones do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from common import Row, alternate, hand_over, ratio
from torch import Tensor

from vcil_bench import protocol
from vcil_bench.consolidation import trained
from vcil_bench.data.loader import ClipLoader
from vcil_bench.losses import parameter_penalty
from vcil_bench.method import RunContext
from vcil_bench.methods.ewc import EWC
from vcil_bench.nets.backbones import backbone
from vcil_bench.stream import Task
from vcil_bench.training import Trainer, checkpoint

PROTOCOL = "vclimb_ucf101_20"
TASKS = 20
CLASSES = 5  # of each task
CLIPS = 2
ROUNDS = 5


def after(tasks: int) -> EWC:
    """Return EWC after some tasks, with importance of no meaning, and grown for the next."""
    spec = protocol.load(PROTOCOL).spec
    cpu = torch.device("cpu")
    loader = ClipLoader(spec.clip, decoder="auto", workers=0, device=cpu, seed=0)
    trunk = backbone(EWC.backbone_for(PROTOCOL)[0]).load("random")
    context = RunContext(cpu, "fp32", loader, trunk, spec.memory, Trainer(cpu, "fp32", loader))
    method = EWC(EWC.resolve_config(PROTOCOL, {})[0], context)
    for index in range(tasks + 1):
        ids = tuple(range(CLASSES * index, CLASSES * (index + 1)))
        method.grow(Task(index, ids, tuple(map(str, ids)), CLASSES * index, ()))
        if index < tasks:
            parameters = {name: p.detach() for name, p in trained(method.model).items()}
            method.penalty.consolidate(parameters, {name: torch.rand_like(p) for name, p in parameters.items()})
    return method.train()


def saved_bytes(method: EWC) -> int:
    """Return the size of a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        checkpoint.save(path, checkpoint.Checkpoint({}, [], {}, method.state_dict(), []))
        return path.stat().st_size


def step_of(method: EWC) -> Callable[[], None]:
    """Return what takes one training step."""
    size, frames = method.context.loader.spec.size, method.context.loader.spec.frames
    clips = torch.randint(0, 256, (CLIPS, frames, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(CLIPS)
    optimiser, parameters = method.optimiser(), trained(method.model)
    weight = method.config.reg_lambda

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(method.model.logits(clips), labels).backward()
        method.penalty.value(parameters)
        method.penalty.add_gradients(parameters, weight)
        torch.nn.utils.clip_grad_norm_(method.model.parameters(), method.config.clip_norm)
        optimiser.step()

    return step


def penalty_of(method: EWC) -> Callable[[], None]:
    """Return what takes the penalty and its gradients."""
    parameters = trained(method.model)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)

    def penalty() -> None:
        method.penalty.value(parameters)
        method.penalty.add_gradients(parameters, 1.0)

    return penalty


def maps_of_every_task(method: EWC, tasks: int) -> Callable[[], None]:
    """Return what takes the same with maps of every task; that all are the same ones saves memory, not time."""
    parameters = trained(method.model)
    maps: dict[str, Tensor] = {name: p.detach().clone() for name, p in parameters.items()}

    def penalty() -> None:
        value = parameter_penalty(parameters, [maps] * tasks, [maps] * tasks)
        torch.autograd.grad(value, list(parameters.values()))

    return penalty


def main() -> None:
    """Measure and hand over."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    few, many = after(1), after(TASKS)
    heads = [3 * 4 * sum(p.numel() for p in method.model.head.parameters()) for method in (few, many)]
    sizes = [saved_bytes(method) for method in (few, many)]
    rest = [size - head for size, head in zip(sizes, heads, strict=True)]
    steps = alternate({"few": step_of(few), "many": step_of(many)}, ROUNDS)
    penalties = alternate(
        {
            "few": penalty_of(few),
            "many": penalty_of(many),
            "few of every": maps_of_every_task(few, 1),
            "many of every": maps_of_every_task(many, TASKS),
        },
        ROUNDS,
    )
    share = min(penalties["many"]) / min(steps["many"])
    grown = ratio(steps, "many", "few")
    hand_over(
        [
            Row(
                f"checkpoint after {TASKS} tasks against one, without the head's rows",
                f"{rest[1] / rest[0]:.4f}",
                "1: does not grow with tasks",
                abs(rest[1] / rest[0] - 1) < 1e-3,
                f"tsn_resnet34; {sizes[1] / 2**20:.0f} MiB in all, {heads[1] / 2**20:.1f} MiB of it the head's "
                f"{len(many.model.head.weight)} rows with their maps",
            ),
            Row(
                f"a step after {TASKS} tasks against one",
                f"{grown:.2f}",
                "1: does not grow with tasks",
                grown < 1.1,
                f"{CLIPS} clips of 8 frames of 224 pixels, fp32, one thread; median of {ROUNDS} rounds in turn",
            ),
            Row("the penalty's part of a step", f"{100 * share:.1f} %", note="value and gradients"),
            Row(f"the penalty after {TASKS} tasks against one", f"{ratio(penalties, 'many', 'few'):.2f}"),
            Row(
                "the same with maps of every task",
                f"{ratio(penalties, 'many of every', 'few of every'):.1f}",
                note=f"which would also take {2 * TASKS} maps of the parameters instead of 2",
            ),
        ]
    )


if __name__ == "__main__":
    main()
