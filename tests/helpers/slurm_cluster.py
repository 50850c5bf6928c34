"""A Slurm cluster of one node on this machine, for tests: its own key, ports and folder, gone afterwards.

Needs slurmctld, slurmd, munged and the client commands (Debian: slurmctld slurmd slurm-client munge), and root,
as slurmd does. A cluster that this machine belongs to is neither asked nor changed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
FREEZER = Path("/sys/fs/cgroup/freezer")
START_S = 60.0  # for the daemons to answer
CONFIGURATION = """
ClusterName=vcil_test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/{tracking}
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={kill_wait}
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=9
"""


def missing() -> str | None:
    """Say what a cluster lacks here, None where it can be started."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"Slurm is not installed ({absent[0]})"
    return None if os.geteuid() == 0 else "slurmd needs root"


def cgroups() -> str | None:
    """Say why jobs cannot be tracked by control groups here, None where they can."""
    probe = FREEZER / f"vcil-bench-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return f"no control groups of version 1 can be made, and those of version 2 need systemd ({error})"
    return None


class Cluster:
    """A running cluster.

    Attributes:
        folder: Of its files and logs.
        environment: What its commands need beside the process's own.
    """

    def __init__(self, folder: Path) -> None:
        """Remember where it is."""
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}

    def ask(self, *command: str) -> str:
        """Return what one of its commands answers."""
        environment = os.environ | self.environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def jobs(self, states: str = "all") -> dict[str, str]:
        """Return the state of every job it remembers, by id."""
        lines = self.ask("squeue", "--noheader", f"--states={states}", "--format=%A %T").splitlines()
        return dict(line.split() for line in lines)


@contextmanager
def started(folder: Path, *, tracking: str = "linuxproc", kill_wait: int = 20) -> Iterator[Cluster]:
    """Start a cluster, and end its jobs and daemons.

    Args:
        folder: An empty folder for all it writes.
        tracking: How Slurm finds the processes of a job: ``linuxproc`` or ``cgroup``.
        kill_wait: Seconds between a job's SIGTERM and its SIGKILL.
    """
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    controller, node = _free_ports()
    host = socket.gethostname().split(".")[0]
    text = CONFIGURATION.format(
        folder=folder, host=host, controller=controller, node=node, tracking=tracking, kill_wait=kill_wait
    )
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n", encoding="utf-8")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    cluster = Cluster(folder)
    parts = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder}/munge.{ending}" for option, ending in parts.items()]
    groups = FREEZER / f"slurm_{host}"  # how Slurm names it, and leaves it behind
    made_groups = not groups.exists()
    commands = [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as output:
                environment = os.environ | cluster.environment
                daemons.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            if command[0] == "munged":
                wait_for(lambda: (folder / "munge.socket").exists(), "munged")
        wait_for(lambda: _is_idle(cluster), f"the cluster (logs: {folder})")
        yield cluster
    finally:
        _end(cluster, daemons)
        if made_groups and groups.exists():
            for path in sorted((one for one in groups.rglob("*") if one.is_dir()), reverse=True):
                path.rmdir()
            groups.rmdir()


def wait_for(condition: Callable[[], bool], what: str, limit_s: float = START_S) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: It is not so in time.
    """
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited {limit_s:.0f} s for {what}"
        time.sleep(0.1)


def _is_idle(cluster: Cluster) -> bool:
    try:
        return cluster.ask("sinfo", "--noheader", "--partition=cpu", "--format=%T") == "idle"
    except subprocess.CalledProcessError:  # the controller is not up yet
        return False


def _end(cluster: Cluster, daemons: list[subprocess.Popen[bytes]]) -> None:
    if all(daemon.poll() is None for daemon in daemons) and len(daemons) == 3:
        for job in cluster.jobs("pending,running,suspended"):
            cluster.ask("scancel", "--signal=KILL", "--full", job)
            cluster.ask("scancel", job)
        wait_for(lambda: not cluster.jobs("pending,running,suspended,completing"), "the last jobs to end")
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _path() -> str:
    """Return the search path, daemons included."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
