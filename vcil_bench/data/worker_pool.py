"""Worker processes that do jobs in order, in memory that all share; kept from pass to pass.

To start them anew for every pass over some videos would cost each its first second, and more where the process
that is forked holds a GPU. They write into memory that is used again and again: to be given new memory for every
clip costs as much as decoding two of its frames. It also leaves nothing to be fetched from a worker, and so no
way in which one that hangs could make the process wait that trains.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vcil_bench.common.errors import UserError

from .video import VideoError
from .worker_watchdog import Watch, child_signals_kept

AHEAD = 4  # jobs that are given to a worker at a time
SHOWN = 2  # places beside those that are written to: a training loop holds a batch while it gets the next
_LOOK_S = 2.0  # how often a crew that is waited for looks after its workers

Names = Callable[[Sequence[int]], str]


class _Jobs:
    """What a crew is to do in the pass that begins."""

    now: Iterator[Any]

    def __iter__(self) -> Iterator[Any]:
        return self.now


class BatchMemory:
    """Bytes in places of one size a pass, each for a batch; what is shown of them is not written to.

    A copy of every batch would cost the process that trains time and the processor's caches. So a batch on the
    processor is the memory that its workers wrote to, lent for as long as any tensor shows it. A caller that
    keeps many batches gets copies.

    Attributes:
        bytes: All of it, [N] uint8.
    """

    @torch.inference_mode(False)  # or what is made for a test could not be written to in training
    def __init__(self, size: int, workers: int) -> None:
        """Take so many bytes.

        Raises:
            UserError: There is not enough memory that processes can share.
        """
        self.bytes = torch.empty(size, dtype=torch.uint8)
        if workers:
            try:
                self.bytes.share_memory_()
            except RuntimeError as error:
                raise UserError(
                    f"{workers} workers need {size / 1e9:.2f} GB of shared memory, which is not there "
                    "(/dev/shm; docker run --shm-size); take fewer (--set workers=N)"
                ) from error
        self._array = self.bytes.numpy()
        self._lent: dict[int, range] = {}  # bytes that are shown
        self._loans = itertools.count()

    def free(self, size: int) -> list[int]:
        """Return the numbers of the places of so many bytes of which nothing is lent."""
        lent = list(self._lent.values())
        places = (range(start, start + size) for start in range(0, len(self.bytes) - size + 1, size))
        return [
            number
            for number, place in enumerate(places)
            if not any(part.start < place.stop and place.start < part.stop for part in lent)
        ]

    def lend(self, start: int, size: int) -> Tensor:
        """Show bytes, [size] uint8, lent until the tensor and all that share its memory are gone."""
        shown = self._array[start : start + size]  # torch's storage holds it
        number = next(self._loans)
        self._lent[number] = range(start, start + size)
        weakref.finalize(shown, self._lent.pop, number).atexit = False
        return torch.from_numpy(shown)


class Crew:
    """Workers and their memory; without workers this process does the jobs.

    Attributes:
        memory: What all processes share.
    """

    @torch.inference_mode(False)  # or the watch of what is made for a test could not be written to in training
    def __init__(
        self,
        work: Callable[[Tensor, Watch], Dataset[UserError | None]],
        number: int,
        size: int,
        limit_s: float,
    ) -> None:
        """Take memory; workers start with the first pass.

        Args:
            work: Makes, of the memory and the watch, what does a job as its item, which is what went wrong.
            number: Workers.
            size: Bytes of memory.
            limit_s: Seconds that a worker may be at one video; then it is ended.

        Raises:
            UserError: There is not enough memory that processes can share.
        """
        self.memory = BatchMemory(size, number)
        self._number = number
        self._limit_s = limit_s
        self._watch = Watch(number)
        self._work = work(self.memory.bytes, self._watch)
        self._jobs = _Jobs()
        self._processes = self._not_started()
        self._done: Iterator[UserError | None] = iter(())

    @torch.inference_mode(False)
    def begin(self, jobs: Iterator[Any]) -> None:
        """Begin a pass; the last one is over, or nothing of it is wanted any more."""
        self._jobs.now = jobs
        with child_signals_kept():
            try:
                self._done = iter(self._processes)
            except RuntimeError:  # a worker has died since, or does not answer, and had nothing to do
                self._processes = self._not_started()
                self._done = iter(self._processes)

    def wait(self, names: Names) -> bool | UserError:
        """Return True when the next job is done, False if there is none, or what is wrong.

        An error is returned and not raised, since its traceback would keep the workers alive. After one the crew
        is of no use any more.

        Args:
            names: Tells the videos at some positions, see ``Watch``.
        """
        started = time.monotonic()
        while True:
            try:
                wrong = next(self._done)
            except StopIteration:
                return False
            except RuntimeError as error:
                cause = str(error).strip()
                if not cause.startswith("DataLoader"):
                    raise
            else:
                return True if wrong is None else wrong
            if not cause.startswith("DataLoader timed out"):
                return VideoError(
                    f"a worker process died ({cause}); workers were at: {names(self._watch.busy())}; if memory "
                    "was short, take fewer of them (--set workers=N)"
                )
            if late := self._watch.end(self._limit_s):
                return VideoError(
                    f"not decoded within {self._limit_s:g} s: {names(late)}; its worker was ended. If the disk "
                    "answers, use decoder=auto, or take the video out of the dataset"
                )
            if not self._watch.busy() and time.monotonic() - started > self._limit_s:
                return VideoError(f"no batch within {self._limit_s:g} s, though no worker is at a video")

    def _not_started(self) -> DataLoader[UserError | None]:
        return DataLoader(
            self._work,
            batch_size=None,
            sampler=self._jobs,
            num_workers=self._number,
            prefetch_factor=AHEAD if self._number else None,
            timeout=min(_LOOK_S, self._limit_s) if self._number else 0,
            persistent_workers=self._number > 0,
            generator=torch.Generator(),  # workers draw nothing, and so may not move the run's
        )
