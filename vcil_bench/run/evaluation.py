"""Evaluation: counts correct predictions on all test videos seen so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vcil_bench.data.loader import Sample
from vcil_bench.method import Method, RunContext
from vcil_bench.record import TOP
from vcil_bench.record_schema import MemoryUse

LOOK_EVERY = 16  # batches whose scores lie on the device until they are looked at, for which it is waited for


class EvaluationError(RuntimeError):
    """A method whose scores cannot be ranked."""


@dataclass(frozen=True)
class StepResult:
    """What one step's evaluation found.

    Attributes:
        correct: Per readout, the correct top-1 predictions of each task tested.
        top: Per readout, the five best labels per video [N, 5], best first, -1 where fewer classes are
            known; videos in the order of the tasks.
        clip_flops: Floating-point operations of the prediction of one clip; None where nothing is counted.
    """

    correct: dict[str, list[int]]
    top: dict[str, NDArray[np.int16]]
    clip_flops: int | None


@torch.inference_mode()
def evaluate(
    method: Method,
    context: RunContext,
    tests: Sequence[Sequence[Sample]],
    num_seen: int,
    batch: int,
) -> StepResult:
    """Predict the test videos of all tasks learnt and count.

    Scores are averaged over the views of a video before ranking; equal scores rank the lower label first.
    Several processes share the videos, and each counts over all of them.

    Args:
        method: Is put into evaluation mode.
        context: The run.
        tests: Test videos per task.
        num_seen: Classes known, which every readout must score.
        batch: Videos per batch, for speed and memory.

    Raises:
        EvaluationError: A readout is missing, no tensor of real numbers, of the wrong shape or not finite.
    """
    method.eval()
    samples = [sample for task in tests for sample in task]
    labels = torch.tensor([sample.label for sample in samples])
    team, progress = context.trainer.team, context.trainer.progress
    own = samples[team.rank :: team.size]
    ranked: dict[str, list[torch.Tensor]] = {name: [] for name in method.readouts}
    held: list[tuple[dict[str, torch.Tensor], int]] = []  # scores, and the videos they are of
    bar = progress.add_task("testing", total=len(own))
    clip_flops: int | None = None
    for part in context.loader.views(own, batch):
        videos, views = part.clips.shape[:2]
        if clip_flops is None:
            with context.trainer.flops.apart() as numbers:
                scores = method.predict(part.clips.flatten(0, 1))
            clip_flops = round(numbers[0] / (videos * views)) if numbers else None
        else:
            scores = method.predict(part.clips.flatten(0, 1))
        if not isinstance(scores, dict) or set(scores) != set(method.readouts):
            given = list(scores) if isinstance(scores, dict) else type(scores).__name__
            raise EvaluationError(
                f"{method.name}: predict must give a dict with the readouts {method.readouts}, it gave {given}"
            )
        for name, matrix in scores.items():
            if not _is_real(matrix):
                kind = f" of {matrix.dtype}, {matrix.layout}" if isinstance(matrix, torch.Tensor) else ""
                raise EvaluationError(
                    f"{method.name}: readout {name!r} must be a dense tensor of real numbers, it is a "
                    f"{type(matrix).__name__}{kind}"
                )
            if matrix.shape != (videos * views, num_seen):
                raise EvaluationError(
                    f"{method.name}: readout {name!r} must be of shape {(videos * views, num_seen)}, it has "
                    f"{tuple(matrix.shape)}"
                )
        held.append(({name: matrix.clone() for name, matrix in scores.items()}, videos))
        if len(held) == LOOK_EVERY:
            _rank(method, held, ranked)
        progress.advance(bar, videos)
    _rank(method, held, ranked)
    progress.remove_task(bar)
    nothing = torch.empty(0, TOP, dtype=torch.long)
    top = {name: team.gather_rows(torch.cat([nothing, *parts]), len(samples)) for name, parts in ranked.items()}
    sizes = [len(task) for task in tests]
    correct = {
        name: [int(hit.sum()) for hit in (best[:, 0] == labels).split(sizes)] for name, best in top.items()
    }
    ranks = {name: best.numpy().astype(np.int16) for name, best in top.items()}
    return StepResult(correct, ranks, clip_flops)


def _rank(
    method: Method,
    held: list[tuple[dict[str, torch.Tensor], int]],
    ranked: dict[str, list[torch.Tensor]],
) -> None:
    """Fetch the scores of some batches from the device, check and rank them, and forget them.

    Args:
        method: Whose they are, for messages.
        held: Per batch the scores [videos * views, num_seen] by readout, and how many videos; emptied.
        ranked: Per readout, takes the best labels of each batch's videos [videos, TOP].

    Raises:
        EvaluationError: Scores are not finite.
    """
    for scores, videos in held:
        for name, there in scores.items():
            matrix = there.cpu()
            if not matrix.isfinite().all():
                raise EvaluationError(
                    f"{method.name}: readout {name!r} must be finite, {int((~matrix.isfinite()).sum())} of the "
                    f"{matrix.numel()} scores of a batch are not"
                )
            # On the CPU: not every device has float64.
            mean = matrix.double().unflatten(0, (videos, -1)).mean(dim=1)  # [videos, num_seen]
            best = mean.argsort(dim=1, descending=True, stable=True)[:, :TOP]
            ranked[name].append(torch.nn.functional.pad(best, (0, TOP - best.shape[1]), value=-1))
    held.clear()


def memory_use(method: Method) -> MemoryUse:
    """Return the exemplars that a method says it keeps.

    Raises:
        EvaluationError: It says something else.
    """
    use = method.memory_use()
    numbers = dataclasses.astuple(use) if isinstance(use, MemoryUse) else (None,)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise EvaluationError(
            f"{method.name}: memory_use must give a MemoryUse of whole numbers, 0 or more, it gave {use!r}"
        )
    return use


def _is_real(matrix: object) -> bool:
    """Tell whether scores can be averaged over views and ranked."""
    if not isinstance(matrix, torch.Tensor) or matrix.layout != torch.strided:
        return False
    return not (matrix.is_complex() or matrix.is_quantized or matrix.dtype == torch.bool)
