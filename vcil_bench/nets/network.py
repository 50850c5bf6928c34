"""The contract between backbones and methods: a trunk holds pretrained weights, a network is what trains.

Every method that only needs frame features and feature maps is written against ``VideoNetwork`` and runs on
each backbone. What training a network means differs: a ResNet trains whole, a CLIP through adapters on frozen
weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .compute import ComputeOptions

if TYPE_CHECKING:
    from .weights import WeightsInfo


FrameFeatures = Literal["joint", "unprojected"]


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Shape of the adapters; the defaults are AdaptFormer's (its ``ffn_num=64`` setting)."""

    bottleneck: int = 64
    scale: float = 0.1
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a network is to be trained; each kind of backbone reads what it has.

    Attributes:
        adapters: Of a CLIP, whose own weights stay frozen; None for a CLIP of which nothing trains.
        features: Of a CLIP: what stands for a frame. ``joint``: the class token in the space of images and
            texts, D wide; ``unprojected``: the same before the projection, as wide as the tower.
        partial_bn: Of a ResNet: every batch norm after the first keeps its statistics and its weights, as in
            TSM and TCD (ops/models.py, TSN.train).
        final_relu: Of a ResNet: whether the last block ends in a ReLU. Cosine heads go without, so that
            features can point anywhere (TCD ops/models.py, remove_last_relu; from UCIR).
    """

    adapters: AdapterConfig | None = AdapterConfig()
    features: FrameFeatures = "joint"
    partial_bn: bool = True
    final_relu: bool = True


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
        trunk: Where it comes from, and how it is to be run.
    """

    trains_whole: ClassVar[bool]
    trunk: Trunk
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


class Trunk(ABC):
    """Pretrained weights, and the networks that start from them.

    Attributes:
        name: The backbone's name.
        weights: Where the weights come from.
        dim: Size D of a frame feature.
        image_size: Side of the square frames it takes, in pixels.
        supports_micro_batch: Whether its networks give the same in chunks; batch norms in training do not.
        compute: How its networks compute, as it was loaded.
    """

    supports_micro_batch: ClassVar[bool]
    name: str
    weights: WeightsInfo
    dim: int
    image_size: int
    compute: ComputeOptions

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Number of frozen weights that all its networks share, beside their own parameters."""

    @abstractmethod
    def to(self, device: torch.device) -> Trunk:
        """Move the trunk to a device, in place."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Trunk:
        """Return itself: copies of a network share the trunk."""
        return self

    @abstractmethod
    def network(self, tuning: Tuning) -> VideoNetwork:
        """Return a network that starts from the pretrained weights."""
