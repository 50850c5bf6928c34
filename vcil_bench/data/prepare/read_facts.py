"""Video facts: reads many files in parallel and names those whose decoder hangs."""

from __future__ import annotations

import dataclasses
import multiprocessing
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from sys import intern
from typing import NamedTuple

from pebble import ProcessExpired

from vcil_bench.common.errors import UserError
from vcil_bench.data.manifest import MISSING
from vcil_bench.data.video import content_sha256, probe
from vcil_bench.data.video.facts import Facts, VideoError

from .process_pool import in_processes

# Starting processes takes longer than decoding fewer and shorter clips than these.
POOL_FROM_VIDEOS = 48
POOL_FROM_BYTES = 8_000_000


def hang_message(limit_s: float) -> str:
    """Return what is said of a video whose decoder did not come back."""
    return f"the decoder hung for {limit_s:g} s and was given up"


class Read(NamedTuple):
    """What reading a video gave.

    Attributes:
        path: The video.
        facts: Its facts.
        hung: Whether its decoder did not come back.
    """

    path: str
    facts: Facts
    hung: bool = False


class UnguardedScript(UserError):
    """A script that starts itself again in every process that it starts."""


def refuse_while_starting() -> None:
    """Refuse to prepare in a process that was started to decode and is still importing the script that did so.

    It would wait for ever for its parent, which waits for it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UnguardedScript(
            "a script without a guard has started processes: put what it does below if __name__ == '__main__':"
        )


def facts_of(path: str) -> Facts:
    """Decode a video in full and hash it; whatever is wrong with it is told in ``problem``.

    Args:
        path: A video file, or a folder of frames.
    """
    place = Path(path)
    facts = Facts()
    try:
        state = place.stat()
        is_folder = stat.S_ISDIR(state.st_mode)
        facts = Facts(bytes=0 if is_folder else state.st_size, mtime_ns=state.st_mtime_ns)
        decoded = probe(place)
        codec = intern(decoded.codec)  # one string for all videos
        facts = dataclasses.replace(decoded, codec=codec, bytes=facts.bytes, mtime_ns=facts.mtime_ns)
        facts = dataclasses.replace(facts, sha256=content_sha256(place))
        if is_folder:
            facts = dataclasses.replace(facts, bytes=sum(file.stat().st_size for file in place.iterdir()))
    except FileNotFoundError:
        return dataclasses.replace(facts, problem=MISSING)
    except VideoError as error:
        return dataclasses.replace(facts, problem=str(error))
    except OSError as error:
        return dataclasses.replace(facts, problem=str(error.strerror))
    return facts


def unread(path: str, problem: str) -> Facts:
    """Return what is known of a video whose decoder was killed."""
    state = Path(path).stat()
    size = 0 if stat.S_ISDIR(state.st_mode) else state.st_size
    return Facts(bytes=size, mtime_ns=state.st_mtime_ns, problem=problem)


def read_all(
    paths: Sequence[str], read: Callable[[str], Facts], *, workers: int | None = None, limit_s: float
) -> Iterator[Read]:
    """Yield the facts of every video, in the order in which they come.

    Args:
        paths: Videos.
        read: Reads one of them; a function that another process can import.
        workers: Processes; None for one per core.
        limit_s: Seconds after which a video's decoder is killed.
    """
    if len(paths) < POOL_FROM_VIDEOS and sum(Path(p).stat().st_size for p in paths) < POOL_FROM_BYTES:
        for path in paths:
            yield _in_a_thread(read, path, limit_s)
        return
    for path, future in in_processes(paths, read, workers=workers, limit_s=limit_s):
        yield _outcome(future, path, limit_s)


def _in_a_thread(read: Callable[[str], Facts], path: str, limit_s: float) -> Read:
    """Read a video beside this thread, which goes on without it if it does not come back."""
    found: Future[Facts] = Future()

    def work() -> None:
        try:
            found.set_result(read(path))
        except BaseException as error:  # noqa: BLE001  # raised again where the result is taken
            found.set_exception(error)

    threading.Thread(target=work, daemon=True).start()  # a daemon, which the end of the process ends
    try:
        return Read(path, found.result(limit_s))
    except TimeoutError:
        return Read(path, unread(path, hang_message(limit_s)), hung=True)


def _outcome(future: Future[Facts], path: str, limit_s: float) -> Read:
    try:
        return Read(path, future.result())
    except TimeoutError:
        return Read(path, unread(path, hang_message(limit_s)), hung=True)
    except ProcessExpired as error:
        return Read(path, unread(path, f"the decoder crashed (exit code {error.exitcode})"))
