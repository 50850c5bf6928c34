"""Where the runs of a grid are executed: on this machine's GPUs or processor, or on a cluster.

An engine starts a command with its output in a file and tells when it has ended. What runs mean, and whether
they are tried again, is the grid's business.
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
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    import submitit

GRACE_S = 30.0  # for a run to stop by itself before it is killed; what it loses is made again when it is resumed
DAY_MIN = 24 * 60
PROMPT = "$ "  # begins the line of a log that names the command of an attempt
# What submitit asks of every scheduler under a name of its own; other parameters are Slurm's.
SHARED = frozenset({"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"})


class EngineError(UserError):
    """GPUs that are not there, or a cluster that cannot be used."""


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
        """Ask it to stop, as Ctrl-C does."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""


class Engine(ABC):
    """Starts commands.

    Attributes:
        slots: How many it takes at a time.
    """

    slots: int

    @abstractmethod
    def start(self, slot: int, command: Sequence[str], log: Path) -> Job:
        """Start a command in a free slot; ``--device`` is added, output is appended to ``log``."""


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
        environment = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)] if self.gpus else ""}
        if not self.gpus and self.slots > 1:  # threads of several runs would wait for each other
            threads = max(1, (os.cpu_count() or 1) // self.slots)
            environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        return _Process([*command, "--device", "cuda" if self.gpus else "cpu"], log, environment)


class SubmititEngine(Engine):
    """Jobs of a Slurm cluster through submitit, or of submitit's own executor on this machine."""

    def __init__(self, cluster: str, folder: Path, parameters: Mapping[str, Any], slots: int) -> None:
        """Find the cluster.

        Args:
            cluster: ``slurm`` or ``local``.
            folder: Where submitit keeps its files; the nodes must see it.
            parameters: What jobs ask for: ``SHARED`` names, or those of sbatch (``partition``, ``qos``, ...).
            slots: How many jobs are handed in at a time.

        Raises:
            EngineError: submitit is not installed, there is no cluster, or a parameter is unknown.
        """
        try:
            import submitit
        except ImportError as error:
            raise EngineError("a cluster needs submitit: pip install 'submitit>=1.5'") from error
        self.slots = slots
        self.remote = cluster == "slurm"
        wanted: dict[str, Any] = {"timeout_min": DAY_MIN, "gpus_per_node": int(self.remote)}
        wanted |= {key if key in SHARED else f"slurm_{key}": value for key, value in parameters.items()}
        if "slurm_time" in wanted:
            del wanted["timeout_min"]
        self.device = "cuda" if wanted["gpus_per_node"] or "slurm_gres" in wanted else "cpu"
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=cluster)
            self.executor.update_parameters(name="vcil-bench", **wanted)
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            why = " ".join(str(error).split())
            raise EngineError(f"--engine {cluster}: {why}; shared parameters: {', '.join(SHARED)}") from error

    def start(self, slot: int, command: Sequence[str], log: Path) -> Job:
        """Hand in a job."""
        import submitit

        try:
            job = self.executor.submit(execute, [*command, "--device", self.device], str(log))
        except submitit.core.utils.FailedJobError as error:
            raise EngineError(f"the cluster refused a job: {' '.join(str(error).split())}") from error
        return _ClusterJob(job, self.remote)


def execute(command: list[str], log: str) -> int:
    """Run a command on a node and return its exit code; a module's function, since submitit pickles it."""
    process = _Process(command, Path(log), {})
    try:
        return process.wait()
    except BaseException:
        process.stop()  # told first, it can still say where it stopped, even if this process is killed now
        process.wait()
        raise


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


class _Process(Job):
    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
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
        code = self._process.poll()
        return None if code is None else Ended(code)

    def wait(self) -> int:
        return self._process.wait()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class _ClusterJob(Job):
    def __init__(self, job: submitit.Job[int], remote: bool) -> None:
        self._job, self._remote, self._stopped = job, remote, False

    def poll(self) -> Ended | None:
        import submitit

        if self._stopped and (self._remote or self._job.done()):  # a scheduler ends it without being waited for
            return Ended(-signal.SIGINT)
        if not self._job.done():
            return None
        try:
            return Ended(self._job.result())
        except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as error:
            return Ended(-1, f"job {self._job.job_id} {self._job.state}: {str(error).splitlines()[0]}")

    def stop(self) -> None:
        self._stopped = True
        self._job.cancel()

    def kill(self) -> None:
        self._job.cancel()
