"""Where the members of an archive go below a dataset's folder, and which names go nowhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vcil_bench.common.files import StorageError

from .errors import Hostile
from .space import disk_errors


@dataclass(frozen=True)
class Rule:
    """How an archive's members are placed.

    Attributes:
        into: Folder below the dataset's, "" for that itself.
        flat: Whether members lose their folders.
        suffixes: Of the members that are wanted; empty for all.
        replaces: Folders in which a member takes the place of the file of its name; where there is none, it is
            left out.
    """

    into: str = ""
    flat: bool = False
    suffixes: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()

    def place(self, root: Path, member: PurePosixPath) -> PurePosixPath | None:
        """Return where a member goes, relative to the dataset's folder; None where it is not wanted."""
        if self.suffixes and member.suffix not in self.suffixes:
            return None
        if self.replaces:
            places = (PurePosixPath(folder) / member.name for folder in self.replaces)
            return next((place for place in places if (root / place).is_file()), None)
        return PurePosixPath(self.into) / (member.name if self.flat else member)


def member_path(name: str, archive: str) -> PurePosixPath:
    """Return a member's path once it cannot lead outside the folder it is written to.

    Raises:
        Hostile: It could.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or re.match(r"[A-Za-z]:", name):
        raise Hostile(f"{archive}: member {name!r} has an absolute name; nothing of it is written")
    if ".." in path.parts or "\0" in name:
        raise Hostile(f"{archive}: member {name!r} leads outside its folder; nothing of it is written")
    return path


def make_folder(root: Path, folder: PurePosixPath) -> Path:
    """Make a folder below the dataset's and return it.

    Raises:
        Hostile: A link stands in its way, through which files would be written elsewhere.
        StorageError: A file does, or it cannot be made.
    """
    path = root
    for part in folder.parts:
        path = path / part
        if path.is_symlink():
            raise Hostile(
                f"{path}: is a link, through which files would be written outside {root}; put a folder in its "
                "place, or give the folder it leads to as ROOT"
            )
        with disk_errors(path):
            try:
                path.mkdir(exist_ok=True)
            except FileExistsError as error:
                raise StorageError(f"{path}: a file lies where a folder is to be; move it away") from error
    return path
