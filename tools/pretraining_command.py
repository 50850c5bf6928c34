"""Command line and learning rate of the scripts that pretrain the small networks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch


def learning_rate(highest: float, step: int, steps: int, warmup_steps: int) -> float:
    """Return the learning rate of a step: a linear warm-up times cosine decay to zero."""
    warm = min(1.0, (step + 1) / warmup_steps)
    return highest * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def run(
    pretrain: Callable[[Path, int, int], dict[str, float]], folder: Path, *, steps: int, seed: int, threads: int
) -> None:
    """Pretrain as the command line says, and print the figures.

    Args:
        pretrain: Of folder, training batches and seed; writes the network and returns its figures by name.
        folder: Written to unless told otherwise.
        steps: Training batches unless told otherwise.
        seed: Of weights and stills unless told otherwise.
        threads: Of torch; another number may change the weights' last bits.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=folder, help="folder to write")
    parser.add_argument("--steps", type=int, default=steps, help="batches of 128 stills")
    parser.add_argument("--seed", type=int, default=seed)
    options = parser.parse_args()
    torch.set_num_threads(threads)
    for name, value in pretrain(options.out, options.steps, options.seed).items():
        print(f"{name:24} {value:.4f}")
