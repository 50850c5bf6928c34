"""Entry of the table of backbones: what one is called, what it provides, and how it is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vcil_bench.common.files import cache_dir
from vcil_bench.nets.compute import PLAIN, ComputeOptions

if TYPE_CHECKING:
    from vcil_bench.nets.trunk import Trunk


class Backbone(ABC):
    """One entry of ``BACKBONES``.

    Attributes:
        name: The name used on the command line and in records.
        summary: One line for ``vcil-bench list backbones``.
        provides: What methods may ask of it: ``text`` (class texts in the space of the frame features),
            ``adapters`` (StPR's slots), ``maps`` (feature maps of the stages), ``projection`` (frame features
            before it too), ``slots`` (prompts and prefixes in it), ``non_negative`` (frame features behind a
            ReLU).
        image_size: Side of the frames it takes, in pixels.
        embedded_sibling: Backbone of the same family that ships with the package, used on embedded data.
        threads: CPU threads that serve it best, None for torch's default.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    provides: ClassVar[frozenset[str]]
    image_size: ClassVar[int]
    embedded_sibling: ClassVar[str]
    threads: ClassVar[int | None] = None

    @property
    @abstractmethod
    def own_source(self) -> str:
        """What ``WeightsInfo.source`` says of the weights that it takes where none are named."""

    @abstractmethod
    def load(self, weights: str | None, compute: ComputeOptions = PLAIN) -> Trunk:
        """Build the network with its own weights (None), ``random`` ones, or those that are named.

        Args:
            weights: Which weights.
            compute: How its networks are to compute.

        Raises:
            BackboneError: The weights cannot be had; says what to fetch and where to put it.
        """

    def local_file(self) -> Path:
        """Return where a hand-fetched weight file is looked for."""
        return cache_dir() / "weights" / f"{self.name}.safetensors"
