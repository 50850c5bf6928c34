"""Pretrained weights: finds, downloads and hashes them.

Nothing here unpickles: files are safetensors, or state dicts that torch reads with ``weights_only``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from vcil_bench.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class BackboneError(UserError):
    """A backbone that is unknown, or whose weights cannot be had or read."""


@dataclass(frozen=True)
class WeightsInfo:
    """What a record says of a backbone's weights.

    Attributes:
        name: The backbone.
        source: ``openai``, a timm model, ``random``, ``embedded`` or the file they were read from.
        sha256: Hash of the weight file; of ``random`` weights the seed stands instead.
        pretraining: Data the weights were trained on, as far as known.
    """

    name: str
    source: str
    sha256: str
    pretraining: str


def is_path(weights: str) -> bool:
    """Tell whether the text that names weights means a file, rather than a name such as ``random``."""
    path = Path(weights)
    return path.is_file() or "/" in weights or path.suffix in (".safetensors", ".pt", ".pth", ".bin")


def given_file(weights: str, names: str = "random") -> Path:
    """Return the weight file that a user named.

    Args:
        weights: The path.
        names: What could have been given instead, for the error.

    Raises:
        BackboneError: There is no such file.
    """
    path = Path(weights)
    if not path.is_file():
        raise BackboneError(
            f"weights: no file {weights!r}; leave weights out for the backbone's own, or give {names} or the "
            "path of a .safetensors file"
        )
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a plain state dict from safetensors, or from torch's own format without unpickling objects.

    Raises:
        BackboneError: The file is damaged or holds something else.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        if all(isinstance(value, torch.Tensor) for value in state.values()):
            return state
        kind = "not a state dict"
    except Exception as error:  # noqa: BLE001  # torch's reader raises anything on files that are none of its
        kind = type(error).__name__
    raise BackboneError(f"{path}: not a safetensors file or plain state dict of tensors ({kind})")


def from_hub(what: str, repository: str, names: tuple[str, ...], advice: str, fetch: Callable[[], Path]) -> Path:
    """Return a weight file from the Hugging Face cache, or else download it, failing at once without network.

    Args:
        what: The weights, for errors.
        repository: Model repository on the hub.
        names: Files any of which will do if cached.
        advice: What a user without network can do.
        fetch: Downloads and returns the path.

    Raises:
        BackboneError: Neither cached nor to be had; gives ``advice``.
    """
    import huggingface_hub

    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    host = urlparse(huggingface_hub.constants.ENDPOINT).hostname or ""
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise BackboneError(f"{what} are not on this machine and {host} cannot be reached: {advice}") from error
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        raise BackboneError(
            f"{what} could not be downloaded ({str(error).splitlines()[0]}): {advice}"
        ) from error
