"""What every dataset adapter is: a listing of labelled videos, and the words for a root that is wrong."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from vcil_bench.common.errors import UserError

from .published import Published


class DatasetError(UserError):
    """A root that is missing, of another dataset, or whose lists are malformed."""


class NotAList(DatasetError):
    """A file that is no list of videos, such as a CSV of something else beside a dataset's own."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A part of a video, by time.

    Attributes:
        start: Seconds at which it begins.
        end: Seconds at which it ends.
        duration: Seconds that the list says the whole video has.
        fps: Frames per second of a folder of frames, which has no rate of its own; None for the rate of the
            video file.
        min_frames: With fewer frames it is left out.
    """

    start: float
    end: float
    duration: float
    fps: float | None = None
    min_frames: int = 1


@dataclass(frozen=True, slots=True)
class Listed:
    """A video, or a part of one, as the dataset's list names it.

    Attributes:
        id: Name of the video within its dataset, as the list writes it.
        path: Video file or folder of frames, relative to the root, with forward slashes.
        label: Class name as the dataset writes it.
        split: ``train``, ``test`` or ``unused``.
        group: What must not be shared by train and test (source video, scene); "" where unknown.
        interval: The part of the video that it is; None for all of it.
        excluded: Why a rule of those who published the list leaves it out; None where none does.
    """

    id: str
    path: str
    label: str
    split: str
    group: str
    interval: Interval | None = field(default=None, kw_only=True)
    excluded: str | None = field(default=None, kw_only=True)


class VideosMissing(DatasetError):
    """A root with a dataset's lists and none of its videos; ``listed`` is what the lists name."""

    def __init__(self, message: str, listed: list[Listed]) -> None:
        super().__init__(message)
        self.listed = listed


class Adapter(ABC):
    """Reads one dataset's own layout.

    Attributes:
        name: The name protocols use.
        kind: ``real`` or ``synthetic``; synthetic results never enter a real table.
        layout: What a root must hold, for messages and ``vcil-bench show``.
        published: What the publishers' lists hold, by split.
        fetchable: Whether ``vcil-bench fetch`` knows where it is published.
    """

    name: ClassVar[str]
    kind: ClassVar[str] = "real"
    layout: ClassVar[str]
    published: ClassVar[Mapping[str, Published]] = {}
    fetchable: ClassVar[bool] = True

    @abstractmethod
    def splits(self, root: Path) -> list[str]:
        """Return the names of the splits that the root's lists define."""

    def without_split(self, root: Path) -> DatasetError:
        """Return what is wrong with a root of which ``splits`` finds none."""
        return self._refuse(root, "the lists of no split are there")

    @abstractmethod
    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return every video of the split's lists, each as ``train``, ``test`` or ``unused``.

        Raises:
            DatasetError: The root does not hold this dataset, or a list is malformed.
        """

    def fetched_by(self, root: Path | str) -> str:
        """Return the end of a message that says how the data come; "" where nobody publishes them."""
        return f"; 'vcil-bench fetch {self.name} {root}' fetches that" if self.fetchable else ""

    def default_root(self) -> Path | None:
        """Return where the data lie when no root is given, or None where one is needed."""
        return None

    def make_ready(self, root: Path, progress: Callable[[int, int], None]) -> None:  # noqa: B027
        """Make what must be made before the root can be listed; real datasets are there already."""

    def _check_root(self, root: Path) -> None:
        if not root.is_dir():
            raise DatasetError(
                f"no folder {str(root)!r} for dataset {self.name!r}; it should hold: {self.layout}"
                f"{self.fetched_by(root)}"
            )

    def _refuse(self, root: Path, why: str) -> DatasetError:
        return DatasetError(
            f"{str(root)!r} does not look like dataset {self.name!r}: {why}; it should hold: {self.layout}"
            f"{self.fetched_by(root)}"
        )

    def _nothing_there(self, root: Path, listed: list[Listed]) -> VideosMissing:
        why = f"not one of its {len(listed)} listed videos is there"
        return VideosMissing(str(self._refuse(root, why)), listed)

    def _no_split(self, root: Path, split: str, way_out: str = "") -> DatasetError:
        found = ", ".join(self.splits(root)) or "none"
        return DatasetError(f"{root}: {self.name} has no split {split!r}; found: {found}{way_out}")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list that are not blank; UCF101's lists end lines with CRLF.

    Raises:
        DatasetError: The file cannot be read, or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); fetch the official list again") from error
    _check_text(path, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _check_text(path: Path | str, text: str) -> None:
    """Refuse what no file name can hold and the system's calls would stumble over."""
    if "\0" in text:
        raise DatasetError(f"{path}: holds a NUL character, which text does not have; it is damaged")


def read_rows(table: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a CSV that has the columns, each with its place for messages.

    Raises:
        NotAList: A column is missing, or the file is no CSV in UTF-8.
        DatasetError: The file cannot be read.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = [c for c in columns if c not in (rows.fieldnames or [])]
            if missing:
                raise NotAList(
                    f"{table}: no column {missing[0]!r}; it has: {', '.join(rows.fieldnames or [])}; "
                    f"needed: {', '.join(columns)}"
                )
            for row in rows:
                where = f"{table}, line {rows.line_num}"
                _check_text(where, "".join(row[c] or "" for c in columns))
                yield where, row
    except OSError as error:
        raise DatasetError(f"{table}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise NotAList(f"{table}: not a CSV in UTF-8 ({error})") from error
