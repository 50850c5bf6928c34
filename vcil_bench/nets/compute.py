"""Compute options of a backbone: mixed precision, micro-batches, feature cache, ``torch.compile``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How the networks of a backbone compute.

    Attributes:
        precision: Of passes, and of what is frozen, which is stored in it.
        micro_batch: Clips whose activations a network in training holds at a time, None for all of a batch.
            Passes that return feature maps run whole.
        feature_cache_mb: MiB of frozen features to keep, where clips come again; 0 for none. For CPUs.
        compile: Compile the networks' blocks, which pays on GPUs alone: a ViT on CPUs was measured to gain
            nothing and to compile for 21 s. Results move by rounding.
    """

    precision: Precision = "fp32"
    micro_batch: int | None = None
    feature_cache_mb: int = 0
    compile: bool = False


PLAIN = ComputeOptions()
