"""What a dataset's folder remembers of its fetching: accepted licence, downloads, what each archive gave.

All of it lies in ``.fetch`` in that folder, which can be deleted once nothing more is to be fetched.
"""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from vcil_bench.common.files import locked, remove, write_atomically

from .errors import NotAccepted
from .layout import make_folder
from .sources import Source
from .space import disk_errors

FOLDER = ".fetch"


class State:
    """The memory of one dataset's folder.

    Attributes:
        root: The dataset's folder, without links in its path.
        downloads: Where archives come.
        temporary: Where files are written that are not complete.
        pieces: Where pieces of archives are unpacked.
    """

    def __init__(self, root: Path) -> None:
        """Make the folders that lack.

        Raises:
            StorageError: They cannot be made.
        """
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            self.root = root.resolve()
            self.downloads = make_folder(self.root, PurePosixPath(FOLDER, "downloads"))
            self._done = make_folder(self.root, PurePosixPath(FOLDER, "done"))
        self.temporary = self.root / FOLDER / "temporary"
        self.pieces = PurePosixPath(FOLDER, "pieces")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have the folder to oneself.

        Raises:
            Busy: Another process fetches into it.
        """
        with locked(self.root / FOLDER / "fetch"):
            yield

    def accept(self, source: Source, accepted: bool) -> bool:
        """Remember that a licence is accepted; return whether that is new.

        Raises:
            NotAccepted: It is not, now or before; gives its text.
        """
        path = self.root / FOLDER / f"licence-{source.name}.json"
        note = {"dataset": source.name, "sha256": hashlib.sha256(source.licence.encode()).hexdigest()}
        if _read(path) == note:
            return False
        if not accepted:
            raise NotAccepted(
                f"{source.title}. Licence: {source.licence} Page: {source.page}. Give the same command with "
                f"--accept-licence if you accept that; {self.root} remembers it"
            )
        write_atomically(path, json.dumps(note).encode())
        return True

    def mark(self, name: str, files: Mapping[str, int]) -> None:
        """Remember which files came of an archive, or of a file that is none: bytes by path below the folder."""
        write_atomically(self._mark(name), json.dumps({"files": dict(files)}).encode())

    def unmark(self, name: str) -> None:
        """Forget what came of an archive."""
        remove(self._mark(name))

    def marked(self) -> Marks:
        """Read what all archives gave."""
        return Marks(self.root, {path.name: _read(path).get("files", {}) for path in self._done.glob("*.json")})

    def _mark(self, name: str) -> Path:
        return self._done / mark_name(name)


class Marks:
    """What all archives gave, to be compared with what is there."""

    def __init__(self, root: Path, files: Mapping[str, Mapping[str, int]]) -> None:
        self._root = root
        self._files = files
        self._sizes: dict[str, set[int]] = {}
        for archive in files.values():
            for path, size in archive.items():  # a corrected video has the size that its later archive says
                self._sizes.setdefault(path, set()).add(size)

    def holds(self, name: str) -> bool:
        """Tell whether all that an archive gave is still there."""
        files = self._files.get(mark_name(name))
        return files is not None and all(self._there(path) for path in files)

    def _there(self, path: str) -> bool:
        try:
            return (self._root / path).stat().st_size in self._sizes[path]
        except OSError:
            return False


def mark_name(name: str) -> str:
    """Return the name of the file that remembers what an archive gave."""
    return f"{urllib.parse.quote(name, safe='')}.json"


def _read(path: Path) -> dict[str, dict[str, int]]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
