"""Jobs of a cluster: how they are handed in, watched and ended, with Slurm's answers played by the tests."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from slurm_cluster import wait_for

from vcil_bench.grid import launchers
from vcil_bench.grid import slurm as slurm_jobs
from vcil_bench.grid.launchers import Ended, LocalEngine, Refused
from vcil_bench.grid.slurm import Queue, SubmititEngine, execute

submitit = pytest.importorskip("submitit")


# ---- on the node


@pytest.fixture
def signals() -> Iterator[None]:
    """Put back the handlers that a job sets for itself."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def job_under(sent: signal.Signals, folder: Path, trap: str) -> Ended:
    """Run a shell as a job, that takes SIGTERM as ``trap`` says, and send the job a signal once it runs."""
    # Some ways of tracking processes send a job's signal to the run as well, so the shell sends it to itself.
    script = f"{trap}; kill -USR2 $$; touch {folder}/ready; while :; do sleep 0.02; done"

    def send() -> None:
        wait_for((folder / "ready").exists, "the job to run")
        os.kill(os.getpid(), sent)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        return execute(["sh", "-c", script], str(folder / "log"))
    finally:
        thread.join()


@pytest.mark.usefixtures("signals")
def test_a_job_near_its_time_limit_lets_its_run_save(tmp_path: Path) -> None:
    ended = job_under(signal.SIGUSR2, tmp_path, "trap 'echo saved; exit 130' TERM")
    assert ended == Ended(130, "the job came to its time limit")
    assert (tmp_path / "log").read_text(encoding="utf-8").endswith("saved\n")


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_slurm_ends_lets_its_run_save_and_leaves_no_result(
    tmp_path: Path, sent: signal.Signals
) -> None:
    """It may have been preempted, and come back: a result would make the grid hand in another."""
    with pytest.raises(SystemExit):
        job_under(sent, tmp_path, "trap 'echo saved; exit 130' TERM")
    assert (tmp_path / "log").read_text(encoding="utf-8").endswith("saved\n")


@pytest.mark.usefixtures("signals")
def test_a_run_that_ends_well_in_spite_of_a_signal_has_a_result(tmp_path: Path) -> None:
    assert job_under(signal.SIGTERM, tmp_path, "trap 'exit 0' TERM") == Ended(0)


@pytest.mark.usefixtures("signals")
def test_a_run_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "GRACE_S", 0.1)
    assert job_under(signal.SIGUSR2, tmp_path, "trap '' TERM").code == -signal.SIGKILL


def test_a_run_of_this_machine_is_asked_to_save(tmp_path: Path) -> None:
    script = f"trap 'echo saved; exit 130' TERM; touch {tmp_path}/ready; while :; do sleep 0.02; done"
    job = LocalEngine([], 1).start(0, ["sh", "-c", script], tmp_path / "log")
    wait_for((tmp_path / "ready").exists, "the run to start")
    job.stop()
    wait_for(lambda: job.poll() is not None, "the run to end")
    assert job.poll() == Ended(130)
    assert (tmp_path / "log").read_text(encoding="utf-8").endswith("saved\n")


# ---- from the grid


class Slurm:
    """Answers for Slurm's commands, and a clock.

    Attributes:
        listed: Jobs in the queue; None where the controller does not answer.
        asked: The commands that came.
        now: Seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listed: set[str] | None = {"7", "8"}
        self.asked: list[tuple[str, ...]] = []
        self.now = 1000.0
        self.told: list[str] = []
        self.queue = Queue(folder, self.told.append)

    def ask(self, *command: str) -> str | None:
        self.asked.append(command)
        if self.listed is None:
            return None
        if "--states=all" in command:
            return "CANCELLED\n"
        if command[0] == "scancel":
            self.listed.discard(command[1])
        return "".join(f"{job}\n" for job in self.listed)

    def job(self, number: str) -> Any:
        """Hand in a job."""
        paths = SimpleNamespace(result_pickle=self.folder / f"{number}_0_result.pkl")
        return slurm_jobs._SlurmJob(SimpleNamespace(job_id=number, paths=paths), self.queue)  # type: ignore[arg-type]

    def until(self, done: Callable[[], object], limit_s: float) -> float:
        """Let the time pass in steps until something is so, and return how long that took."""
        began = self.now
        while not done():
            assert self.now - began <= limit_s
            self.now += 0.5
        return self.now - began


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """Stand in for Slurm."""
    played = Slurm(tmp_path)
    monkeypatch.setattr(slurm_jobs, "_ask", played.ask)
    monkeypatch.setattr(slurm_jobs, "time", SimpleNamespace(monotonic=lambda: played.now))
    return played


def test_a_job_that_vanishes_is_missed_within_two_minutes(slurm: Slurm) -> None:
    job, other = slurm.job("7"), slurm.job("8")
    slurm.until(lambda: slurm.now > 1400 or job.poll() or other.poll(), 500)
    assert slurm.listed is not None
    slurm.listed.discard("7")
    slurm.until(job.poll, 120)
    assert job.poll() == Ended(-1, "job 7 left the queue without a result (CANCELLED)")
    assert other.poll() is None


def test_the_queue_is_asked_once_a_minute_for_all_jobs(slurm: Slurm) -> None:
    jobs = [slurm.job("7"), slurm.job("8")]
    slurm.until(lambda: slurm.now > 1600 or any(job.poll() for job in jobs), 700)
    assert len(slurm.asked) <= 11
    assert {command[0] for command in slurm.asked} == {"squeue"}


def test_a_job_is_not_missed_by_an_answer_older_than_itself(slurm: Slurm) -> None:
    first = slurm.job("7")
    assert first.poll() is None
    slurm.now += 1
    late = slurm.job("9")
    assert slurm.listed is not None
    slurm.listed.add("9")
    slurm.until(lambda: slurm.now > 1200 or late.poll(), 300)
    assert late.poll() is None


def test_a_controller_that_is_away_loses_no_job(slurm: Slurm) -> None:
    job = slurm.job("7")
    assert job.poll() is None
    slurm.listed = None
    slurm.until(lambda: slurm.now > 5000 or job.poll(), 5000)
    assert job.poll() is None
    (line,) = slurm.told
    assert "squeue does not answer" in line
    slurm.listed = set()
    assert slurm.until(job.poll, 120)


def test_a_result_is_read_even_of_a_job_that_has_left_the_queue(slurm: Slurm) -> None:
    job, broken = slurm.job("7"), slurm.job("8")
    slurm.listed = set()
    dump = submitit.core.utils.cloudpickle_dump
    dump(("success", Ended(130, "the job came to its time limit")), slurm.folder / "7_0_result.pkl")
    trace = 'Traceback (most recent call last):\n  File "x.py"\nModuleNotFoundError: no vcil_bench\n'
    dump(("error", trace), slurm.folder / "8_0_result.pkl")
    assert job.poll() == Ended(130, "the job came to its time limit")
    assert broken.poll() == Ended(-1, "job 8: ModuleNotFoundError: no vcil_bench")


def test_a_job_that_cannot_be_cancelled_is_named(slurm: Slurm) -> None:
    job, other = slurm.job("7"), slurm.job("8")
    job.stop()
    assert job.poll() == Ended(-signal.SIGTERM)
    slurm.listed = None
    other.stop()
    assert other.poll() is None
    other.kill()
    assert slurm.told[-1] == "job 8 could not be cancelled; scancel 8 does it"


def test_what_a_user_likes_to_see_of_the_queue_hides_no_job(
    played: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (played / "squeue").write_text("#!/bin/bash\necho ${SQUEUE_STATES-all} $SLURM_CLUSTERS\n", encoding="utf-8")
    monkeypatch.setenv("SQUEUE_STATES", "running")
    monkeypatch.setenv("SLURM_CLUSTERS", "big")
    assert slurm_jobs._ask("squeue") == "all big\n"


def test_a_disk_that_does_not_answer_loses_no_job(slurm: Slurm) -> None:
    job = slurm.job("7")
    slurm.folder.rename(slurm.folder.with_name("away"))
    slurm.until(lambda: slurm.now > 1300 or job.poll(), 400)
    slurm.folder.with_name("away").rename(slurm.folder)
    assert job.poll() is None


# ---- handing in

COMMANDS = {
    "srun": "",
    "squeue": "test ! -e $PLAYED/away",
    "sinfo": "cat $PLAYED/gres",
    "sbatch": """
        if [[ -e $PLAYED/refuse ]]; then echo "sbatch: error: $(cat $PLAYED/refuse)" >&2; exit 1; fi
        echo Submitted batch job 12
    """,
}


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put commands of Slurm before the real ones; files in the returned folder say what they do."""
    for name, script in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PLAYED", str(tmp_path))
    (tmp_path / "gres").write_text("gpu:h100:8\n(null)\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("gres", "parameters", "device", "flags"),
    [
        ("gpu:h100:8", {}, "cuda", ["--gpus-per-node=1"]),
        ("(null)", {}, "cpu", ["--gpus-per-node=0"]),
        ("(null)", {"gpus_per_node": 2}, "cuda", ["--gpus-per-node=2"]),
        ("gpu:8", {"gpus_per_node": 0}, "cpu", ["--gpus-per-node=0"]),
        ("gpu:8", {"gres": "gpu:h100:1"}, "cuda", ["--gres=gpu:h100:1"]),
        ("gpu:8", {"gres": "disk:10"}, "cuda", ["--gpus-per-node=1", "--gres=disk:10"]),
    ],
)
def test_jobs_ask_for_a_gpu_where_there_are_some(
    played: Path, gres: str, parameters: dict[str, object], device: str, flags: list[str]
) -> None:
    (played / "gres").write_text(gres + "\n", encoding="utf-8")
    told: list[str] = []
    engine = SubmititEngine("slurm", played / "jobs", parameters, 1, told.append)
    engine.start(0, ["true"], played / "log")
    assert engine.device == device
    assert bool(told) == (not parameters and device == "cpu")
    script = (played / "jobs/12_submission.sh").read_text(encoding="utf-8")
    given = [line.removeprefix("#SBATCH ") for line in script.splitlines() if "gpus" in line or "gres" in line]
    assert given == flags


@pytest.mark.parametrize("away", [True, False])
def test_a_refusal_tells_whether_anybody_answered(played: Path, away: bool) -> None:
    (played / "refuse").write_text("Invalid generic resource (gres) specification", encoding="utf-8")
    if away:
        (played / "away").touch()
    engine = SubmititEngine("slurm", played / "jobs", {}, 1)
    with pytest.raises(Refused, match=r"Invalid generic resource .*--slurm gpus_per_node=0") as refused:
        engine.start(0, ["true"], played / "log")
    assert refused.value.away is away
    assert not list((played / "jobs").iterdir())
    (played / "refuse").unlink()
    engine.start(0, ["true"], played / "log")
    assert (played / "jobs/12_submitted.pkl").exists()
