"""Several downloads at once, with their progress in all; one that fails leaves the others alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from .download import PAUSE_S, Stopped, Wanted, download
from .errors import DiskFull, FetchError

MIB = 2**20


class Meter:
    """Adds up the bytes of several downloads and tells progress in MiB, each time it is another."""

    def __init__(self, total: int, moved: Callable[[int, int], None]) -> None:
        """Start at nothing.

        Args:
            total: Bytes to come.
            moved: Told done and total, both in MiB.
        """
        self._total = total
        self._moved = moved
        self._done = 0
        self._told = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Take note of bytes that came, or of some that were thrown away."""
        with self._lock:
            self._done += size
            done = max(0, self._done) // MIB
            if done > self._told:
                self._told = done
                self._moved(done, max(done, -(-self._total // MIB)))


def download_all(
    files: Sequence[Wanted],
    total: int,
    moved: Callable[[int, int], None],
    *,
    at_once: int,
    pause_s: float = PAUSE_S,
) -> list[FetchError]:
    """Download files, several at once.

    Args:
        files: The files.
        total: Bytes to come, as far as servers say.
        moved: Shows progress, done and total in MiB.
        at_once: How many.
        pause_s: Seconds before the first retry of one.

    Returns:
        What went wrong with single files.

    Raises:
        DiskFull: The disk is full, which ends all.
    """
    stop = threading.Event()
    meter = Meter(total, moved)
    failed: list[FetchError] = []
    with ThreadPoolExecutor(at_once, thread_name_prefix="download") as pool:
        pending = {pool.submit(download, wanted, meter.add, stop, pause_s=pause_s) for wanted in files}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        future.result()
                    except DiskFull:
                        raise
                    except FetchError as error:
                        failed.append(error)
        finally:  # also where the user stops it
            stop.set()
            pool.shutdown(cancel_futures=True)
    return [error for error in failed if not isinstance(error, Stopped)]
