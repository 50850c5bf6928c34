"""What grows with tasks, classes and videos: states on disk, the memory and time of lists.

Lists are those of a made dataset of Kinetics' size, whose facts are known already, as on any run after the
first.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from common import Row, hand_over, peak_gib, seconds

VIDEOS = (60_000, 240_000)
MEMORY_GOAL_GIB = 1.0


def make_dataset(root: Path, videos: int) -> None:
    """Write a CSV of videos in 400 classes, and the facts that decoding them would have found."""
    from vcil_bench.data.manifest import manifest_path
    from vcil_bench.data.prepare.journal import Journal
    from vcil_bench.data.video.facts import Facts

    with (
        (root / "videos.csv").open("w", newline="", encoding="utf-8") as file,
        Journal(manifest_path("folder", root, "videos.csv").with_name("facts.jsonl")) as journal,
    ):
        table = csv.writer(file)
        table.writerow(["path", "class", "split", "group"])
        for number in range(videos):
            path = f"{number % 400:03}/{number:07}_000010_000020.mp4"
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).touch()
            stamp = (root / path).stat().st_mtime_ns
            sha = f"{number:064x}"
            facts = Facts(300, 300, 340, 256, 29.97, "h264", mtime_ns=stamp, sha256=sha)
            journal.add(path, facts)
            part = "test" if number % 13 == 0 else "train"
            table.writerow([path, f"class {number % 400:03}", part, f"source {number:07}"])


def expand(root: Path) -> dict[str, float]:
    """Prepare from the lists, expand into tasks and iterate, as a run does."""
    from vcil_bench.data.datasets import adapter
    from vcil_bench.data.prepare import prepare
    from vcil_bench.data.prepare.report import summary
    from vcil_bench.protocol import Protocol
    from vcil_bench.stream import TaskStream

    raw = {
        "name": "growth",
        "version": 1,
        "dataset": {"name": "folder", "split": "videos.csv"},
        "classes": {"num": 400, "order": {"kind": "numpy_shuffle"}},
        "tasks": {"sizes": [40] * 10},
        "seeds": [1000],
        "clip": {"frames": 8, "size": 224},
        "metrics": {"headline": "final_accuracy"},
    }

    def work() -> None:
        manifest = prepare(adapter("folder"), root, "videos.csv")
        summary(manifest)
        stream = TaskStream(Protocol(raw, "growth"), manifest, 1000)
        for index in range(len(stream)):
            for sample in (*stream.task(index).train, *stream.test(index)):
                assert sample.frames == 300

    return {"seconds": seconds(work), "gib": peak_gib()}


def lists() -> list[Row]:
    """Measure lists of two lengths, each in a process of its own."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"VCIL_BENCH_CACHE": f"{folder}/cache"}
        for videos in VIDEOS:
            root = Path(folder) / str(videos)
            root.mkdir()
            for what in ("make", "expand"):
                command = [sys.executable, __file__, what, str(root), str(videos)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            found[videos] = json.loads(done.stdout.splitlines()[-1])
    few, many = (found[videos] for videos in VIDEOS)
    growth = many["seconds"] / few["seconds"]
    times = VIDEOS[1] / VIDEOS[0]
    return [
        Row(
            f"{VIDEOS[1]} videos prepared from lists, expanded and iterated",
            f"{many['gib']:.2f} GiB",
            f"<= {MEMORY_GOAL_GIB:g} GiB",
            many["gib"] <= MEMORY_GOAL_GIB,
            "peak of the process, torch included; the facts of the files known before",
        ),
        Row(
            f"time for {times:g} times the videos",
            f"{growth:.1f} times",
            f"linear: about {times:g} times",
            growth <= 1.5 * times,
            f"{many['seconds']:.1f} s for {VIDEOS[1]}",
        ),
    ]


def states() -> list[Row]:
    """Measure the checkpoints of StPR after 1, 6 and 26 tasks."""
    from vcil_bench.doctor.steady import SteadyClips, stpr, trunk_of
    from vcil_bench.training import checkpoint

    device = torch.device("cpu")
    trunk = trunk_of("clip_vit_b16", device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        for tasks in (1, 6, 26):
            method, task = stpr(trunk, SteadyClips(1, 1, device), device, tasks=tasks)
            saved = checkpoint.Checkpoint({}, [], {}, method.state_dict(), [])
            write = seconds(lambda saved=saved: checkpoint.save(path, saved))
            read = seconds(lambda: checkpoint.load(path))
            rows.append(
                Row(
                    f"checkpoint of StPR after {tasks} tasks, {task.num_seen} classes",
                    f"{path.stat().st_size / 2**20:.0f} MiB",
                    note=f"written in {write:.1f} s, read in {read:.1f} s, hashed; an expert has 36 MiB",
                )
            )
    return rows


def main() -> None:
    """Measure and hand over."""
    if len(sys.argv) > 1:
        root = Path(sys.argv[2])
        if sys.argv[1] == "make":
            make_dataset(root, int(sys.argv[3]))
        else:
            print(json.dumps(expand(root)))
        return
    hand_over([*lists(), *states()])


if __name__ == "__main__":
    main()
