"""Protocols: which classes come when, on which split, seen through which clips, judged by which metric.

A protocol is a YAML file with a closed schema. Its fingerprint is the SHA-256 of everything in it that can
change a number, class orders written out; results with different fingerprints never share a column. A
protocol whose meaning changes gets a new version, nothing is edited silently.

This module imports neither torch nor any data code, so that reports can read protocols quickly.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from vcil_bench.common.config import ConfigError, build, read_yaml
from vcil_bench.common.errors import UserError, did_you_mean
from vcil_bench.metrics import METRICS
from vcil_bench.record_schema import LARGEST_SEED

from . import imported_lists
from .spec import ClipSpec as ClipSpec
from .spec import DatasetSpec as DatasetSpec
from .spec import MemorySpec as MemorySpec
from .spec import ProtocolSpec


class ProtocolError(UserError):
    """A protocol that is unknown, malformed, or that cannot be run yet."""


class Protocol:
    """A checked protocol, ready to give its tasks.

    Attributes:
        spec: The file's content, typed.
        origin: The file it was read from.
        overrides: Keys changed from the command line; not empty makes it a derived protocol.
    """

    def __init__(self, raw: Mapping[str, Any], origin: str, overrides: Mapping[str, Any] | None = None) -> None:
        """Build from a raw mapping, apply ``overrides`` (dotted keys) and check the whole."""
        merged = copy.deepcopy(dict(raw))
        for key, value in (overrides or {}).items():
            _assign(merged, key, value)
        self.origin = origin
        self.overrides = dict(overrides or {})
        self.spec = build(ProtocolSpec, merged, self._place)
        self._raw = raw
        self._check()

    def derive(self, overrides: Mapping[str, Any]) -> Protocol:
        """Return this protocol with some keys changed (``{"clip.frames": 16}``), marked as derived.

        Values that are what the protocol says already derive nothing.
        """
        derived = Protocol(self._raw, self.origin, {**self.overrides, **overrides})
        return self if derived.fingerprint == self.fingerprint else derived

    @property
    def name(self) -> str:
        """The protocol's name; a derived one keeps its parent's."""
        return self.spec.name

    @property
    def label(self) -> str:
        """The name, with eight digits of the fingerprint where a change derived another protocol."""
        return f"{self.name}~{self.fingerprint[:8]}" if self.overrides else self.name

    @cached_property
    def class_names(self) -> list[str]:
        """Class names in id order.

        Raises:
            ProtocolError: The names are known only from the data (``folder`` adapter without ``names``).
        """
        if self._class_names is None:
            raise ProtocolError(
                f"{self.origin}: the class names of dataset {self.spec.dataset.name!r} come from its data; "
                "write them under classes.names to know them without"
            )
        return self._class_names

    @property
    def has_class_names(self) -> bool:
        """Whether the names are known without the data."""
        return self._class_names is not None

    @cached_property
    def _class_names(self) -> list[str] | None:
        if self.spec.classes.names is not None:
            return list(self.spec.classes.names)
        dataset = self.spec.dataset
        if dataset.label_map is None:
            return None
        found = {
            entry.name[len(dataset.name) + 1 : -4]: entry
            for entry in _folder().joinpath("lists").iterdir()
            if entry.name.startswith(f"{dataset.name}_") and entry.name.endswith(".txt")
        }
        if dataset.label_map not in found:
            raise ProtocolError(
                f"{self.origin}: dataset.label_map: unknown label map {dataset.label_map!r}"
                f"{did_you_mean(dataset.label_map, found)}; known for {dataset.name!r}: "
                f"{', '.join(sorted(found)) or 'none'}"
            )
        return found[dataset.label_map].read_text(encoding="utf-8").splitlines()

    def order(self, seed: int) -> list[int]:
        """Return the class order: dataset class ids in the order in which they are learnt.

        Position in this list is the label the network sees. Source: TCD main.py for ``numpy_shuffle``
        (numpy's legacy stream is frozen by NEP 19).

        Raises:
            ProtocolError: The order must be imported first, or it contradicts its stored hash.
        """
        classes = self.spec.classes
        kind = classes.order.kind
        if kind == "numpy_shuffle":
            ids = np.arange(classes.num)
            np.random.RandomState(seed).shuffle(ids)
            order = [int(i) for i in ids]
        else:
            order = self._ids(self._imported_names() if kind == "imported" else self._listed_names())
        stored = classes.order_sha256.get(seed if kind == "numpy_shuffle" else "all")
        if stored is not None and stored != order_sha256(order):
            raise ProtocolError(
                f"{self.origin}: classes.order_sha256: the order for seed {seed} hashes to "
                f"{order_sha256(order)}, the file says {stored}; class names, their number or the order "
                "were changed without their hash"
            )
        return order

    def _listed_names(self) -> list[str]:
        spec = self.spec.classes.order
        if spec.names is not None:
            return spec.names
        entry = _folder().joinpath("lists").joinpath(str(spec.file))
        if not entry.is_file():
            raise ProtocolError(f"{self.origin}: classes.order: no list {spec.file!r} in protocols/lists")
        return entry.read_text(encoding="utf-8").splitlines()

    def _imported_names(self) -> list[str]:
        spec = self.spec.classes.order
        assert spec.file is not None
        assert spec.git_blob is not None
        if not imported_lists.is_imported(spec.file, spec.git_blob):
            raise ProtocolError(
                f"protocol {self.name!r} needs the authors' class lists, which cannot be distributed here: get "
                f"{spec.file} (git blob {spec.git_blob}) from {self.spec.source.code} and import it with "
                f"'vcil-bench prepare vclimb --pickle {spec.file}', or use a protocol with an order of its own, "
                "such as kinetics400_40x10_seeded"
            )
        return [name for task in imported_lists.read_tasks(spec.file, spec.git_blob) for name in task]

    def _ids(self, names: list[str]) -> list[int]:
        """Return the ids of class names that must be all classes, each once."""
        ids = {name: i for i, name in enumerate(self.class_names)}
        strange = [name for name in names if name not in ids or names.count(name) > 1]
        if strange or len(names) != len(ids):
            raise ProtocolError(
                f"{self.origin}: classes.order must list each of the {len(ids)} classes once; it lists "
                f"{len(names)}" + (f", unknown or twice: {strange[0]!r}" if strange else "")
            )
        return [ids[name] for name in names]

    def tasks(self, seed: int) -> list[list[int]]:
        """Return, per task, the dataset class ids it brings, in the order in which labels are given."""
        order, tasks, start = self.order(seed), [], 0
        for size in self.spec.tasks.sizes:
            tasks.append(order[start : start + size])
            start += size
        return tasks

    def check_seed(self, seed: int) -> None:
        """Refuse a seed that the protocol does not list, since its result would not be comparable."""
        if seed not in self.spec.seeds:
            raise ProtocolError(
                f"protocol {self.name!r} has no seed {seed}; its seeds: "
                f"{', '.join(map(str, self.spec.seeds))} (or 'all'); for another class order derive a "
                f"protocol: --set protocol.seeds=[{seed}]"
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that can change a number; titles, notes and sources do not count."""
        return hashlib.sha256(
            json.dumps(self.expanded(), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()

    def expanded(self) -> dict[str, Any]:
        """Return the canonical expanded protocol: every default filled in, every class order written out."""
        full = dataclasses.asdict(self.spec)
        for key in ("title", "source", "notes"):
            del full[key]
        full["classes"] = {
            "num": self.spec.classes.num,
            "names": self._class_names,
            "orders": {str(seed): self.order(seed) for seed in self.spec.seeds},
        }
        full["clip"]["short_side"] = self.spec.clip.short_side or self.spec.clip.size
        if full["memory"] is not None and full["memory"]["fill"] == MemorySpec.fill:
            del full["memory"]["fill"]  # younger than the protocols, whose fingerprints stay
        return full

    @property
    def _place(self) -> str:
        """Where the values were written, for errors: the file, and the command line if it changed any."""
        changes = [f"protocol.{key}={json.dumps(value)}" for key, value in self.overrides.items()]
        return f"{self.origin} with {' '.join(changes)}" if changes else self.origin

    def _check(self) -> None:
        """Check what the types alone cannot say."""
        spec = self.spec
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", spec.name):
            raise ConfigError(
                f"{self._place}: name: {spec.name!r} "
                "must be letters, digits, '.', '_' and '-', since it names a folder"
            )
        for key, numbers in (("tasks.sizes", spec.tasks.sizes), ("seeds", spec.seeds)):
            if not numbers:
                raise ConfigError(f"{self._place}: {key}: the list is empty")
        if min(spec.tasks.sizes) < 1:
            raise ConfigError(
                f"{self._place}: tasks.sizes: {spec.tasks.sizes} must be positive, but holds "
                f"{min(spec.tasks.sizes)}; every task brings at least one class"
            )
        if sum(spec.tasks.sizes) != spec.classes.num:
            raise ConfigError(
                f"{self._place}: tasks.sizes: {spec.tasks.sizes} must add up to classes.num = "
                f"{spec.classes.num}, but add up to {sum(spec.tasks.sizes)}"
            )
        if len(set(spec.seeds)) != len(spec.seeds):
            raise ConfigError(f"{self._place}: seeds: {spec.seeds} holds one twice")
        if not all(0 <= seed <= LARGEST_SEED for seed in spec.seeds):
            raise ConfigError(f"{self._place}: seeds: {spec.seeds} must lie in 0..{LARGEST_SEED}")
        if spec.clip.frames < 1 or spec.clip.size < 1:
            raise ConfigError(f"{self._place}: clip: frames and size must be at least 1")
        if spec.clip.short_side is not None and spec.clip.short_side < spec.clip.size:
            raise ConfigError(
                f"{self._place}: clip.short_side: {spec.clip.short_side} is smaller than clip.size = "
                f"{spec.clip.size}, so no crop fits"
            )
        crops = spec.clip.test_views.crops
        if crops >= 5 and spec.clip.short_side in (None, spec.clip.size):
            raise ConfigError(
                f"{self._place}: clip.test_views.crops: {crops} crops include the four corners, which fall "
                "together where frames are resized to the crop's own size; give clip.short_side above "
                f"{spec.clip.size} (TCD: 256 for 224), or crops=3 or 1"
            )
        for metric in (spec.metrics.headline, *spec.metrics.also):
            if metric not in METRICS:
                raise ConfigError(
                    f"{self._place}: metrics: unknown metric {metric!r}{did_you_mean(metric, METRICS)}; "
                    f"known: {', '.join(METRICS)}"
                )
        memory = spec.memory
        if memory is not None and (memory.per_class is None) == (memory.total is None):
            raise ConfigError(f"{self._place}: memory: give either per_class or total, not both or none")
        if memory is not None:
            for key in ("per_class", "total", "frames"):
                budget = getattr(memory, key)
                if isinstance(budget, int) and budget < 1:
                    raise ConfigError(f"{self._place}: memory.{key}: {budget} must be at least 1")
            frames = memory.frames
            if memory.fill == "interpolate" and (frames == "all" or not 1 < frames < spec.clip.frames):
                raise ConfigError(
                    f"{self._place}: memory.fill: interpolate needs memory.frames from 2 to clip.frames - 1 = "
                    f"{spec.clip.frames - 1}, not {frames}, which leaves nothing to interpolate; give another "
                    "number of frames, or leave memory.fill at repeat"
                )
        order = spec.classes.order
        known = spec.seeds if order.kind == "numpy_shuffle" else ["all"]
        for seed in spec.classes.order_sha256:
            if seed not in known and not self.overrides:  # a derived protocol may list other seeds
                raise ConfigError(
                    f"{self._place}: classes.order_sha256: {seed!r} is not one of {known}, so its hash "
                    "would never be checked"
                )
        if order.kind == "imported" and (order.file is None or order.git_blob is None):
            raise ConfigError(f"{self._place}: classes.order: an imported order needs file and git_blob")
        if order.kind == "listed" and (order.file is None) == (order.names is None):
            raise ConfigError(f"{self._place}: classes.order: a listed order needs file or names")
        names = self._class_names
        if names is not None and (len(names) != spec.classes.num or len(set(names)) != len(names)):
            raise ConfigError(
                f"{self._place}: classes.num is {spec.classes.num}, but {len(set(names))} different class "
                "names are given"
            )


def order_sha256(order: list[int]) -> str:
    """Return the SHA-256 of a class order, its ids joined by commas."""
    return hashlib.sha256(",".join(map(str, order)).encode()).hexdigest()


def _folder() -> resources.abc.Traversable:
    return resources.files("vcil_bench.protocols")


def names() -> list[str]:
    """Return the names of the protocols that come with the package, sorted."""
    return sorted(e.name[:-5] for e in _folder().iterdir() if e.name.endswith(".yaml"))


def load(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Protocol:
    """Load a protocol by its name, or from a YAML file of your own.

    Args:
        name_or_path: A name from ``names()``, or a path that ends in ``.yaml`` or ``.yml``.
        overrides: Dotted keys to change, which makes a derived protocol.

    Raises:
        ProtocolError: No such protocol.
        ConfigError: The file breaks the schema.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise ProtocolError(f"no protocol file {text!r}")
        return Protocol(read_yaml(path), str(path.resolve()), overrides)
    if text not in names():
        raise ProtocolError(
            f"unknown protocol {text!r}{did_you_mean(text, names())}; known: {', '.join(names())}; "
            "or give the path of a .yaml file"
        )
    with resources.as_file(_folder().joinpath(f"{text}.yaml")) as path:
        return Protocol(read_yaml(path), f"protocols/{text}.yaml", overrides)


def _assign(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``tree[a][b]`` for ``"a.b"``; the schema check that follows refuses keys that do not exist."""
    *parents, leaf = dotted.split(".")
    for key in parents:
        child = tree.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"protocol.{dotted}: {key!r} holds a value, not a section")
        tree = child
    tree[leaf] = value
