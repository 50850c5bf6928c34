"""The frame store: the same frames as decoding, damage noticed, and building that can be broken off anywhere."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_factory import barcode_video, read_barcodes
from tiny_dataset import Tiny

from vcil_bench.common.files import StorageError
from vcil_bench.data.crops import Box
from vcil_bench.data.datasets import adapter
from vcil_bench.data.manifest import Manifest
from vcil_bench.data.prepare import prepare
from vcil_bench.data.store import build as store_build
from vcil_bench.data.store import jpeg
from vcil_bench.data.store.build import Estimate, build, estimate
from vcil_bench.data.store.frame_store import FrameStore, StoreError
from vcil_bench.data.video import VideoError, content_sha256, pictures, read_frames


@pytest.fixture(scope="module")
def manifest(tiny: Tiny) -> Manifest:
    return prepare(adapter("folder"), tiny.root, "videos.csv")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return barcode_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 40)


def stored(store: FrameStore, path: Path, frames: int = 40) -> str:
    """Put a video into a store and return its hash."""
    sha = content_sha256(path)
    store.write(sha, pictures(path, frozenset(store.numbers(frames).tolist())), frames)
    return sha


# --- reading


def test_frames_are_those_of_the_video(tmp_path: Path, clip: Path) -> None:
    store = FrameStore(tmp_path)
    sha = stored(store, clip)
    wanted = [39, 0, 17, 17, 3]
    found = store.read(sha, wanted)
    assert (found.dtype, found.shape) == (np.uint8, (5, 96, 128, 3))
    assert read_barcodes(found) == wanted
    assert np.abs(found.astype(int) - read_frames(clip, wanted)).mean() < 4
    assert np.array_equal(store.read(sha, np.array([17])), found[2:3])
    assert store.is_whole(sha)
    assert store.blob(sha) == tmp_path / sha[:2] / f"{sha}.frames"


def test_a_turned_video_is_stored_upright(tmp_path: Path) -> None:
    path = barcode_video(tmp_path / "turned.mp4", 5, width=160, height=96, turned="90")
    store = FrameStore(tmp_path / "store")
    assert read_barcodes(store.read(stored(store, path, 5), range(5))) == list(range(5))


def test_a_capped_store_gives_the_nearest_frame(tmp_path: Path, clip: Path) -> None:
    store = FrameStore(tmp_path, max_frames=4)
    sha = stored(store, clip)
    assert store.numbers(40).tolist() == [5, 15, 25, 35]
    assert store.numbers(3).tolist() == [0, 1, 2]
    nearest = read_barcodes(store.read(sha, [0, 5, 10, 11, 30, 31, 39]))
    assert nearest == [5, 5, 5, 15, 25, 35, 35]


@pytest.mark.parametrize("quality", [5, 75, 90])
@pytest.mark.parametrize(("height", "width"), [(96, 128), (61, 45)])
def test_a_window_is_the_same_part_of_the_whole_picture(
    tmp_path: Path, height: int, width: int, quality: int
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(2, height, width, 3), dtype=np.uint8)
    store = FrameStore(tmp_path, quality=quality)
    store.write("ab" * 32, enumerate(pixels), len(pixels))
    whole = store.read("ab" * 32, [0, 1])
    for end in range(1, height + 1):
        box = Box(3, end // 2, width - 7, end - end // 2)
        assert np.array_equal(store.read("ab" * 32, [0, 1], lambda *_, box=box: box), box.of(whole))


def test_rows_below_are_not_decoded() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, size=(96, 128, 3), dtype=np.uint8)
    content, picture = jpeg.encode(pixels, 90), jpeg.room(96, 128)
    picture[:] = 0
    jpeg.decode(content, picture, 40)
    assert picture[:48].any(axis=2).all()
    assert not picture[48:].any()


def test_building_twice_gives_the_same_bytes(tmp_path: Path, clip: Path) -> None:
    first, second = FrameStore(tmp_path / "a"), FrameStore(tmp_path / "b")
    sha = stored(first, clip)
    stored(second, clip)
    assert first.blob(sha).read_bytes() == second.blob(sha).read_bytes()


def test_absent_videos_and_frames_are_named(tmp_path: Path, clip: Path) -> None:
    store = FrameStore(tmp_path)
    with pytest.raises(
        VideoError, match=r"not in the frame store; run 'vcil-bench prepare DATASET ROOT --store"
    ):
        store.read("0" * 64, [0])
    with pytest.raises(VideoError, match="frame 40 was asked for, but the stored video has 40"):
        store.read(stored(store, clip), [0, 40])


@pytest.mark.parametrize("place", [0, 9, 11, 13, 30, 500, -30, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, clip: Path, place: int) -> None:
    store = FrameStore(tmp_path)
    sha = stored(store, clip)
    content = bytearray(store.blob(sha).read_bytes())
    content[place] ^= 4
    store.blob(sha).write_bytes(content)
    assert not store.is_whole(sha)
    with pytest.raises(VideoError, match=r"damaged.*prepare DATASET ROOT --store"):
        store.read(sha, range(40))


@pytest.mark.parametrize("keep", [0, 10, 200, 5000])
def test_a_truncated_file_is_noticed(tmp_path: Path, clip: Path, keep: int) -> None:
    store = FrameStore(tmp_path)
    sha = stored(store, clip)
    os.truncate(store.blob(sha), keep)
    assert not store.is_whole(sha)
    with pytest.raises(VideoError, match="damaged"):
        store.read(sha, [39])


# --- settings


def test_a_store_of_other_settings_is_refused(tmp_path: Path) -> None:
    FrameStore(tmp_path, quality=80)
    assert FrameStore(tmp_path, quality=80).settings["max_frames"] is None
    with pytest.raises(StoreError, match=r"quality 80, not 90.*--store DIR"):
        FrameStore(tmp_path)
    with pytest.raises(StoreError, match="max_frames None, not 8"):
        FrameStore(tmp_path, quality=80, max_frames=8)


def test_open_takes_the_settings_that_are_there(tmp_path: Path) -> None:
    made = FrameStore(tmp_path / "store", max_frames=8)
    described = FrameStore.open(tmp_path / "store").describe()
    assert described == made.describe() == FrameStore(tmp_path / "other", max_frames=8).describe()
    assert (described["quality"], described["max_frames"]) == (90, 8)
    assert described["decoder"].startswith("pyav ")
    assert described["sha256"] != FrameStore(tmp_path / "all").describe()["sha256"]


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no frame store.*prepare DATASET ROOT --store"):
        FrameStore.open(tmp_path)
    (tmp_path / "store.json").write_text(json.dumps({"format": 0}), encoding="utf-8")
    with pytest.raises(StoreError, match="another format, this version reads 2"):
        FrameStore.open(tmp_path)
    (tmp_path / "store.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be read"):
        FrameStore.open(tmp_path)


def test_settings_changed_by_hand_are_noticed(tmp_path: Path) -> None:
    store, settings = FrameStore(tmp_path), tmp_path / "store.json"
    pixels = np.zeros((4, 16, 16, 3), np.uint8)
    store.write("ab" * 32, enumerate(pixels), len(pixels))
    FrameStore.open(tmp_path)
    whole = settings.read_text(encoding="utf-8")
    settings.write_text(whole.replace('"quality": 90', '"quality": 91'), encoding="utf-8")
    with pytest.raises(StoreError) as caught:
        FrameStore.open(tmp_path)
    assert str(settings) in str(caught.value)
    assert "quality 91" in str(caught.value)
    settings.write_text(whole, encoding="utf-8")
    assert FrameStore.open(tmp_path).read("ab" * 32, [0, 3]).shape == (2, 16, 16, 3)


def test_one_damaged_video_is_not_taken_for_other_settings(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    for sha256 in ("00" * 32, "ff" * 32):
        store.write(sha256, enumerate(np.zeros((2, 16, 16, 3), np.uint8)), 2)
    for damaged in (0, 1):
        paths = sorted(tmp_path.rglob("*.frames"))
        whole = paths[damaged].read_bytes()
        paths[damaged].write_bytes(whole[:20])
        FrameStore.open(tmp_path)
        paths[damaged].write_bytes(whole)


# --- building


def test_building_goes_on_where_it_was(tmp_path: Path, manifest: Manifest) -> None:
    store = FrameStore(tmp_path)
    assert len(store.missing(manifest)) == 20
    seen: list[tuple[int, int]] = []
    built = build(
        [manifest, manifest], store, workers=2, progress=lambda done, total: seen.append((done, total))
    )
    assert (built.made, built.kept, built.failed) == (20, 0, [])
    assert seen == [(n, 20) for n in range(1, 21)]
    assert store.missing(manifest) == []

    gone, cut, kept = (store.blob(video.facts.sha256) for video in manifest.videos[:3])
    before, whole = kept.stat().st_mtime_ns, cut.read_bytes()
    gone.unlink()
    cut.write_bytes(whole[:-7])
    assert store.missing(manifest) == [manifest.videos[0].id]
    again = build([manifest], store, workers=1)
    assert (again.made, again.kept) == (2, 18)
    assert cut.read_bytes() == whole
    assert kept.stat().st_mtime_ns == before


def test_videos_that_cannot_be_stored_are_named(tmp_path: Path, tiny: Tiny) -> None:
    root = tiny.copy(tmp_path / "data")
    manifest = prepare(adapter("folder"), root, "videos.csv")
    first, second, *_ = manifest.videos
    shutil.copy(root / manifest.videos[2].path, root / first.path)
    (root / second.path).unlink()
    built = build([manifest], FrameStore(tmp_path / "store"), workers=1)
    problems = dict(built.failed)
    assert "has changed since it was prepared" in problems[first.id]
    assert "cannot be read" in problems[second.id]
    assert built.made == 18


def _sleep(*_: Any) -> bool:
    import time

    time.sleep(600)
    return True


@pytest.mark.slow
def test_a_decoder_that_hangs_is_killed(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_build, "_store_video", _sleep)
    one = dataclasses.replace(manifest, videos=manifest.videos[:1])
    built = build([one], FrameStore(tmp_path), workers=1, limit_s=0.5)
    assert built.failed == [(one.videos[0].id, "not decoded within 0.5 s")]


@pytest.mark.slow
def test_a_decoder_that_hangs_is_left_out_of_the_estimate(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_build, "_sample", _sleep)
    one = dataclasses.replace(manifest, videos=manifest.videos[:1])
    told = estimate([one], FrameStore(tmp_path), limit_s=0.5)
    assert (told.videos, told.bytes) == (1, 0)


def test_what_a_killed_builder_left_is_swept(tmp_path: Path, manifest: Manifest) -> None:
    store = FrameStore(tmp_path)
    one = dataclasses.replace(manifest, videos=manifest.videos[:1])
    blob = store.blob(one.videos[0].facts.sha256)
    blob.parent.mkdir()
    abandoned, in_work = (blob.with_name(f".{blob.name}.{name}") for name in ("a", "b"))
    for path in (abandoned, in_work):
        path.write_bytes(b"part")
    os.utime(abandoned, (0, 0))
    build([one], store, workers=1)
    assert {path.name for path in blob.parent.iterdir()} == {blob.name, in_work.name}


_BUILD = """
import sys
from pathlib import Path
from vcil_bench.data.datasets import adapter
from vcil_bench.data.store.frame_store import FrameStore
from vcil_bench.data.prepare import prepare
from vcil_bench.data.store.build import build
if __name__ == "__main__":
    manifest = prepare(adapter("folder"), Path(sys.argv[1]), "videos.csv")
    built = build([manifest], FrameStore(sys.argv[2]), workers=1)
    print(built.made, built.kept, len(built.failed))
"""


@pytest.mark.slow
def test_processes_may_build_one_store_together(tmp_path: Path, tiny: Tiny, manifest: Manifest) -> None:
    command = [sys.executable, "-c", _BUILD, str(tiny.root), str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        made, kept, failed = map(int, process.communicate(timeout=120)[0].split())
        assert (made + kept, failed) == (20, 0)
    store = FrameStore.open(tmp_path)
    assert all(store.is_whole(video.facts.sha256) for video in manifest.videos)
    assert not list(tmp_path.glob("??/.*"))


def test_a_full_disk_keeps_what_is_stored(tmp_path: Path, tiny: Tiny) -> None:
    root = tiny.copy(tmp_path / "data")
    # The last file is too large for the limit, which stands for a disk that is full by then.
    barcode_video(root / "white/4.mp4", 200, width=256, height=192)
    manifest = prepare(adapter("folder"), root, "videos.csv")
    ordered = sorted(manifest.videos, key=lambda video: video.facts.frames)
    manifest = dataclasses.replace(manifest, videos=tuple(v for v in ordered if v.split == "test"))
    store = FrameStore(tmp_path / "store")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(
            StorageError, match=r"cannot be written.*7 of 8 videos are stored.*same command again"
        ):
            build([manifest], store, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(store.missing(manifest)) == 1
    assert not list(store.root.glob("??/.*"))
    assert (built := build([manifest], store, workers=1)).made == 1
    assert built.kept == 7


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FrameStore(tmp_path)

    def full(_: Any) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "encode", full)
    with pytest.raises(StorageError, match="No space left"):
        stored(store, clip)
    assert not [p for p in tmp_path.rglob("*.frames*") if p.is_file()]


# --- size


def test_the_size_is_told_beforehand(tmp_path: Path, manifest: Manifest) -> None:
    store = FrameStore(tmp_path)
    told = estimate([manifest], store)
    build([manifest], store, workers=1)
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*.frames"))
    assert told.videos == 20
    assert 0.6 * taken < told.bytes < 1.4 * taken
    assert "20 videos to store take about 0.00 GB" in str(told)
    left = estimate([manifest], store)
    assert (left.videos, left.bytes) == (0, 0)
    left.check()


def test_a_store_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"about 1400\.00 GB, 40\.0 GB are free.*--store-frames 64"):
        Estimate(240_000, int(1.4e12), int(4e10), tmp_path).check()


# --- the command


def test_prepare_fills_the_store(tmp_path: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "store"
    command = ("prepare", "folder", tiny.root, "--store", target, "--store-frames", "4", "--workers", "1")
    assert tiny.main(*command) == 0
    told = capsys.readouterr().out
    assert "20 videos to store take about" in told
    assert "20 videos stored, 0 were there, 0 cannot be stored" in told
    assert FrameStore.open(target).settings["max_frames"] == 4
    assert tiny.main("prepare", "folder", tiny.root, "--store", target) == 2
    assert "max_frames 4, not None" in capsys.readouterr().err
    assert tiny.main("prepare", "folder", tiny.root, "--store", target, "--store-frames", "0") == 2
