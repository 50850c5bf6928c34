"""The CLIP backbones: OpenAI's ViT-B/16 through open_clip, and the small CLIP that ships with the package."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.files import file_sha256
from vcil_bench.nets.compute import PLAIN, ComputeOptions
from vcil_bench.nets.weights import BackboneError, WeightsInfo, from_hub, given_file, read_state

from .base import Backbone

if TYPE_CHECKING:
    from torch import Tensor

    from vcil_bench.nets.clip import ClipTrunk


class ClipVitB16(Backbone):
    """CLIP ViT-B/16 with QuickGELU and OpenAI's weights, as open_clip builds it."""

    name = "clip_vit_b16"
    summary = "CLIP ViT-B/16 (open_clip ViT-B-16-quickgelu, OpenAI weights), 224 px"
    provides = frozenset({"text", "adapters", "maps", "projection", "slots"})
    image_size = 224
    embedded_sibling = "clip_tiny"
    architecture = "ViT-B-16-quickgelu"
    own_source = "openai"
    pretraining = "OpenAI WIT, 400M image-text pairs (not public)"

    def load(self, weights: str | None, compute: ComputeOptions = PLAIN) -> ClipTrunk:
        """Build ViT-B/16; without ``weights`` take the local file, then open_clip's download."""
        import open_clip
        import torch

        from vcil_bench.nets.clip import ClipTrunk

        if weights == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = _quiet_create(self.architecture)
            info = WeightsInfo(self.name, "random", "seed 0", "none (random weights)")
        else:
            path, source = self._weight_file(weights)
            model = _quiet_create(self.architecture)
            _load_into(model, path, self.architecture)
            info = WeightsInfo(self.name, source, file_sha256(path), self.pretraining)
            if source != self.own_source:
                info = WeightsInfo(self.name, source, info.sha256, "unknown (local file)")
        return ClipTrunk(self.name, model, open_clip.get_tokenizer(self.architecture), info, compute)

    def _weight_file(self, weights: str | None) -> tuple[Path, str]:
        if weights not in (None, "openai"):
            path = given_file(str(weights), "random, openai")
            return path, str(path.resolve())
        if self.local_file().is_file():
            return self.local_file(), self.own_source
        return self._download(), self.own_source

    def _download(self) -> Path:
        """Fetch OpenAI's weights through open_clip."""
        from open_clip.pretrained import download_pretrained, get_pretrained_cfg

        config = get_pretrained_cfg(self.architecture, "openai")
        repository = str(config["hf_hub"]).rstrip("/")
        advice = (
            f"fetch open_clip_model.safetensors of the Hugging Face model {repository} on a machine "
            f"with network and put it at {self.local_file()}, or give its path with --set weights=FILE; "
            "--set weights=random runs the architecture alone"
        )
        return from_hub(
            f"the OpenAI weights of {self.name}",
            repository,
            ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
            advice,
            lambda: Path(download_pretrained(config, prefer_hf_hub=True)),
        )


class ClipTiny(Backbone):
    """A small CLIP that ships with the package, pretrained on still pictures of the embedded objects."""

    name = "clip_tiny"
    summary = "small CLIP (ViT width 128, 4 blocks, patch 16) shipped with the package, 64 px"
    provides = frozenset({"text", "adapters", "maps", "projection", "slots"})
    image_size = 64
    # Its products are so small that threads mostly wait for each other: with another process on the machine,
    # two threads on two cores were measured at a tenth of the rate of one.
    threads = 1
    own_source = "embedded"
    embedded_sibling = "clip_tiny"

    def load(self, weights: str | None, compute: ComputeOptions = PLAIN) -> ClipTrunk:
        """Build the small CLIP with its shipped weights."""
        import open_clip
        import torch

        from vcil_bench.nets.clip import ClipTrunk

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
                _load_into(model, path, "clip_tiny")
                info = WeightsInfo(
                    self.name,
                    self.own_source if weights is None else str(path.resolve()),
                    file_sha256(path),
                    "rendered still pictures with captions" if weights is None else "unknown (local file)",
                )
            tokenizer = open_clip.SimpleTokenizer(
                bpe_path=str(files / "merges.txt.gz"),
                context_length=config["text_cfg"]["context_length"],
            )
        return ClipTrunk(self.name, model, tokenizer, info, compute)


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


def _load_into(model, path: Path, architecture: str) -> None:  # type: ignore[no-untyped-def]
    """Load a weight file into a model, every key matched.

    Raises:
        BackboneError: The file is damaged, of another model, or a TorchScript archive.
    """
    from open_clip import load_checkpoint

    try:
        load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # its conversions raise anything on what they do not know
        raise BackboneError(f"{path}: {_misfit(path, architecture)}") from error


def _misfit(path: Path, architecture: str) -> str:
    """Say what a weight file holds instead of the weights of an architecture."""
    try:
        found = clip_architecture(read_state(path))
    except BackboneError:
        return (
            "not a safetensors file or plain state dict; OpenAI's original .pt file is a TorchScript archive, "
            "which is not read: take open_clip's .safetensors"
        )
    if found in (None, architecture.removesuffix("-quickgelu")):
        return f"its keys are not those of {architecture} in open_clip; take open_clip's .safetensors of it"
    return f"this is a CLIP {found}, the backbone wants {architecture}"


def clip_architecture(state: Mapping[str, Tensor]) -> str | None:
    """Return open_clip's name of the CLIP whose weights these are, told by their shapes; None if it is none.

    Names that differ in nothing that weights show, such as ``-quickgelu``, give the shortest.

    Args:
        state: A state dict in open_clip's names.
    """
    import open_clip

    shapes = {name.removeprefix("module."): tuple(tensor.shape) for name, tensor in state.items()}
    patches = shapes.get("visual.conv1.weight", ())
    if len(patches) != 4 or "visual.proj" not in shapes or "ln_final.weight" not in shapes:
        return None
    blocks = {int(name.split(".")[3]) for name in shapes if name.startswith("visual.transformer.resblocks.")}
    looks = (patches[0], patches[3], len(blocks), *shapes["visual.proj"][1:], *shapes["ln_final.weight"])
    names = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision, text = config["vision_cfg"], config["text_cfg"]
        parts = (vision.get("width"), vision.get("patch_size"), vision.get("layers"), config["embed_dim"])
        if (*parts, text.get("width")) == looks:
            names.append(name)
    return min(names, key=lambda name: (len(name), name), default=None)
