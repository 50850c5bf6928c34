"""Files: written so that nothing is lost (to a temporary name, flushed, renamed), locked, hashed, deleted."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from .errors import UserError

# How the folder of a file that is being written ends: .<name>.<eight characters>, as tempfile draws them.
UNFINISHED = r"\.[a-z0-9_]{8}"


class StorageError(UserError):
    """A folder or file that cannot be written."""


class Busy(StorageError):
    """Another process works on the same files."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_sha256(files: Iterable[str | Path], *versions: str) -> str:
    """Return a hash of source files and of the versions of libraries, by which what they make is kept."""
    digest = hashlib.sha256(" ".join(versions).encode())
    for file in files:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def cache_dir() -> Path:
    """Return the folder for what can be made again: ``$VCIL_BENCH_CACHE`` or ``~/.cache/vcil-bench``."""
    return Path(os.environ.get("VCIL_BENCH_CACHE") or Path.home() / ".cache" / "vcil-bench")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, which takes the place of ``path`` when all of it is on disk.

    Whatever happens in between, ``path`` holds either the old bytes or all of the new ones, never a part. A
    process that is killed leaves a folder ``.<name>.<eight characters>`` beside it and nothing else: safetensors
    writes a temporary file of its own beside the one it is given.

    Raises:
        StorageError: The folder cannot be made or the file cannot be written (no right, disk full).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            temporary = folder / path.name
            temporary.touch()
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # what stays is found as what a killed process leaves
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds either the old bytes or all of the new ones, never a part.

    Raises:
        StorageError: The folder cannot be made or the file cannot be written (no right, disk full).
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_changed(path: Path, lines: Iterable[str]) -> None:
    """Write text as ``write_atomically`` does, unless the file holds it already.

    Args:
        path: The file.
        lines: The text; gone through twice where it differs.

    Raises:
        StorageError: The folder cannot be made or the file cannot be written (no right, disk full).
    """
    if _holds(path, lines):
        return
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)


def _holds(path: Path, lines: Iterable[str]) -> bool:
    try:
        with path.open("rb") as file:
            return all(file.read(len(line)) == line for line in map(str.encode, lines)) and not file.read(1)
    except OSError:
        return False


def remove(path: Path) -> None:
    """Delete a file, or the folder that a killed ``replacing`` has left, if it is there.

    Raises:
        StorageError: It cannot be deleted, or is another folder.
    """
    try:
        if path.is_dir() and re.fullmatch(rf"\..+{UNFINISHED}", path.name):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be deleted ({error.strerror or error}); move it away") from error


def lock_path(path: Path) -> Path:
    """Return where the lock of a file, and of what is named after it, lies."""
    return path.with_name(f"{path.stem}.lock")


@contextmanager
def locked(path: Path, *, wait_s: float = 0) -> Iterator[None]:
    """Have ``path``, and what is named after it, to oneself.

    The lock lies beside what it guards, since nodes that share a disk share nothing else, and is removed by the
    one who holds it; whoever gets hold of a removed one asks anew (filelock >= 3.24).

    Args:
        path: The file; its ending does not matter.
        wait_s: Seconds to wait for another process.

    Raises:
        Busy: Another process has it.
        StorageError: The disk cannot lock files, or not write them.
    """
    place = lock_path(path)
    lock = filelock.FileLock(place, timeout=wait_s)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise Busy(f"{path}: another process works on it; if none does, delete {place}") from error
    except OSError as error:
        raise StorageError(
            f"{place}: cannot be locked ({error.strerror or error}); choose a folder on another disk, or mount "
            "this one with locks"
        ) from error
    try:
        yield
    finally:
        try:
            if os.name == "posix":  # elsewhere an open file cannot be removed, and filelock does it
                remove(place)
        finally:
            lock.release()


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made, before any work is done for it.

    Raises:
        StorageError: Names the folder and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # without a name, so that a kill leaves nothing
            pass
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot write there ({error.strerror or error}); choose another folder"
        ) from error
