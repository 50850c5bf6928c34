"""The ResNet backbones: torchvision's ImageNet weights through timm, and the small ResNet that is shipped."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vcil_bench.common.files import file_sha256
from vcil_bench.nets.compute import PLAIN, ComputeOptions
from vcil_bench.nets.weights import (
    BackboneError,
    WeightsInfo,
    from_hub,
    given_file,
    is_path,
    read_state,
)

from .base import Backbone

if TYPE_CHECKING:
    from timm.models.resnet import ResNet

    from vcil_bench.nets.tsm import TSMTrunk

TINY_FOLDER = "tiny_tsm"


class _TimmResNet(Backbone):
    """A ResNet of timm with its ImageNet weights.

    Attributes:
        architecture: Its name in timm.
        tag: timm's tag of the default weights; ``tv_in1k`` are torchvision's first ones, from which TCD and TSM
            start (TCD ops/resnet_models.py).
        shift: Whether frames exchange channels.
    """

    provides = frozenset({"maps", "non_negative"})
    image_size = 224
    embedded_sibling = "tsm_tiny"
    architecture: ClassVar[str]
    tag: ClassVar[str] = "tv_in1k"
    shift: ClassVar[bool] = True

    @property
    def own_source(self) -> str:
        """The default weights, by timm's name of them."""
        return f"timm {self.architecture}.{self.tag}"

    def load(self, weights: str | None, compute: ComputeOptions = PLAIN) -> TSMTrunk:
        """Build it; ``weights`` may be a file, ``random``, or another of timm's (``resnet34.a1_in1k``)."""
        import timm
        import torch

        from vcil_bench.nets.tsm import TSMTrunk

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # Blocks that start as nothing would stay so, where partial batch norm freezes their last norm.
            net: Any = timm.create_model(
                self.architecture, pretrained=False, num_classes=0, zero_init_last=False
            )
        model = f"{self.architecture}.{self.tag}"
        if weights == "random":
            info = WeightsInfo(self.name, "random", "seed 0", "none (random weights)")
        elif weights is not None and is_path(weights):
            path = given_file(weights, f"random, {model}")
            _load_into(net, path)
            info = WeightsInfo(self.name, str(path.resolve()), file_sha256(path), "unknown (local file)")
        else:
            model = weights or model
            path = self._weight_file(model, weights is None)
            _load_into(net, path)
            info = WeightsInfo(self.name, f"timm {model}", file_sha256(path), _pretraining(model))
        config: Any = timm.get_pretrained_cfg(model if info.source.startswith("timm") else self.architecture)
        return TSMTrunk(
            self.name, net, config.mean, config.std, self.image_size, info, compute, shift=self.shift
        )

    def local_file(self) -> Path:
        """Return where a hand-fetched file of the default weights is looked for, one for TSM and TSN."""
        return super().local_file().with_name(f"{self.architecture}.{self.tag}.safetensors")

    def _weight_file(self, model: str, default: bool) -> Path:
        import timm
        from huggingface_hub import hf_hub_download

        known = timm.list_pretrained(f"{self.architecture}.*")
        if model not in known:
            raise BackboneError(
                f"weights: {model!r} is neither a file nor weights of {self.architecture} that timm knows; "
                f"allowed: random, a .safetensors or .pth file, {', '.join(known)}"
            )
        if default and self.local_file().is_file():
            return self.local_file()
        config: Any = timm.get_pretrained_cfg(model)
        repository = str(config.hf_hub_id)
        advice = (
            f"fetch model.safetensors of the Hugging Face model {repository} on a machine with network and "
            + (f"put it at {self.local_file()}, or " if default else "")
            + "give its path with --set weights=FILE; --set weights=random runs the architecture alone"
        )
        return from_hub(
            f"the weights {model}",
            repository,
            ("model.safetensors",),
            advice,
            lambda: Path(hf_hub_download(repository, "model.safetensors")),
        )


class TSMResNet34(_TimmResNet):
    """ResNet-34 with temporal shift: TCD's backbone on UCF101."""

    name = "tsm_resnet34"
    summary = "ResNet-34 with temporal shift (timm, torchvision's ImageNet weights), 224 px, trained whole"
    architecture = "resnet34"


class TSMResNet50(_TimmResNet):
    """ResNet-50 with temporal shift: the field's backbone on HMDB51 and Something-Something V2."""

    name = "tsm_resnet50"
    summary = "ResNet-50 with temporal shift (timm, torchvision's ImageNet weights), 224 px, trained whole"
    architecture = "resnet50"


class TSNResNet34(_TimmResNet):
    """ResNet-34 without shift: vCLIMB's backbone."""

    name = "tsn_resnet34"
    summary = "ResNet-34 without temporal shift (TSN; vCLIMB's backbone), 224 px, trained whole"
    architecture = "resnet34"
    shift = False


class TSMTiny(Backbone):
    """A small ResNet with temporal shift that ships with the package."""

    name = "tsm_tiny"
    summary = "small ResNet with temporal shift (4 blocks) shipped with the package, 64 px, trained whole"
    provides = frozenset({"maps", "non_negative"})
    image_size = 64
    own_source = "embedded"
    embedded_sibling = "tsm_tiny"
    threads = 1  # as for the small CLIP

    def load(self, weights: str | None, compute: ComputeOptions = PLAIN) -> TSMTrunk:
        """Build the small ResNet with its shipped weights."""
        import torch

        from vcil_bench.nets.tsm import TSMTrunk

        folder = importlib.resources.files("vcil_bench.nets") / TINY_FOLDER
        with importlib.resources.as_file(folder) as files:
            config = json.loads((files / "tsm_tiny.json").read_text(encoding="utf-8"))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                net = tiny_network(config)
            if weights == "random":
                info = WeightsInfo(self.name, "random", "seed 0", "none (random weights)")
            else:
                path = files / "weights.safetensors" if weights is None else given_file(weights)
                _load_into(net, path)
                info = WeightsInfo(
                    self.name,
                    self.own_source if weights is None else str(path.resolve()),
                    file_sha256(path),
                    "rendered still pictures" if weights is None else "unknown (local file)",
                )
        mean, std = tuple(config["mean"]), tuple(config["std"])
        return TSMTrunk(self.name, net, mean, std, self.image_size, info, compute)


def tiny_network(config: dict[str, Any]) -> ResNet:
    """Build the small ResNet of a configuration (``tiny_tsm/tsm_tiny.json``), without weights."""
    from timm.models import resnet

    keys = ("layers", "channels", "stem_type", "stem_width")
    return resnet.ResNet(
        getattr(resnet, str(config["block"])),
        num_classes=0,
        zero_init_last=False,  # blocks that start as nothing learn later, and the pretraining is short
        **{key: config[key] for key in keys},
    )


def _load_into(net: ResNet, path: Path) -> None:
    """Load a weight file into a network, every key matched; a classifier in the file is left out.

    Raises:
        BackboneError: The file is damaged or of another architecture.
    """
    state = {key: value for key, value in read_state(path).items() if not key.startswith("fc.")}
    try:
        # The number of batches that a batch norm has seen plays no part where momentum is fixed.
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BackboneError(
            f"{path}: weights of another architecture ({str(error).splitlines()[1].strip()})"
        ) from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        wrong = f"lacks {missing[0]!r}" if missing else f"has {unexpected[0]!r}"
        raise BackboneError(f"{path}: weights of another architecture ({wrong})")


def _pretraining(model: str) -> str:
    """Say what data a timm model's weights have seen, from the end of its name."""
    tag = model.rpartition(".")[2]
    plain = tag.endswith("in1k") and "ft" not in tag
    return "ImageNet-1k (1.28M labelled images)" if plain else f"timm tag {tag}"
