"""Kinetics-400: the official CSVs, and the vCLIMB authors' lists once they are imported."""

from __future__ import annotations

import re
from pathlib import Path

from . import vclimb_import
from .base import Adapter, DatasetError, Listed, read_rows
from .published import Published
from .tree import Finder, Tree

# ActivityNet's names, then those of DeepMind's archive and of the CVD Foundation; the columns are the same.
_LISTS = {
    "train": ("kinetics-400_train.csv", "kinetics400_train.csv", "train.csv"),
    "test": ("kinetics-400_val.csv", "kinetics400_val.csv", "val.csv", "validate.csv"),
}
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_ANYWHERE = ("", "videos/", "rawframes/", "frames/")
_FOLDERS = {
    "train": ("train/", "videos_train/", "rawframes_train/"),
    "val": ("val/", "validation/", "validate/", "videos_val/", "rawframes_val/"),
    "test": ("test/", "videos_test/", "rawframes_test/"),
}
_SUFFIXES = (".mp4", ".mkv", ".webm")
_STEM = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d+)_(\d+))?")


class Kinetics400(Adapter):
    """Kinetics-400; the official validation videos are the test, and a group is the YouTube video."""

    name = "kinetics400"
    layout = (
        "kinetics-400_train.csv and kinetics-400_val.csv (or train.csv, and val.csv or validate.csv), at the "
        "top or in annotations/, and <youtube id>_<start>_<end>.mp4 (six digits each, or a folder of frames of "
        "that name) in train/ and val/, in class folders there, or all at the top or in videos/ or rawframes/"
    )
    published = {
        # Rows of the official lists, and those of them that could still be hosted.
        "official": Published(classes=400, train=(246534, 240258), test=(19906, 19881)),
    }

    def splits(self, root: Path) -> list[str]:
        """Return the official split if its lists are there, and those that were imported."""
        self._check_root(root)
        official = ["official"] if all(self._list(root, part) for part in _LISTS) else []
        return official + vclimb_import.imported_splits(self.name)

    def without_split(self, root: Path) -> DatasetError:
        """Say which of the official lists is missing."""
        absent = next(names for part, names in _LISTS.items() if self._list(root, part) is None)
        return self._refuse(root, f"{' or '.join(absent)} is not there")

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return the videos of a split, training videos first."""
        if split not in self.splits(root):
            if split == "official":
                raise self.without_split(root)
            raise self._no_split(root, split, vclimb_import.way_out(self.name, split, official="official"))
        tree = Tree(root)
        if split == "official":
            videos, found = self._official(root, tree)
        else:
            videos, found = _imported(split, tree)
        if not found:
            raise self._nothing_there(root, videos)
        return videos

    def _official(self, root: Path, tree: Tree) -> tuple[list[Listed], int]:
        videos, found = [], 0
        labels: dict[str, tuple[str, tuple[str, ...]]] = {}
        for part, where in (("train", "train"), ("test", "val")):
            finder = Finder(tree, (*_FOLDERS[where], *_ANYWHERE), _SUFFIXES)
            table = self._list(root, part)
            assert table is not None
            for place, row in read_rows(table, _COLUMNS):
                try:
                    start, end = int(row["time_start"]), int(row["time_end"])
                except (ValueError, TypeError):
                    raise DatasetError(
                        f"{place}: time_start {row['time_start']!r} and time_end {row['time_end']!r} are not "
                        "whole seconds"
                    ) from None
                label, folders = labels.setdefault(row["label"], (row["label"], _spellings(row["label"])))
                if not label or not row["youtube_id"]:
                    raise DatasetError(f"{place}: the label or the youtube_id is empty")
                stem = f"{row['youtube_id']}_{start:06}_{end:06}"
                videos.append(Listed(stem, finder.path(stem, folders), label, part, row["youtube_id"]))
            found += finder.found
        return videos, found

    def _list(self, root: Path, part: str) -> Path | None:
        for folder in (root, root / "annotations"):
            for name in _LISTS[part]:
                if (folder / name).is_file():
                    return folder / name
        return None


def _spellings(label: str) -> tuple[str, ...]:
    """Return the names that downloaders give a class's folder."""
    return tuple(dict.fromkeys((label, label.replace(" ", "_"))))


def _imported(split: str, tree: Tree) -> tuple[list[Listed], int]:
    """List the authors' videos, which may name a YouTube video, a clip of it or a file."""
    # The authors' subsets need not be the official ones, so every folder is looked through.
    bases = (*_FOLDERS["train"], *_FOLDERS["val"], *_FOLDERS["test"], *_ANYWHERE)
    finder = Finder(tree, bases, _SUFFIXES)
    clips: dict[str, dict[str, str]] = {}  # per folder, the clip of each YouTube video
    videos = []
    for label, match, part in vclimb_import.imported_videos(Kinetics400.name, split):
        stem = match[1]
        folders = _spellings(label)
        if match[2] is None:
            stem = next((c[stem] for p in finder.places(folders) if stem in (c := _clips(tree, p, clips))), stem)
        else:
            stem = f"{match[1]}_{int(match[2]):06}_{int(match[3]):06}"
        videos.append(Listed(match[0], finder.path(stem, folders), label, part, match[1]))
    return videos, finder.found


def _clips(tree: Tree, place: str, known: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the stems in a folder by YouTube id, the earliest clip of each."""
    if place not in known:
        stems = (re.sub(r"\.\w+$", "", name) for name in sorted(tree.entries(place), reverse=True))
        known[place] = {match[1]: match[0] for stem in stems if (match := _STEM.fullmatch(stem))}
    return known[place]
