"""Scale on paper: writes the tables of docs/scale.md, hours, disk and decode workers per protocol and family.

Operations are counted (``flop_counts.py``, kept in ``scale_counts.json``), visits follow from the protocols and
the methods' recipes, rates and the GPU's peak stand with their sources in ``scale.yaml``. ``make scale`` counts
what recipes have changed and writes the tables; ``--anew`` counts all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docstring_tables import markdown
from flop_counts import Counted, Line, Step, Visits, count, growing, work
from reproduction import with_table

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


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True)
class Cost:
    """What a run of a family's method on a stream takes.

    Attributes:
        counted: The method.
        train_flops: Operations of training.
        test_flops: Operations of the tests.
        train_clips: Clips it trains on.
        test_clips: Clips it is tested on.
        gpu_s: Seconds of the GPU, by precision.
        video_s: Seconds of one core that loads the clips from videos.
        store_s: The same from a frame store.
        cores: Cores beside the GPU.
        state_bytes: Of a saved state after the last task.
    """

    counted: Counted
    train_flops: float
    test_flops: float
    train_clips: float
    test_clips: float
    gpu_s: dict[str, float]
    video_s: float
    store_s: float
    cores: int
    state_bytes: float

    def seconds(self, precision: str = "bf16") -> float:
        """Return how long it takes from the store: as long as the GPU or as its cores."""
        return max(self.gpu_s[precision], self.store_s / self.cores)

    @property
    def waits(self) -> bool:
        """Whether the GPU waits for clips although they come from the store."""
        return self.store_s / self.cores > self.gpu_s["bf16"]


def cost(found: Assumptions, counts: Counts, stream: Stream, name: str) -> Cost:
    """Estimate a run."""
    counted = counts.of(name, stream.spec)
    views = stream.spec.clip.test_views
    steps = stream.steps(cumulative=method(name).data_access == "cumulative")
    done = work(counted, steps, views.clips * views.crops)
    train, test = sum(w.train_flops for w in done), sum(w.test_flops for w in done)
    train_clips, test_clips = sum(w.train_clips for w in done), sum(w.test_clips for w in done)
    gpu_s = {p: (train + test) / found.gpu.flops(counted.backbone, p) for p in PRECISIONS}
    rate = found.rate_of(stream.spec.dataset.name)
    clips = train_clips + test_clips
    state = growing([float(size) for size in counted.state_bytes], len(steps) - 1)
    return Cost(
        counted, train, test, train_clips, test_clips, gpu_s, clips / rate.video, clips / rate.store,
        found.gpu.cores, state,
    )  # fmt: skip


def tables(found: Assumptions, counts: Counts) -> dict[str, str]:
    """Return the tables of the page by name."""
    costs = {
        stream: {name: cost(found, counts, stream, name) for name in found.families}
        for stream in streams(found).values()
    }
    return {
        "families": _families(found, next(c for s, c in costs.items() if s.name == SHOWN)),
        "hours": _hours(found, costs),
        "workers": _workers(found, costs),
        "machines": _machines(found, costs),
        "disk": _disk(found, costs),
        "assumptions": _assumptions(found),
    }


def _families(found: Assumptions, costs: Mapping[str, Cost]) -> str:
    rows = []
    for name, c in costs.items():
        per_clip = c.train_flops / c.train_clips / 1e9 if c.train_clips else 0.0
        hours = [f"{c.gpu_s[p] / 3600:.2g}" for p in PRECISIONS]
        rows.append(
            [
                *(f"{found.families[name]} (`{name}`)", f"`{c.counted.backbone}`"),
                *(f"{per_clip:.0f}", f"{c.test_flops / c.test_clips / 1e9:.0f}"),
                *(f"{c.train_clips / 1e3:.0f}", f"{(c.train_flops + c.test_flops) / 1e15:.3g}", *hours),
                f"{c.state_bytes / 1e6:.0f}",
            ]
        )
    headers = ["family (counted on)", "backbone", "GFLOP a clip trained", "tested", "1000 clips trained"]
    return markdown(rows, [*headers, "PFLOP in all", "hours, bf16", "hours, fp32", "saved state, MB"])


def _hours(found: Assumptions, costs: Mapping[Stream, Mapping[str, Cost]]) -> str:
    rows = [
        [_named(stream), *(f"{_figure(c.seconds() / 3600)}{'*' if c.waits else ''}" for c in of.values())]
        for stream, of in costs.items()
    ]
    return markdown(rows, ["protocol", *(f"`{name}`" for name in found.families)])


def _workers(found: Assumptions, costs: Mapping[Stream, Mapping[str, Cost]]) -> str:
    rows = []
    for stream in _of_each_list(costs):
        of = costs[stream].values()
        cores = [[_figure(s / c.gpu_s["bf16"]) for s in (c.video_s, c.store_s)] for c in of]
        rows.append([_named(stream), *(" / ".join(both) for both in cores)])
    return markdown(rows, ["protocol", *(f"`{name}`" for name in found.families)])


def _machines(found: Assumptions, costs: Mapping[Stream, Mapping[str, Cost]]) -> str:
    rows: list[list[object]] = []
    for stream, of in costs.items():
        runs = [c.seconds() / 3600 for c in of.values() for _ in stream.spec.seeds]
        read = sum(c.train_clips + c.test_clips for c in of.values()) * len(stream.spec.seeds)
        kilobytes = stream.spec.clip.frames * found.datasets[stream.spec.dataset.name].frame_kb
        spans = [makespan(runs, number) for number in found.gpu.gpus]
        # Of all GPUs of the largest machine together.
        rate = read * kilobytes / 1e6 / (3600 * spans[-1])
        rows.append([_named(stream), len(runs), *(_figure(s) for s in spans), _figure(max(runs)), f"{rate:.1f}"])
    gpus = [f"hours on {number} GPU{'s' if number > 1 else ''}" for number in found.gpu.gpus]
    return markdown(
        rows, ["protocol", "runs", *gpus, "longest run, hours", f"GB/s of store on {found.gpu.gpus[-1]}"]
    )


def makespan(hours: Sequence[float], gpus: int) -> float:
    """Return when the last of several runs ends, the longest begun first, each on a GPU of its own."""
    busy = [0.0] * gpus
    for run in sorted(hours, reverse=True):
        busy[busy.index(min(busy))] += run
    return max(busy)


def _disk(found: Assumptions, costs: Mapping[Stream, Mapping[str, Cost]]) -> str:
    rows = []
    for stream in _of_each_list(costs):
        if stream.memory is not None and stream.memory.unit == "instances":
            continue  # parts of videos that the next protocol counts whole
        kind = found.datasets[stream.spec.dataset.name]
        videos = stream.train + stream.test
        gigabytes = [videos * frames * kind.frame_kb / 1e6 for frames in (kind.frames, min(64, kind.frames))]
        rows.append(
            [
                *(_named(stream), f"{videos:,}", _figure(videos * kind.video_kb / 1e6)),
                *(_figure(g) for g in gigabytes),
                _figure(videos / found.rate_of(stream.spec.dataset.name).video / 3600),
            ]
        )
    headers = ["protocol", "videos", "GB of videos", "GB of store", "GB with 64 frames a video"]
    return markdown(rows, [*headers, "core hours to decode once"])


def _assumptions(found: Assumptions) -> str:
    gpu = found.gpu
    peaks = ", ".join(f"{p} {gpu.peak_tflops[p]:g} TFLOP/s" for p in PRECISIONS)
    used = "; ".join(
        f"{p}: " + ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in gpu.utilisation[p].items())
        for p in PRECISIONS
    )
    rows: list[list[object]] = [
        ["peak of the GPU", peaks, gpu.source],
        [
            "share of it that training and testing reach",
            used,
            "**assumed**; `python speed/run.py --gpu` measures",
        ],
        ["cores beside a GPU", gpu.cores, "**assumed**: nodes of 8 GPUs and 128 cores"],
    ]
    for name, rate in found.rates.items():
        text = f"{rate.video:g} clips/s from videos, {rate.store:g} from the store"
        rows.append([f"one core, {name}", text, f"measured: {rate.source}"])
    for name, kind in found.datasets.items():
        video = f"{found.rate_of(name).video:.3g} clips/s from videos"
        text = (
            f"{kind.frames:g} frames, {kind.video_kb:g} kB a video; {kind.frame_kb:g} kB a stored frame; {video}"
        )
        rows.append([f"a video of `{name}`", text, f"{kind.source}; {kind.rate}, by pixels"])
    rows += [
        [f"videos of `{name}`", f"{lists.train:,} and {lists.test:,}", lists.note]
        for name, lists in found.lists.items()
    ]
    rows += [
        [name, f"{i.train:,} and {i.test:,}; recipes of `{i.like}`", i.source]
        for name, i in found.imagined.items()
    ]
    rows.append(["bytes of a stored frame", "as above", found.frame_kb_source])
    return markdown(rows, ["what", "value", "source"])


def _of_each_list(costs: Mapping[Stream, Mapping[str, Cost]]) -> list[Stream]:
    """Return the first protocol of each list of videos, and what is imagined."""
    first: dict[tuple[str, int, int], Stream] = {}
    for stream in costs:
        first.setdefault((stream.spec.dataset.name, stream.train, stream.test), stream)
    return list(first.values())


def _named(stream: Stream) -> str:
    return f"`{stream.name}`" if stream.name == stream.spec.name else stream.name


def _figure(number: float) -> str:
    """Return two digits of a number."""
    return f"{float(f'{number:.2g}'):,g}"


def page(text: str, found: Assumptions, counts: Counts) -> str:
    """Return the page with its tables made anew."""
    for name, table in tables(found, counts).items():
        text = with_table(text, name, table)
    return text


def main() -> None:
    """Count what is lacking and write the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anew", action="store_true", help="count everything again")
    options = parser.parse_args()
    found, counts = load(), Counts()
    specs = {stream.spec.name: stream.spec for stream in streams(found).values()}
    counts.complete([*found.families], [*specs.values()], anew=options.anew)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), found, counts), encoding="utf-8")
    sys.stdout.write(f"wrote the tables of {PAGE}\n")


if __name__ == "__main__":
    main()
