"""Grids on a real Slurm of one node: what a scheduler does to jobs costs no step of training, and ends.

The cluster has no accounting, so ``sacct`` does not work there, and no GPUs. Skipped where there is no Slurm.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import slurm_cluster
from slurm_cluster import Cluster, wait_for
from tiny_dataset import Tiny

pytestmark = pytest.mark.slow
WORK_S = 600.0  # for what takes a minute or two on an idle machine
METHOD = '''
"""Fine-tuning that writes down every step and takes its time over it."""

import os, time
from pathlib import Path

import torch.nn.functional as F

from vcil_bench.methods.finetune import Finetune
from vcil_bench.training import sgd


class Paced(Finetune):
    name = "paced"
    paper = "a test"

    def learn(self, task):
        optimiser = sgd(self.context, self.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0)
        count = {epochs} if task.index == 1 else 1
        phase = f"task {{task.index + 1}}"
        for epoch in self.train_epochs(task.train, optimiser, num_epochs=count, batch_size=3, phase=phase):
            for batch in epoch:
                time.sleep({pause})
                epoch.step({{"cross_entropy": F.cross_entropy(self.logits(batch.clips), batch.labels)}})
                with Path(__file__).with_suffix(".steps").open("a") as file:
                    file.write(f"{{task.index}} {{os.environ['SLURM_JOB_ID']}}\\n")
'''


@pytest.fixture(scope="module", params=["linuxproc", "cgroup"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a cluster; how it tracks the processes of jobs decides whom a signal reaches."""
    pytest.importorskip("submitit")
    why = slurm_cluster.missing() or (slurm_cluster.cgroups() if request.param == "cgroup" else None)
    if why is not None:
        pytest.skip(why)
    with slurm_cluster.started(tmp_path_factory.mktemp("slurm"), tracking=request.param) as running:
        yield running


class Work:
    """A grid of one method on the tiny protocol, and its files.

    Attributes:
        epochs: Of the second task, one step each; the other two tasks have two steps and one.
    """

    def __init__(self, cluster: Cluster, tiny: Tiny, folder: Path, epochs: int, pause: float) -> None:
        self.cluster, self.tiny, self.folder, self.epochs = cluster, tiny, folder, epochs
        self.method = folder / "paced.py"
        self.method.write_text(METHOD.format(epochs=epochs, pause=pause), encoding="utf-8")
        self.results = folder / "results"
        self.environment = dict(cluster.environment)

    @contextmanager
    def grid(
        self, *more: str, method: str | Path | None = None, seeds: str = "1"
    ) -> Iterator[subprocess.Popen[str]]:
        """Start the grid; it is stopped if it has not ended when the test has."""
        words = ["grid", method or self.method, self.tiny.protocol, "--data", f"folder={self.tiny.root}"]
        words += ["--results", self.results, "--seeds", seeds, "--engine", "slurm"]
        words += ["--set", "backbone=clip_tiny", "threads=1", *more]
        with subprocess.Popen(
            [sys.executable, "-m", "vcil_bench", *map(str, words)],
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()

    def steps(self) -> list[list[str]]:
        """Return the task and the job of every step that was taken."""
        file = self.method.with_suffix(".steps")
        return [line.split() for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    def inside(self, count: int = 3) -> str:
        """Wait until some steps of the second task were taken, and return the job that takes them."""
        before = len(self.steps())
        wait_for(lambda: sum(task == "1" for task, _ in self.steps()[before:]) >= count, "training", WORK_S)
        return self.steps()[-1][1]

    def record(self) -> dict[str, Any]:
        """Return the only record."""
        (path,) = self.results.glob("tiny_2x1/*/*.json")
        return json.loads(path.read_text(encoding="utf-8"))

    def check(self) -> None:
        """Check that the run is complete, and took every step once, whatever happened to its jobs."""
        assert self.record()["status"] == "complete"
        tasks = [task for task, _ in self.steps()]
        assert tasks == ["0"] * 2 + ["1"] * self.epochs + ["2"]


def test_a_grid_ends_in_complete_records(cluster: Cluster, tiny: Tiny, tmp_path: Path) -> None:
    work = Work(cluster, tiny, tmp_path, 1, 0)
    with work.grid(method="zero_shot", seeds="all") as process:
        said = process.communicate(timeout=WORK_S)[0]
    assert process.returncode == 0, said
    assert said.count("  done") == 2
    assert "the partition has no GPUs" in said
    assert "sacct" not in said
    states = [json.loads(path.read_text(encoding="utf-8"))["status"] for path in work.results.glob("*/*/*.json")]
    assert states == ["complete"] * 2


def test_a_task_longer_than_a_job_gets_done(cluster: Cluster, tiny: Tiny, tmp_path: Path) -> None:
    """Jobs of two minutes, warned 30 to 90 seconds after their start; the task alone pauses for 100 seconds."""
    work = Work(cluster, tiny, tmp_path, 50, 2.0)
    limits = ["--slurm", "timeout_min=2", "signal_delay_s=30", "--retries", "9"]
    with work.grid(*limits) as process:
        said = process.communicate(timeout=WORK_S)[0]
    assert process.returncode == 0, said
    work.check()
    assert 2 <= len({job for _, job in work.steps()}) <= 5, said


@pytest.mark.parametrize("way", ["preempt", "requeue"])
def test_a_job_that_is_run_again_goes_on(cluster: Cluster, tiny: Tiny, tmp_path: Path, way: str) -> None:
    work = Work(cluster, tiny, tmp_path, 25, 1.0)
    with work.grid("--retries", "0") as process:
        job = work.inside()
        if way == "preempt":
            cluster.ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
        else:
            cluster.ask("scontrol", "requeue", job)
        run_again(cluster, job)
        said = process.communicate(timeout=WORK_S)[0]
    assert process.returncode == 0, said
    assert "attempts" not in said
    assert list(cluster.jobs()).count(job) == 1
    assert {one for _, one in work.steps()} == {job}
    work.check()


def test_a_cancelled_job_is_missed_within_two_minutes(cluster: Cluster, tiny: Tiny, tmp_path: Path) -> None:
    work = Work(cluster, tiny, tmp_path, 12, 1.0)
    with work.grid("--retries", "1") as process:
        job = work.inside()
        cluster.ask("scancel", job)
        wait_for(lambda: set(cluster.jobs("pending,running")) - {job} != set(), "the next attempt", 120)
        said = process.communicate(timeout=WORK_S)[0]
    assert process.returncode == 0, said
    assert "done (2 attempts)" in said
    work.check()


def test_a_stopped_grid_saves_cancels_and_goes_on(cluster: Cluster, tiny: Tiny, tmp_path: Path) -> None:
    work = Work(cluster, tiny, tmp_path, 15, 1.0)
    with work.grid() as process:
        job = work.inside()
        process.terminate()
        said = process.communicate(timeout=30)[0]
    assert process.returncode == 130, said
    wait_for(lambda: cluster.jobs()[job] == "CANCELLED", "the job to be cancelled")
    with work.grid() as process:
        said = process.communicate(timeout=WORK_S)[0]
    assert process.returncode == 0, said
    work.check()


def test_a_submit_limit_delays_and_cancels_nothing(cluster: Cluster, tiny: Tiny, tmp_path: Path) -> None:
    """``sbatch`` refuses while two jobs wait or run, as a cluster does that allows a user so many."""
    work = Work(cluster, tiny, tmp_path, 1, 0)
    real = shutil.which("sbatch", path=cluster.environment["PATH"])
    script = tmp_path / "bin/sbatch"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/bash
        if [[ $(squeue --noheader --states=pending,running,completing | wc -l) -ge 2 ]]; then
            echo "sbatch: error: Job violates accounting/QOS policy (job submit limit)" >&2
            exit 1
        fi
        exec {real} "$@"
        """,
        encoding="utf-8",
    )
    script.chmod(0o755)
    work.environment["PATH"] = f"{script.parent}{os.pathsep}{work.environment['PATH']}"
    with work.grid(method="zero_shot,finetune", seeds="all") as process:
        said = process.communicate(timeout=WORK_S)[0]
    assert process.returncode == 0, said
    assert said.count("  done") == 4
    assert said.count("the cluster refused a job") == 1
    assert "attempts" not in said
    left = {path.name[:10] for path in (work.results / "submitit").glob(".submission*") if not path.is_symlink()}
    assert not left


def test_a_requeued_job_does_not_do_stale_work_again(cluster: Cluster, tiny: Tiny, tmp_path: Path) -> None:
    work = Work(cluster, tiny, tmp_path, 15, 1.0)
    (work.results).mkdir()
    assert tiny.run("zero_shot", work.results) == 0
    (made,) = work.results.glob("tiny_2x1/zero_shot/*.json")
    data = json.loads(made.read_text(encoding="utf-8"))
    data["identity"]["config"] = "another"
    stale = work.results / "tiny_2x1/paced" / made.name
    shutil.move(made.parent, stale.parent)
    stale.write_text(json.dumps(data), encoding="utf-8")
    with work.grid("--rerun-stale") as process:
        job = work.inside()
        cluster.ask("scontrol", "requeue", job)
        run_again(cluster, job)
        said = process.communicate(timeout=WORK_S)[0]
    assert process.returncode == 0, said
    work.check()
    assert len(list(stale.parent.glob("superseded/*/*.json"))) == 1


def run_again(cluster: Cluster, job: str) -> None:
    """Let a requeued job run at once; Slurm would wait for two minutes."""
    wait_for(lambda: cluster.jobs()[job] == "PENDING", "the job to be requeued")
    cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
