"""Trunks: pretrained weights, and how a network that starts from them is to be trained (``Tuning``)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from .compute import ComputeOptions

if TYPE_CHECKING:
    from .network import VideoNetwork
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
