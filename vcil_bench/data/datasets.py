"""Dataset adapters: from a folder as its publishers ship it to a list of labelled videos.

An adapter only reads lists and names; whether the files are there and sound is the manifest's business. Class
names are given as the dataset writes them, ids come from the protocol.
"""

from __future__ import annotations

import csv
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vcil_bench.errors import UserError, did_you_mean
from vcil_bench.storage import cache_dir

from . import synthetic


class DatasetError(UserError):
    """A root that is missing, of another dataset, or whose lists are malformed."""


@dataclass(frozen=True)
class Listed:
    """A video as the dataset's list names it; ``path`` is relative to the root, with forward slashes."""

    id: str
    path: str
    label: str
    split: str
    group: str


class Adapter(ABC):
    """Reads one dataset's own layout.

    Attributes:
        name: The name protocols use.
        kind: ``real`` or ``synthetic``; synthetic results never enter a real table.
        layout: What a root must hold, for messages and ``vcil-bench show``.
    """

    name: ClassVar[str]
    kind: ClassVar[str] = "real"
    layout: ClassVar[str]

    @abstractmethod
    def splits(self, root: Path) -> list[str]:
        """Return the names of the splits that the root's lists define."""

    @abstractmethod
    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return every video of the split's lists, each as ``train``, ``test`` or ``unused``.

        Raises:
            DatasetError: The root does not hold this dataset, or a list is malformed.
        """

    def default_root(self) -> Path | None:
        """Return where the data lie when no root is given, or None where one is needed."""
        return None

    def make_ready(self, root: Path, progress: Callable[[int, int], None]) -> None:  # noqa: B027
        """Make what must be made before the root can be listed; real datasets are there already."""

    def _check_root(self, root: Path) -> None:
        if not root.is_dir():
            raise DatasetError(
                f"no folder {str(root)!r} for dataset {self.name!r}; it should hold: {self.layout}"
            )

    def _refuse(self, root: Path, why: str) -> DatasetError:
        return DatasetError(
            f"{str(root)!r} does not look like dataset {self.name!r}: {why}; it should hold: {self.layout}"
        )


class Ucf101(Adapter):
    """UCF101 with its official ``ucfTrainTestlist``; a group is one of the 25 sources of a class."""

    name = "ucf101"
    layout = (
        "ucfTrainTestlist/ (trainlist01.txt, testlist01.txt, ... 03) and the class folders "
        "(<Class>/v_<Class>_gXX_cYY.avi), at the top or in UCF-101/"
    )

    def splits(self, root: Path) -> list[str]:
        """Return the official splits 1 to 3 whose two lists are there."""
        lists = self._lists(root)
        return [
            str(n)
            for n in (1, 2, 3)
            if all((lists / f"{part}list{n:02}.txt").is_file() for part in ("train", "test"))
        ]

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return the videos of an official split, train list first."""
        lists = self._lists(root)
        if split not in self.splits(root):
            raise DatasetError(_no_split(self, root, split))
        base = "UCF-101/" if (root / "UCF-101").is_dir() else ""
        videos = []
        for part in ("train", "test"):
            path = lists / f"{part}list{int(split):02}.txt"
            for number, line in enumerate(_lines(path), start=1):
                name = line.split()[0]  # training lines carry the class number after the name
                match = re.fullmatch(r"([^/]+)/v_.+_(g\d+)_c\d+\.avi", name)
                if match is None:
                    raise DatasetError(f"{path}, line {number}: {line!r} is not <Class>/v_<Class>_gXX_cYY.avi")
                videos.append(Listed(name.removesuffix(".avi"), base + name, match[1], part, match[2]))
        if not any((root / v.path).is_file() for v in videos):
            raise self._refuse(root, f"not one of its {len(videos)} listed videos is there")
        return videos

    def _lists(self, root: Path) -> Path:
        self._check_root(root)
        for lists in (root / "ucfTrainTestlist", root):
            if (lists / "trainlist01.txt").is_file():
                return lists
        raise self._refuse(root, "ucfTrainTestlist/trainlist01.txt is not there")


class Hmdb51(Adapter):
    """HMDB51 with its official ``testTrainMulti_7030_splits``; a group is the source film of a class."""

    name = "hmdb51"
    layout = (
        "testTrainMulti_7030_splits/ (<class>_test_split1.txt, ... 3) and the class folders "
        "(<class>/*.avi), at the top or in hmdb51_org/, hmdb51/ or videos/"
    )
    _parts: ClassVar[dict[str, str]] = {"0": "unused", "1": "train", "2": "test"}

    def splits(self, root: Path) -> list[str]:
        """Return the official splits 1 to 3 that have lists."""
        lists = self._lists(root)
        return [str(n) for n in (1, 2, 3) if any(lists.glob(f"*_test_split{n}.txt"))]

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return all videos of an official split; those tagged 0 are ``unused``."""
        lists = self._lists(root)
        if split not in self.splits(root):
            raise DatasetError(_no_split(self, root, split))
        base = next((f"{d}/" for d in ("hmdb51_org", "hmdb51", "videos") if (root / d).is_dir()), "")
        videos = []
        for path in sorted(lists.glob(f"*_test_split{split}.txt")):
            label = path.name.removesuffix(f"_test_split{split}.txt")
            for number, line in enumerate(_lines(path), start=1):
                name, _, tag = line.rpartition(" ")
                if tag not in self._parts or not name.endswith(".avi"):
                    raise DatasetError(f"{path}, line {number}: {line!r} is not '<video>.avi 0|1|2'")
                group = name.partition(f"_{label}_")[0]
                file = f"{label}/{name.strip()}"
                videos.append(Listed(file.removesuffix(".avi"), base + file, label, self._parts[tag], group))
        if not any((root / v.path).is_file() for v in videos):
            raise self._refuse(root, f"not one of its {len(videos)} listed videos is there")
        return videos

    def _lists(self, root: Path) -> Path:
        self._check_root(root)
        lists = root / "testTrainMulti_7030_splits"
        if not lists.is_dir():
            raise self._refuse(root, "testTrainMulti_7030_splits/ is not there")
        return lists


class Folder(Adapter):
    """Any labelled videos under a root, described by a CSV with columns path, class, split and maybe group."""

    name = "folder"
    layout = (
        "a CSV with columns path (relative to the root), class, split (train, test or unused) and "
        "optionally group; its file name is the protocol's dataset.split, or it is the only CSV there"
    )

    def splits(self, root: Path) -> list[str]:
        """Return the names of the CSV files at the top of the root."""
        self._check_root(root)
        return sorted(p.name for p in root.glob("*.csv"))

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return the CSV's rows."""
        table = self._table(root, split)
        videos, seen = [], set()
        for where, row in _rows(table, ("path", "class", "split")):
            path, part = Path(row["path"] or ""), row["split"]
            if not row["path"] or path.is_absolute() or ".." in path.parts:
                raise DatasetError(f"{where}: path {row['path']!r} is not below the root")
            if part not in ("train", "test", "unused"):
                raise DatasetError(
                    f"{where}: split {part!r} is not one of train, test, unused"
                    f"{did_you_mean(part or '', ['train', 'test', 'unused'])}"
                )
            if not row["class"]:
                raise DatasetError(f"{where}: the class is empty")
            if path in seen:
                raise DatasetError(f"{where}: {row['path']!r} is listed twice")
            seen.add(path)
            name = path.as_posix()
            videos.append(Listed(name, name, row["class"], part, row.get("group") or ""))
        if not videos:
            raise DatasetError(f"{table}: the list is empty")
        return videos

    def _table(self, root: Path, split: str) -> Path:
        tables = self.splits(root)
        if split in tables:
            return root / split
        if split == "1" and len(tables) == 1:
            return root / tables[0]
        found = f"it has {', '.join(tables)}" if tables else "it has none"
        wanted = "exactly one CSV" if split == "1" else f"a CSV named {split!r}"
        raise self._refuse(root, f"{wanted} is needed, {found}")


class Synthetic(Folder):
    """The embedded clips, rendered into the cache on first use."""

    name = "synthetic"
    kind = "synthetic"
    layout = "nothing: the clips are rendered on first use"

    def default_root(self) -> Path | None:
        """Return the folder of this version's clips in the user's cache."""
        return cache_dir() / synthetic.FOLDER_NAME

    def splits(self, root: Path) -> list[str]:
        """Return the single split."""
        return ["1"]

    def make_ready(self, root: Path, progress: Callable[[int, int], None]) -> None:
        """Render the clips if they are not there."""
        synthetic.render(root, progress)

    def _table(self, root: Path, split: str) -> Path:
        return root / "manifest.csv"


ADAPTERS: dict[str, Adapter] = {a.name: a for a in (Ucf101(), Hmdb51(), Folder(), Synthetic())}


def adapter(name: str) -> Adapter:
    """Return the adapter of a dataset.

    Raises:
        DatasetError: There is none; names those there are.
    """
    if name not in ADAPTERS:
        raise DatasetError(
            f"no adapter for dataset {name!r}{did_you_mean(name, ADAPTERS)}; known: {', '.join(ADAPTERS)}; "
            "any other data can be read from a CSV by a protocol file of your own with dataset 'folder'"
        )
    return ADAPTERS[name]


def _lines(path: Path) -> list[str]:
    """Return the lines of a list that are not blank; UCF101's lists end lines with CRLF."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a CSV that has the columns, each with its place for messages."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = [c for c in columns if c not in (rows.fieldnames or [])]
            if missing:
                raise DatasetError(
                    f"{table}: no column {missing[0]!r}; it has: {', '.join(rows.fieldnames or [])}; "
                    f"needed: {', '.join(columns)} (and optionally group)"
                )
            for row in rows:
                yield f"{table}, line {rows.line_num}", row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: not a CSV in UTF-8 ({error})") from error


def _no_split(adapter: Adapter, root: Path, split: str) -> str:
    extra = ""
    if split.startswith("vclimb"):
        extra = (
            "; that split is the vCLIMB authors' own and not distributed here: "
            "--set protocol.dataset.split=1 takes the official one (a derived protocol)"
        )
    return (
        f"{root}: {adapter.name} has no split {split!r}; found: {', '.join(adapter.splits(root)) or 'none'}"
        f"{extra}"
    )
