"""Pretrained weights: loaded once by timm's or open_clip's own loader, and kept where runs look for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub

from vcil_bench.common.files import file_sha256, replacing
from vcil_bench.doctor.requirements import hub_files
from vcil_bench.nets.backbones import BACKBONES, backbone

from .errors import FetchError


def fetch_weights(name: str, folder: Path | None = None) -> tuple[Path, str, bool]:
    """Put a backbone's own weights where runs look for them.

    They are loaded into the network first, every key matched, so that a file of something else is never kept.

    Args:
        name: The backbone.
        folder: Folder that holds the file as the hub names it, in place of the hub.

    Returns:
        Where the file lies, its SHA-256, and whether it lay there before.

    Raises:
        BackboneError: There is no such backbone, or its weights cannot be had or are others; says what to fetch
            by hand.
        FetchError: The backbone's weights come with the package, or do not lie in ``folder``.
    """
    chosen = backbone(name)
    if chosen.embedded_sibling == name:
        others = ", ".join(other for other, known in BACKBONES.items() if known.embedded_sibling != other)
        raise FetchError(f"the weights of {name} come with the package; fetched are those of: {others}")
    target = chosen.local_file()
    if target.is_file():
        chosen.load(str(target))
        return target, file_sha256(target), True
    repository, names = hub_files(chosen)
    if folder is None:
        chosen.load(None)
        cached = [huggingface_hub.try_to_load_from_cache(repository, file) for file in names]
        path = next((Path(file) for file in cached if isinstance(file, str)), None)
        if path is None:
            raise FetchError(
                f"{name}: was loaded, but not from the cache of {repository}; nothing is kept of it"
            )
    else:
        path = next((folder / file for file in names if (folder / file).is_file()), None)
        if path is None:
            raise FetchError(
                f"{folder}: {' or '.join(names)} of the Hugging Face model {repository} is not there"
            )
        chosen.load(str(path))
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    return target, file_sha256(target), False
