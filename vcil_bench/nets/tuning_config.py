"""Config keys that say how a CLIP is tuned (``--set tuning=dist``), for every method that trains one."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from vcil_bench.common.config import ConfigError, check_numbers

from .trunk import (
    OPTIONS,
    AdapterConfig,
    AimConfig,
    DistConfig,
    SpatioTemporalConfig,
    Tuning,
    TuningKind,
)

# The keys of a kind's options begin with this.
PREFIXES = {"adaptformer": "adapter", "aim": "aim", "st_adapter": "st_adapter", "dist": "dist"}
# On the embedded clips, whose CLIP is small.
SMALL_TUNING = {
    "adapter_bottleneck": 16,
    "st_adapter_bottleneck": 64,
    "dist_width": 64,
    "dist_temporal_width": 24,
}


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """How the network of a method is tuned where it is a CLIP; a ResNet trains whole and reads none of these.

    Attributes:
        tuning: Of a CLIP, whose own weights stay frozen: ``adaptformer``, adapters beside every MLP; ``aim``,
            adapters and CLIP's own attention along time; ``st_adapter``, convolutions along time; ``dist``, a
            branch beside the tower, through which no gradient passes; or ``none``, so that only what stands
            behind the network trains.
        adapter_bottleneck, adapter_scale, adapter_dropout: AdaptFormer's shape.
        aim_ratio, aim_scale, aim_temporal_adapters: AIM's shape: width inside an adapter as a part of the
            tower's, factor beside the MLP, adapters of the attention along time; as published on Kinetics, on
            Something-Something V2 with 1.0 and 2.
        st_adapter_bottleneck, st_adapter_places: ST-Adapter's shape: width inside, and whether it stands in
            front of the ``mlp`` of every block, as published on Kinetics, or of ``both``, attention and MLP, as
            on Something-Something V2.
        dist_width, dist_temporal_width, dist_poolings: DiST's shape: width of the integration branch, of the
            temporal encoder, number of pooling modules; as published on Something-Something V2, on Kinetics with
            4 pooling modules.
        dist_alpha: Frames of DiST's temporal encoder for each that the tower sees. 1, ours, gives both the
            protocol's frames, as other tunings have them. The published setting is 2, with twice the frames:
            ``protocol.clip.frames=16``, a derived protocol.
        dist_start: ``random``, as published: before the training DiST's features mean nothing. ``clip``, ours:
            training begins at the frozen CLIP's features, as with the other tunings.
    """

    tuning: TuningKind = "adaptformer"
    adapter_bottleneck: int = AdapterConfig.bottleneck
    adapter_scale: float = AdapterConfig.scale
    adapter_dropout: float = AdapterConfig.dropout
    aim_ratio: float = AimConfig.ratio
    aim_scale: float = AimConfig.scale
    aim_temporal_adapters: Literal[1, 2] = AimConfig.temporal_adapters
    st_adapter_bottleneck: int = SpatioTemporalConfig.bottleneck
    st_adapter_places: Literal["mlp", "both"] = SpatioTemporalConfig.places
    dist_width: int = DistConfig.width
    dist_temporal_width: int = DistConfig.temporal_width
    dist_poolings: int = DistConfig.poolings
    dist_alpha: int = DistConfig.alpha
    dist_start: Literal["random", "clip"] = DistConfig.start

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_numbers(
            self,
            positive=("adapter_bottleneck",),
            not_negative=("adapter_scale",),
            below_one=("adapter_dropout",),
        )
        for kind in OPTIONS:
            self._options(kind)

    def network_tuning(self, frames: int, **more: Any) -> Tuning:
        """Return the tuning of a network.

        Args:
            frames: Frames T of a clip.
            more: Other attributes of ``Tuning``.

        Raises:
            ConfigError: ``dist_alpha`` does not divide the frames.
        """
        options = {} if self.tuning == "none" else {OPTIONS[self.tuning][0]: self._options(self.tuning)}
        try:
            return Tuning(kind=self.tuning, frames=frames, **options, **more)
        except ConfigError as error:  # which begins with the name of an option
            raise ConfigError(f"{PREFIXES[self.tuning]}_{error}") from error

    def check_given(self, given: Collection[str], needs: Collection[str]) -> None:
        """Refuse options of another tuning than the chosen one, and a method that has then nothing to look at.

        Args:
            given: Keys that somebody set, not a default or a recipe.
            needs: What the method needs of a backbone.

        Raises:
            ConfigError: Names the key and the tuning.
        """
        for kind, prefix in PREFIXES.items():
            keys = [key for key in given if key in KEYS and key.startswith(f"{prefix}_")]
            if keys and kind != self.tuning:
                raise ConfigError(
                    f"{keys[0]}: an option of tuning={kind}, but the tuning is {self.tuning}; leave it out, or "
                    f"take --set tuning={kind}"
                )
        if self.tuning == "none" and "maps" in needs:
            raise ConfigError(
                "tuning: none trains no feature map, and the method's losses are of feature maps; take "
                f"{', '.join(OPTIONS)}"
            )

    def _options(self, kind: str) -> Any:
        """Return the options of a kind as ``Tuning`` takes them."""
        prefix, cls = PREFIXES[kind], OPTIONS[kind][1]
        names = [field.name for field in dataclasses.fields(cls)]
        values = {name: getattr(self, key) for name in names if (key := f"{prefix}_{name}") in KEYS}
        try:
            return cls(**values)
        except ConfigError as error:  # which begins with the option's name
            raise ConfigError(f"{prefix}_{error}") from error


KEYS = frozenset(field.name for field in dataclasses.fields(TuningConfig))
