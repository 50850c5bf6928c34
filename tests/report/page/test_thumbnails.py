"""Thumbnails: the middle frame of a clip, of other data on request alone, kept between reports."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import packed_page
from made_up_records import record_data
from PIL import Image
from predicted_records import write_run
from tiny_dataset import Tiny

from vcil_bench.data.synthetic import FOLDER_NAME, clip_frames
from vcil_bench.origin import Origin
from vcil_bench.record import Record
from vcil_bench.report.build import THUMBNAILS, Wish, write
from vcil_bench.report.page import Thumbnails


def picture(url: str) -> np.ndarray:
    kind, _, content = url.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), dtype=np.float64)


def on_clips(root: str = f"/somewhere/{FOLDER_NAME}") -> Record:
    return Record(Path("x.json"), record_data(data={"kind": "synthetic", "root": root}))


def on_files(root: Path, origin: Origin | None = None) -> Record:
    data = record_data(data={"dataset": "folder", "split": "videos.csv", "root": str(root)})
    return Record(Path("x.json"), data, origin)


def test_an_embedded_clip_shows_its_middle_frame() -> None:
    names = ["videos/test/a_red_square_moving_left/00.mp4", "videos/test/a_white_ring_moving_down/07.mp4"]
    made = Thumbnails().of([(on_clips(), [*names, "videos/test/a_red_square_moving_left/99.mp4", "x"])])
    assert list(made) == names
    for name, (class_id, index) in zip(names, ((0, 0), (23, 7)), strict=True):
        drawn = clip_frames("test", class_id, index)[8].astype(np.float64)
        others = clip_frames("test", class_id, index + 1)[8].astype(np.float64)
        shown = picture(made[name])
        assert shown.shape == (64, 64, 3)
        assert np.abs(shown - drawn).mean() < 10 < np.abs(shown - others).mean()


def test_clips_of_another_version_have_none() -> None:
    name = "videos/test/a_red_square_moving_left/00.mp4"
    assert Thumbnails().of([(on_clips("/somewhere/synthetic-motion-v1"), [name])]) == {}


def test_other_videos_are_shown_on_request_alone(tiny: Tiny, tmp_path: Path) -> None:
    names = ["red/3.mp4", "blue/4.mp4", "nobody.mp4"]
    assert Thumbnails().of([(on_files(tiny.root), names)]) == {}
    made = Thumbnails(of_others=True).of([(on_files(tiny.root), names)])
    assert list(made) == names[:2]
    red, blue = (picture(made[name]).mean(axis=(0, 1)) for name in names[:2])
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert max(picture(made["red/3.mp4"]).shape) == 64
    sent = Origin(name="lab", who="w", source="", received="")
    assert Thumbnails(of_others=True).of([(on_files(tiny.root, sent), names)]) == {}
    assert Thumbnails(of_others=True).of([(on_files(tmp_path / "nowhere"), names)]) == {}


def test_a_video_that_cannot_be_read_is_told(tiny: Tiny, tmp_path: Path) -> None:
    root = tiny.copy(tmp_path / "copy")
    (root / "red/3.mp4").write_bytes(b"no video")
    asked = Thumbnails(of_others=True)
    assert list(asked.of([(on_files(root), ["red/3.mp4", "red/4.mp4"])])) == ["red/4.mp4"]
    assert len(asked.notes) == 1


def test_what_was_made_is_kept_and_nothing_else_is_believed(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    name = "videos/test/a_red_square_moving_left/00.mp4"

    def made() -> str:
        asked = Thumbnails()
        with asked.kept_in(kept):
            return asked.of([(on_clips(), [name])])[name]

    first = made()
    stored = json.loads(kept.read_text(encoding="utf-8"))
    assert list(stored.values()) == [first]
    (key,) = stored
    other = "data:image/webp;base64,AAAA"
    kept.write_text(json.dumps({key: other, "another": other}), encoding="utf-8")
    assert made() == other
    assert list(json.loads(kept.read_text(encoding="utf-8"))) == [key]
    for content in ({key: "javascript:alert(1)"}, {key: 3}, [], "x"):
        kept.write_text(json.dumps(content), encoding="utf-8")
        assert made() == first


def test_a_report_shows_them(tiny: Tiny, tmp_path: Path) -> None:
    names = [f"{colour}/{i}.mp4" for colour in ("red", "green", "blue", "white") for i in (3, 4)]
    write_run(
        tmp_path / "results", "alpha", 1, skill=0.5, sizes=(2, 1, 1), per_class=2, names=names,
        data={"dataset": "folder", "split": "videos.csv", "root": str(tiny.root)},
    )  # fmt: skip
    pages = {}
    for thumbnails in (False, True):
        wish = Wish(figures=False, thumbnails=thumbnails)
        written = write(tmp_path / "results", tmp_path / "out", wish)
        pages[thumbnails] = packed_page.readable(written.files[0].read_text(encoding="utf-8"))
        assert (tmp_path / "out" / THUMBNAILS).is_file()
    assert "data:image/webp" not in pages[False]
    assert pages[True].count("data:image/webp") == 8
    assert str(tiny.root) not in pages[True] + (tmp_path / "out" / THUMBNAILS).read_text(encoding="utf-8")
