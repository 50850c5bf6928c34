"""Folders of extracted frames as videos: order, exact pixels, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clip_factory import barcode_frame, encode_frames, read_barcodes
from PIL import Image

from vcil_bench.data.video import VideoError, content_sha256, count_frames, probe, read_frames

NAMES = ["img_{:05}.jpg", "frame_{:06}.jpg", "image_{:05}.jpg", "{:05}.jpg", "{}.jpeg", "img_{:05}.png"]


def folder_of(folder: Path, name: str = NAMES[0], start: int = 1, count: int = 12) -> Path:
    """Make a folder whose n-th picture carries the number n."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(barcode_frame(number)).save(folder / name.format(number + start))
    return folder


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path, name: str, start: int) -> None:
    folder = folder_of(tmp_path / "video", name, start)
    (folder / "flow_x_00001.jpg").write_bytes(b"not a frame")
    assert read_barcodes(read_frames(folder, [11, 0, 3, 3])) == [11, 0, 3, 3]
    facts = probe(str(folder))
    assert count_frames(folder) == facts.frames == 12
    assert (facts.width, facts.height, facts.claimed, facts.problem) == (128, 96, None, None)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_pixels_are_those_of_the_pictures(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "video"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3)).astype(np.uint8)
    for number, picture in enumerate(noise):
        Image.fromarray(picture).save(folder / f"img_{number + 1:05}.{suffix}")
    expected = [np.asarray(Image.open(file)) for file in sorted(folder.iterdir())]
    assert np.array_equal(read_frames(folder, [2, 0]), [expected[2], expected[0]])


@pytest.mark.parametrize("decoder", ["pyav", "decord", "torchcodec"])
def test_no_decoder_is_needed(tmp_path: Path, decoder: str) -> None:
    assert read_barcodes(read_frames(folder_of(tmp_path / "video"), [5], decoder)) == [5]


def test_a_hole_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "video")
    (folder / "img_00005.jpg").unlink()
    for call in (count_frames, probe, lambda path: read_frames(path, [0])):
        with pytest.raises(VideoError, match=r"img_00005\.jpg is missing"):
            call(folder)


def test_numbers_that_start_late_or_come_twice_are_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"00001\.jpg is missing"):
        count_frames(folder_of(tmp_path / "late", "{:05}.jpg", start=2))
    twice = folder_of(tmp_path / "twice")
    encode_frames(twice / "img_3.jpg", [barcode_frame(2)], codec="mjpeg", pix_fmt="yuvj420p")
    with pytest.raises(VideoError, match=r"img_00003\.jpg and img_3\.jpg are both frame 3"):
        count_frames(twice)


def test_wrong_folders_and_numbers_are_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"without numbered frames; they are named img_00001\.jpg"):
        count_frames(tmp_path)
    with pytest.raises(VideoError, match="frame 12 was asked for, but the folder holds 12 frames"):
        read_frames(folder_of(tmp_path / "video"), [12])


def test_damage_ends_the_video(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "video")
    damaged = folder / "img_00008.jpg"
    damaged.write_bytes(damaged.read_bytes()[:100])
    facts = probe(folder)
    assert facts.frames == count_frames(folder) == 7
    assert "img_00008.jpg" in str(facts.problem)
    with pytest.raises(VideoError, match=r"img_00008\.jpg"):
        read_frames(folder, [7])


def test_pictures_of_another_size_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "video")
    Image.fromarray(barcode_frame(3, 192, 144)).save(folder / "img_00004.jpg")
    with pytest.raises(VideoError, match=r"img_00004\.jpg: 192x144, the frames before it 128x96"):
        read_frames(folder, [0, 3])
    assert probe(folder).frames == 3


def test_the_hash_is_that_of_the_pictures(tmp_path: Path) -> None:
    first, same = (folder_of(tmp_path / name) for name in ("a", "b"))
    assert content_sha256(first) == content_sha256(same)
    Image.fromarray(barcode_frame(9)).save(same / "img_00004.jpg")
    assert content_sha256(first) != content_sha256(same)
