"""Worker watchdog: notes which video each decoding process is at and kills one that hangs.

A decoder may hang inside a library, where no exception reaches it, and the kernel may kill a process that takes
too much memory. Both end without a word from the worker, so what it was at stands in memory that all share. One
that hangs is killed, since it may hold Python's lock and then answers nothing else.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch.utils.data import get_worker_info

_NOTHING = -1


class Watch:
    """A line for each worker: the position of its video in the sample list, when it began, its process."""

    def __init__(self, workers: int) -> None:
        """Make the lines; this process has none."""
        self._lines = torch.full((workers, 3), _NOTHING, dtype=torch.float64).share_memory_()

    @contextmanager
    def at(self, position: int) -> Iterator[None]:
        """Note in a worker that it is at a video."""
        worker = get_worker_info()
        if worker is None:
            yield
            return
        line = self._lines.numpy()[worker.id]  # a tensor's elements take ten times as long to set
        line[1], line[2] = time.monotonic(), os.getpid()
        line[0] = position
        yield
        line[0] = _NOTHING  # not when an error passes: it ends the loader

    def busy(self) -> list[int]:
        """Return the positions of the videos that workers are at."""
        return [position for position, _ in self._longer(0)]

    def end(self, seconds: float) -> list[int]:
        """Kill the workers that have been at a video for longer, and return these videos' positions."""
        late = self._longer(seconds)
        for _, process in late:
            with suppress(ProcessLookupError):
                os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))
        return [position for position, _ in late]

    def _longer(self, seconds: float) -> list[tuple[int, int]]:
        now = time.monotonic()
        lines = self._lines.tolist()
        return [(int(at), int(pid)) for at, since, pid in lines if at != _NOTHING and now - since > seconds]


@contextmanager
def child_signals_kept() -> Iterator[None]:
    """Keep torch from raising a worker's death wherever the main thread happens to be.

    The next wait for a batch notices it as well, and there the video is known.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)
