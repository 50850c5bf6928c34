"""Feature maps of a transformer: the patch tokens behind a block, kept on the way to the frame features."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from .parallel.gather import gather_maps


def keep_map(tokens: Tensor, clips: int) -> tuple[Tensor, Tensor]:
    """Return a block's feature map, and its tokens put together again from it.

    Args:
        tokens: Of this process's clips [B*T, 1 + H*W, width], the class token first.
        clips: B.

    Returns:
        The map of the whole batch [B, T, width, H, W], float32, and the tokens to go on with, so that gradients
        with respect to the map exist.
    """
    side = isqrt(tokens.shape[1] - 1)
    patches = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side)).unflatten(0, (clips, -1)).float()
    whole, local = gather_maps(patches)
    again = local.flatten(0, 1).flatten(2).transpose(1, 2)
    return whole, torch.cat([tokens[:, :1], again.to(tokens.dtype)], dim=1)
