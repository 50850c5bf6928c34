"""Disk space: what a fetch needs at its fullest moment, checked beforehand; a disk that fills on the way."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vcil_bench.common.files import StorageError

from .errors import DiskFull

RESERVE = 16 * 2**20  # of every archive, for lists and folders beside its videos


def unpacked_limit(archive_bytes: int, expands: float) -> int:
    """Return the bytes that the content of an archive may take.

    Args:
        archive_bytes: Size of the archive.
        expands: How many times its size its content has at most.
    """
    return round(archive_bytes * expands) + RESERVE


def needed(to_come: int, archives: Sequence[tuple[int, int]], *, keep: bool) -> int:
    """Return the free bytes that a fetch needs at its fullest moment.

    All archives come first and are unpacked one after the other, each deleted behind it.

    Args:
        to_come: Bytes that are still to be downloaded.
        archives: Of every archive its size and the limit of its content, in order.
        keep: Whether archives stay.
    """
    now = most = to_come
    for size, unpacked in archives:
        now += unpacked
        most = max(most, now)
        now -= 0 if keep else size
    return most


def check(root: Path, bytes_needed: int) -> None:
    """Refuse a disk without the room.

    Raises:
        DiskFull: Says how much is lacking.
    """
    free = shutil.disk_usage(root).free
    if free < bytes_needed:
        raise DiskFull(
            f"{root}: {in_units(bytes_needed)} are needed and {in_units(free)} free; make room, or choose a "
            "folder on another disk"
        )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error that says how to go on.

    Raises:
        DiskFull: The disk, or the user's share of it, is full.
        StorageError: It cannot be read or written for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"{path}: the disk is full; make room and give the same command again: it goes on where this "
                "one ended"
            ) from error
        raise StorageError(f"{path}: cannot be read or written ({error.strerror or error})") from error


def in_units(size: float) -> str:
    """Return a size as ``113 kB`` or ``6.5 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
