"""Video networks: from clips to frame features and feature maps; what a method trains.

Every method that only needs frame features and feature maps is written against ``VideoNetwork`` and runs on
each backbone. What training a network means differs: a ResNet trains whole, a CLIP through what is put on or
beside frozen weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class Features:
    """What a network makes of a batch of clips.

    Attributes:
        frames: Frame features [B, T, D].
        blocks: Per stage, the output of each of its blocks [B, T, C, H, W], float32 at any precision of the run.
            They lie on the way from clips to frame features, so that gradients with respect to them exist.
    """

    frames: Tensor
    blocks: tuple[tuple[Tensor, ...], ...]

    @property
    def maps(self) -> list[Tensor]:
        """The stages' outputs: the last block of each, [B, T, C, H, W]."""
        return [stage[-1] for stage in self.blocks]


class VideoNetwork(nn.Module, ABC):
    """A network from clips to frame features; its parameters are what a method trains and stores.

    Attributes:
        dim: Size D of a frame feature.
        stage_channels: Channels of each block's map, grouped by stage.
        trains_whole: Whether its parameters are the pretrained weights, not adapters beside them.
    """

    trains_whole: ClassVar[bool]
    dim: int
    stage_channels: tuple[tuple[int, ...], ...]

    @property
    def map_channels(self) -> list[int]:
        """Channels of each stage's output."""
        return [stage[-1] for stage in self.stage_channels]

    @abstractmethod
    def forward(self, clips: Tensor) -> Tensor:
        """Encode uint8 clips [B, T, 3, S, S] to frame features [B, T, D]."""

    @abstractmethod
    def features(self, clips: Tensor) -> Features:
        """Encode clips and return the feature maps on the way as well."""

    @abstractmethod
    def frozen_copy(self) -> VideoNetwork:
        """Return a copy that neither trains nor drops out: the old model of a distillation."""
