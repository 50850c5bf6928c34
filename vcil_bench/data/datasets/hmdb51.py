"""HMDB51: the official 70/30 splits, each class with its own list of tagged videos."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from .base import Adapter, DatasetError, Listed, read_lines
from .published import Published
from .tree import Finder, Tree

_SPLIT = Published(classes=51, train=(3570,), test=(1530,), train_per_class=70, test_per_class=30)


class Hmdb51(Adapter):
    """HMDB51 with its official ``testTrainMulti_7030_splits``; a group is the source film of a class."""

    name = "hmdb51"
    layout = (
        "testTrainMulti_7030_splits/ (<class>_test_split1.txt, ... 3) and the class folders "
        "(<class>/*.avi, or folders of frames of these names), at the top or in hmdb51_org/, hmdb51/, videos/, "
        "rawframes/ or frames/"
    )
    published = {"1": _SPLIT, "2": _SPLIT, "3": _SPLIT}
    _parts: ClassVar[dict[str, str]] = {"0": "unused", "1": "train", "2": "test"}

    def splits(self, root: Path) -> list[str]:
        """Return the official splits 1 to 3 that have lists."""
        lists = self._lists(root)
        return [str(n) for n in (1, 2, 3) if any(lists.glob(f"*_test_split{n}.txt"))]

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return all videos of an official split; those tagged 0 are ``unused``."""
        lists = self._lists(root)
        if split not in self.splits(root):
            raise self._no_split(root, split)
        bases = ("hmdb51_org/", "hmdb51/", "videos/", "", "rawframes/", "frames/")
        finder = Finder(Tree(root), bases, (".avi", ".mp4"))
        videos = []
        for path in sorted(lists.glob(f"*_test_split{split}.txt")):
            label = path.name.removesuffix(f"_test_split{split}.txt")
            for number, line in enumerate(read_lines(path), start=1):
                name, _, tag = line.rpartition(" ")
                stem = name.strip().removesuffix(".avi")
                if tag not in self._parts or not name.strip().endswith(".avi"):
                    raise DatasetError(f"{path}, line {number}: {line!r} is not '<video>.avi 0|1|2'")
                group = stem.partition(f"_{label}_")[0]
                file = finder.path(stem, (label,))
                videos.append(Listed(f"{label}/{stem}", file, label, self._parts[tag], group))
        if not finder.found:
            raise self._nothing_there(root, videos)
        return videos

    def _lists(self, root: Path) -> Path:
        self._check_root(root)
        lists = root / "testTrainMulti_7030_splits"
        if not lists.is_dir():
            raise self._refuse(root, "testTrainMulti_7030_splits/ is not there")
        return lists
