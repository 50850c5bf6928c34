"""Datasets that need an account are unpacked from what a user has downloaded, in the forms they have."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from archive_factory import tar_of, tree, write, zip_of

from vcil_bench.data.datasets import adapter
from vcil_bench.fetch.accounts import unpack_given
from vcil_bench.fetch.errors import Damaged, FetchError, Hostile
from vcil_bench.fetch.fetching import Outcome, Plan
from vcil_bench.fetch.pieces import Joined
from vcil_bench.fetch.sources import sources
from vcil_bench.fetch.state import State

VIDEOS = {f"20bn-something-something-v2/{n}.webm": bytes([n]) * 30_000 for n in range(1, 5)}
LABELS = {"Pushing something": "0"}
LISTS = {
    "labels": LABELS,
    "train": [{"id": str(n), "template": "Pushing [something]"} for n in (1, 2, 3)],
    "validation": [{"id": "4", "template": "Pushing [something]"}],
}


def pieces(count: int, data: bytes | None = None) -> dict[str, bytes]:
    data = tar_of(VIDEOS, "w:gz") if data is None else data
    step = -(-len(data) // count)
    return {f"20bn-something-something-v2-{n:02}": data[n * step : (n + 1) * step] for n in range(count)}


def unpack(name: str, folder: Path, root: Path) -> Outcome:
    state = State(root)
    with state.locked():
        plans: list[Plan] = []
        watch = lambda text: nullcontext(lambda done, total: None)  # noqa: E731
        outcome = unpack_given(sources()[name], folder, state, watch, plans.append)
        assert not plans[0].files or plans[0].needed >= sum(map(len, tree(root).values()))
        return outcome


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The form of the first release: bare pieces, bare lists."""
    for name, content in pieces(3).items():
        write(tmp_path / "downloads" / name, content)
    for name, content in LISTS.items():
        write(tmp_path / f"downloads/something-something-v2-{name}.json", json.dumps(content).encode())
    return tmp_path / "downloads"


@pytest.mark.parametrize("zipped", [False, True])
def test_ssv2_is_joined_and_unpacked(zipped: bool, folder: Path, tmp_path: Path) -> None:
    """Also in the form of today's publisher, each piece in a zip, and the lists in another."""
    if zipped:
        for name, content in pieces(3).items():
            (folder / name).unlink()
            write(folder / f"{name}.zip", zip_of({name: content}))
        for path in folder.glob("*.json"):
            path.unlink()
        lists = {f"labels/{name}.json": json.dumps(content).encode() for name, content in LISTS.items()}
        write(folder / "20bn-something-something-download-package-labels.zip", zip_of(lists))
    before = tree(folder)
    root = tmp_path / "ssv2"
    assert unpack("ssv2", folder, root).files == 7
    assert tree(folder) == before
    listed = adapter("ssv2").list_videos(root, "official")
    assert [(root / video.path).read_bytes() for video in listed] == list(VIDEOS.values())
    assert unpack("ssv2", folder, root).files == 0
    assert not (root / ".fetch/pieces").exists()


def test_a_piece_that_lacks_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "20bn-something-something-v2-01").unlink()
    with pytest.raises(FetchError, match=r"20bn-something-something-v2-01 is not there"):
        unpack("ssv2", folder, tmp_path / "ssv2")
    assert not [path for path in tree(tmp_path / "ssv2") if path.endswith(".webm")]


def test_a_last_piece_that_lacks_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "20bn-something-something-v2-02").unlink()
    with pytest.raises(Damaged):
        unpack("ssv2", folder, tmp_path / "ssv2")


def test_pieces_are_as_hostile_as_others(folder: Path, tmp_path: Path) -> None:
    for name, content in pieces(3, tar_of({"../../evil": b"1"})).items():
        write(folder / name, content)
    with pytest.raises(Hostile):
        unpack("ssv2", folder, tmp_path / "ssv2")


@pytest.mark.parametrize("name", ["v1-2_train.tar.gz", "Anet_videos.zip"])
def test_activitynet_comes_into_a_single_folder(name: str, tmp_path: Path) -> None:
    content = {"some/where/v_abcdefghijk.mp4": b"1", "some/readme.txt": b"2"}
    write(tmp_path / "downloads" / name, zip_of(content) if name.endswith("zip") else tar_of(content))
    unpack("activitynet", tmp_path / "downloads", tmp_path / "root")
    assert tree(tmp_path / "root") == {"videos/v_abcdefghijk.mp4": b"1"}


def test_a_folder_without_any_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FetchError):
        unpack("ssv2", tmp_path, tmp_path / "ssv2")


def test_files_are_read_as_if_they_were_joined(tmp_path: Path) -> None:
    paths = [write(tmp_path / str(n), content) for n, content in enumerate([b"ab", b"", b"cde"])]
    with Joined(paths) as joined:
        assert joined.read() == b"abcde"
