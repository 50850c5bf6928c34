"""Unpacking of downloaded archives, nested ones too, into a dataset's folder and nowhere else.

A file appears under its name only when all of it is there, so that an unpacking that was killed can simply be
done again. Members that could leave the folder, links and devices end it, and so does content beyond the space
that was announced.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from . import archives
from .archives import Member, archive_kind
from .errors import Hostile, TooLarge
from .layout import Rule, make_folder, member_path
from .space import disk_errors, in_units

BLOCK_OF_DISK = 4096  # what a file takes at least, so that millions of empty ones are too many, too
TOP = PurePosixPath()
DEEPEST = 3  # archives in archives; HMDB51 has two


class Unpacking:
    """Unpacks the archives of a dataset that belong together, within a limit.

    Attributes:
        files: What was written: bytes by path relative to the dataset's folder.
    """

    def __init__(
        self,
        root: Path,
        temporary: Path,
        rule: Rule,
        limit: int,
        moved: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Say where files go.

        Args:
            root: The dataset's folder.
            temporary: A folder inside it for files that are not complete; emptied.
            rule: Where members go.
            limit: Bytes that all members may take.
            moved: Told the bytes that were written.
        """
        self.files: dict[str, int] = {}
        self._root = root
        self._temporary = temporary
        self._rule = rule
        self._limit = limit
        self._left = limit
        self._moved = moved
        with disk_errors(temporary):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    def archive(self, path: Path, name: str, inside: PurePosixPath = TOP, depth: int = 1) -> None:
        """Unpack an archive.

        Args:
            path: The archive.
            name: What it is called in messages.
            inside: Folder of the archive that held it.
            depth: How many archives that is deep.

        Raises:
            Damaged: It cannot be read to its end.
            Hostile: A member has no place in the folder.
            TooLarge: It holds more than was announced.
            DiskFull: The disk is full.
        """
        with disk_errors(path), archives.members(path, name) as members:
            self.members(members, name, inside, depth)

    def members(self, members: Iterator[Member], name: str, inside: PurePosixPath = TOP, depth: int = 1) -> None:
        """Unpack the members of an archive, see ``archive``."""
        for member in members:
            path = inside / member_path(member.name, name)
            if member.kind == "folder":
                continue  # is made when a file comes
            if member.kind != "file":
                raise Hostile(f"{name}: member {member.name!r} is a {member.kind}; only files are unpacked")
            if archive_kind(path.name):
                self._nested(member, path, f"{name}/{member.name}", depth)
                continue
            place = self._rule.place(self._root, path)
            if place is not None:
                self._write(member, place, name)

    def _nested(self, member: Member, path: PurePosixPath, name: str, depth: int) -> None:
        if depth == DEEPEST:
            raise Hostile(
                f"{name}: is an archive in {depth} others; unpack it yourself if it is what it should be"
            )
        archive = self._temporary / f"{depth}{path.suffix}"
        self._copy(member, archive, name)
        self.archive(archive, name, path.parent, depth + 1)
        with disk_errors(archive):
            archive.unlink()

    def _write(self, member: Member, place: PurePosixPath, name: str) -> None:
        temporary = self._temporary / "file"
        size = self._copy(member, temporary, name)
        with disk_errors(self._root / place):
            folder = make_folder(self._root, place.parent)
            temporary.replace(folder / place.name)
        self.files[str(place)] = size

    def _copy(self, member: Member, path: Path, name: str) -> int:
        size = 0
        self._take(BLOCK_OF_DISK, name)
        with disk_errors(path), path.open("wb") as file:
            for block in member.blocks:
                self._take(len(block), name)
                file.write(block)
                size += len(block)
                self._moved(len(block))
        return size

    def _take(self, size: int, name: str) -> None:
        self._left -= size
        if self._left < 0:
            raise TooLarge(
                f"{name}: holds more than the {in_units(self._limit)} that were announced for it; if it is the "
                "publishers', unpack it yourself and run 'vcil-bench prepare'"
            )
