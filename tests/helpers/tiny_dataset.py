"""A dataset of real videos on which a run takes a second."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml
from clip_factory import encode_frames

from vcil_bench.testing.small_data import COLOURS, draw_clip

PROTOCOL = {
    "name": "tiny_2x1",
    "version": 1,
    "title": "four colours",
    "dataset": {"name": "folder", "split": "videos.csv"},
    "classes": {"num": 4, "order": {"kind": "numpy_shuffle"}},
    "tasks": {"sizes": [2, 1, 1]},
    "seeds": [1, 2],
    "clip": {"frames": 4, "size": 64, "train_crop": "center", "flip": False},
    "memory": {"unit": "videos", "per_class": 1, "frames": 4},
    "metrics": {"headline": "average_incremental_accuracy", "also": ["final_accuracy", "backward_forgetting"]},
}


@dataclass(frozen=True)
class Tiny:
    """Twelve training and eight test clips of four classes in a folder, and a protocol of three tasks on them.

    Attributes:
        root: Folder of the clips, with ``videos.csv``; shared by all tests, to be left as it is.
        protocol: Its protocol file; seeds 1 and 2.
    """

    root: Path
    protocol: Path

    def main(self, *arguments: str | Path) -> int:
        """Run a ``vcil-bench`` command in this process and return its exit code."""
        from vcil_bench.cli import main

        try:
            return main([str(argument) for argument in arguments])
        except SystemExit as end:
            return int(end.code or 0)

    def run(self, method: str | Path, results: Path, *more: str | Path, seed: int | str = 1) -> int:
        """Run a method on the protocol; ``more`` are further arguments, such as ``--set key=value``."""
        if not any(str(argument).startswith("workers=") for argument in more):
            more = (*more, "--set", "workers=0")  # starting a worker takes longer than decoding these clips
        return self.main("run", method, self.protocol, *self.arguments(results), "--seed", str(seed), *more)

    def arguments(self, results: Path) -> list[str]:
        """Return what every run needs beside method, protocol and seed."""
        given = ["--data", self.root, "--results", results, "--device", "cpu", "--set", "backbone=clip_tiny"]
        return [str(argument) for argument in given]

    def copy(self, root: Path) -> Path:
        """Copy the clips to a new folder, for tests that damage them."""
        shutil.copytree(self.root, root)
        return root


def make(root: Path, protocol: Path) -> Tiny:
    """Write the clips into a folder and the protocol to a file."""
    rows = []
    for name, colour in COLOURS.items():
        for number in range(5):
            path = f"{name}/{number}.mp4"
            (root / name).mkdir(exist_ok=True)
            encode_frames(root / path, draw_clip(colour, number, 12))
            rows.append({"path": path, "class": name, "split": "train" if number < 3 else "test"})
    with (root / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=["path", "class", "split"])
        table.writeheader()
        table.writerows(rows)
    protocol.write_text(yaml.safe_dump(PROTOCOL), encoding="utf-8")
    return Tiny(root, protocol)
