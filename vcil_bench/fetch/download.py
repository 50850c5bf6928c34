"""Downloads of single files: resumed by range where the file is still the same, retried, checked by hash.

While a file comes, ``<name>.part`` holds its first bytes and ``<name>.part.json`` which file they are of. Either
way of ending, by an error or by a kill, leaves a part from which the next download goes on.
"""

from __future__ import annotations

import hashlib
import http
import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from vcil_bench.common.files import remove, write_atomically

from .errors import FetchError, Unreachable, WrongHash
from .http_client import NETWORK_ERRORS, content_range, open_url, validator
from .space import disk_errors

CHUNK = 2**18
ATTEMPTS = 6  # in a row that bring nothing
PAUSE_S = 1.0  # before the second; doubled each time


class Stopped(FetchError):
    """A download that was ended because another one, or the user, ended all."""


@dataclass(frozen=True)
class Wanted:
    """A file to download.

    Attributes:
        url: Its address.
        target: Where it goes, in a folder that is there.
        digest: Its published hash as ``md5:``, ``sha1:``, ``sha256:`` or ``git_blob:`` and hexadecimal digits;
            "" where none is.
    """

    url: str
    target: Path
    digest: str = ""


@dataclass(frozen=True)
class _Note:
    """Which file a part is of."""

    url: str
    validator: str
    size: int | None


def part_path(target: Path) -> Path:
    """Return where the first bytes of a file lie while it comes."""
    return target.with_name(f"{target.name}.part")


def bytes_there(target: Path) -> int:
    """Return how many bytes of a file were downloaded before."""
    for path in (target, part_path(target)):
        if path.is_file():
            return path.stat().st_size
    return 0


def download(
    wanted: Wanted,
    moved: Callable[[int], None],
    stop: threading.Event,
    *,
    pause_s: float = PAUSE_S,
) -> None:
    """Download a file, going on where an earlier download has ended; nothing happens if it is there.

    Args:
        wanted: The file.
        moved: Told the number of bytes that came, less those that were thrown away.
        stop: Ends it when set.
        pause_s: Seconds before the first retry.

    Raises:
        Unreachable: The address does not give it, also after retries.
        WrongHash: What came twice is not the published file.
        DiskFull: The disk is full.
        StorageError: It cannot be written for another reason.
        Stopped: ``stop`` was set.
    """
    if wanted.target.is_file():
        return
    with disk_errors(wanted.target):  # those of the network are told apart where they come
        _download(wanted, moved, stop, pause_s)


def _download(wanted: Wanted, moved: Callable[[int], None], stop: threading.Event, pause_s: float) -> None:
    for last in (False, True):
        _complete(wanted, moved, stop, pause_s)
        part = part_path(wanted.target)
        actual = file_digest(part, wanted.digest)
        if actual == wanted.digest:
            part.replace(wanted.target)
            remove(_note_path(wanted.target))
            return
        _forget(wanted, moved)
        if last:
            raise WrongHash(
                f"{wanted.url}: what came twice has the hash {actual}, published is {wanted.digest}; the file "
                "has changed, or something on the way answers in its place: take it from elsewhere with "
                "--mirror URL or --from FOLDER"
            )


def file_digest(path: Path, like: str) -> str:
    """Return the hash of a file, of the kind and in the form of another; "" where there is none."""
    kind = like.partition(":")[0]
    if not kind:
        return ""
    digest = hashlib.new("sha1" if kind == "git_blob" else kind, usedforsecurity=False)
    if kind == "git_blob":  # as git hash-object does
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def _complete(wanted: Wanted, moved: Callable[[int], None], stop: threading.Event, pause_s: float) -> None:
    """Bring the part to its whole length, however often the connection breaks."""
    idle, most = 0, bytes_there(wanted.target)
    while True:
        try:
            if _attempt(wanted, moved, stop):
                return
            why = Unreachable(f"{wanted.url}: the connection ends before the file does")
        except Unreachable as error:
            if error.lasting:
                raise
            why = error
        # More than ever before: a server that begins anew each time and breaks off brings nothing, either.
        there = bytes_there(wanted.target)
        idle = 0 if there > most else idle + 1
        most = max(most, there)
        if idle == ATTEMPTS:
            raise Unreachable(
                f"{why}, {ATTEMPTS} times in a row; what came stays, and the same command goes on from there",
                status=why.status,
            ) from why
        if stop.wait(pause_s * 2 ** max(0, idle - 1)):
            raise Stopped(f"{wanted.url}: stopped")


def _attempt(wanted: Wanted, moved: Callable[[int], None], stop: threading.Event) -> bool:
    """Ask once for what is missing; return whether the file is complete then."""
    part, note = part_path(wanted.target), _read_note(wanted)
    start = part.stat().st_size if note is not None and part.is_file() else 0
    headers = {}
    if start and note is not None:
        if start == note.size:
            return True
        headers["Range"] = f"bytes={start}-"
        if note.validator and not note.validator.startswith("W/"):  # a weak one may not stand there
            headers["If-Range"] = note.validator
    try:
        answer = open_url(wanted.url, headers)
    except Unreachable as error:
        if error.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            _forget(wanted, moved)  # shorter than what was there: another file
            return False
        raise
    with answer:
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            first, size = content_range(answer)
            if (
                note is None
                or first != start
                or validator(answer) != note.validator
                or size not in (None, note.size)
            ):
                _forget(wanted, moved)
                return False
        else:
            _forget(wanted, moved)
            length = answer.headers.get("Content-Length")
            note = _Note(wanted.url, validator(answer), int(length) if length else None)
            write_atomically(_note_path(wanted.target), json.dumps(asdict(note)).encode())
        assert note is not None
        ended = _append(answer, part, moved, stop)
    size = part.stat().st_size
    if note.size is not None and size > note.size:
        _forget(wanted, moved)
        return False
    # Without a length the end of the answer is the end of the file, if it came as one.
    return size == note.size if note.size is not None else ended


def _append(
    answer: http.client.HTTPResponse, part: Path, moved: Callable[[int], None], stop: threading.Event
) -> bool:
    """Write what comes behind what is there; return whether the answer came to its end."""
    with part.open("ab", buffering=0) as file:
        while True:
            if stop.is_set():
                raise Stopped(f"{part}: stopped")
            try:
                block = answer.read(CHUNK)
            except NETWORK_ERRORS as error:
                rest = getattr(error, "partial", b"")  # of an answer in chunks that broke off
                _write(file.write, rest, moved)
                return False
            if not block:
                return True
            _write(file.write, block, moved)


def _write(write: Callable[[memoryview], int | None], block: bytes, moved: Callable[[int], None]) -> None:
    """Write all of a block; on a full disk what fits of it is there, too."""
    view = memoryview(block)
    while view:
        written = write(view) or 0
        moved(written)
        view = view[written:]


def _forget(wanted: Wanted, moved: Callable[[int], None]) -> None:
    """Remove a part that is of another file; the part first, so that none is left with a wrong note."""
    part = part_path(wanted.target)
    if part.is_file():
        moved(-part.stat().st_size)
    remove(part)
    remove(_note_path(wanted.target))


def _note_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _read_note(wanted: Wanted) -> _Note | None:
    try:
        note = _Note(**json.loads(_note_path(wanted.target).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return note if note.url == wanted.url else None
