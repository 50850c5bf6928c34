"""Something-Something V2 and Kinetics-400 in the layouts that circulate, and frames in the place of videos."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from clip_factory import barcode_frame
from dataset_factory import lines, table, video
from PIL import Image

from vcil_bench import cli
from vcil_bench.data.datasets import DatasetError, adapter
from vcil_bench.data.datasets.tree import Tree
from vcil_bench.data.manifest import check_present
from vcil_bench.data.prepare import prepare
from vcil_bench.protocol import load

pytestmark = pytest.mark.usefixtures("own_cache")


def frames(folder: Path, count: int, pattern: str = "img_{:05}.jpg", first: int = 1) -> Path:
    """Extract ``count`` frames of a made video into a folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(barcode_frame(number, 96, 48)).save(folder / pattern.format(first + number))
    return folder


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


# --- Something-Something V2

LABELS = {"Closing something": "5", "Showing something next to something": "112", "Something falling": "140"}
ENTRIES = {
    "train": [
        {
            "id": "78687",
            "label": "closing a book",
            "template": "Closing [something]",
            "placeholders": ["a book"],
        },
        {"id": "9", "label": "a pen next to a cup", "template": "Showing [something] next to [something]"},
    ],
    "validation": [{"id": "74225", "label": "a cup falling", "template": "[Something] falling"}],
}


def ssv2(root: Path, *, old: bool = True, folder: str = "") -> Path:
    """Write the lists of three videos, under the names of the first or of today's release."""
    (root / folder).mkdir(parents=True)
    prefix = "something-something-v2-" if old else ""
    for name, content in {"labels": LABELS, **ENTRIES}.items():
        (root / folder / f"{prefix}{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("folder", ["", "labels"])
@pytest.mark.parametrize("place", ["20bn-something-something-v2/", "videos/", ""])
def test_ssv2_templates_without_brackets_are_the_classes(
    tmp_path: Path, old: bool, folder: str, place: str
) -> None:
    root = ssv2(tmp_path / "ssv2", old=old, folder=folder)
    for number in ("78687", "9", "74225"):
        touch(root / f"{place}{number}.webm")
    listed = adapter("ssv2").list_videos(root, "official")
    assert adapter("ssv2").splits(root) == ["official"]
    assert [(v.id, v.path, v.label, v.split, v.group) for v in listed] == [
        ("78687", f"{place}78687.webm", "Closing something", "train", ""),
        ("9", f"{place}9.webm", "Showing something next to something", "train", ""),
        ("74225", f"{place}74225.webm", "Something falling", "test", ""),
    ]


def test_ssv2_extracted_frames_serve_where_a_video_is_absent(tmp_path: Path) -> None:
    root = ssv2(tmp_path / "ssv2")
    frames(root / "20bn-something-something-v2-frames/78687", 5, "{:06}.jpg")
    frames(root / "20bn-something-something-v2-frames/9", 4, "{:06}.jpg")
    video(root / "20bn-something-something-v2/9.webm".replace(".webm", ".mp4"))
    listed = {v.id: v.path for v in adapter("ssv2").list_videos(root, "official")}
    assert listed["78687"] == "20bn-something-something-v2-frames/78687"
    assert listed["9"] == "20bn-something-something-v2/9.mp4"
    manifest = prepare(adapter("ssv2"), root, "official")
    facts = {v.id: (v.facts.frames, v.facts.problem) for v in manifest.videos}
    assert facts == {"78687": (5, None), "9": (6, None), "74225": (0, "missing")}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"id": "1", "template": "Opening [something]"},
            "video '1': template 'Opening something' is none of the 3",
        ),
        ({"id": "1", "label": "closing"}, "video 1: .* has no id and template"),
        ("1", "video 1: 1 has no id and template"),
        ({"id": 1, "template": "Opening [something]"}, "has no id and template"),
        ({"id": "a\0b", "template": "Opening [something]"}, "has no id and template"),
    ],
)
def test_ssv2_entry_that_is_malformed_is_refused(tmp_path: Path, entry: object, said: str) -> None:
    root = ssv2(tmp_path / "ssv2")
    path = root / "something-something-v2-train.json"
    path.write_text(json.dumps([entry]), encoding="utf-8")
    with pytest.raises(DatasetError, match=said) as error:
        adapter("ssv2").list_videos(root, "official")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["[{", "{}", 100_000 * "["])
def test_ssv2_list_that_is_cut_off_is_refused(tmp_path: Path, text: str) -> None:
    root = ssv2(tmp_path / "ssv2")
    (root / "something-something-v2-validation.json").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"validation\.json: .*fetch"):
        adapter("ssv2").list_videos(root, "official")


def test_ssv2_without_its_lists_or_videos_is_refused(tmp_path: Path) -> None:
    root = ssv2(tmp_path / "ssv2")
    with pytest.raises(DatasetError, match="not one of its 3 listed videos is there"):
        adapter("ssv2").list_videos(root, "official")
    (root / "something-something-v2-train.json").unlink()
    with pytest.raises(DatasetError, match=r"something-something-v2-train\.json or train\.json is not there"):
        adapter("ssv2").list_videos(root, "official")
    with pytest.raises(DatasetError, match="has no split '1'; found: official"):
        adapter("ssv2").list_videos(root, "1")


# --- Kinetics-400

ROWS = {
    "train": [("petting animal (not cat)", "-3B32lodo2M", 59), ("air drumming", "0W0gsg_0PzY", 7)],
    "val": [("air drumming", "__y8TUPR4fQ", 118)],
}


def kinetics(root: Path, train: str = "train.csv", val: str = "val.csv", *, is_cc: bool = True) -> Path:
    """Write the lists of three videos."""
    for part, name in (("train", train), ("val", val)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with (root / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            more = ["is_cc"] if is_cc else []
            writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", *more])
            for label, youtube, start in ROWS[part]:
                writer.writerow([label, youtube, start, start + 10, part, *(["0"] if is_cc else [])])
    return root


def stems() -> dict[str, tuple[str, str]]:
    return {
        f"{youtube}_{start:06}_{start + 10:06}": (part, label)
        for part, rows in ROWS.items()
        for label, youtube, start in rows
    }


@pytest.mark.parametrize(
    ("train", "val", "is_cc"),
    [
        ("kinetics-400_train.csv", "kinetics-400_val.csv", True),  # ActivityNet
        ("train.csv", "validate.csv", False),  # DeepMind
        ("annotations/train.csv", "annotations/val.csv", True),  # CVD Foundation
    ],
)
@pytest.mark.parametrize(
    "layout", ["{part}/", "{part}/{label}/", "{part}/{label_}/", "", "videos_{part}/{label_}/"]
)
def test_kinetics_videos_are_found_in_every_layout(
    tmp_path: Path, train: str, val: str, is_cc: bool, layout: str
) -> None:
    root = kinetics(tmp_path / "k400", train, val, is_cc=is_cc)
    for stem, (part, label) in stems().items():
        touch(root / layout.format(part=part, label=label, label_=label.replace(" ", "_")) / f"{stem}.mp4")
    listed = adapter("kinetics400").list_videos(root, "official")
    assert adapter("kinetics400").splits(root) == ["official"]
    assert [(v.id, v.label, v.split, v.group) for v in listed] == [
        ("-3B32lodo2M_000059_000069", "petting animal (not cat)", "train", "-3B32lodo2M"),
        ("0W0gsg_0PzY_000007_000017", "air drumming", "train", "0W0gsg_0PzY"),
        ("__y8TUPR4fQ_000118_000128", "air drumming", "test", "__y8TUPR4fQ"),
    ]
    assert all((root / v.path).is_file() for v in listed)


def test_kinetics_may_lack_videos_but_not_all(tmp_path: Path) -> None:
    root = kinetics(tmp_path / "k400")
    with pytest.raises(DatasetError, match="not one of its 3 listed videos is there"):
        adapter("kinetics400").list_videos(root, "official")
    touch(root / "train/0W0gsg_0PzY_000007_000017.mp4")
    listed = adapter("kinetics400").list_videos(root, "official")
    assert [(root / v.path).is_file() for v in listed] == [False, True, False]
    check_present(adapter("kinetics400"), root, listed, 1.0)


def test_kinetics_frames_are_found_beside_or_in_place_of_videos(tmp_path: Path) -> None:
    root = kinetics(tmp_path / "k400")
    folder = "rawframes_train/air_drumming/0W0gsg_0PzY_000007_000017"
    frames(root / folder, 7)
    assert adapter("kinetics400").list_videos(root, "official")[1].path == folder
    found = prepare(adapter("kinetics400"), root, "official").videos[1].facts
    assert (found.frames, found.problem, found.width, found.height) == (7, None, 96, 48)
    assert found.bytes == sum(f.stat().st_size for f in (root / folder).iterdir())


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("abseiling,0wR5jVB-WPk,x,427,val", r"line 2: time_start 'x' and time_end '427' are not whole seconds"),
        ("abseiling,0wR5jVB-WPk", r"line 2: time_start None"),
        (",0wR5jVB-WPk,1,2,val", "line 2: the label or the youtube_id is empty"),
    ],
)
def test_kinetics_row_that_is_malformed_is_refused(tmp_path: Path, row: str, said: str) -> None:
    root = kinetics(tmp_path / "k400")
    touch(root / "train/0W0gsg_0PzY_000007_000017.mp4")
    lines(root / "val.csv", "label,youtube_id,time_start,time_end,split", row)
    with pytest.raises(DatasetError, match=said):
        adapter("kinetics400").list_videos(root, "official")


def test_kinetics_without_a_list_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = kinetics(tmp_path / "k400")
    (root / "val.csv").unlink()
    assert adapter("kinetics400").splits(root) == []
    with pytest.raises(DatasetError, match=r"kinetics-400_val\.csv or .* is not there; it should hold"):
        adapter("kinetics400").list_videos(root, "official")
    assert cli.main(["prepare", "kinetics400", str(root)]) == 2
    assert "kinetics-400_val.csv or kinetics400_val.csv or val.csv" in capsys.readouterr().err
    with pytest.raises(
        DatasetError, match=r"has no split 'vclimb_10'; .*prepare vclimb --pickle Kinetics400_data"
    ):
        adapter("kinetics400").list_videos(root, "vclimb_10")


def test_the_names_of_the_protocols_classes_are_spelt_as_the_lists_spell_them() -> None:
    assert {label for rows in ROWS.values() for label, _, _ in rows} <= set(
        load("kinetics400_40x10_seeded").class_names
    )
    assert {"Closing something", "Showing something next to something"} <= set(load("tcd_ssv2_10x9").class_names)


# --- frames of the other datasets


def test_ucf101_frames_by_class_or_all_in_one_folder(tmp_path: Path) -> None:
    root = tmp_path / "ucf"
    names = ["Archery/v_Archery_g08_c01", "Archery/v_Archery_g01_c01", "YoYo/v_YoYo_g02_c01"]
    lines(root / "ucfTrainTestlist/trainlist01.txt", f"{names[0]}.avi 1")
    lines(root / "ucfTrainTestlist/testlist01.txt", *(f"{name}.avi" for name in names[1:]))
    frames(root / "rawframes" / names[0], 3, "frame_{:06}.jpg")
    frames(root / "frames/v_Archery_g01_c01", 4, "image_{:05}.jpg")
    video(root / "UCF-101" / f"{names[2]}.avi")
    manifest = prepare(adapter("ucf101"), root, "1")
    assert [(v.id, v.path, v.facts.frames, v.facts.problem) for v in manifest.videos] == [
        (names[0], f"rawframes/{names[0]}", 3, None),
        (names[1], "frames/v_Archery_g01_c01", 4, None),
        (names[2], f"UCF-101/{names[2]}.avi", 6, None),
    ]


def test_hmdb51_frames_replace_the_videos_of_a_class(tmp_path: Path) -> None:
    root = tmp_path / "hmdb"
    lines(root / "testTrainMulti_7030_splits/sword_test_split1.txt", "A_sword_f_0.avi 1 ", "B_sword_f_0.avi 2 ")
    frames(root / "hmdb51_org/sword/A_sword_f_0", 3)
    video(root / "hmdb51_org/sword/B_sword_f_0.avi")
    listed = adapter("hmdb51").list_videos(root, "1")
    assert [v.path for v in listed] == ["hmdb51_org/sword/A_sword_f_0", "hmdb51_org/sword/B_sword_f_0.avi"]


def test_a_csv_may_name_frames_or_the_video_that_they_were_taken_from(tmp_path: Path) -> None:
    root = table(tmp_path / "own", "a/1,a,train,", "a/2.mp4,a,test,", "a/3.mp4,a,test,")
    frames(root / "a/1", 3)
    frames(root / "a/2", 4)
    listed = adapter("folder").list_videos(root, "videos.csv")
    assert [(v.id, v.path) for v in listed] == [("a/1", "a/1"), ("a/2.mp4", "a/2"), ("a/3.mp4", "a/3.mp4")]
    assert [v.facts.frames for v in prepare(adapter("folder"), root, "videos.csv").videos] == [3, 4, 0]


def test_a_changed_folder_of_frames_is_read_again(tmp_path: Path) -> None:
    root = table(tmp_path / "own", "a,a,train,")
    frames(root / "a", 3)
    before = prepare(adapter("folder"), root, "videos.csv")
    Image.fromarray(barcode_frame(9, 96, 48)).save(root / "a/img_00004.jpg")
    after = prepare(adapter("folder"), root, "videos.csv")
    assert [v.facts.frames for v in (*before.videos, *after.videos)] == [3, 4]
    assert after.sha256 != before.sha256


def test_every_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        touch(tmp_path / f"train/a/{number}.mp4")
    read: list[str] = []
    real = Tree._read
    monkeypatch.setattr(Tree, "_read", lambda self, folder: (read.append(folder), real(self, folder))[1])
    tree = Tree(tmp_path)
    assert all(tree.has(f"train/a/{number}.mp4") for number in range(50))
    assert not tree.has("train/b/1.mp4")
    assert read == ["train/a/", "train/b/"]


def test_a_link_to_itself_is_left_out_with_its_problem(tmp_path: Path) -> None:
    video(tmp_path / "sound.mp4", frames=8)
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "broken.mp4").symlink_to("nowhere.mp4")
    assert Tree(tmp_path).entries("") == {"sound.mp4": False, "loop.mp4": False}
    names = ("sound", "loop", "broken")
    lines(tmp_path / "videos.csv", "path,class,split", *(f"{name}.mp4,a,train" for name in names))
    problems = {v.id: v.problem for v in prepare(adapter("folder"), tmp_path, "videos.csv").videos}
    assert problems == {
        "sound.mp4": None,
        "loop.mp4": "Too many levels of symbolic links",
        "broken.mp4": "missing",
    }


# --- the publishers' own lists, where they are at hand

REFERENCE = Path(os.environ.get("VCIL_BENCH_REFERENCE", "")) / "protocols"


def published(name: str, root: Path, split: str) -> str:
    """Return the verdict on the lists of a root."""
    listed = adapter(name).list_videos(root, split)
    return adapter(name).published[split].verdict([(v.label, v.split) for v in listed])


@pytest.mark.slow
@pytest.mark.skipif(
    "VCIL_BENCH_REFERENCE" not in os.environ, reason="VCIL_BENCH_REFERENCE names no folder of lists"
)
def test_the_published_lists_are_read_in_full(tmp_path: Path) -> None:
    ucf, hmdb, k400, something = (tmp_path / name for name in ("ucf", "hmdb", "k400", "ssv2"))
    shutil.copytree(REFERENCE / "ucf101", ucf / "ucfTrainTestlist")
    touch(ucf / "UCF-101/Archery/v_Archery_g01_c01.avi")
    for split, counts in (("1", "9537 train / 3783"), ("2", "9586 train / 3734"), ("3", "9624 train / 3696")):
        assert published("ucf101", ucf, split) == f"lists as published: {counts} test"
    assert {v.label for v in adapter("ucf101").list_videos(ucf, "1")} == set(load("tcd_ucf101_10x5").class_names)

    shutil.copytree(REFERENCE / "hmdb51/testTrainMulti_7030_splits", hmdb / "testTrainMulti_7030_splits")
    listed = (hmdb / "testTrainMulti_7030_splits/wave_test_split1.txt").read_text(encoding="utf-8")
    touch(hmdb / "wave" / listed.split()[0])
    for split in ("1", "2", "3"):
        assert published("hmdb51", hmdb, split) == "lists as published: 3570 train / 1530 test"

    k400.mkdir()
    for name in ("val", "train"):  # the training list is larger than one would keep here
        shutil.copy(REFERENCE / "kinetics400/kinetics-400_val.csv", k400 / f"kinetics-400_{name}.csv")
    touch(k400 / "val/0wR5jVB-WPk_000417_000427.mp4")
    verdict = published("kinetics400", k400, "official")
    assert verdict == "LISTS DIFFER: 19906 train videos listed, published are 246534 or 240258"
    labels = {v.label for v in adapter("kinetics400").list_videos(k400, "official")}
    assert labels == set(load("kinetics400_40x10_seeded").class_names)

    something.mkdir()
    source = REFERENCE / "ssv2"
    shutil.copy(source / "something-something-v2-labels.json", something)
    names = (source / "category.txt").read_text(encoding="utf-8").splitlines()
    for part in ("train", "validation"):
        rows = (source / f"{part}_id_label.txt").read_text(encoding="utf-8").splitlines()
        entries = [{"id": row.split()[0], "template": names[int(row.split()[1])]} for row in rows]
        (something / f"something-something-v2-{part}.json").write_text(json.dumps(entries), encoding="utf-8")
    touch(something / "videos/78687.webm")
    assert published("ssv2", something, "official") == "lists as published: 168913 train / 24777 test"
    labels = {v.label for v in adapter("ssv2").list_videos(something, "official")}
    assert labels == set(load("tcd_ssv2_10x9").class_names)
