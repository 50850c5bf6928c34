"""Data that are described by a CSV: a researcher's own, and the embedded clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from vcil_bench.common.errors import did_you_mean
from vcil_bench.common.files import cache_dir
from vcil_bench.data import synthetic

from .base import Adapter, DatasetError, Listed, read_rows
from .tree import Tree


class Folder(Adapter):
    """Any labelled videos under a root, described by a CSV with columns path, class, split and maybe group."""

    name = "folder"
    fetchable = False
    layout = (
        "a CSV with columns path (of a video or a folder of frames, relative to the root), class, split (train, "
        "test or unused) and optionally group; its file name is the protocol's dataset.split, or it is the only "
        "CSV there"
    )

    def splits(self, root: Path) -> list[str]:
        """Return the names of the CSV files at the top of the root."""
        self._check_root(root)
        return sorted(p.name for p in root.glob("*.csv"))

    def without_split(self, root: Path) -> DatasetError:
        """Say that there is no CSV."""
        return self._refuse(root, "no CSV is there")

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return the CSV's rows."""
        table = self._table(root, split)
        tree = Tree(root)
        videos, seen = [], set()
        labels: dict[str, str] = {}  # one string a class, however many rows
        for where, row in read_rows(table, ("path", "class", "split")):
            path, part = PurePosixPath(row["path"] or ""), row["split"]
            if not row["path"] or path.is_absolute() or ".." in path.parts:
                raise DatasetError(f"{where}: path {row['path']!r} is not below the root")
            if part not in ("train", "test", "unused"):
                raise DatasetError(
                    f"{where}: split {part!r} is not one of train, test, unused"
                    f"{did_you_mean(part or '', ['train', 'test', 'unused'])}"
                )
            if not (row["class"] or "").strip():
                raise DatasetError(f"{where}: the class is empty")
            name = path.as_posix()
            if name in seen:
                raise DatasetError(f"{where}: {row['path']!r} is listed twice")
            seen.add(name)
            label = labels.setdefault(row["class"], row["class"])
            part = labels.setdefault(part, part)
            videos.append(Listed(name, tree.file_or_frames(name), label, part, row.get("group") or ""))
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
