"""The checks: each a function of a name that yields lines; on a GPU all of them take about ten minutes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcil_bench import protocol, registry
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.training.checkpoint import CheckpointError, read

from .outcome import Line, Result
from .setting import Ended, Large, Setting, method_class, record_files, start

# Methods that stand for the rest where all would take too long: adapters on CLIP, a ResNet trained whole with
# exemplars and two trainings a task, and plain training.
TELLING = ("stpr", "tcd", "finetune")
EMBEDDED = tuple(name for name, other in BACKBONES.items() if other.embedded_sibling == name)


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: What ``--only`` takes.
        summary: What it looks at, in a line.
        work: Yields its lines.
        gpus: How many GPUs it needs to mean something.
    """

    name: str
    summary: str
    work: Callable[[Setting], Iterator[Line]]
    gpus: int = 1


CHECKS: dict[str, Check] = {}


def _check(name: str, summary: str, gpus: int = 1) -> Callable[[Any], Any]:
    def add(work: Callable[[Setting], Iterator[Line]]) -> Callable[[Setting], Iterator[Line]]:
        CHECKS[name] = Check(name, summary, work, gpus)
        return work

    return add


def pairs() -> list[tuple[str, str]]:
    """Return every method with every embedded backbone that has what it needs."""
    entries = [entry for entry in registry.find_all().values() if entry.cls is not None]
    return [
        (entry.name, other)
        for entry in entries
        for other in EMBEDDED
        if entry.cls is not None and entry.cls.needs <= BACKBONES[other].provides
    ]


def home(name: str) -> str:
    """Return the embedded backbone on which a method is checked where one must do: not CLIP, if it can."""
    return [other for owner, other in pairs() if owner == name][-1]


@_check("bf16", "every method on both small backbones, bf16")
def bf16(setting: Setting) -> Iterator[Line]:
    """Run two small tasks of every method in bf16."""
    yield from _everywhere(setting, "bf16")


@_check("fp32", "every method on both small backbones, fp32")
def fp32(setting: Setting) -> Iterator[Line]:
    """Run two small tasks of every method in fp32."""
    yield from _everywhere(setting, "fp32")


def _everywhere(setting: Setting, precision: str) -> Iterator[Line]:
    wanted = pairs()
    done = setting.run_all([(name, {"backbone": on, "precision": precision}) for name, on in wanted])
    for (name, on), ended in zip(wanted, done, strict=True):
        yield _trained(precision, f"{name} on {on}", ended)


@_check("fp16", "methods in fp16, whose loss is scaled")
def fp16(setting: Setting) -> Iterator[Line]:
    """Run methods in fp16, whose first steps overflow."""
    done = setting.run_all([(name, {"precision": "fp16", "backbone": home(name)}) for name in TELLING])
    for name, ended in zip(TELLING, done, strict=True):
        yield _trained("fp16", name, ended)


@_check("micro_batch", "a batch in parts, through CLIP")
def micro_batch(setting: Setting) -> Iterator[Line]:
    """Run methods with parts of a batch, which leave the counts of the whole."""
    names = [name for name in TELLING if "maps" not in method_class(name).needs]
    options = {"backbone": "clip_tiny"}
    done = setting.run_all([(n, options | {"micro_batch": 3}) for n in names])
    for name, ended in zip(names, done, strict=True):
        yield _trained("micro_batch", name, ended)


@_check("strict", "determinism=strict: allowed, and the same twice, bit for bit")
def strict(setting: Setting) -> Iterator[Line]:
    """Run every method twice under determinism=strict."""
    names = [name for name, entry in registry.find_all().items() if entry.cls is not None]
    options = {"determinism": "strict"}
    wanted = [(name, options | {"backbone": home(name)}) for name in names for _ in range(2)]
    done = setting.run_all(wanted)
    for name, one, other in zip(names, done[::2], done[1::2], strict=True):
        line = _trained("strict", name, one if one.code != 0 else other)
        yield line if line.result == "failed" else _same("strict", f"{name} twice", one, other)


@_check("killed", "SIGKILL inside a task, and resuming with equal losses")
def killed(setting: Setting) -> Iterator[Line]:
    """Kill a run inside its second task, resume it, and compare with one that was left alone."""
    yield from setting.at_once(lambda name: _killed(setting, name), TELLING)


def _killed(setting: Setting, name: str) -> Line:
    options: dict[str, Any] = {"backbone": home(name), "determinism": "strict", "precision": "bf16"}
    options |= {"epochs": 5, "checkpoint_minutes": 0}  # so that there is a middle to be killed in
    whole = setting.run(name, **options)
    if whole.code != 0:
        return _trained("killed", name, whole)
    results = setting.new_folder()
    arguments = setting.command(name, results, options)
    cut = start(arguments, results, kill_when=lambda: _inside_second_task(results))
    if cut.code != -signal.SIGKILL:
        return Line("killed", name, "failed", f"ended before it could be killed: {cut.why()}")
    again = start(arguments, results)
    line = _trained("killed", name, again)
    return line if line.result == "failed" else _same("killed", f"{name} resumed", whole, again)


def _inside_second_task(results: Path) -> bool:
    """Tell whether the first task is recorded and a state of the second is saved."""
    # The first task's states are dropped after its record is written.
    return bool(record_files(results)) and any(_of_second_task(path) for path in results.glob("*/*/*.phase-*"))


def _of_second_task(path: Path) -> bool:
    try:
        return bool(read(path, ("task",))[1]["task"] == 1)
    except CheckpointError:  # replaced or dropped while it was read
        return False


@_check("waits", "lines that make the GPU wait inside a training step")
def waits(setting: Setting) -> Iterator[Line]:
    """List the source lines that synchronise with the GPU in a training step (torch's sync debug mode)."""
    names = [name for name, entry in registry.find_all().items() if entry.cls is not None]
    yield from setting.at_once(lambda name: _waits(setting, name), names)


def _waits(setting: Setting, name: str) -> Line:
    results = setting.new_folder()
    target = results / "waits.json"
    arguments = setting.command(name, results, {"backbone": home(name)})
    ended = start([str(target), *arguments], results, ("-m", "vcil_bench.doctor.waits"))
    if ended.code != 0:
        return Line("waits", name, "failed", ended.why())
    found = json.loads(target.read_text(encoding="utf-8"))
    if found["in steps"]:
        worst = ", ".join(f"{at} {times}x" for at, times in found["in steps"].items())
        return Line("waits", name, "failed", f"in {found['steps']} steps: {worst}")
    beside = sum(found["elsewhere"].values())
    return Line("waits", name, "ok", f"none in {found['steps']} steps, {beside} elsewhere")


@_check("step", "a training step at full size: time, TFLOP/s, memory, waiting for data")
def step(setting: Setting) -> Iterator[Line]:
    """Measure StPR's step on random weights, plain and compiled."""
    for compiled in (False, True):
        yield from _measured(setting, setting.large[0], compiled)


def _measured(setting: Setting, large: Large, compiled: bool) -> Iterator[Line]:
    results = setting.new_folder()
    target = results / "figures.json"
    arguments = [
        "--device",
        setting.device,
        "--out",
        str(target),
        "--backbone",
        large.backbone,
        "--precision",
        large.precision,
    ]
    arguments += ["--batch", str(large.batch), *(["--compile"] if compiled else [])]
    ended = start(arguments, results, ("-m", "vcil_bench.doctor.step"))
    name = f"stpr on {large.backbone}{', compiled' if compiled else ''}"
    if ended.code != 0:
        yield Line("step", name, "failed", ended.why())
        return
    for what, value in json.loads(target.read_text(encoding="utf-8")):
        yield Line("step", f"{name}: {what}", "ok", value)


@_check("large", "TCD on a ResNet-34 at 224 pixels, a whole task")
def large(setting: Setting) -> Iterator[Line]:
    """Run a task of TCD at full size, random weights."""
    size = setting.large[1]
    ended = setting.run(
        "tcd",
        **{
            **{"backbone": size.backbone, "weights": "random", "precision": size.precision},
            **{"batch_size": size.batch, "max_tasks": 2},
            **{"protocol.clip.size": size.size, "protocol.clip.short_side": size.size},
        },
    )
    line = _trained("large", f"tcd on {size.backbone}, {size.size} pixels", ended)
    yield line
    if line.result == "ok":
        costs = ended.record["steps"][-1]["costs"]
        waited = 100 * costs["data_wait_s"] / max(costs["train_s"], 1e-9)
        peak = f", peak {costs['peak_device_mb'] / 1024:.1f} GiB" if costs["peak_device_mb"] is not None else ""
        figure = f"{costs['train_s']:.1f} s training, {waited:.0f} % of it waiting for data{peak}"
        yield Line("large", "its second task", "ok", figure)


@_check("torchrun", "two processes on one run (NCCL) end in the counts of one", gpus=2)
def torchrun(setting: Setting) -> Iterator[Line]:
    """Share a run's batches between two processes."""
    name = "stpr"
    options = {"backbone": home(name)}
    one, results = setting.run(name, **options), setting.new_folder()
    arguments = setting.command(name, results, options)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vcil_bench")
    two = start(arguments, results, launcher)
    for ended in (one, two):
        if ended.code != 0:
            yield _trained("torchrun", name, ended)
            return
    counts = [[step["correct"] for step in ended.record["steps"]] for ended in (one, two)]
    result: Result = "ok" if counts[0] == counts[1] else "failed"
    yield Line("torchrun", name, result, f"counts {counts[1][-1]}, of one process {counts[0][-1]}")


@_check("grid", "several runs at once, a GPU each", gpus=2)
def grid(setting: Setting) -> Iterator[Line]:
    """Run methods side by side on all GPUs."""
    results = setting.new_folder()
    data = [] if setting.data is None else ["--data", f"{_dataset(setting)}={setting.data}"]
    arguments = [
        *("grid", "finetune,joint", setting.protocol, "--seeds", str(setting.seed), "--results", str(results)),
        *("--gpus", "all" if setting.gpus else "none", *data),
        *("--set", "epochs=1", "epochs_first=1", "max_tasks=2", "backbone=clip_tiny"),
    ]
    ended = start(arguments, results)
    tasks = [len(_steps(path)) for path in record_files(results)]
    result: Result = "ok" if tasks == [2, 2] else "failed"
    yield Line("grid", "finetune, joint", result, f"{ended.seconds:.0f} s" if tasks == [2, 2] else ended.why())


def _steps(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))["steps"]


def _dataset(setting: Setting) -> str:
    return protocol.load(setting.protocol).spec.dataset.name


def _trained(check: str, what: str, ended: Ended) -> Line:
    """Say how a run of two tasks went."""
    if ended.code != 0:
        return Line(check, what, "failed", ended.why())
    record = ended.record
    done, readout = record["steps"], record["method"]["readouts"][0]
    if len(done) != 2:
        return Line(check, what, "failed", f"learnt {len(done)} of 2 tasks")
    tested = sum(record["test_videos"][:2])
    share = 100 * sum(done[-1]["correct"][readout]) / tested
    return Line(check, what, "ok", f"{share:.0f} % of {tested} videos after 2 tasks, {ended.seconds:.0f} s")


def _same(check: str, what: str, one: Ended, other: Ended) -> Line:
    """Compare two runs that must be the same."""
    if one.outcome == other.outcome:
        return Line(check, what, "ok", "losses and counts equal")
    differing = [str(i + 1) for i, (a, b) in enumerate(zip(one.outcome, other.outcome, strict=True)) if a != b]
    return Line(check, what, "failed", f"losses or counts differ in task {', '.join(differing)}")
