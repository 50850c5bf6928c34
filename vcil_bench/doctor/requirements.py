"""Requirements of runs beside the machine: weights, data, lists, frame store; where, or how to get them.

What is not there is ``lacking``, with the way to get it; that is a failure only where it was asked for by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub

from vcil_bench import protocol
from vcil_bench.common.errors import UserError
from vcil_bench.common.files import cache_dir
from vcil_bench.data.datasets import ADAPTERS
from vcil_bench.data.datasets.base import NotAList
from vcil_bench.data.datasets.tree import Tree
from vcil_bench.data.store.frame_store import FrameStore, default_root
from vcil_bench.nets.backbones import BACKBONES, backbone
from vcil_bench.nets.backbones.base import Backbone
from vcil_bench.protocol import imported_lists

from .machine import NAME
from .outcome import Line, Result


def report(wanted: Sequence[str], roots: Mapping[str, Path]) -> Iterator[Line]:
    """Look for what runs need.

    Args:
        wanted: Backbones whose weights must be there.
        roots: Datasets that must be there, and their folders.

    Raises:
        UserError: An unknown backbone or dataset.
    """
    for name in wanted:
        backbone(name)
    for name in BACKBONES:
        yield _weights(name, must=name in wanted)
    for dataset, root in roots.items():
        yield from _data(dataset, root)
    yield from _prepared({root.resolve() for root in roots.values()})
    yield from _lists()
    yield _store()


def _weights(name: str, *, must: bool) -> Line:
    chosen = BACKBONES[name]
    what = f"weights {name}"
    if chosen.embedded_sibling == name:
        return Line(NAME, what, "ok", "come with the package")
    file = chosen.local_file()
    repository, names = hub_files(chosen)
    cached = [huggingface_hub.try_to_load_from_cache(repository, name) for name in names]
    there = [str(path) for path in (file if file.is_file() else None, *cached) if isinstance(path, (str, Path))]
    if there:
        return Line(NAME, what, "ok", there[0])
    result: Result = "failed" if must else "lacking"
    return Line(
        NAME,
        what,
        result,
        f"fetched at the first run that needs them; without network put {names[0]} of the Hugging Face model "
        f"{repository} at {file}",
    )


def hub_files(chosen: Backbone) -> tuple[str, tuple[str, ...]]:
    """Return where a backbone's own weights lie on the Hugging Face hub: repository, and files that will do."""
    architecture: Any = getattr(chosen, "architecture", None)
    if chosen.own_source == "openai":
        from open_clip.pretrained import get_pretrained_cfg

        config = get_pretrained_cfg(architecture, "openai")
        return str(config["hf_hub"]).rstrip("/"), ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    import timm

    found: Any = timm.get_pretrained_cfg(chosen.own_source.removeprefix("timm "))
    return str(found.hf_hub_id), ("model.safetensors",)


def _data(name: str, root: Path) -> Iterator[Line]:
    """Look whether a dataset lies in a folder: its lists, and the files that they name; none is opened."""
    if name not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise UserError(f"--data {name}={root}: no dataset {name!r}; known: {known}")
    source = ADAPTERS[name]
    try:
        splits = source.splits(root)
        if not splits:
            raise source.without_split(root)
    except UserError as error:
        yield Line(NAME, f"{name}", "failed", str(error))
        return
    for split in splits:
        what = f"{name}, split {split}"
        try:
            listed = [video for video in source.list_videos(root, split) if video.split in ("train", "test")]
        except NotAList:
            continue
        except UserError as error:
            yield Line(NAME, what, "failed", str(error))
            continue
        tree = Tree(root)
        gone = [video.path for video in listed if not tree.has(video.path)]
        missing = f"{len(gone)} of {len(listed)} videos are missing (first: {gone[0]})" if gone else ""
        whole = f"{len(listed)} videos are there; 'vcil-bench prepare {name} {root}' opens them"
        yield Line(NAME, what, "failed" if gone else "ok", f"{root}: {missing or whole}")


def _prepared(looked_at: set[Path]) -> Iterator[Line]:
    """Name the roots that were prepared before, and whether they are there still."""
    told = set()
    for manifest in sorted((cache_dir() / "manifests").glob("*/split-*.jsonl")):
        with manifest.open(encoding="utf-8") as file:
            header = json.loads(file.readline())
        place = Path(header["root"])
        if place.resolve() in looked_at or (header["dataset"], place) in told:
            continue
        told.add((header["dataset"], place))
        there = place.is_dir()
        figure = str(place) if there else f"{place} was prepared and is gone; mount it, or give another root"
        yield Line(NAME, f"{header['dataset']}, prepared before", "ok" if there else "lacking", figure)
    if not told and not looked_at:
        yield Line(NAME, "datasets", "lacking", "none was prepared yet: vcil-bench prepare DATASET ROOT")


def _lists() -> Iterator[Line]:
    """Say which lists were imported that cannot be distributed, and which protocols wait for them."""
    waiting: dict[tuple[str, str], list[str]] = {}
    for name in protocol.names():
        order = protocol.load(name).spec.classes.order
        if order.kind == "imported":
            waiting.setdefault((str(order.file), str(order.git_blob)), []).append(name)
    for (file, blob), names in waiting.items():
        there = imported_lists.is_imported(file, blob)
        figure = f"{file} for {', '.join(names)}"
        if not there:
            figure += f"; get the file from the authors, then: vcil-bench prepare vclimb --pickle {file}"
        yield Line(NAME, "authors' lists", "ok" if there else "lacking", figure)


def _store() -> Line:
    root = default_root()
    if not root.is_dir():
        return Line(
            NAME, "frame store", "note", f"none at {root}; 'vcil-bench prepare DATASET ROOT --store' makes one"
        )
    try:
        settings = FrameStore.open(root).settings
    except UserError as error:
        return Line(NAME, "frame store", "lacking", str(error))
    return Line(NAME, "frame store", "ok", f"{root}, JPEG quality {settings['quality']}")
