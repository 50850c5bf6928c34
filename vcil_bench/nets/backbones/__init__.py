"""Backbones by name. Importing this imports no torch; loading one does."""

from __future__ import annotations

from vcil_bench.common.errors import did_you_mean
from vcil_bench.nets.weights import BackboneError

from .base import Backbone
from .clip import ClipTiny, ClipVitB16
from .resnet import TSMResNet34, TSMResNet50, TSMTiny, TSNResNet34

BACKBONES: dict[str, Backbone] = {
    b.name: b for b in (ClipVitB16(), ClipTiny(), TSMResNet34(), TSMResNet50(), TSNResNet34(), TSMTiny())
}


def backbone(name: str) -> Backbone:
    """Return a backbone by name.

    Raises:
        BackboneError: There is none; names those there are.
    """
    if name not in BACKBONES:
        raise BackboneError(
            f"unknown backbone {name!r}{did_you_mean(name, BACKBONES)}; known: {', '.join(BACKBONES)}"
        )
    return BACKBONES[name]
