"""Jobs of a Slurm cluster through submitit: handed in, watched in the queue, ended so that no training is lost.

Whether a job is over is told by two things that every cluster has: the file with its result, and ``squeue``.
Accounting (``sacct``), which many have not and which lags behind where it is, is not asked.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .launchers import Ended, Engine, EngineError, Job, Process, Refused

if TYPE_CHECKING:
    import submitit

DAY_MIN = 24 * 60
# What submitit asks of every scheduler under a name of its own; other parameters are Slurm's.
SHARED = frozenset({"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"})
QUEUE_S = 60.0  # between two looks at the queue, for all jobs together
FOLDER_S = 5.0  # between two looks for results
ANSWER_S = 30.0  # for Slurm's commands to answer
LAG_S = 60.0  # for a file that a node has written to be seen on another: what NFS keeps a folder's list
GONE_S = 30.0  # a job that has left the queue for so long without a result has none
LISTEN_S = 0.2  # between two looks at the process of a job
NO_GPUS = "where the cluster has no GPUs: --slurm gpus_per_node=0"


class SubmititEngine(Engine):
    """Jobs of a Slurm cluster through submitit, or of submitit's own executor on this machine."""

    def __init__(
        self,
        cluster: str,
        folder: Path,
        parameters: Mapping[str, Any],
        slots: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Find the cluster.

        Args:
            cluster: ``slurm`` or ``local``.
            folder: Where submitit keeps its files; the nodes must see it.
            parameters: What jobs ask for: ``SHARED`` names, or those of sbatch (``partition``, ``qos``, ...).
            slots: How many jobs are handed in at a time.
            say: Takes lines that a user should know.

        Raises:
            EngineError: submitit is not installed, there is no cluster, or a parameter is unknown.
        """
        try:
            import submitit
        except ImportError as error:
            raise EngineError("a cluster needs submitit: pip install 'submitit>=1.5'") from error
        self.slots = slots
        self._queue = Queue(folder, say) if cluster == "slurm" else None
        self.lag_s = LAG_S if self._queue else 0.0
        wanted: dict[str, Any] = {"timeout_min": DAY_MIN}
        asked = _asks_gpus(parameters)
        self._gpus_by_default = asked is None and self._queue is not None
        if self._gpus_by_default:
            asked = _has_gpus(parameters.get("partition"))
            if not asked:
                say("the partition has no GPUs: jobs run on processors, as with --slurm gpus_per_node=0")
            wanted["gpus_per_node"] = int(asked)
        wanted |= {key if key in SHARED else f"slurm_{key}": value for key, value in parameters.items()}
        if "slurm_time" in wanted:
            del wanted["timeout_min"]
        self.device = "cuda" if asked else "cpu"
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=cluster)
            self.executor.update_parameters(name="vcil-bench", **wanted)
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            why = " ".join(str(error).split())
            raise EngineError(f"--engine {cluster}: {why}; shared parameters: {', '.join(SHARED)}") from error
        self._folder = folder

    def start(self, slot: int, command: Sequence[str], log: Path) -> Job:
        """Hand in a job.

        Raises:
            Refused: The cluster takes no job like this now, or does not answer.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        began = time.time()
        try:
            job = self.executor.submit(execute, [*command, "--device", self.device], str(log))
        except (FailedJobError, FailedSubmissionError) as error:
            _drop_drafts(self._folder, str(log), began)
            way_out = f" ({NO_GPUS})" if self._gpus_by_default and self.device == "cuda" else ""
            away = self._queue is not None and not self._queue.answers()
            why = " ".join(str(error).split())
            raise Refused(f"the cluster refused a job: {why}{way_out}", away=away) from error
        return _LocalJob(job) if self._queue is None else _SlurmJob(job, self._queue)


def execute(command: list[str], log: str) -> Ended:
    """Run a command on a node; a function of a module, since submitit pickles it.

    Slurm ends a job in two ways; the run is sent SIGTERM in both, upon which it saves its state. With the signal
    that submitit orders for some time before the time limit, the job ends here, with a result. With SIGTERM,
    Slurm cancels or preempts it, and may run it again: it leaves no result, since that is for the queue to tell.

    Raises:
        SystemExit: The job was sent SIGTERM before the command had ended well.
    """
    import submitit

    ahead = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
    heard: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: heard.append(number))
    # Some ways of tracking processes send it to all of a job's, and who does not know it dies of it.
    signal.signal(ahead, signal.SIG_IGN)
    process = Process(command, Path(log), {})
    signal.signal(ahead, lambda number, frame: heard.append(number))
    while (ended := process.poll()) is None and not heard:
        time.sleep(LISTEN_S)
    if ended is None:
        ended = process.end()
    elif ended.code:
        time.sleep(LISTEN_S)  # a signal to both may have reached the run first
    if ended.code == 0 or not heard:
        return ended
    if set(heard) != {ahead}:
        raise SystemExit(128 + signal.SIGTERM)
    return Ended(ended.code, "the job came to its time limit")


class Queue:
    """What the queue and the folder tell of all jobs, asked for once for them all."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Remember where results appear; ``say`` takes a line where Slurm does not do what it should."""
        self._folder = folder
        self.say = say
        self._tried = self._answered = self._listed = float("-inf")
        self._jobs: frozenset[str] = frozenset()
        self._files: frozenset[str] = frozenset()
        self._told = False

    def holds(self, job: str, since: float) -> bool | None:
        """Tell whether a job waits or runs.

        Args:
            job: Its id.
            since: Monotonic time at which it was handed in; older answers say nothing about it.

        Returns:
            None where that is not known (yet).
        """
        if time.monotonic() - self._tried >= QUEUE_S:
            self.answers()
        return job in self._jobs if self._answered > since else None

    def answers(self) -> bool:
        """Ask the queue now, and tell whether it answered."""
        self._tried = time.monotonic()
        answer = _ask("squeue", "--noheader", "--all", f"--user={os.getuid()}", "--format=%A")
        if answer is None:
            if not self._told:
                self.say("squeue does not answer: which jobs are lost is not seen until it does")
            self._told = True
            return False
        self._jobs, self._answered, self._told = frozenset(answer.split()), self._tried, False
        return True

    def lost(self, job: str) -> bool:
        """Ask now, and tell whether it is certain that a job neither waits nor runs."""
        return self.answers() and job not in self._jobs

    def has(self, file: Path) -> bool:
        """Tell whether a result is there."""
        if time.monotonic() - self._listed >= FOLDER_S:
            self._listed = time.monotonic()
            # A folder of another machine may be shown as it was a minute ago, unless it is changed from here.
            with contextlib.suppress(OSError):
                self._folder.chmod(self._folder.stat().st_mode)
            with contextlib.suppress(
                OSError
            ):  # a network's disk that does not answer now is no reason to end jobs
                self._files = frozenset(path.name for path in self._folder.iterdir())
        return file.name in self._files

    def state(self, job: str) -> str:
        """Return what became of a job, in Slurm's words, as long as it remembers."""
        answer = _ask("squeue", "--noheader", "--all", f"--jobs={job}", "--states=all", "--format=%T")
        return (answer or "").strip() or "forgotten"


class _SlurmJob(Job):
    def __init__(self, job: submitit.Job[Ended], queue: Queue) -> None:
        self._job, self._queue = job, queue
        self._since = time.monotonic()
        self._missed: float | None = None
        self._cancelled = False

    def poll(self) -> Ended | None:
        if self._cancelled:  # Slurm sees to its end without being waited for
            return Ended(-signal.SIGTERM)
        result = self._job.paths.result_pickle
        if self._queue.has(result):
            return _result(self._job)
        held = self._queue.holds(self._job.job_id, self._since)
        if held is not False:
            self._missed = None
            return None
        self._missed = self._missed or time.monotonic()
        if time.monotonic() - self._missed < GONE_S:
            return None
        state = self._queue.state(self._job.job_id)
        return Ended(-1, f"job {self._job.job_id} left the queue without a result ({state})")

    def stop(self) -> None:
        if not self._cancelled:
            self._cancelled = _ask("scancel", self._job.job_id) is not None or self._queue.lost(self._job.job_id)

    def kill(self) -> None:
        self.stop()
        if not self._cancelled:
            self._queue.say(f"job {self._job.job_id} could not be cancelled; scancel {self._job.job_id} does it")


class _LocalJob(Job):
    def __init__(self, job: submitit.Job[Ended]) -> None:
        self._job = job

    def poll(self) -> Ended | None:
        if not self._job.done():
            return None
        if self._job.paths.result_pickle.exists():
            return _result(self._job)
        return Ended(-1, f"job {self._job.job_id} ended without a result")

    def stop(self) -> None:
        if not self._job.done():
            os.kill(int(self._job.job_id), signal.SIGTERM)  # submitit's own cancelling kills after a second

    def kill(self) -> None:
        self._job.cancel()


def _result(job: submitit.Job[Ended]) -> Ended:
    """Read how a job ended; an exception on the node is told by its last line."""
    from submitit.core.utils import pickle_load

    outcome, result = pickle_load(job.paths.result_pickle)
    if outcome == "success":
        return result
    return Ended(-1, f"job {job.job_id}: {result.strip().splitlines()[-1]}")


def _ask(*command: str) -> str | None:
    """Return what a command of Slurm answers; None where it fails, as it does without its controller."""
    # What a user has set for looking at the queue (SQUEUE_STATES=running) would hide jobs from us.
    prefixes = ("SQUEUE_", "SINFO_", "SCANCEL_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=ANSWER_S
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _has_gpus(partition: Any) -> bool:
    """Tell whether nodes of a partition (None: of any) have GPUs; yes, where the cluster does not say."""
    answer = _ask(
        "sinfo", "--noheader", "--all", "--format=%G", *([f"--partition={partition}"] if partition else [])
    )
    return answer is None or "gpu" in answer


def _asks_gpus(parameters: Mapping[str, Any]) -> bool | None:
    """Tell whether parameters ask for GPUs, None where they say nothing about them."""
    named = [parameters[key] for key in ("gpus_per_node", "gpus_per_task", "num_gpus") if key in parameters]
    named += [str(parameters["gres"])] if re.search("gpu|shard|mps", str(parameters.get("gres"))) else []
    return any(named) if named else None


def _drop_drafts(folder: Path, log: str, began: float) -> None:
    """Delete what submitit has written of a job that was then refused: its script, its command.

    Args:
        folder: Of submitit.
        log: Of the job, which its command names; another grid may be handing in jobs from here.
        began: Time at which the job was handed in.
    """
    name = re.compile(r"\.submission_file_[0-9a-f]{32}\.sh|[0-9a-f]{32}\.pkl")
    for path in folder.iterdir():
        if not name.fullmatch(path.name) or path.is_symlink() or path.stat().st_mtime < began - 1:
            continue
        if path.suffix == ".sh" or log.encode() in path.read_bytes():
            path.unlink()
