"""The cores of a machine: how many a process may take, where processes of a run or several runs share them.

``torchrun`` says how many processes of a run are on a machine (``LOCAL_WORLD_SIZE``), a grid how many runs it
executes side by side there (``VCIL_BENCH_SHARES``).
"""

from __future__ import annotations

import os

from .errors import UserError

SHARES = "VCIL_BENCH_SHARES"
MAX_WORKERS = 16


def allowed() -> int:
    """Return the cores that this process may use, which on a shared machine are not all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_workers(*, on_gpu: bool) -> int:
    """Return how many workers decode unless the user says otherwise: this process's share of the cores.

    One on a processor, where training takes the cores.
    """
    return min(MAX_WORKERS, _share()) if on_gpu else 1


def threads(alone: int) -> int:
    """Return torch's threads: ``alone`` where nobody shares the machine, else at most this process's share."""
    return alone if _sharing() == 1 else min(alone, _share())


def _share() -> int:
    return max(1, allowed() // _sharing())


def _sharing() -> int:
    """Return how many processes share this machine's cores.

    Raises:
        UserError: ``VCIL_BENCH_SHARES`` is not a number of runs.
    """
    runs = os.environ.get(SHARES, "1")
    if not runs.isdecimal() or int(runs) < 1:
        raise UserError(f"{SHARES}={runs}: must be the number of runs that share this machine, from 1")
    return int(runs) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
