"""AIM: adapters in a frozen CLIP, and its own attention along time (Yang et al., ICLR 2023).

Every block's attention is run twice, along the frames at each place and within each frame. Source:
taoyang1122/adapt-image-models@b3580d2, mmaction/models/backbones/vit_clip.py; parameters are named as there.
There the last norm trains as well and the projection is left out, see ``TowerNetwork``; its drop-path on
Something-Something V2 is a part of the recipe, not taken over.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from .clip import ClipTrunk
from .clip_blocks import attend, feed_forward, frame_tokens
from .tower import TowerNetwork
from .trunk import AimConfig, Tuning


class AimAdapter(nn.Module):
    """Down-projection, GELU, up-projection, with or without the tokens themselves added."""

    def __init__(self, width: int, ratio: float = 0.25, residual: bool = True) -> None:
        """Make the adapter; the up-projection starts at zero.

        Args:
            width: Of the tokens.
            ratio: Width inside as a part of it.
            residual: Add what comes in.
        """
        super().__init__()
        self.residual = residual
        self.D_fc1 = nn.Linear(width, int(width * ratio))
        self.act = nn.GELU()
        self.D_fc2 = nn.Linear(int(width * ratio), width)
        nn.init.trunc_normal_(self.D_fc1.weight, std=0.02)
        for start in (self.D_fc1.bias, self.D_fc2.weight, self.D_fc2.bias):
            nn.init.zeros_(start)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [..., width] to the same shape."""
        out: Tensor = self.D_fc2(self.act(self.D_fc1(x)))
        return x + out if self.residual else out


def aim_adapters(width: int, config: AimConfig) -> nn.ModuleDict:
    """Return the adapters of one block."""
    adapters = {
        "T_Adapter": AimAdapter(width, config.ratio, residual=False),
        "S_Adapter": AimAdapter(width, config.ratio),
        "MLP_Adapter": AimAdapter(width, config.ratio, residual=False),
    }
    if config.temporal_adapters == 2:
        adapters["T_Adapter_in"] = AimAdapter(width, config.ratio)
    return nn.ModuleDict(adapters)


def aim_block(
    block: ResidualAttentionBlock,
    adapters: Mapping[str, nn.Module] | nn.ModuleDict,
    x: Tensor,
    frames: int,
    scale: float,
) -> Tensor:
    """Run one block with AIM's adapters.

    Args:
        block: Of open_clip.
        adapters: ``T_Adapter`` behind the attention along time, ``T_Adapter_in`` in front of it or left out,
            ``S_Adapter`` behind the attention within a frame, ``MLP_Adapter`` beside the MLP.
        x: Tokens [B*T, L, width].
        frames: T.
        scale: Factor on the last.

    Returns:
        [B*T, L, width].
    """
    z = block.ln_1(x).unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)  # [B*L, T, width]
    if "T_Adapter_in" in adapters:
        z = adapters["T_Adapter_in"](z)
    along = adapters["T_Adapter"](attend(block, z))
    x = x + along.unflatten(0, (-1, x.shape[1])).transpose(1, 2).flatten(0, 1)
    x = x + adapters["S_Adapter"](attend(block, block.ln_1(x)))
    z = block.ln_2(x)
    return x + feed_forward(block, z) + scale * adapters["MLP_Adapter"](z)


class AimNetwork(TowerNetwork):
    """AIM on a trunk; it starts as the frozen CLIP."""

    def __init__(self, trunk: ClipTrunk, tuning: Tuning) -> None:
        """Make fresh adapters, and an embedding of the frames that starts at zero."""
        super().__init__(trunk, tuning.features)
        assert tuning.aim is not None
        assert tuning.frames is not None
        self.scale = tuning.aim.scale
        blocks = trunk.model.visual.transformer.resblocks
        self.adapters = nn.ModuleList(aim_adapters(self.width, tuning.aim) for _ in blocks)
        self.temporal_embedding = nn.Parameter(torch.zeros(1, tuning.frames, self.width))

    def embed(self, images: Tensor, frames: int) -> Tensor:
        """Return the tokens in front of the first block, every frame's moved by its embedding.

        Raises:
            ValueError: Clips of another length than the embedding's.
        """
        if frames != self.temporal_embedding.shape[1]:
            raise ValueError(
                f"a clip of {frames} frames for a network that was made for {self.temporal_embedding.shape[1]}"
            )
        visual = self.trunk.model.visual
        x = frame_tokens(visual, images).unflatten(0, (-1, frames))
        moved = x + self.temporal_embedding[:, :, None].to(x.dtype)
        tokens: Tensor = visual.ln_pre(moved.flatten(0, 1))
        return tokens

    def block(self, i: int, block: ResidualAttentionBlock, x: Tensor, frames: int) -> Tensor:
        """Run a block with its adapters."""
        adapters = self.adapters[i]
        assert isinstance(adapters, nn.ModuleDict)
        return aim_block(block, adapters, x, frames, self.scale)
