"""What all tests share: a cache of their own, real videos on which a run takes a second, made-up records."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
import torch
import yaml
from clip_factory import encode_frames
from double_precision import double_precision

from vcil_bench.record import RecordData

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 40, 40), "white": (230, 230, 230)}
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
BLANK = {"svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>', "png": b"\x89PNG"}


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


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep rendered clips, manifests and weights of the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("VCIL_BENCH_CACHE", str(folder))
        yield folder


# The nets of tests are too small for more threads, which collapse on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Put torch back to one thread behind each test, so that what several tests share is made by one, too."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures built but not rendered, a fifth of the suite's time, but in tests marked ``pictures``."""
    if request.node.get_closest_marker("pictures"):
        return
    from matplotlib.figure import Figure

    def savefig(self: Figure, file: BinaryIO, *, format: str, **_: Any) -> None:  # its name there
        file.write(BLANK[format])

    monkeypatch.setattr(Figure, "draw_without_rendering", lambda self: None)
    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def float64() -> Iterator[None]:
    """Let whole runs compute in float64; to be named before fixtures that make networks."""
    with double_precision():
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Make the tiny dataset once for all tests."""
    root = tmp_path_factory.mktemp("tiny")
    rows = []
    for name, colour in COLOURS.items():
        for number in range(5):
            path = f"{name}/{number}.mp4"
            (root / name).mkdir(exist_ok=True)
            encode_frames(root / path, _clip(colour, number))
            rows.append({"path": path, "class": name, "split": "train" if number < 3 else "test"})
    with (root / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=["path", "class", "split"])
        table.writeheader()
        table.writerows(rows)
    protocol = tmp_path_factory.mktemp("protocol") / "tiny_2x1.yaml"
    protocol.write_text(yaml.safe_dump(PROTOCOL), encoding="utf-8")
    return Tiny(root, protocol)


@pytest.fixture(scope="session")
def stream(tiny: Tiny) -> Any:
    """Join the tiny protocol and its clips, seed 1."""
    from small_runs import stream_of  # finds all methods, which most tests do without

    return stream_of(tiny)


def record_data(
    *,
    method: str = "alpha",
    seed: int = 1,
    correct: Sequence[Sequence[int]] = ((4,), (2, 1)),
    totals: Sequence[int] = (4, 2),
    status: str = "complete",
    **changes: dict[str, Any] | str,
) -> RecordData:
    """Make up the record of a run on real data: two tasks of two classes and one, protocol seeds 1 to 3.

    Args:
        method: Name of a method; its file does not exist, so that it is never stale.
        seed: Seed of class order and run.
        correct: Correct predictions per step and task, of the readout ``cnn``.
        totals: Test videos per task.
        status: ``complete``, ``partial`` or ``failed``.
        changes: Sections to change, key by key; text replaces the whole.
    """
    metrics = {"headline": "average_incremental_accuracy", "also": ["final_accuracy", "backward_forgetting"]}
    dataset = {"name": "folder", "split": 1, "label_map": None}
    data: dict[str, Any] = {
        "schema": 1,
        "run_id": f"made_up/{method}/default-s{seed}",
        "status": status,
        "reason": None,
        "started": "2025-01-01T00:00:00Z",
        "finished": "2025-01-01T01:00:00Z",
        "protocol": {
            "name": "made_up",
            "label": "made_up",
            "version": 1,
            "title": "a title",
            "fingerprint": "f" * 64,
            "origin": "protocols/made_up.yaml",
            "overrides": {},
            "dataset": dataset,
            "metrics": metrics,
            "seeds": [1, 2, 3],
        },
        "method": {
            "name": method,
            "paper": "none",
            "readouts": ["cnn"],
            "data_access": "task",
            "uses_memory": False,
            "origin": "file",
            "file": f"/nowhere/{method}.py",
            "sha256": "0" * 64,
            "bases": {},
            "distribution": None,
            "version": None,
        },
        "variant": "default",
        "seed": seed,
        "run_seed": seed,
        "config": {"lr": {"value": 0.1, "origin": "default"}},
        "options": {"precision": {"value": "fp32", "origin": "default"}},
        "class_order": [2, 0, 1],
        "class_names": ["a", "b", "c"],
        "classes_per_task": [2, 1],
        "test_videos": list(totals),
        "steps": [
            {"step": i, "classes_seen": 2 + i, "correct": {"cnn": list(row)}, "costs": {}, "losses": []}
            for i, row in enumerate(correct)
        ],
        "predictions": None,
        "sessions": [{"started": "2025-01-01T00:00:00Z", "environment": {}}],
        "data": {
            "kind": "real",
            "dataset": "folder",
            "split": "1",
            "root": "/nowhere",
            "manifest_sha256": "1" * 64,
            "train_videos": 9,
            "test_videos": sum(totals),
            "left_out": [],
            "decoder": "pyav",
        },
        "weights": {"name": "clip_tiny", "source": "embedded", "sha256": "2" * 64, "pretraining": "pictures"},
        "environment": {"device": "a processor"},
    }
    for key, change in changes.items():
        data[key] = data[key] | change if isinstance(change, dict) else change
    return cast("RecordData", data)


def _clip(colour: tuple[int, int, int], number: int) -> list[np.ndarray]:
    """Draw a bar that moves over a plain ground, 12 frames of 64x64."""
    frames = []
    for t in range(12):
        frame = np.full((64, 64, 3), colour, np.uint8)
        left = 4 * t + number
        frame[8 * number + 8 : 8 * number + 16, left : left + 8] = 0
        frames.append(frame)
    return frames
