"""Backbones by name: how each is built, where its weights come from, and what to do when they are not there.

Weights are downloaded by open_clip, or read from a local file; either way their hash is recorded. Nothing here
unpickles: files are safetensors, or state dicts that torch reads with ``weights_only``.
"""

from __future__ import annotations

import importlib.resources
import pickle
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlparse

from vcil_bench.errors import UserError, did_you_mean
from vcil_bench.storage import cache_dir, file_sha256

if TYPE_CHECKING:
    from torch import Tensor

    from .clip import ClipTrunk

    Tokenizer = Callable[[list[str]], Tensor]
else:
    Tokenizer = Callable


class BackboneError(UserError):
    """A backbone that is unknown, or whose weights cannot be had or read."""


@dataclass(frozen=True)
class WeightsInfo:
    """What a record says of a backbone's weights.

    Attributes:
        name: The backbone.
        source: ``openai``, ``random``, ``embedded`` or the file they were read from.
        sha256: Hash of the weight file; of ``random`` weights the seed stands instead.
        pretraining: Data the weights were trained on, as far as known.
    """

    name: str
    source: str
    sha256: str
    pretraining: str


class Backbone(ABC):
    """One entry of ``BACKBONES``.

    Attributes:
        name: The name used on the command line and in records.
        summary: One line for ``vcil-bench list backbones``.
        provides: What methods may ask of it.
        image_size: Side of the frames it takes, in pixels.
        embedded_sibling: Backbone of the same family that ships with the package, used on embedded data.
        threads: CPU threads that serve it best, None for torch's default.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    provides: ClassVar[frozenset[str]] = frozenset({"text", "adapters"})
    image_size: ClassVar[int]
    embedded_sibling: ClassVar[str]
    threads: ClassVar[int | None] = None

    @abstractmethod
    def load(self, weights: str | None) -> ClipTrunk:
        """Build the network with its own weights (None), ``random`` ones, or those of a file.

        Raises:
            BackboneError: The weights cannot be had; says what to fetch and where to put it.
        """


class ClipVitB16(Backbone):
    """CLIP ViT-B/16 with QuickGELU and OpenAI's weights, as open_clip builds it."""

    name = "clip_vit_b16"
    summary = "CLIP ViT-B/16 (open_clip ViT-B-16-quickgelu, OpenAI weights), 224 px"
    image_size = 224
    embedded_sibling = "clip_tiny"
    architecture = "ViT-B-16-quickgelu"
    pretraining = "OpenAI WIT, 400M image-text pairs (not public)"

    def load(self, weights: str | None) -> ClipTrunk:
        """Build ViT-B/16; without ``weights`` take the local file, then open_clip's download."""
        import open_clip
        import torch

        from .clip import ClipTrunk

        if weights == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = _quiet_create(self.architecture)
            info = WeightsInfo(self.name, "random", "seed 0", "none (random weights)")
        else:
            path, source = self._weight_file(weights)
            model = _quiet_create(self.architecture)
            _load_into(model, path)
            info = WeightsInfo(self.name, source, file_sha256(path), self.pretraining)
            if source != "openai":
                info = WeightsInfo(self.name, source, info.sha256, "unknown (local file)")
        return ClipTrunk(self.name, model, open_clip.get_tokenizer(self.architecture), info)

    def local_file(self) -> Path:
        """Return where a hand-fetched weight file is looked for."""
        return cache_dir() / "weights" / f"{self.name}.safetensors"

    def _weight_file(self, weights: str | None) -> tuple[Path, str]:
        if weights not in (None, "openai"):
            path = given_file(str(weights))
            return path, str(path.resolve())
        if self.local_file().is_file():
            return self.local_file(), "openai"
        return self._download(), "openai"

    def _download(self) -> Path:
        """Fetch OpenAI's weights through open_clip, failing at once where the hub cannot be reached."""
        import huggingface_hub
        import open_clip
        from open_clip.pretrained import download_pretrained, get_pretrained_cfg

        config = get_pretrained_cfg(self.architecture, "openai")
        repository = str(config["hf_hub"]).rstrip("/")
        for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
            cached = huggingface_hub.try_to_load_from_cache(repository, name)
            if isinstance(cached, str):
                return Path(cached)
        host = urlparse(huggingface_hub.constants.ENDPOINT).hostname or ""
        advice = (
            f"fetch open_clip_model.safetensors of the Hugging Face model {repository} on a machine "
            f"with network and put it at {self.local_file()}, or give its path with --set weights=FILE; "
            "--set weights=random runs the architecture alone"
        )
        try:
            socket.getaddrinfo(host, 443)
        except OSError as error:
            raise BackboneError(
                f"the OpenAI weights of {self.name} are not on this machine and {host} cannot be reached: "
                f"{advice}"
            ) from error
        try:
            return Path(download_pretrained(config, prefer_hf_hub=True))
        except (OSError, RuntimeError) as error:
            raise BackboneError(
                f"the OpenAI weights of {self.name} could not be downloaded with open_clip "
                f"{open_clip.__version__} ({str(error).splitlines()[0]}): {advice}"
            ) from error


class ClipTiny(Backbone):
    """A small CLIP that ships with the package, pretrained on still pictures of the embedded objects."""

    name = "clip_tiny"
    summary = "small CLIP (ViT width 128, 4 blocks, patch 16) shipped with the package, 64 px"
    image_size = 64
    # Its products are so small that threads mostly wait for each other: with another process on the machine,
    # two threads on two cores were measured at a tenth of the rate of one.
    threads = 1
    embedded_sibling = "clip_tiny"

    def load(self, weights: str | None) -> ClipTrunk:
        """Build the small CLIP with its shipped weights."""
        import open_clip
        import torch

        from .clip import ClipTrunk

        folder = importlib.resources.files("vcil_bench.nets") / "tiny_clip"
        with importlib.resources.as_file(folder) as files:
            open_clip.add_model_config(files / "clip_tiny.json")
            config = open_clip.get_model_config("clip_tiny")
            if weights == "random":
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    model = _quiet_create("clip_tiny")
                info = WeightsInfo(self.name, "random", "seed 0", "none (random weights)")
            else:
                path = files / "weights.safetensors" if weights is None else given_file(weights)
                model = _quiet_create("clip_tiny")
                _load_into(model, path)
                info = WeightsInfo(
                    self.name,
                    "embedded" if weights is None else str(path.resolve()),
                    file_sha256(path),
                    "rendered still pictures with captions" if weights is None else "unknown (local file)",
                )
            tokenizer = open_clip.SimpleTokenizer(
                bpe_path=str(files / "merges.txt.gz"),
                context_length=config["text_cfg"]["context_length"],
            )
        return ClipTrunk(self.name, model, tokenizer, info)


BACKBONES: dict[str, Backbone] = {b.name: b for b in (ClipVitB16(), ClipTiny())}


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


def given_file(weights: str) -> Path:
    """Return the weight file that a user named.

    Raises:
        BackboneError: There is no such file.
    """
    path = Path(weights)
    if not path.is_file():
        raise BackboneError(
            f"weights: no file {weights!r}; leave weights out for the backbone's own, or give random or the "
            "path of a .safetensors file"
        )
    return path


def _quiet_create(architecture: str):  # type: ignore[no-untyped-def]  # open_clip's CLIP, untyped
    """Create an open_clip model without weights, without its warning that there are none."""
    import logging

    import open_clip

    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(architecture, pretrained=None)
    finally:
        logging.disable(previous)


def _load_into(model, path: Path) -> None:  # type: ignore[no-untyped-def]
    """Load a weight file into a model, every key matched.

    Raises:
        BackboneError: The file is damaged, of another model, or a TorchScript archive.
    """
    from open_clip import load_checkpoint
    from safetensors import SafetensorError

    try:
        load_checkpoint(model, str(path), strict=True, weights_only=True)
    except (RuntimeError, OSError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise BackboneError(
            f"{path}: not a safetensors file or plain state dict of this architecture "
            f"({type(error).__name__}); OpenAI's original .pt file is a TorchScript archive, which is not "
            "read: take open_clip's .safetensors"
        ) from error
