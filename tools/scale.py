"""Scale on paper: writes docs/scale.md's tables of hours, disk and decode workers per protocol and family of methods.

Operations are counted (``flop_counts.py``, kept in ``scale_counts.json``), visits follow from the protocols and
the methods' recipes, rates and the GPU's peak stand with their sources in ``scale.yaml``. ``make scale`` counts
what recipes have changed and writes the tables; ``--anew`` counts all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from docstring_tables import markdown
from flop_counts import Counted, Line, Step, Visits, Work, count, growing, work

from vcil_bench import protocol, registry
from vcil_bench.common.config import build, read_yaml
from vcil_bench.data.datasets import ADAPTERS
from vcil_bench.method import Method
from vcil_bench.protocol import MemorySpec
from vcil_bench.protocol.budget import allowed_videos
from vcil_bench.protocol.spec import ProtocolSpec
from vcil_bench.run.plan import plain_values

HERE = Path(__file__).parent
ASSUMPTIONS, COUNTS = HERE / "scale.yaml", HERE / "scale_counts.json"
PAGE = Path("docs/scale.md")
SHOWN = "tcd_ucf101_10x5"  # whose families are shown in full
PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU's peak, how much of it is taken to be reached, and the cores beside it."""

    name: str
    peak_tflops: dict[str, float]
    source: str
    utilisation: dict[str, dict[str, float]]
    cores: int
    gpus: list[int]

    def flops(self, backbone: str, precision: str) -> float:
        """Return operations a second."""
        kind = "clip" if backbone.startswith("clip") else "resnet"
        return 1e12 * self.peak_tflops[precision] * self.utilisation[precision][kind]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Clips a second that one core was measured to load: from videos of so many pixels, and from the store."""

    video: float
    store: float
    pixels: float
    frames: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a dataset's videos are like."""

    rate: str
    frames: float
    pixels: float
    video_kb: float
    frame_kb: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Videos of a protocol whose adapter does not tell."""

    train: int
    test: int
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """A stream that no protocol has."""

    like: str
    classes: int
    tasks: int
    train: int
    test: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """All of ``scale.yaml``."""

    gpu: Gpu
    rates: dict[str, Rate]
    datasets: dict[str, Dataset]
    frame_kb_source: str
    families: dict[str, str]
    lists: dict[str, Lists] = field(default_factory=dict)
    imagined: dict[str, Imagined] = field(default_factory=dict)

    def rate_of(self, dataset: str) -> Rate:
        """Return what one core loads of a dataset: from videos in proportion to their pixels."""
        kind = self.datasets[dataset]
        like = self.rates[kind.rate]
        video = like.video * like.frames * like.pixels / (kind.frames * kind.pixels)
        return dataclasses.replace(like, video=video)


@dataclass(frozen=True)
class Stream:
    """The tasks of a protocol, or of an imagined one.

    Attributes:
        name: For the tables.
        spec: Of the protocol whose recipes it takes.
        sizes: Classes per task.
        train: Training videos of all classes.
        test: Test videos.
        memory: Exemplars allowed.
    """

    name: str
    spec: ProtocolSpec
    sizes: tuple[int, ...]
    train: int
    test: int
    memory: MemorySpec | None

    def steps(self, *, cumulative: bool) -> list[Step]:
        """Return the work of every task, as if all classes had as many videos."""
        classes, seen, made = sum(self.sizes), 0, []
        for size in self.sizes:
            old, seen = allowed_videos(self.memory, seen) if seen else 0, seen + size
            new = allowed_videos(self.memory, seen) * size / seen
            videos = self.train * (seen if cumulative else size) / classes
            made.append(Step(videos, new, old, self.test * seen / classes))
        return made


def load() -> Assumptions:
    """Read ``scale.yaml``."""
    return build(Assumptions, read_yaml(ASSUMPTIONS), str(ASSUMPTIONS))


def streams(found: Assumptions) -> dict[str, Stream]:
    """Return the protocols on real data by name, then those that are imagined."""
    made = {}
    for name in protocol.names():
        spec = protocol.load(name).spec
        if ADAPTERS[spec.dataset.name].kind != "real":
            continue
        if name in found.lists:
            train, test = found.lists[name].train, found.lists[name].test
        else:
            published = ADAPTERS[spec.dataset.name].published[str(spec.dataset.split)]
            train, test = published.train[0], published.test[0]
        made[name] = Stream(name, spec, tuple(spec.tasks.sizes), train, test, spec.memory)
    for name, imagined in found.imagined.items():
        spec = protocol.load(imagined.like).spec
        memory = spec.memory
        if memory is not None and memory.total is not None:
            memory = dataclasses.replace(memory, total=memory.total * imagined.classes // spec.classes.num)
        sizes = (imagined.classes // imagined.tasks,) * imagined.tasks
        made[name] = Stream(name, spec, sizes, imagined.train, imagined.test, memory)
    return made


def method(name: str) -> type[Method]:
    """Return a built-in method."""
    cls = registry.find(name).cls
    assert cls is not None
    return cls


def key(name: str, spec: ProtocolSpec) -> str:
    """Return what a count of a method on a protocol hangs on, as text."""
    cls = method(name)
    config = plain_values(cls.resolve_config(spec.name, {})[0])
    return json.dumps([name, cls.backbone_for(spec.name)[0], spec.clip.frames, config], sort_keys=True)


class Counts:
    """What was counted, kept in a file."""

    def __init__(self, path: Path = COUNTS) -> None:
        self._path = path
        self._kept: dict[str, Counted] = {}
        if path.exists():
            for values in json.loads(path.read_text(encoding="utf-8")):
                counted = _counted(values)
                self._kept[self._key(counted)] = counted

    @staticmethod
    def _key(counted: Counted) -> str:
        return json.dumps([counted.method, counted.backbone, counted.frames, counted.config], sort_keys=True)

    def of(self, name: str, spec: ProtocolSpec) -> Counted:
        """Return a method's count on a protocol; raises KeyError if it, or its recipe, was not counted."""
        return self._kept[key(name, spec)]

    def complete(self, families: Sequence[str], specs: Sequence[ProtocolSpec], *, anew: bool) -> None:
        """Count what is lacking, forget what is of no use, and keep it all."""
        kept = {} if anew else self._kept
        self._kept = {}
        for name in families:
            for spec in specs:
                wanted = key(name, spec)
                if wanted in self._kept:
                    continue
                if wanted not in kept:
                    sys.stderr.write(f"counting {name} as on {spec.name} ...\n")
                    kept[wanted] = count(method(name), protocol.load(spec.name))
                    # What was counted so far outlives an interruption.
                    self._save({**kept, **self._kept})
                self._kept[wanted] = kept[wanted]
        self._save(self._kept)

    def _save(self, kept: Mapping[str, Counted]) -> None:
        lines = [json.dumps(dataclasses.asdict(counted)) for counted in kept.values()]
        self._path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _counted(values: dict[str, Any]) -> Counted:
    learn = [
        [Line(line["phase"], line["flops"], Visits(**line["visits"])) for line in lines]
        for lines in values["learn"]
    ]
    return Counted(**{**values, "learn": learn})
