"""Frozen weights stored once in the precision that autocast would cast them to at every use.

Autocast keeps its casts of weights that train, but not of frozen ones: it casts a frozen trunk anew in every
pass. Stored, they take half the memory too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from .compute import Precision as Precision

HALF: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def store(module: nn.Module, precision: Precision) -> None:
    """Cast the weights of products and convolutions; norms and embeddings stay as they are.

    Args:
        module: Frozen; changed in place, and what is rounded cannot be had back.
        precision: ``fp32`` and ``tf32`` leave all as it is.
    """
    if precision not in HALF:
        return
    dtype = HALF[precision]
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            part.to(dtype)
        elif isinstance(part, nn.MultiheadAttention):
            for parameter in (part.in_proj_weight, part.in_proj_bias):
                parameter.data = parameter.data.to(dtype)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which stored weights meet activations of their precision."""
    if precision not in HALF:
        return nullcontext()
    return torch.autocast(device.type, dtype=HALF[precision])
