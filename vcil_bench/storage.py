"""Files: written so that nothing is lost (to a temporary name, flushed, renamed), hashed, and where they go."""

from __future__ import annotations

import hashlib
import os
import tempfile
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


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds either the old bytes or all of the new ones, never a part.

    Raises:
        StorageError: The folder cannot be made or the file cannot be written (no right, disk full).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


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
