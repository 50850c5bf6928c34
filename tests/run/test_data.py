"""A split is opened in steps, each taken once, and what it leaves on disk is written when it changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_dataset import Tiny

from vcil_bench.common.files import write_changed
from vcil_bench.data.datasets import ADAPTERS, Listed
from vcil_bench.data.datasets.folder import Folder
from vcil_bench.data.manifest import DataError, manifest_path
from vcil_bench.data.prepare import Progress
from vcil_bench.protocol import DatasetSpec
from vcil_bench.run.data import open_split

VIDEOS = DatasetSpec(name="folder", split="videos.csv")


class Counted(Folder):
    """Counts how often its lists are read."""

    read = 0

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        self.read += 1
        return super().list_videos(root, split)


@contextmanager
def unseen(text: str) -> Iterator[Progress]:
    yield lambda done, total: None


def test_nothing_is_read_before_it_is_asked_for_and_lists_are_read_once(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Counted()
    monkeypatch.setitem(ADAPTERS, "folder", source)
    split = open_split(VIDEOS, tiny.root, unseen, max_missing=0.0)
    assert source.read == 0
    split.check_listed()
    assert split.manifest is split.manifest
    assert len(split.manifest.videos) == len(split.listed)
    assert source.read == 1


@pytest.mark.parametrize(("allowed", "refused"), [(0.0, True), (0.1, False)])
def test_files_that_are_not_there_are_told_before_any_is_opened(
    tiny: Tiny, tmp_path: Path, allowed: float, refused: bool
) -> None:
    root = tiny.copy(tmp_path / "data")
    (root / "red/0.mp4").unlink()
    split = open_split(VIDEOS, root, unseen, max_missing=allowed)
    if not refused:
        split.check_listed()
        return
    with pytest.raises(DataError, match="1 of 12 train videos"):
        split.check_listed()
    assert not manifest_path("folder", root, "videos.csv").exists()


def test_a_folder_that_nobody_named_is_asked_for_in_the_words_of_the_command() -> None:
    split = open_split(DatasetSpec(name="ucf101", split=1), None, unseen, max_missing=0.1, way_out="--data ROOT")
    with pytest.raises(DataError, match=r"'ucf101'.*--data ROOT.*ucfTrainTestlist"):
        split.check_listed()


def test_files_of_unchanged_data_are_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    root = tiny.copy(tmp_path / "data")

    def opened() -> dict[str, int]:
        manifest = open_split(VIDEOS, root, unseen).manifest
        path = manifest_path("folder", manifest.root, "videos.csv")
        return {file.name: file.stat().st_ino for file in path.parent.glob(f"{path.stem}.*")}

    before = opened()
    assert len(before) == 3
    assert opened() == before
    (root / "red/0.mp4").write_bytes(b"")
    after = opened()
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


@pytest.mark.parametrize("there", ["", "one\n", "one\ntwo\nthree\n", "one\nTwo\n", "\xff"])
def test_a_file_that_differs_anywhere_is_written(tmp_path: Path, there: str) -> None:
    path = tmp_path / "text"
    path.write_text(there, encoding="latin-1")
    write_changed(path, ["one\n", "two\n"])
    assert path.read_text(encoding="utf-8") == "one\ntwo\n"
