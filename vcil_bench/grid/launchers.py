"""Launchers: start runs of a grid as local processes, one per GPU, and end them.

An engine starts a command with its output in a file and tells when it has ended. What runs mean, and whether
they are tried again, is the grid's business. ``slurm.py`` is the engine of a cluster.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcil_bench.common.cpu_cores import SHARES, allowed
from vcil_bench.common.errors import UserError

GRACE_S = 30.0  # for a run to save its state and end, each of the two times it is asked before it is killed
PROMPT = "$ "  # begins the line of a log that names the command of an attempt


class EngineError(UserError):
    """GPUs that are not there, or a cluster that cannot be used."""


class Refused(EngineError):
    """A command that was not taken, though another time it may be.

    Attributes:
        away: Nobody answered, so that nothing is known about the command.
    """

    def __init__(self, message: str, *, away: bool) -> None:
        """Say why, and whether it was an answer."""
        super().__init__(message)
        self.away = away


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal that ended it), and what its log does not say."""

    code: int
    reason: str = ""


class Job(ABC):
    """A command that was started."""

    @abstractmethod
    def poll(self) -> Ended | None:
        """Return how it ended, or None while it is waiting or running."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to save its state and end; may be asked again."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""


class Engine(ABC):
    """Starts commands.

    Attributes:
        slots: How many it takes at a time.
        lag_s: Seconds until what a command wrote before it ended is certain to be seen here.
    """

    slots: int
    lag_s = 0.0

    def limit_to(self, number: int) -> None:
        """Take no more than so many commands at a time: fewer runs share a machine among fewer."""
        self.slots = min(self.slots, number)

    @abstractmethod
    def start(self, slot: int, command: Sequence[str], log: Path) -> Job:
        """Start a command in a free slot; ``--device`` is added, output is appended to ``log``.

        Raises:
            Refused: It was not taken.
        """


class LocalEngine(Engine):
    """Processes on this machine, each with one GPU or none."""

    def __init__(self, gpus: Sequence[str], jobs: int) -> None:
        """Make the slots.

        Args:
            gpus: The GPUs, as ``CUDA_VISIBLE_DEVICES`` names them; empty for the processor.
            jobs: Runs at a time on each GPU, or on the processor.
        """
        self.gpus = list(gpus)
        self.slots = jobs * max(1, len(self.gpus))

    def start(self, slot: int, command: Sequence[str], log: Path) -> Job:
        """Start a process in a session of its own, so that Ctrl-C reaches it through the grid alone."""
        environment = {
            "CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)] if self.gpus else "",
            SHARES: str(self.slots),  # its workers are a share of the processor's cores, as its threads are
        }
        if self.slots > 1:  # threads of several runs would wait for each other
            threads = max(1, allowed() // self.slots)
            environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        return Process([*command, "--device", "cuda" if self.gpus else "cpu"], log, environment)


def visible_gpus(asked: str) -> list[str]:
    """Return the GPUs to use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Args:
        asked: ``all``, ``none``, or names joined by commas.

    Raises:
        EngineError: A number that this machine has no GPU for.
    """
    if asked == "none":
        return []
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = [str(number) for number in range(torch.cuda.device_count())]
    if given is not None:
        there = [name.strip() for name in given.split(",")][: len(there)]
    if asked == "all":
        return there
    chosen = [name.strip() for name in asked.split(",")]
    strange = [name for name in chosen if name not in there and not name.startswith(("GPU-", "MIG-"))]
    if strange:
        raise EngineError(
            f"--gpus {asked}: no GPU {strange[0]!r} here; allowed: all, none, "
            f"{', '.join(there) or 'and no number, since there is no GPU'}"
        )
    return chosen


class Process(Job):
    """A process of this machine, in a session of its own."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Start it, with ``environment`` beside this process's own."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            output.write(f"{PROMPT}{shlex.join(command)}\n".encode())
            output.flush()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                start_new_session=True,
            )

    def poll(self) -> Ended | None:
        """Return how it ended, or None while it is running."""
        code = self._process.poll()
        return None if code is None else Ended(code)

    def stop(self) -> None:
        """Send SIGTERM, upon which a run saves its state and ends."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL, to its own children as well."""
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self) -> Ended:
        """Stop it, once more if it does not listen, and kill it at last."""
        for _ in range(2):
            self.stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return Ended(self._process.wait(GRACE_S))
        self.kill()
        return Ended(self._process.returncode)
