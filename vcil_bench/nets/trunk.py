"""Trunks: pretrained weights, and how a network that starts from them is to be trained (``Tuning``)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from vcil_bench.common.config import ConfigError, check_numbers

from .compute import ComputeOptions

if TYPE_CHECKING:  # reports read configs without torch
    import torch

    from .network import VideoNetwork
    from .weights import WeightsInfo


FrameFeatures = Literal["joint", "unprojected"]
TuningKind = Literal["adaptformer", "aim", "st_adapter", "dist", "none"]


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Shape of the adapters; the defaults are AdaptFormer's (its ``ffn_num=64`` setting)."""

    bottleneck: int = 64
    scale: float = 0.1
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class AimConfig:
    """Shape of AIM's adapters; the defaults are its authors' on Kinetics.

    Attributes:
        ratio: Width inside an adapter as a part of the tower's.
        scale: Factor on the adapter beside the MLP; 1 on Something-Something V2.
        temporal_adapters: 2 puts one in front of the temporal attention too, as on Something-Something V2.
    """

    ratio: float = 0.25
    scale: float = 0.5
    temporal_adapters: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        """Refuse values that no network can have."""
        check_numbers(self, positive=("ratio",), not_negative=("scale",))


@dataclass(frozen=True, kw_only=True)
class SpatioTemporalConfig:
    """Shape of the ST-Adapters; the defaults are the authors' on Kinetics (12x384).

    Attributes:
        bottleneck: Width inside an adapter.
        kernel: Of the depthwise convolution over frames, rows and columns; odd numbers.
        places: In front of the ``mlp`` of every block, or ``both``: of the attention, too, as on
            Something-Something V2 (24x384).
    """

    bottleneck: int = 384
    kernel: tuple[int, int, int] = (3, 1, 1)
    places: Literal["mlp", "both"] = "mlp"

    def __post_init__(self) -> None:
        """Refuse values that no network can have."""
        check_numbers(self, positive=("bottleneck",))
        if any(size < 1 or size % 2 == 0 for size in self.kernel):
            raise ConfigError(f"kernel: {list(self.kernel)} must be three odd numbers from 1")


@dataclass(frozen=True, kw_only=True)
class DistConfig:
    """Shape of DiST's branch; the defaults are the authors' on Something-Something V2, but for ``alpha``.

    Attributes:
        width: Of the integration branch.
        temporal_width: Of the temporal encoder.
        kernel: Of the convolutions along time.
        stem_kernel: Frames that the temporal encoder's first convolution sees at once.
        poolings: Pooling modules one after the other; 4 on Kinetics.
        layers: Blocks of the tower whose tokens are read, counted from 0, ascending; None for all.
        alpha: Frames of the temporal encoder for each that the tower sees. 1, ours: a protocol's frames for
            both; the authors' is 2.
        ffn_ratio: Width inside an integration module's part for single tokens, as a part of ``width``.
        temporal_ffn_ratio: The same of the part along time.
        start: ``random``, as published: what comes out means nothing before the training. ``clip``, ours: the
            last projection starts at zero and the frozen CLIP's frame features are added, so that training
            begins at the frozen CLIP.
        head_width: Width of an attention head in the pooling modules.
    """

    width: int = 384
    temporal_width: int = 96
    kernel: int = 3
    stem_kernel: int = 5
    poolings: int = 2
    layers: tuple[int, ...] | None = None
    alpha: int = 1
    ffn_ratio: float = 1.0
    temporal_ffn_ratio: float = 0.25
    start: Literal["random", "clip"] = "random"
    head_width: int = 64

    def __post_init__(self) -> None:
        """Refuse values that no network can have."""
        check_numbers(
            self,
            positive=(
                *("width", "temporal_width", "poolings", "alpha", "ffn_ratio", "temporal_ffn_ratio"),
                "head_width",
            ),
        )
        for key in ("kernel", "stem_kernel"):
            if getattr(self, key) < 1 or getattr(self, key) % 2 == 0:
                raise ConfigError(f"{key}: {getattr(self, key)} must be an odd number from 1")
        if self.width % self.head_width:
            raise ConfigError(f"width: {self.width} is no multiple of the heads' width {self.head_width}")
        if self.layers is not None and (
            not self.layers or self.layers[0] < 0 or list(self.layers) != sorted(set(self.layers))
        ):
            raise ConfigError(f"layers: {list(self.layers)} must be ascending blocks, counted from 0")


ADAPTFORMER = AdapterConfig()  # what stands in ``Tuning.adapters`` where none are named
# Of each kind: the attribute of ``Tuning`` with its options, and their type.
OPTIONS: dict[str, tuple[str, type]] = {
    "adaptformer": ("adapters", AdapterConfig),
    "aim": ("aim", AimConfig),
    "st_adapter": ("st_adapter", SpatioTemporalConfig),
    "dist": ("dist", DistConfig),
}


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a network is to be trained; each kind of backbone reads what it has.

    Attributes:
        kind: Of a CLIP, whose own weights stay frozen: ``adaptformer`` adapters beside every MLP, ``aim``
            adapters and attention along time, ``st_adapter`` convolutions along time, ``dist`` a branch beside
            the tower, through which no gradient passes, or ``none``: nothing trains.
        adapters, aim, st_adapter, dist: Shape of what is trained, of the chosen kind alone; None for its
            defaults.
        frames: Frames T of a clip, which ``aim`` and ``dist`` have weights for.
        features: Of a CLIP: what stands for a frame. ``joint``: the class token in the space of images and
            texts, D wide; ``unprojected``: the same before the projection, as wide as the tower.
        partial_bn: Of a ResNet: every batch norm after the first keeps its statistics and its weights, as in
            TSM and TCD (ops/models.py, TSN.train).
        final_relu: Of a ResNet: whether the last block ends in a ReLU. Cosine heads go without, so that
            features can point anywhere (TCD ops/models.py, remove_last_relu; from UCIR).
    """

    kind: TuningKind = "adaptformer"
    adapters: AdapterConfig | None = ADAPTFORMER
    aim: AimConfig | None = None
    st_adapter: SpatioTemporalConfig | None = None
    dist: DistConfig | None = None
    frames: int | None = None
    features: FrameFeatures = "joint"
    partial_bn: bool = True
    final_relu: bool = True

    def __post_init__(self) -> None:
        """Give the chosen kind its defaults, and refuse what does not belong together.

        Raises:
            ConfigError: Options of another kind; a number of frames that does not fit.
        """
        kinds = get_args(TuningKind)
        if self.kind not in kinds:
            raise ConfigError(f"kind: {self.kind!r} is no tuning; allowed: {', '.join(kinds)}")
        if self.kind == "adaptformer" and self.adapters is None:
            raise ConfigError(
                "adapters: None for kind='adaptformer'; a CLIP of which nothing trains is kind='none'"
            )
        if self.kind != "adaptformer" and self.adapters is ADAPTFORMER:
            object.__setattr__(self, "adapters", None)
        for kind, (name, options) in OPTIONS.items():
            if kind == self.kind and getattr(self, name) is None:
                object.__setattr__(self, name, options())
            elif kind != self.kind and getattr(self, name) is not None:
                raise ConfigError(
                    f"{name}: options of the tuning {kind!r} with kind={self.kind!r}; leave them out, or take "
                    f"kind={kind!r}"
                )
        if self.kind in ("aim", "dist") and (self.frames is None or self.frames < 1):
            raise ConfigError(
                f"frames: {self.frames}; the tuning {self.kind!r} has weights for the frames of a clip"
            )
        if self.dist is not None and self.frames is not None and self.frames % self.dist.alpha:
            raise ConfigError(
                f"alpha: {self.dist.alpha} does not divide the {self.frames} frames of a clip, of which the "
                "tower sees every alpha-th; take one that does, or other clips (protocol.clip.frames)"
            )
        if self.dist is not None and self.features != "joint":
            raise ConfigError(
                f"features: {self.features!r} is not to be had of the tuning 'dist', whose branch has its own "
                "projection; take features='joint', or another tuning"
            )


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
