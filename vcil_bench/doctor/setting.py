"""Where checks run, and the project's own commands as a check starts them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vcil_bench import registry
from vcil_bench.grid.launchers import GRACE_S
from vcil_bench.method import Method
from vcil_bench.record import load
from vcil_bench.record_schema import RecordData
from vcil_bench.testing.contract import short_epochs

In = TypeVar("In")
Out = TypeVar("Out")
LIMIT_S = 600.0  # for one command
POLL_S = 0.05


@dataclass(frozen=True)
class Large:
    """A size at which figures are measured."""

    backbone: str
    batch: int
    size: int
    precision: str


FULL_SIZE = (Large("clip_vit_b16", 40, 224, "bf16"), Large("tsm_resnet34", 20, 224, "bf16"))


@dataclass(frozen=True)
class Setting:
    """What checks run on.

    Attributes:
        device: As ``run --device`` takes it.
        gpus: GPUs there are; 0 checks on the processor what can be checked there.
        folder: For everything that checks write.
        protocol: A protocol with clips of the size that the embedded backbones take.
        seed: One of its seeds.
        data: Root of its data, None where they come along.
        jobs: Runs at a time.
        large: Backbones, clips a batch and side of a frame at full size: of StPR and of TCD.
    """

    device: str
    gpus: int
    folder: Path
    protocol: str = "synthetic_3x4"
    seed: int = 1000
    data: Path | None = None
    jobs: int = 4
    large: tuple[Large, Large] = FULL_SIZE

    def command(self, method: str, results: Path, options: dict[str, Any]) -> list[str]:
        """Return the ``run`` command of two tasks with an epoch each, beside what ``options`` say."""
        values = {"max_tasks": 2, "workers": 2, **short_epochs(method_class(method), 1), **options}
        data = ["--data", str(self.data)] if self.data is not None else []
        return [
            *("run", method, self.protocol, "--seed", str(self.seed), *data, "--results", str(results)),
            *("--device", self.device, "--set", *(f"{k}={json.dumps(v)}" for k, v in values.items())),
        ]

    def run(self, method: str, **options: Any) -> Ended:
        """Run two tasks of a method in a process of its own."""
        results = self.new_folder()
        return start(self.command(method, results, options), results)

    def run_all(self, wanted: Sequence[tuple[str, dict[str, Any]]]) -> list[Ended]:
        """Run several methods, some at a time."""
        return list(self.at_once(lambda one: self.run(one[0], **one[1]), wanted))

    def at_once(self, work: Callable[[In], Out], wanted: Iterable[In]) -> Iterator[Out]:
        """Do several things, some at a time, and yield what comes of them in order."""
        with ThreadPoolExecutor(self.jobs) as pool:
            yield from pool.map(work, wanted)

    def new_folder(self) -> Path:
        """Return a folder of its own for the records of a run."""
        return Path(tempfile.mkdtemp(dir=self.folder))


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: Its exit code, None if it was given up.
        seconds: How long it took.
        output: Everything it printed.
        results: Folder of its records.
    """

    code: int | None
    seconds: float
    output: str
    results: Path

    @property
    def record(self) -> RecordData:
        """The record it left."""
        (path,) = record_files(self.results)
        return load(path).data

    @property
    def outcome(self) -> list[Any]:
        """What two runs that are the same have alike: losses and counts of every task."""
        return [(step["losses"], step["correct"]) for step in self.record["steps"]]

    def why(self) -> str:
        """Say in a line what went wrong."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        ended = f"not done in {LIMIT_S:.0f} s" if self.code is None else f"exit code {self.code}"
        return f"{ended}: {lines[-1] if lines else 'it said nothing'}"


def start(
    arguments: Sequence[str],
    results: Path,
    launcher: Sequence[str] = ("-m", "vcil_bench"),
    kill_when: Callable[[], bool] | None = None,
) -> Ended:
    """Start a command of this project, with this Python, and wait until it ends.

    Args:
        arguments: Behind ``vcil-bench``.
        results: Folder of the records it writes.
        launcher: What Python is to start.
        kill_when: The process is killed (SIGKILL) as soon as this holds.
    """
    started = time.monotonic()
    log = results / "doctor.log"
    with log.open("w+b") as output:
        process = subprocess.Popen(
            [sys.executable, *launcher, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        code = None
        while time.monotonic() - started < LIMIT_S and code is None:
            if kill_when is not None and kill_when():
                break
            try:
                code = process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                continue
        if code is None:
            if kill_when is None:  # asked, a grid or torchrun ends what it has started; killed, it could not
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(2 * GRACE_S + POLL_S)
            if process.poll() is None:
                process.kill()
            ended = process.wait()
            code = ended if kill_when is not None else None
    return Ended(code, time.monotonic() - started, log.read_text(encoding="utf-8", errors="replace"), results)


def record_files(results: Path) -> list[Path]:
    """Return the records below a folder."""
    return sorted(path for path in results.glob("*/*/*.json") if path.is_file())


def method_class(name: str) -> type[Method]:
    """Return a method's class."""
    cls = registry.find(name).cls
    assert cls is not None
    return cls
