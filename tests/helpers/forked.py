"""Commands in forked children: as real as a new process, without the seconds that torch takes to start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

LIMIT_S = 120.0  # for what takes a second or two on an idle machine


class Child:
    """A forked process that runs a function and ends with its result as exit code."""

    def __init__(self, work: Callable[[], int], output: Path) -> None:
        """Fork.

        Args:
            work: What it runs.
            output: Takes what it writes to stdout and stderr.
        """
        if torch.backends.mps.is_available():
            pytest.skip("beside Apple's GPU, which cannot be hidden, no forked process can have a backward pass")
        self.output = output
        sys.stdout.flush()
        sys.stderr.flush()
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._be(work)

    def _be(self, work: Callable[[], int]) -> None:
        code = 70
        try:
            torch.set_num_threads(1)  # OpenMP's threads are not forked, and whoever asks for them waits for ever
            file = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = work()
        except BaseException:  # noqa: BLE001  # nothing may reach pytest's frames in this process
            traceback.print_exc()
        finally:
            os._exit(code)

    def text(self) -> str:
        """Return what it has written."""
        return self.output.read_text(encoding="utf-8") if self.output.exists() else ""

    def wait(self) -> int:
        """Return its exit code, negative for the signal that ended it."""
        deadline = time.monotonic() + LIMIT_S
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                pytest.fail(f"a child was still running: {self.text()}")
            time.sleep(0.01)
        return code

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to come true while it runs."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert self.poll() is None, f"the child ended before: {self.text()}"
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it for good, if it is still there."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextlib.contextmanager
def running(work: Callable[[], int], output: Path) -> Iterator[Child]:
    """Have a child for the time of a block; whatever happens, it is gone afterwards."""
    child = Child(work, output)
    try:
        yield child
    finally:
        child.kill()


def run(work: Callable[[], int], output: Path) -> int:
    """Run a function in a child and return its exit code."""
    with running(work, output) as child:
        return child.wait()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def team(work: Callable[[int], int], folder: Path) -> Iterator[list[Child]]:
    """Have two children that find each other as torchrun's do, for the time of a block.

    Args:
        work: What each runs, given its rank.
        folder: Takes what they write, as ``out0`` and ``out1``.
    """
    port = free_port()

    def member(rank: int) -> Callable[[], int]:
        def go() -> int:
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os.environ.update(where, WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank))
            return work(rank)

        return go

    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running(member(rank), folder / f"out{rank}")) for rank in range(2)]
