"""Dataset folders: finds video files and frame folders in the known layouts.

Every folder is read once. One ``stat`` per candidate path would take minutes for the 240,000 videos of Kinetics
on a network disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


class Tree:
    """The names below a root, folder by folder, read when they are first asked for.

    Folders are written relative to the root with a slash at the end; the root itself is "".
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._folders: dict[str, dict[str, bool]] = {}

    def entries(self, folder: str) -> dict[str, bool]:
        """Return the names in a folder, each with whether it is a folder; empty where there is no folder."""
        found = self._folders.get(folder)
        if found is None:
            found = self._folders[folder] = self._read(folder)
        return found

    def _read(self, folder: str) -> dict[str, bool]:
        try:
            with os.scandir(f"{self._root}/{folder}") as entries:
                kinds = ((entry.name, _is_folder(entry)) for entry in entries)
                return {name: is_folder for name, is_folder in kinds if is_folder is not None}
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return {}

    def has_folder(self, folder: str) -> bool:
        """Tell whether there is such a folder."""
        parent, _, name = folder.rstrip("/").rpartition("/")
        return not folder or self.entries(f"{parent}/" if parent else "").get(name, False)

    def has(self, path: str) -> bool:
        """Tell whether a file or a folder lies at a path."""
        folder, slash, name = path.rpartition("/")
        return name in self.entries(folder + slash)

    def file_or_frames(self, path: str) -> str:
        """Return the path, or that without its suffix where only a folder of frames has the video's name."""
        stem = path.rpartition(".")[0]
        return stem if not self.has(path) and self.has_folder(stem) and stem else path


def _is_folder(entry: os.DirEntry[str]) -> bool | None:
    """Tell whether a name is a folder's or a file's; None for a broken link, whose video is missing."""
    try:
        return True if entry.is_dir() else False if entry.is_file() else None
    except OSError:  # a link to itself, or into a folder that is closed: reading it will tell what is wrong
        return False


class Finder:
    """Finds the videos of a dataset by their names, in all folders that its copies are known to have.

    Attributes:
        found: Videos found so far.
    """

    def __init__(self, tree: Tree, bases: Sequence[str], suffixes: Sequence[str]) -> None:
        """Look in those of ``bases`` that are there.

        Args:
            tree: The root's folders.
            bases: Folders in which a copy may keep its videos, the publishers' own first.
            suffixes: Suffixes of video files, the publishers' own first.
        """
        self.found = 0
        self._tree = tree
        self._bases = [base for base in bases if tree.has_folder(base)] or [bases[0]]
        self._suffixes = suffixes
        self._places: dict[tuple[str, ...], list[str]] = {}

    def places(self, folders: tuple[str, ...]) -> list[str]:
        """Return the folders in which a video of a class may lie, those named for the class first."""
        places = self._places.get(folders)
        if places is None:
            own = [f"{base}{folder}/" for base in self._bases for folder in folders]
            places = [place for place in own if self._tree.has_folder(place)] + self._bases
            self._places[folders] = places
        return places

    def path(self, stem: str, folders: tuple[str, ...] = ()) -> str:
        """Return where a video lies, or should lie if it is missing.

        A video file goes before a folder of its frames.

        Args:
            stem: File name without suffix, which is also the name of a folder of frames.
            folders: Spellings of the class's folder.
        """
        places = self.places(folders)
        for place in places:
            names = self._tree.entries(place)
            for suffix in self._suffixes:
                if names.get(stem + suffix) is False:
                    self.found += 1
                    return f"{place}{stem}{suffix}"
        for place in places:
            if self._tree.entries(place).get(stem):
                self.found += 1
                return f"{place}{stem}"
        return f"{places[0]}{stem}{self._suffixes[0]}"
