"""Process pool: works on videos in processes that can be killed.

FFmpeg hangs on some damaged files and crashes on others. That must not end what is done to a whole dataset; here
it costs one process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any, TypeVar

from pebble import ProcessPool

from vcil_bench.common import cpu_cores

_AHEAD = 4  # jobs handed out per worker, so that none waits; all at once would cost a gigabyte of futures

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_processes(
    jobs: Iterable[Job],
    work: Callable[..., Result],
    *given: Any,
    workers: int | None = None,
    limit_s: float,
) -> Iterator[tuple[Job, Future[Result]]]:
    """Do work and yield each job when it is done, in the order in which they come.

    Args:
        jobs: What to work on; asked for the next one only when it is needed.
        work: Called with ``given`` and a job; a function that another process can import.
        given: What is the same for all.
        workers: Processes; None for one per core.
        limit_s: Seconds after which a job is killed.

    Yields:
        The job, and its result or what it raised: also ``TimeoutError`` if it was killed, ``ProcessExpired`` if
        its process died.
    """
    workers = workers or cpu_cores.allowed()
    rest = iter(jobs)
    # Spawned, since a fork of a process in which torch or a progress bar runs threads can hang.
    with ProcessPool(workers, context=multiprocessing.get_context("spawn")) as pool:
        try:
            running: dict[Future[Result], Job] = {}
            for job in islice(rest, _AHEAD * workers):
                running[pool.schedule(work, args=[*given, job], timeout=limit_s)] = job
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future
                    for job in islice(rest, 1):
                        running[pool.schedule(work, args=[*given, job], timeout=limit_s)] = job
        except BaseException:
            pool.stop()
            raise
