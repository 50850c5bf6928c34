"""Networks whose trained parts sit inside CLIP's blocks and let its frames see each other (AIM, ST-Adapter)."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from .clip import MAX_STAGES, ClipTrunk
from .network import Features, VideoNetwork
from .parallel.gather import gather_batch
from .parallel.micro_batches import in_chunks, recomputed
from .precision import autocast
from .token_maps import keep_map
from .trunk import FrameFeatures

NetworkT = TypeVar("NetworkT", bound="TowerNetwork")


class TowerNetwork(VideoNetwork):
    """A frozen CLIP with trained parts inside its blocks; its parameters are these alone.

    Frame features are the class tokens behind CLIP's own last norm and projection, both frozen, as they are
    without tuning: in the space of images and texts, and before the training the frozen CLIP's. The sources of
    AIM and ST-Adapter leave the projection out; ``features="unprojected"`` does, too.

    Feature maps are the patch tokens behind all blocks but the last, whose patches reach nothing.
    """

    trains_whole = False

    def __init__(self, trunk: ClipTrunk, features: FrameFeatures) -> None:
        """Keep the trunk.

        Args:
            trunk: Frozen.
            features: What stands for a frame.
        """
        super().__init__()
        self.trunk = trunk
        self.frame_features: FrameFeatures = features
        self.width = int(trunk.model.visual.transformer.width)
        self.dim = trunk.dim if features == "joint" else self.width
        depth = len(trunk.model.visual.transformer.resblocks)
        stages = np.array_split(range(depth - 1), min(MAX_STAGES, depth - 1))
        self.stage_channels = tuple((self.width,) * len(stage) for stage in stages)

    @abstractmethod
    def block(self, i: int, block: ResidualAttentionBlock, x: Tensor, frames: int) -> Tensor:
        """Run a block with what trains in it on the tokens [B*T, L, width] of clips of T frames."""

    def embed(self, images: Tensor, frames: int) -> Tensor:
        """Return the tokens [B*T, L, width] of normalised frames [B*T, 3, S, S] in front of the first block."""
        tokens: Tensor = self.trunk.model.visual._embeds(images)
        return tokens

    def forward(self, clips: Tensor) -> Tensor:
        """Encode uint8 clips [B, T, 3, S, S] to frame features [B, T, D]."""
        size = self.trunk.compute.micro_batch
        chunked = size and torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())

        def compute(clips: Tensor) -> list[Tensor]:
            return [recomputed(self._run, clips) if chunked else self._run(clips)]

        with autocast(clips.device, self.trunk.compute.precision):
            if size and chunked:
                (frames,) = in_chunks(lambda some: compute(clips[some]), clips, size)
            else:
                (frames,) = compute(clips)
        return gather_batch(frames)

    def forward_with(self: NetworkT, old: NetworkT | None, clips: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode clips by this network and by an old copy, which have nothing in common to compute once.

        Args:
            old: A ``frozen_copy``, or None where there is nothing to distil.
            clips: [B, T, 3, S, S] uint8.

        Returns:
            Frame features [B, T, D] of this network and, without gradient, of the old one.
        """
        if old is None:
            return self(clips), None
        with torch.no_grad():
            before = old(clips)
        return self(clips), before

    def features(self, clips: Tensor) -> Features:
        """Encode clips, keeping the patch tokens as maps [B, T, width, H, W]."""
        maps: list[Tensor] = []
        sizes = [len(stage) for stage in self.stage_channels]

        def keep(x: Tensor) -> Tensor:
            if len(maps) == sum(sizes):
                return x
            whole, x = keep_map(x, len(clips))
            maps.append(whole)
            return x

        with autocast(clips.device, self.trunk.compute.precision):
            frames = gather_batch(self._run(clips, keep))
        ends = np.cumsum(sizes).tolist()
        blocks = tuple(tuple(maps[end - size : end]) for size, end in zip(sizes, ends, strict=True))
        return Features(frames, blocks)

    def copy_adapters(self: NetworkT) -> NetworkT:
        """Return a copy with trained parts of its own on the same trunk."""
        return copy.deepcopy(self)

    def frozen_copy(self: NetworkT) -> NetworkT:
        """Return a copy on the same trunk that does not train: the old model of a distillation."""
        return self.copy_adapters().eval().requires_grad_(False)

    def _run(self, clips: Tensor, keep: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Encode this process's clips; ``keep`` sees every block's output and returns what to go on with."""
        frames = clips.shape[1]
        x = self.embed(self.trunk.normalise(clips.flatten(0, 1)), frames)
        for i, block in enumerate(self.trunk.model.visual.transformer.resblocks):
            x = self.block(i, block, x, frames)
            if keep is not None:
                x = keep(x)
        return self.trunk.pooled(x, self.frame_features).unflatten(0, clips.shape[:2])
