"""What all benchmarks share: a row of the table, alternating rounds, the machine, peak memory."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Attributes:
        what: What was measured.
        value: The figure with its unit; a ratio of two things measured in turn wherever there are two.
        goal: What it should be, where the project set itself a goal.
        met: Whether it is; None without a goal.
        note: How it was measured, or what it rests on.
    """

    what: str
    value: str
    goal: str = ""
    met: bool | None = None
    note: str = ""


def seconds(work: Callable[[], Any], device: torch.device | None = None) -> float:
    """Return how long something takes, kernels on the GPU included."""
    _finish(device)
    start = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - start


def alternate(
    ways: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device | None = None
) -> dict[str, list[float]]:
    """Time several ways in turn, so that a busy machine slows them alike; each is done once to warm up.

    Returns:
        Seconds per round by way.
    """
    for work in ways.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            found[name].append(seconds(work, device))
    return found


def ratio(found: Mapping[str, list[float]], above: str, below: str) -> float:
    """Return the median over rounds of one way's time in the other's."""
    return median(a / b for a, b in zip(found[above], found[below], strict=True))


def peak_gib() -> float:
    """Return the most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def machine(device: torch.device | None = None) -> str:
    """Describe what figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    software = f"torch {torch.__version__}, Python {platform.python_version()}"
    text = f"{model}, {torch.get_num_threads()} threads, {software}"
    if device is not None and device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {text}"
    return text


def hand_over(rows: list[Row]) -> None:
    """Print rows for ``run.py`` to read, as the last line."""
    print(json.dumps([asdict(row) for row in rows]), file=sys.stdout, flush=True)


def _finish(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
