"""How many parameters each way to tune a frozen CLIP trains, counted without making their weights."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from vcil_bench.common.config import ConfigError

from .aim import aim_adapters
from .clip import Adapter
from .dist import DistBranch
from .st_adapter import SpatioTemporalAdapter, st_adapters
from .trunk import Tuning, TuningKind


def tuning_parameters(
    kind: TuningKind,
    tuning: Tuning | None = None,
    *,
    frames: int = 8,
    width: int = 768,
    depth: int = 12,
    out: int = 512,
    patch: int = 16,
    released: bool = False,
) -> int:
    """Return the number of parameters that train in a network, a head not counted: what a record shows of it.

    Args:
        kind: Which tuning.
        tuning: Its options; None for the kind's defaults.
        frames: Frames T of a clip, where ``tuning`` does not say.
        width: Of the visual tower; the defaults are ViT-B/16's.
        depth: Its blocks.
        out: Size of the space of images and texts.
        patch: Side of its patches in pixels.
        released: Count what the authors' code makes: of DiST also the last module that leads back to the
            temporal encoder, of ST-Adapter the last block's adapter in front of the MLP, which both never get a
            gradient; of AIM also the tower's last norm, which is frozen here.

    Raises:
        ConfigError: ``tuning`` is of another kind.
    """
    if tuning is None:
        tuning = Tuning(kind=kind, frames=frames)
    if tuning.kind != kind:
        raise ConfigError(f"tuning: these are options of {tuning.kind}, not of {kind}; None takes its defaults")
    with torch.device("meta"):
        parts = nn.ModuleList()
        extra = 0
        if tuning.kind == "adaptformer":
            assert tuning.adapters is not None
            parts.extend(Adapter(width, tuning.adapters) for _ in range(depth))
        elif tuning.kind == "aim":
            assert tuning.aim is not None
            assert tuning.frames is not None
            parts.extend(aim_adapters(width, tuning.aim) for _ in range(depth))
            extra = width * tuning.frames + (2 * width if released else 0)
        elif tuning.kind == "st_adapter":
            assert tuning.st_adapter is not None
            parts.append(st_adapters(width, depth, tuning.st_adapter))
            if released:
                parts.append(
                    SpatioTemporalAdapter(width, tuning.st_adapter.bottleneck, tuning.st_adapter.kernel)
                )
        elif tuning.kind == "dist":
            assert tuning.dist is not None
            assert tuning.frames is not None
            layers = tuning.dist.layers or tuple(range(depth))
            config = dataclasses.replace(tuning.dist, layers=layers)
            parts.append(DistBranch(config, width, out, patch, tuning.frames // config.alpha))
            if released:
                extra = (config.width + 1) * config.temporal_width
        return sum(parameter.numel() for parameter in parts.parameters()) + extra
