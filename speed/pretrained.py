"""What methods on pretrained features cost: frozen features per second, and their heads beside them."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from common import Row, alternate, hand_over, ratio

from vcil_bench.doctor.steady import SteadyClips, trunk_of
from vcil_bench.gaussians import class_gaussians
from vcil_bench.method import RunContext
from vcil_bench.methods.ease import EASE
from vcil_bench.methods.fecam import normalise_covariance, shrink_covariance
from vcil_bench.methods.ranpac import RIDGES
from vcil_bench.nets.heads import prototypes
from vcil_bench.nets.ridge import RecursiveRidge, choose_ridge, random_features, solve_ridge
from vcil_bench.stream import Task
from vcil_bench.training import Trainer

BACKBONE, BATCH, ROUNDS = "clip_vit_b16", 4, 5
DIM, VIDEOS, CLASSES, RANPAC, ACIL = 512, 1000, 10, 10_000, 8192  # a later task of tcd_ucf101_10x5; the defaults


def main() -> None:
    """Measure and hand over."""
    clips_per_second = encoding()
    how = f"ViT-B-16, {BATCH} clips of 8 frames of 224 pixels, fp32, no adapters; median of {ROUNDS} rounds"
    rows = [Row("frozen features", f"{clips_per_second:.2f} clips/s", note=how)]
    passes = VIDEOS / clips_per_second
    for name, work in heads().items():
        time = median(alternate({name: work}, 1)[name])
        share = time / (time + passes)
        note = f"{CLASSES} classes, {VIDEOS} videos, {DIM} channels; beside {passes:.0f} s for their features"
        rows.append(Row(f"the head of {name}, one task", f"{time:.2f} s ({100 * share:.1f} %)", note=note))
    hand_over(rows + adapters_in_testing())


def encoding() -> float:
    """Return the clips a second that the frozen CLIP encodes."""
    device = torch.device("cpu")
    encoder, loader = trunk_of(BACKBONE, device).encoder(), SteadyClips(BATCH, 1, device)
    with torch.inference_mode():
        times = alternate({"all": lambda: encoder(loader.clips)}, ROUNDS)["all"]
    return BATCH / median(times)


def adapters_in_testing() -> list[Row]:
    """Measure what EASE's adapters cost in testing after 1, 6 and 26 tasks, which the protocols have."""
    cpu = torch.device("cpu")
    trunk, loader = trunk_of(BACKBONE, cpu), SteadyClips(2, 1, cpu)
    ways = {str(tasks): testing(ease(trunk, loader, tasks), loader) for tasks in (1, 6, 26)}
    times = alternate(ways, 3)
    how = "ViT-B-16, 2 clips of 8 frames of 224 pixels, fp32; median of 3 rounds"
    rows = [Row("EASE, testing after 1 task", f"{median(times['1']):.2f} s", note=how)]
    return rows + [
        Row(f"EASE, testing after {tasks} tasks against 1", f"{ratio(times, tasks, '1'):.1f}")
        for tasks in ("6", "26")
    ]


def ease(trunk: Any, loader: SteadyClips, tasks: int) -> EASE:
    """Return EASE with the adapters of some tasks as they start."""
    cpu = torch.device("cpu")
    context = RunContext(cpu, "fp32", loader, trunk, None, Trainer(cpu, "fp32", loader))  # type: ignore[arg-type]
    method = EASE(EASE.resolve_config("tcd_ucf101_10x5", {})[0], context)
    for index in range(tasks):
        ids = (2 * index, 2 * index + 1)
        method.grow(Task(index, ids, tuple(map(str, ids)), 2 * index, ()))
    return method.eval()


def testing(method: EASE, loader: SteadyClips) -> Callable[[], Any]:
    """Return what predicts the loader's clips."""

    def predict() -> None:
        with torch.inference_mode():
            method.predict(loader.clips)

    return predict


def heads() -> dict[str, Callable[[], Any]]:
    """Return what each head computes once a task has its features."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(VIDEOS, DIM, generator=generator)
    y = torch.arange(VIDEOS) % CLASSES
    targets = F.one_hot(y, CLASSES).double()
    projection = torch.randn(RANPAC, DIM, generator=generator)
    recursive = RecursiveRidge(ACIL, 0.1)
    recursive.grow(CLASSES)

    def ranpac() -> None:
        expanded = random_features(x, projection).double()
        ridge = choose_ridge(expanded, targets, RIDGES)
        solve_ridge(expanded.T @ expanded, expanded.T @ targets, ridge)

    def acil() -> None:
        expanded = random_features(x, projection[:ACIL])
        for some, labels in zip(expanded.split(256), y.split(256), strict=True):
            recursive.update(some, labels)

    def fecam() -> None:
        _, covariances = class_gaussians(F.normalize(x, dim=1).double(), y, CLASSES)
        for covariance in covariances:
            torch.linalg.pinv(normalise_covariance(shrink_covariance(covariance, 10.0)), hermitian=True)

    return {"simplecil": lambda: prototypes(x, y, CLASSES), "ranpac": ranpac, "acil": acil, "fecam": fecam}


if __name__ == "__main__":
    main()
