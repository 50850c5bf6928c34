"""Manifest, task stream, look-up in the store and a pass's list at up to 10 million videos, without a pixel.

Entries are made in memory, as a list whose files were read before gives them; what is done with them is the
harness's own code. Each size has a process of its own, which stops before a stage that would take more than
``MOST_GIB``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import Row, hand_over

SIZES = (100_000, 1_000_000, 10_000_000)
MOST_GIB = 8.0
CLASSES, TASKS = 1000, 20
TEST_SHARE = 20  # one video in so many is a test video
STAGES = {
    "videos": "the manifest's entries",
    "hash": "its hash",
    "checks": "its check for missing videos",
    "store": "looking every video up in the frame store",
    "stream": "the stream of tasks",
    "tasks": "all its tasks and tests",
    "reach": "joint training: a pass's check that every video is in reach",
    "order": "the order of an epoch over all of them",
}


def main() -> None:
    """Measure and hand over, or measure one size."""
    if len(sys.argv) > 1:
        print(json.dumps(simulate(int(sys.argv[1]), sys.argv[2])))
        return
    found: dict[int, dict[str, Any]] = {}
    for size in SIZES:
        # A size that would not fit goes as far as it fits, by what a video took in the size before.
        smaller = found.get(size // 10)
        fits = [name for name in STAGES if smaller is None or expected_gib(smaller, size, name) <= MOST_GIB]
        found[size] = _in_a_process(size, next((name for name in STAGES if name not in fits), ""))
    hand_over(rows(found))


def expected_gib(smaller: dict[str, Any], size: int, stage: str) -> float:
    """Return what a stage would hold of so many videos, by what it held of a tenth."""
    start = float(smaller["start"]["gib"])
    return start + 10 * (float(smaller[stage]["gib"]) - start)


def rows(found: dict[int, dict[str, Any]]) -> list[Row]:
    """Return a row for each stage and size: processor time and the memory held after it."""
    made = []
    for size, stages in found.items():
        for name, what in STAGES.items():
            measured = stages.get(name)
            if measured is None:
                value = "not run"
                expected = max(expected_gib(found[size // 10], size, stage) for stage in STAGES)
                note = f"{MOST_GIB:g} GiB were given; about {expected:.0f} would be held, by {size // 10} videos"
            else:
                value = f"{measured['s']:.1f} s, {measured['gib']:.2f} GiB"
                note = ""
            made.append(Row(f"{size} videos: {what}", value, note=note))
    note = "processor time, which work beside it does not lengthen"
    few, many = found[SIZES[0]], found[SIZES[1]]
    for name, what in STAGES.items():
        if many[name]["s"] > 0.5:
            growth = many[name]["s"] / few[name]["s"]
            goal, met = "linear: about 10 times", growth <= 15
            made.append(Row(f"{what}: time for 10 times the videos", f"{growth:.1f} times", goal, met, note))
    made.append(Row("memory before any video", f"{few['start']['gib']:.2f} GiB", note="Python and torch"))
    return made


def _in_a_process(size: int, end: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"VCIL_BENCH_CACHE": folder}
        command = [sys.executable, __file__, str(size), end]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def simulate(size: int, end: str) -> dict[str, dict[str, float]]:
    """Do once what a run does with so many videos, up to a stage that is left out.

    Returns:
        By stage, its seconds of processor time, which work beside it does not lengthen, and the GiB that the
        process holds afterwards.
    """
    stages: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, work in _work(size, Path(folder)):
            if name == end:
                break
            begun = time.process_time()
            work()
            stages[name] = {"s": time.process_time() - begun, "gib": held_gib()}
    return stages


def _work(size: int, root: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the stages, each to be done before the next is asked for."""
    from vcil_bench.common.random_streams import numpy_stream
    from vcil_bench.data.loader import ClipLoader
    from vcil_bench.data.manifest import Manifest
    from vcil_bench.data.store.frame_store import FrameStore
    from vcil_bench.protocol import Protocol
    from vcil_bench.stream import TaskStream

    yield "start", lambda: None  # what is imported is no video's
    videos: list[Any] = []
    yield "videos", lambda: videos.extend(made_videos(size))
    manifest = Manifest("folder", "real", "videos.csv", root, tuple(videos))
    videos.clear()
    yield "hash", lambda: manifest.sha256
    yield "checks", lambda: manifest.check_complete(0.1)
    store = FrameStore(root / "store")
    yield "store", lambda: store.missing(manifest)
    made: dict[str, Any] = {}
    protocol = Protocol(_protocol(), "scale")
    yield "stream", lambda: made.update(stream=TaskStream(protocol, manifest, 1000))
    stream = made["stream"]
    yield "tasks", lambda: [(stream.task(i), stream.test(i)) for i in range(len(stream))]
    joint = stream.task(len(stream) - 1, cumulative=True).train
    loader = ClipLoader(protocol.spec.clip, decoder="auto", workers=0, device=torch.device("cpu"), seed=0)
    with loader.limited_to(joint, lambda: ()):
        yield "reach", lambda: loader.plain(joint, 32)
    yield "order", lambda: numpy_stream(0, "shuffle").permutation(len(joint))


def made_videos(size: int) -> Iterator[Any]:
    """Yield so many videos as a CSV in a folder lists them, with the facts of files that were read."""
    from vcil_bench.data.manifest import Video
    from vcil_bench.data.video.facts import Facts

    names = [f"class {number:04}" for number in range(CLASSES)]
    for number in range(size):
        path = f"{number % CLASSES:04}/{number:08}_000010_000020.mp4"
        facts = Facts(300, 300, 340, 256, 29.97, "h264", mtime_ns=10**18 + number, sha256=f"{number:064x}")
        # A class's every so manieth video, whatever the number of classes.
        part = "test" if number // CLASSES % TEST_SHARE == 0 else "train"
        yield Video(path, path, names[number % CLASSES], part, f"source {number:08}", facts)


def _protocol() -> dict[str, Any]:
    return {
        "name": "scale",
        "version": 1,
        "dataset": {"name": "folder", "split": "videos.csv"},
        "classes": {"num": CLASSES, "order": {"kind": "numpy_shuffle"}},
        "tasks": {"sizes": [CLASSES // TASKS] * TASKS},
        "seeds": [1000],
        "clip": {"frames": 8, "size": 224},
        "metrics": {"headline": "final_accuracy"},
    }


def held_gib() -> float:
    """Return the memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


if __name__ == "__main__":
    main()
