"""How many workers and threads a process takes: its share of the cores that it may use."""

from __future__ import annotations

import os

import pytest

from vcil_bench.common import cpu_cores
from vcil_bench.common.errors import UserError


@pytest.fixture(autouse=True)
def twelve_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this process may use 12 cores of a machine of 64, and shares them with nobody."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.delenv(cpu_cores.SHARES, raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.mark.parametrize(
    ("runs", "processes", "workers"),
    [
        (None, None, 12),
        ("1", "1", 12),
        ("4", None, 3),
        (None, "4", 3),
        ("2", "3", 2),
        ("5", None, 2),
        ("8", "8", 1),
    ],
)
def test_workers_are_a_share_of_the_cores_allowed(
    monkeypatch: pytest.MonkeyPatch, runs: str | None, processes: str | None, workers: int
) -> None:
    for name, value in ((cpu_cores.SHARES, runs), ("LOCAL_WORLD_SIZE", processes)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cpu_cores.decode_workers(on_gpu=True) == workers
    assert cpu_cores.decode_workers(on_gpu=False) == 1


def test_workers_have_a_limit_however_many_cores_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(48)), raising=False)
    assert cpu_cores.decode_workers(on_gpu=True) == 16
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # not every system tells
    monkeypatch.setenv(cpu_cores.SHARES, "32")
    assert cpu_cores.decode_workers(on_gpu=True) == 2


def test_threads_are_torchs_own_unless_the_machine_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_cores.threads(6) == 6
    assert cpu_cores.threads(20) == 20  # as asked for, where nobody else is there
    monkeypatch.setenv(cpu_cores.SHARES, "4")
    assert cpu_cores.threads(6) == 3
    assert cpu_cores.threads(1) == 1  # has had its share already


@pytest.mark.parametrize("value", ["0", "-1", "two", "", "1.5"])
def test_a_share_that_is_no_number_of_runs_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(cpu_cores.SHARES, value)
    with pytest.raises(UserError, match=f"{cpu_cores.SHARES}={value}: must be the number of runs"):
        cpu_cores.decode_workers(on_gpu=True)
