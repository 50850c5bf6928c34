"""A distillation step of DiST beside the adapters' in time, of all ways to tune a frozen CLIP in memory.

The network and an old copy of it see the same clips; the loss holds features to the old ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import Row, alternate, hand_over, ratio
from torch import Tensor

from vcil_bench.doctor.steady import trunk_of
from vcil_bench.nets.trunk import Tuning

BACKBONE, BATCH, FRAMES, ROUNDS = "clip_vit_b16", 1, 8, 3
KINDS = ("adaptformer", "dist", "st_adapter", "aim")


def stepper(trunk: Any, tuning: Tuning, clips: Tensor) -> Callable[[], None]:
    """Return one step of a distillation: both models, backward pass and update."""
    network = trunk.network(tuning).train()
    old = network.frozen_copy()
    for parameter in network.parameters():
        parameter.data += 1e-3 * torch.randn_like(parameter)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-6)

    def step() -> None:
        optimiser.zero_grad()
        new, before = network.forward_with(old, clips)
        (new - before).square().mean().backward()
        optimiser.step()

    return step


def kept_mib(step: Callable[[], None], weights: set[int]) -> float:
    """Return how much a step keeps for its backward pass, weights not counted."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(storages.values()) / 2**20


def main() -> None:
    """Measure and hand over."""
    trunk: Any = trunk_of(BACKBONE, torch.device("cpu"))
    size = trunk.image_size
    clips = torch.randint(0, 256, (BATCH, FRAMES, 3, size, size), dtype=torch.uint8)
    ways = {kind: stepper(trunk, Tuning(kind=kind, frames=FRAMES), clips) for kind in KINDS}
    weights = {p.untyped_storage().data_ptr() for p in trunk.model.parameters()}
    kept = {kind: kept_mib(partial(step), weights) for kind, step in ways.items()}
    found = alternate({kind: ways[kind] for kind in KINDS[:2]}, ROUNDS)
    how = f"ViT-B-16, {BATCH} clip of {FRAMES} frames of {size} pixels, fp32; median of {ROUNDS} steps in turn"
    share = ratio(found, "dist", "adaptformer")
    rows = [Row("DiST's step by the adapters'", f"{share:.2f}", "<= 0.6", share <= 0.6, how)]
    for kind in KINDS:
        met = kept[kind] < kept["adaptformer"] if kind == "dist" else None
        goal = "less than the adapters'" if kind == "dist" else ""
        rows.append(Row(f"{kind}: kept for the backward pass", f"{kept[kind]:.0f} MiB", goal, met))
    hand_over(rows)


if __name__ == "__main__":
    main()
