"""Determinism: sets how exactly torch repeats a run.

Draws are keyed at every level, so what differs between two runs is the order in which kernels add.
"""

from __future__ import annotations

import os

import torch

from vcil_bench.options import Determinism


def apply(level: Determinism, precision: str) -> None:
    """Set what a run computes with, whatever ran before in this process.

    Args:
        level: ``off`` lets cuDNN try kernels and take the fastest; ``seeded`` takes its deterministic ones,
            while torch's own may still add in any order on a GPU; ``strict`` has torch refuse every operation
            that does not repeat bit for bit.
        precision: The run's; ``tf32`` lets products of fp32 round to it.
    """
    torch.backends.cudnn.benchmark = level == "off"
    torch.backends.cudnn.deterministic = level != "off"
    if level == "strict":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.use_deterministic_algorithms(level == "strict")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def advice(error: RuntimeError) -> str | None:
    """Return what to do about an operation that ``strict`` refused; None for any other error."""
    if "does not have a deterministic implementation" in str(error):
        return "determinism=strict refuses an operation of this run; determinism=seeded allows it"
    return None
