"""Archives, read member by member: zip and tar by the standard library, rar by libarchive's Python binding."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from .errors import Damaged, FetchError

Kind = Literal["file", "folder", "link", "device"]
BLOCK = 2**18
_TAR = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)


@dataclass(frozen=True)
class Member:
    """A member of an archive.

    Attributes:
        name: As the archive writes it.
        kind: What it is; links of both sorts are links, and what is none of the others is a device.
        blocks: Its bytes, to be read before the next member.
    """

    name: str
    kind: Kind
    blocks: Iterator[bytes]


def archive_kind(name: str) -> Literal["zip", "rar", "tar"] | None:
    """Tell by its name what kind of archive a file is; None for none."""
    if name.lower().endswith((".zip", ".rar")):
        return "zip" if name.lower().endswith(".zip") else "rar"
    return "tar" if _TAR.search(name) else None


@contextmanager
def members(path: Path, name: str) -> Iterator[Iterator[Member]]:
    """Open an archive and give its members, in its order.

    Args:
        path: The archive.
        name: What it is called, which says its kind.

    Raises:
        Damaged: It cannot be read; also while members are read.
        FetchError: What it takes to read it is not installed.
    """
    read = {"zip": _zip, "rar": _rar, "tar": _tar}[archive_kind(name) or "tar"]
    with _damage(name, path):
        yield read(path)


@contextmanager
def tar_members(stream: io.BufferedReader[Any], name: str) -> Iterator[Iterator[Member]]:
    """Give the members of a tar, compressed or not, that comes as a stream.

    Raises:
        Damaged: It cannot be read.
    """
    with _damage(name, None):
        yield _tar_stream(stream)


@contextmanager
def _damage(name: str, path: Path | None) -> Iterator[None]:
    """Turn what readers raise on damaged archives into one error.

    ``OSError`` is not among it: reading a member and writing it go through here, and a full disk is no damage.
    """
    try:
        yield
    except _DAMAGE as error:
        way_out = f"; delete {path} and give the same command again, which fetches it anew" if path else ""
        raise Damaged(f"{name}: is damaged or ends early ({error or 'unexpected end'}){way_out}") from error


class _Unreadable(Exception):
    """What a reader says of an archive it cannot read."""


_DAMAGE = (
    _Unreadable,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    UnicodeDecodeError,
)


def _zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            kind: Kind = "folder" if info.is_dir() else "file"
            if mode and mode not in (stat.S_IFREG, stat.S_IFDIR):
                kind = "link" if mode == stat.S_IFLNK else "device"
            yield Member(info.filename, kind, _of_zip(archive, info))


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        file = archive.open(info)
    except RuntimeError as error:  # encrypted, or compressed in a way of its own
        raise _Unreadable(f"{info.filename}: {error}") from error
    with file:
        yield from _blocks(file)


def _tar(path: Path) -> Iterator[Member]:
    with path.open("rb") as file:
        yield from _tar_stream(file)


def _tar_stream(stream: io.BufferedReader[Any]) -> Iterator[Member]:
    tail = _Tail(_decompressed(stream))
    with tarfile.open(fileobj=tail, mode="r|") as archive:
        yield from _of_tar(archive)
    while tail.read(BLOCK):  # to the end, where gzip's own checksum stands
        pass
    if tail.last.strip(b"\0"):  # tarfile takes the end of a file between two members for the archive's
        raise _Unreadable("its end is missing")


def _decompressed(stream: io.BufferedReader[Any]) -> IO[bytes]:
    start = stream.peek(6)
    for magic, opened in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open)):
        if start.startswith(magic):
            return cast(IO[bytes], opened(stream, "rb"))
    return stream


class _Tail(io.RawIOBase):
    """A stream that remembers the last block of those that were read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.last = b"no block yet"

    def read(self, size: int = -1, /) -> bytes:
        block = _read(self._stream, size)
        self.last = (self.last + block)[-tarfile.BLOCKSIZE :] if block else self.last
        return block


def _of_tar(archive: tarfile.TarFile) -> Iterator[Member]:
    for info in archive:
        kind: Kind = "device"
        if info.isreg():
            kind = "file"
        elif info.isdir():
            kind = "folder"
        elif info.issym() or info.islnk():
            kind = "link"
        file = archive.extractfile(info) if kind == "file" else None
        yield Member(info.name, kind, _blocks(file) if file is not None else iter(()))


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := _read(file, BLOCK):
        yield block


def _read(file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        if error.errno is not None:
            raise
        raise _Unreadable(str(error)) from error  # gzip and bzip2 have no error of their own


def _rar(path: Path) -> Iterator[Member]:
    """Read a rar. libarchive 3.6 compares no checksum of members that are stored as they are.

    What a hash does not tell of such an archive, ``prepare`` does, which decodes every video.
    """
    libarchive = _libarchive()
    try:
        with libarchive.file_reader(str(path)) as archive:
            for entry in archive:
                kind: Kind = "device"
                if entry.isreg:
                    kind = "link" if entry.linkpath else "file"
                elif entry.isdir:
                    kind = "folder"
                elif entry.issym or entry.islnk:
                    kind = "link"
                yield Member(str(entry.pathname), kind, _of_rar(entry, libarchive))
    except libarchive.exception.ArchiveError as error:
        raise _Unreadable(str(error)) from error


def _of_rar(entry: Any, libarchive: Any) -> Iterator[bytes]:
    try:
        yield from entry.get_blocks(BLOCK)
    except libarchive.exception.ArchiveError as error:
        raise _Unreadable(f"{entry.pathname}: {error}") from error


def _libarchive() -> Any:
    """Return libarchive's binding.

    Raises:
        FetchError: It, or the system's library, is not there.
    """
    advice = (
        "install it (Debian, Ubuntu: apt install libarchive13; macOS: brew install libarchive) and its binding "
        "(pip install 'vcil-bench[rar]'), or unpack the archive by another program and run 'vcil-bench prepare'"
    )
    try:
        import libarchive
        import libarchive.exception
    except ImportError as error:
        raise FetchError(f"rar archives are read by libarchive, whose binding is not here: {advice}") from error
    except (OSError, TypeError, AttributeError) as error:  # as the binding fails where it finds no library
        raise FetchError(
            f"rar archives are read by libarchive, which is not here ({error}): {advice}"
        ) from error
    return libarchive
