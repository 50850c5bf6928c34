"""Files: written so that nothing is lost (to a temporary name, flushed, renamed), hashed, and where they go."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


class StorageError(UserError):
    """A folder or file that cannot be written."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """Return the folder for what can be made again: ``$VCIL_BENCH_CACHE`` or ``~/.cache/vcil-bench``."""
    return Path(os.environ.get("VCIL_BENCH_CACHE") or Path.home() / ".cache" / "vcil-bench")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, which takes the place of ``path`` when all of it is on disk.

    Whatever happens in between, ``path`` holds either the old bytes or all of the new ones, never a part.

    Raises:
        StorageError: The folder cannot be made or the file cannot be written (no right, disk full).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds either the old bytes or all of the new ones, never a part.

    Raises:
        StorageError: The folder cannot be made or the file cannot be written (no right, disk full).
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made, before any work is done for it.

    Raises:
        StorageError: Names the folder and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write-test."):
            pass
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot write there ({error.strerror or error}); choose another folder"
        ) from error
