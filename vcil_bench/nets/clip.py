"""CLIP as a frozen trunk with adapter slots, built from open_clip's own blocks.

The trunk is a plain object, not a module, so that no method's parameters, state dict or checkpoint contain it:
its weights are named by their hash. An encoder is a set of adapters on a shared trunk; freezing a copy of an
encoder for distillation copies the adapters alone, never the ViT.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from math import isqrt

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from vcil_bench.schema import ConfigError

from .trunk import AdapterConfig, Features, Trunk, Tuning, VideoNetwork
from .weights import WeightsInfo

Tokenizer = Callable[[list[str]], Tensor]
MAX_STAGES = 4


class Adapter(nn.Module):
    """Down-projection, non-linearity, up-projection, parallel to a block's MLP.

    Source: AdaptFormer (Chen et al., NeurIPS 2022), Eq. 5: ``s * up(relu(down(x)))`` of the tokens before the
    MLP's norm. ``down`` starts as kaiming uniform, ``up`` at zero, so that training begins at the frozen CLIP.
    """

    def __init__(self, width: int, config: AdapterConfig) -> None:
        super().__init__()
        self.scale = config.scale
        self.down = nn.Linear(width, config.bottleneck)
        self.activate = nn.ReLU() if config.activation == "relu" else nn.GELU()
        self.drop = nn.Dropout(config.dropout)
        self.up = nn.Linear(config.bottleneck, width)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what is added to the tokens [N, L, width]."""
        return self.scale * self.up(self.drop(self.activate(self.down(tokens))))


class ClipTrunk(Trunk):
    """A frozen open_clip model: its visual blocks, its text tower and what its weights are.

    Attributes:
        name: The backbone's name.
        dim: Size D of the joint image-text space.
        image_size: Side of the square frames it takes, in pixels.
        logit_scale: CLIP's own factor on cosines, the inverse temperature.
        weights: Where the weights come from.
    """

    def __init__(self, name: str, model: CLIP, tokenizer: Tokenizer, weights: WeightsInfo) -> None:
        """Freeze ``model`` and read what the harness needs to know of it."""
        self.name = name
        self.weights = weights
        self.model = model.eval().requires_grad_(False)
        self.dim = int(model.visual.output_dim)
        self.image_size = int(model.visual.image_size[0])
        self.logit_scale = float(model.logit_scale.exp())
        self._tokenizer = tokenizer
        self._mean = torch.tensor(model.visual.image_mean).view(3, 1, 1) * 255
        self._std = torch.tensor(model.visual.image_std).view(3, 1, 1) * 255

    def to(self, device: torch.device) -> ClipTrunk:
        """Move the trunk to a device, in place."""
        self.model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    @property
    def num_parameters(self) -> int:
        """Number of frozen weights, the text tower included."""
        return sum(p.numel() for p in self.model.parameters())

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return the unit-length text features [len(texts), D], float32."""
        tokens = self._tokenizer(list(texts)).to(self._mean.device)
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def normalise(self, clips: Tensor) -> Tensor:
        """Turn uint8 frames [..., 3, S, S] into CLIP's input range."""
        return (clips.float() - self._mean) / self._std

    def encoder(self, adapters: AdapterConfig | None = None) -> ClipEncoder:
        """Return an encoder on this trunk, with fresh adapters or (None) without any."""
        return ClipEncoder(self, adapters)

    def network(self, tuning: Tuning) -> ClipEncoder:
        """Return an encoder with fresh adapters, which are all of it that trains."""
        return self.encoder(tuning.adapters)

    def encode_frames(self, clips: Tensor, adapters: Sequence[nn.Module] | None) -> Tensor:
        """Run the visual tower, an adapter beside the MLP of every block.

        Args:
            clips: [B, T, 3, S, S] uint8.
            adapters: One per block, or None for the frozen CLIP.

        Returns:
            [B, T, D] frame features in the joint space, not normalised.
        """
        return self.encode(clips, adapters, num_maps=0)[0]

    def encode(
        self, clips: Tensor, adapters: Sequence[nn.Module] | None, num_maps: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the visual tower and keep the patch tokens behind the first ``num_maps`` blocks.

        Args:
            clips: [B, T, 3, S, S] uint8.
            adapters: One per block, or None for the frozen CLIP.
            num_maps: Blocks whose patch tokens are wanted.

        Returns:
            Frame features [B, T, D] and maps, each [B, T, width, H, W].
        """
        visual = self.model.visual
        x = visual._embeds(self.normalise(clips.flatten(0, 1)))  # [B*T, 1 + patches, width]
        maps = []
        for i, block in enumerate(visual.transformer.resblocks):
            x = _block(block, x, adapters[i] if adapters is not None else None)
            if i < num_maps:
                side = isqrt(x.shape[1] - 1)
                patches = (
                    x[:, 1:].transpose(1, 2).unflatten(2, (side, side)).unflatten(0, clips.shape[:2]).float()
                )
                maps.append(patches)
                # Put together again from the map, so that gradients with respect to it exist.
                again = patches.flatten(0, 1).flatten(2).transpose(1, 2)
                x = torch.cat([x[:, :1], again.to(x.dtype)], dim=1)
        pooled, _ = visual._pool(x)  # [B*T, width]
        return (pooled @ visual.proj).unflatten(0, clips.shape[:2]), maps


class ClipEncoder(VideoNetwork):
    """The trunk seen through one set of adapters; its parameters are the adapters' alone.

    Its feature maps are the patch tokens behind all blocks but the last, in up to four stages of about equal
    depth. The last block is left out because its patch tokens reach nothing: the frame feature is the class
    token, so a loss or a gradient on them would say nothing about what is recognised.
    """

    trains_whole = False

    def __init__(self, trunk: ClipTrunk, config: AdapterConfig | None) -> None:
        super().__init__()
        self.trunk = trunk
        blocks = trunk.model.visual.transformer.resblocks
        width = trunk.model.visual.transformer.width
        self.dim = trunk.dim
        stages = np.array_split(range(len(blocks) - 1), min(MAX_STAGES, len(blocks) - 1))
        self.stage_channels = tuple((width,) * len(stage) for stage in stages)
        self.adapters = nn.ModuleList(Adapter(width, config) for _ in blocks if config is not None)

    def forward(self, clips: Tensor) -> Tensor:
        """Encode uint8 clips [B, T, 3, S, S] to frame features [B, T, D]."""
        return self.trunk.encode_frames(clips, list(self.adapters) or None)

    def features(self, clips: Tensor) -> Features:
        """Encode clips, keeping the patch tokens as maps [B, T, width, H, W]."""
        sizes = [len(stage) for stage in self.stage_channels]
        frames, maps = self.trunk.encode(clips, list(self.adapters) or None, sum(sizes))
        ends = np.cumsum(sizes).tolist()
        blocks = tuple(tuple(maps[end - size : end]) for size, end in zip(sizes, ends, strict=True))
        return Features(frames, blocks)

    def copy_adapters(self) -> ClipEncoder:
        """Return an encoder with a copy of the adapters on the same trunk."""
        twin = ClipEncoder(self.trunk, None)
        twin.adapters = copy.deepcopy(self.adapters)
        return twin

    def frozen_copy(self) -> ClipEncoder:
        """Return a copy that neither trains nor drops out: the old model of a distillation."""
        return self.copy_adapters().eval().requires_grad_(False)


def _block(block: ResidualAttentionBlock, x: Tensor, adapter: nn.Module | None) -> Tensor:
    """One block of open_clip, its own parts in its own order, with an adapter's output in the MLP's residual."""
    x = x + block.ls_1(block.attention(block.ln_1(x)))
    out = x + block.ls_2(block.mlp(block.ln_2(x)))
    return out if adapter is None else out + adapter(x)


def readable(class_name: str) -> str:
    """Split a class name at underscores and inner capitals: ``HighJump`` and ``high_jump`` give words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", class_name.replace("_", " "))
    return " ".join(spaced.split())


def check_template(template: str) -> None:
    """Refuse a text template that has no place, or more than one kind of place, for the class name.

    Raises:
        ConfigError: Says what a template looks like.
    """
    try:
        named = template.format("a class name")
    except (IndexError, KeyError, ValueError):
        named = ""
    if "a class name" not in named:
        raise ConfigError(f"template: {template!r} must be text with {{}} for the class name, and no other {{")


def prompts(class_names: Sequence[str], template: str) -> list[str]:
    """Put readable class names into a template that holds ``{}``."""
    return [template.format(readable(name)) for name in class_names]
