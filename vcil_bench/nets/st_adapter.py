"""ST-Adapter: depthwise convolutions along time in a frozen CLIP (Pan et al., NeurIPS 2022).

Source: linziyi96/st-adapter@b914b38, models_adapter.py; parameters are named as there. The adapter in front of
the last block's MLP is left out: it moves patch tokens behind the last attention, which nothing reads.
There a video's feature is the norm of the mean class token, here the mean of frame features, see
``TowerNetwork``.
"""

from __future__ import annotations

from math import isqrt

from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from .clip import ClipTrunk
from .clip_blocks import attend, feed_forward
from .tower import TowerNetwork
from .trunk import SpatioTemporalConfig, Tuning


class SpatioTemporalAdapter(nn.Module):
    """Down-projection, depthwise convolution over frames, rows and columns, up-projection, added to the patches.

    There is no activation and no norm, and the class token goes through unchanged. The convolution starts at
    zero, so that the adapter starts as the identity.
    """

    def __init__(self, width: int, bottleneck: int = 384, kernel: tuple[int, int, int] = (3, 1, 1)) -> None:
        """Make the adapter.

        Args:
            width: Of the tokens.
            bottleneck: Width inside.
            kernel: Of the convolution, odd.
        """
        super().__init__()
        self.fc1 = nn.Linear(width, bottleneck)
        around = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(bottleneck, bottleneck, kernel, padding=around, groups=bottleneck)
        self.fc2 = nn.Linear(bottleneck, width)
        assert self.conv.bias is not None
        for start in (self.conv.weight, self.conv.bias, self.fc1.bias, self.fc2.bias):
            nn.init.zeros_(start)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Move the patch tokens.

        Args:
            x: Tokens [B*T, 1 + H*W, width], the class token first; not changed.
            frames: T.

        Returns:
            [B*T, 1 + H*W, width].
        """
        side = isqrt(x.shape[1] - 1)
        inside = self.fc1(x)[:, 1:].unflatten(0, (-1, frames)).unflatten(2, (side, side))  # [B, T, H, W, b]
        seen = self.conv(inside.movedim(-1, 1)).movedim(1, -1)
        update = self.fc2(seen.flatten(2, 3).flatten(0, 1))
        return x + nn.functional.pad(update, (0, 0, 1, 0))


def st_adapters(width: int, depth: int, config: SpatioTemporalConfig) -> nn.ModuleList:
    """Return the adapters of every block by their places, without the last block's in front of the MLP."""

    def make() -> SpatioTemporalAdapter:
        return SpatioTemporalAdapter(width, config.bottleneck, config.kernel)

    adapters = []
    for i in range(depth):
        places = {"adapter_pre_attn": make()} if config.places == "both" else {}
        if i < depth - 1:
            places["adapter_pre_mlp"] = make()
        adapters.append(nn.ModuleDict(places))
    return nn.ModuleList(adapters)


class SpatioTemporalNetwork(TowerNetwork):
    """ST-Adapters on a trunk; it starts as the frozen CLIP."""

    def __init__(self, trunk: ClipTrunk, tuning: Tuning) -> None:
        """Make fresh adapters."""
        super().__init__(trunk, tuning.features)
        assert tuning.st_adapter is not None
        depth = len(trunk.model.visual.transformer.resblocks)
        self.adapters = st_adapters(self.width, depth, tuning.st_adapter)

    def block(self, i: int, block: ResidualAttentionBlock, x: Tensor, frames: int) -> Tensor:
        """Run a block with its adapters."""
        adapters = self.adapters[i]
        assert isinstance(adapters, nn.ModuleDict)
        if "adapter_pre_attn" in adapters:
            x = adapters["adapter_pre_attn"](x, frames)
        x = x + attend(block, block.ln_1(x))
        if "adapter_pre_mlp" in adapters:
            x = adapters["adapter_pre_mlp"](x, frames)
        return x + feed_forward(block, block.ln_2(x))
