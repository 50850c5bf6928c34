"""UCF101: the official splits by group, and the vCLIMB authors' splits once they are imported."""

from __future__ import annotations

import re
from pathlib import Path

from . import vclimb_import
from .base import Adapter, DatasetError, Listed, read_lines
from .published import Published
from .tree import Finder, Tree


class Ucf101(Adapter):
    """UCF101 with its official ``ucfTrainTestlist``; a group is one of the 25 sources of a class."""

    name = "ucf101"
    layout = (
        "ucfTrainTestlist/ (trainlist01.txt, testlist01.txt, ... 03) and the class folders "
        "(<Class>/v_<Class>_gXX_cYY.avi, or a folder of frames of that name), at the top or in UCF-101/, "
        "videos/, rawframes/ or frames/"
    )
    published = {
        "1": Published(classes=101, train=(9537,), test=(3783,)),
        "2": Published(classes=101, train=(9586,), test=(3734,)),
        "3": Published(classes=101, train=(9624,), test=(3696,)),
        "vclimb_10": Published(classes=101, train=(9280,), test=(2726,)),
        "vclimb_20": Published(classes=101, train=(9280,), test=(2726,)),
    }

    def splits(self, root: Path) -> list[str]:
        """Return the official splits 1 to 3 whose two lists are there, and those that were imported."""
        lists = self._lists(root)
        official = [
            str(n)
            for n in (1, 2, 3)
            if all((lists / f"{part}list{n:02}.txt").is_file() for part in ("train", "test"))
        ]
        return official + vclimb_import.imported_splits(self.name)

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return the videos of a split, training videos first."""
        lists = self._lists(root)
        if split not in self.splits(root):
            raise self._no_split(root, split, vclimb_import.way_out(self.name, split, official="1"))
        bases = ("UCF-101/", "", "videos/", "rawframes/", "frames/")
        finder = Finder(Tree(root), bases, (".avi", ".mp4"))
        names = _imported(split) if split.startswith("vclimb") else _official(lists, split)
        videos = [
            Listed(f"{label}/{stem}", finder.path(stem, (label,)), label, part, group)
            for label, stem, part, group in names
        ]
        if not finder.found:
            raise self._nothing_there(root, videos)
        return videos

    def _lists(self, root: Path) -> Path:
        self._check_root(root)
        for lists in (root / "ucfTrainTestlist", root):
            if (lists / "trainlist01.txt").is_file():
                return lists
        raise self._refuse(root, "ucfTrainTestlist/trainlist01.txt is not there")


Name = tuple[str, str, str, str]  # class, video, split, group


def _official(lists: Path, split: str) -> list[Name]:
    names = []
    for part in ("train", "test"):
        path = lists / f"{part}list{int(split):02}.txt"
        for number, line in enumerate(read_lines(path), start=1):
            name = line.split()[0]  # training lines carry the class number after the name
            match = re.fullmatch(r"([^/]+)/(v_.+_(g\d+)_c\d+)\.avi", name)
            if match is None:
                raise DatasetError(f"{path}, line {number}: {line!r} is not <Class>/v_<Class>_gXX_cYY.avi")
            names.append((match[1], match[2], part, match[3]))
    return names


def _imported(split: str) -> list[Name]:
    return [
        (label, match[0], part, match[1])
        for label, match, part in vclimb_import.imported_videos(Ucf101.name, split)
    ]
