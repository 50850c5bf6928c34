"""Opening of a dataset's split: its folder, its lists, its manifest, each read once and when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

from vcil_bench.data.datasets import Adapter, Listed, adapter
from vcil_bench.data.manifest import DataError, Manifest, check_present
from vcil_bench.data.prepare import READ_LIMIT_S, Progress, prepare
from vcil_bench.protocol import DatasetSpec

Watch = Callable[[str], AbstractContextManager[Progress]]  # shows the progress of what the text names


def open_split(
    dataset: DatasetSpec,
    root: Path | None,
    watch: Watch,
    *,
    way_out: str = "--data ROOT",
    max_missing: float | None = None,
    workers: int | None = None,
    limit_s: float = READ_LIMIT_S,
) -> Split:
    """Return one split of a dataset, of which nothing is read yet.

    Args:
        dataset: The dataset and its split, as a protocol names them.
        root: Folder of the dataset; None takes the dataset's own, which embedded data have.
        watch: Shows progress.
        way_out: How a user names the folder, for the error where nobody did.
        max_missing: Share of the train or test videos that may be unusable; None refuses nothing.
        workers: Processes that decode; None for one a core.
        limit_s: Seconds after which the decoder of a video is killed.

    Raises:
        DatasetError: There is no such dataset.
    """
    return Split(adapter(dataset.name), str(dataset.split), root, watch, way_out, max_missing, workers, limit_s)


def open_splits(
    name: str, root: Path | None, watch: Watch, *, workers: int | None, limit_s: float, way_out: str
) -> list[Split]:
    """Return every split that a dataset's folder has, see ``open_split``.

    Raises:
        DatasetError: There is no such dataset, or the folder holds another one.
        DataError: No folder is known.
    """
    source = adapter(name)
    root = _ready_root(source, root, watch, way_out)
    splits = source.splits(root)
    if not splits:
        raise source.without_split(root)
    return [Split(source, split, root, watch, way_out, None, workers, limit_s) for split in splits]


def _ready_root(source: Adapter, root: Path | None, watch: Watch, way_out: str) -> Path:
    """Return the folder of a dataset, with what is rendered on first use in place.

    Raises:
        DataError: No folder is known.
    """
    root = source.default_root() if root is None else root
    if root is None:
        raise DataError(
            f"the data of {source.name!r} are needed: give their folder with {way_out}; it should hold: "
            f"{source.layout}{source.fetched_by('ROOT')}"
        )
    with watch(f"rendering {source.name}") as moved:
        source.make_ready(root, moved)
    return root


class Split:
    """One split of a dataset under a root; made by ``open_split`` and ``open_splits`` alone."""

    def __init__(
        self,
        source: Adapter,
        name: str,
        root: Path | None,
        watch: Watch,
        way_out: str,
        max_missing: float | None,
        workers: int | None,
        limit_s: float,
    ) -> None:
        """Remember what to open, see ``open_split``."""
        self.source = source
        self.name = name
        self._given = root
        self._watch = watch
        self._way_out = way_out
        self._max_missing = max_missing
        self._workers = workers
        self._limit_s = limit_s

    @cached_property
    def root(self) -> Path:
        """Folder of the dataset.

        Raises:
            DataError: No folder is known.
        """
        return _ready_root(self.source, self._given, self._watch, self._way_out)

    @cached_property
    def listed(self) -> Sequence[Listed]:
        """The videos that the dataset's lists name.

        Raises:
            DatasetError: The root does not hold this dataset.
            DataError: Too many of the files are not there.
        """
        listed = self.source.list_videos(self.root, self.name)
        if self._max_missing is not None:
            check_present(self.source, self.root, listed, self._max_missing)
        return listed

    def check_listed(self) -> None:
        """Refuse data that will not do by what the lists and the names of files tell, before any file is opened.

        Raises:
            DatasetError: The root does not hold this dataset.
            DataError: No folder is known, or too many of the files are not there.
        """
        _ = self.listed

    @cached_property
    def manifest(self) -> Manifest:
        """The videos with what reading their files has told.

        Raises:
            DatasetError: The root does not hold this dataset.
            DataError: Too many of the videos cannot be used.
        """
        listed = self.listed
        with self._watch(f"{self.source.name}, split {self.name}") as moved:
            manifest = prepare(
                self.source,
                self.root,
                self.name,
                moved,
                listed=listed,
                workers=self._workers,
                limit_s=self._limit_s,
            )
        if self._max_missing is not None:
            manifest.check_complete(self._max_missing)
        return manifest
