"""The adapters: official lists and folders as they circulate, turned into labelled videos."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dataset_factory import HEADER, lines, table, video

from vcil_bench.data.datasets import DatasetError, adapter
from vcil_bench.data.prepare import prepare
from vcil_bench.data.prepare.report import summary

pytestmark = pytest.mark.usefixtures("own_cache")


# --- UCF101


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Lay out two classes, two groups each, as the publishers do; split 2 swaps train and test."""
    root = tmp_path / "ucf"
    first = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "HandstandPushups/v_HandStandPushups_g09_c02.avi"]
    second = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c03.avi"]
    for number, name in enumerate(first + second):
        video(root / "UCF-101" / name, first=number)
    for split, train, test in (("01", first, second), ("02", second, first)):
        numbered = [f"{name} {number}" for number, name in enumerate(train, start=1)]
        lines(root / f"ucfTrainTestlist/trainlist{split}.txt", *numbered, "", end="\r\n")
        lines(root / f"ucfTrainTestlist/testlist{split}.txt", *test, end="\r\n")
    lines(root / "ucfTrainTestlist/trainlist03.txt", end="\r\n")  # its test list is not there
    return root


def test_ucf101_lists_give_labels_groups_and_splits(ucf: Path) -> None:
    assert adapter("ucf101").splits(ucf) == ["1", "2"]
    listed = adapter("ucf101").list_videos(ucf, "1")
    assert [(v.id, v.label, v.split, v.group) for v in listed] == [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "ApplyEyeMakeup", "train", "g08"),
        ("HandstandPushups/v_HandStandPushups_g09_c02", "HandstandPushups", "train", "g09"),
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01", "ApplyEyeMakeup", "test", "g01"),
        ("HandstandPushups/v_HandStandPushups_g01_c03", "HandstandPushups", "test", "g01"),
    ]
    assert all((ucf / v.path).is_file() for v in listed)
    swapped = {v.id: v.split for v in adapter("ucf101").list_videos(ucf, "2")}
    assert swapped == {v.id: {"train": "test", "test": "train"}[v.split] for v in listed}


def test_ucf101_class_folders_and_lists_may_lie_at_the_top(ucf: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(ucf / "UCF-101", flat)
    shutil.copytree(ucf / "ucfTrainTestlist", flat, dirs_exist_ok=True)
    nested, top = (adapter("ucf101").list_videos(root, "1") for root in (ucf, flat))
    assert [v.id for v in top] == [v.id for v in nested]
    assert all((flat / v.path).is_file() for v in top)


def test_ucf101_line_that_names_no_video_is_refused_with_its_place(ucf: Path) -> None:
    path = ucf / "ucfTrainTestlist/testlist01.txt"
    path.write_text("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\nApplyEyeMakeup.zip\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"testlist01\.txt, line 2: 'ApplyEyeMakeup\.zip'"):
        adapter("ucf101").list_videos(ucf, "1")


def test_ucf101_list_that_is_no_text_is_refused(ucf: Path) -> None:
    for content in (b"\xff\xfe\x00", b"a\0b.avi 1"):
        (ucf / "ucfTrainTestlist/trainlist01.txt").write_bytes(content)
        with pytest.raises(DatasetError, match=r"trainlist01\.txt: "):
            adapter("ucf101").list_videos(ucf, "1")


@pytest.mark.parametrize("row", ["a\0b.mp4,a,train", "a.mp4,a\0,train"])
def test_a_csv_with_a_nul_is_refused_with_its_place(row: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(f"path,class,split\n{row}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"mine\.csv, line 2: holds a NUL"):
        adapter("folder").list_videos(tmp_path, "mine.csv")


def test_a_folder_in_place_of_a_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").mkdir()
    with pytest.raises(DatasetError, match=r"mine\.csv: cannot be read"):
        adapter("folder").list_videos(tmp_path, "mine.csv")


def test_ucf101_split_that_is_not_there_is_refused(ucf: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split '3'; found: 1, 2$"):
        adapter("ucf101").list_videos(ucf, "3")
    with pytest.raises(DatasetError, match=r"no split 'vclimb_10'.*protocol\.dataset\.split=1"):
        adapter("ucf101").list_videos(ucf, "vclimb_10")


def test_lists_without_a_single_video_are_refused(ucf: Path) -> None:
    shutil.rmtree(ucf / "UCF-101")
    with pytest.raises(DatasetError, match="not one of its 4 listed videos is there"):
        adapter("ucf101").list_videos(ucf, "1")


# --- HMDB51


@pytest.fixture
def hmdb(tmp_path: Path) -> Path:
    """Lay out two classes, one of whose names begins with the other's, with all three tags."""
    root = tmp_path / "hmdb"
    tags = {
        "sword": {"Film_one_sword_f_cm_np1_fr_med_0.avi": 1, "Film_one_sword_f_cm_np1_fr_med_1.avi": 2},
        "sword_exercise": {"Jedi_sword_exercise_f_nm_np1_ba_bad_0.avi": 1, "X_sword_exercise_u_0.avi": 0},
    }
    for label, videos in tags.items():
        for number, name in enumerate(videos):
            video(root / "hmdb51_org" / label / name, first=number)
        # The official lists end their lines with a blank.
        rows = [f"{name} {tag} " for name, tag in videos.items()]
        lines(root / f"testTrainMulti_7030_splits/{label}_test_split1.txt", *rows)
        lines(root / f"testTrainMulti_7030_splits/{label}_test_split3.txt", *(r[:-2] + "2 " for r in rows))
    return root


def test_hmdb51_tags_give_train_test_and_unused(hmdb: Path) -> None:
    assert adapter("hmdb51").splits(hmdb) == ["1", "3"]
    listed = adapter("hmdb51").list_videos(hmdb, "1")
    assert [(v.id, v.label, v.split, v.group) for v in listed] == [
        ("sword_exercise/Jedi_sword_exercise_f_nm_np1_ba_bad_0", "sword_exercise", "train", "Jedi"),
        ("sword_exercise/X_sword_exercise_u_0", "sword_exercise", "unused", "X"),
        ("sword/Film_one_sword_f_cm_np1_fr_med_0", "sword", "train", "Film_one"),
        ("sword/Film_one_sword_f_cm_np1_fr_med_1", "sword", "test", "Film_one"),
    ]
    assert all((hmdb / v.path).is_file() for v in listed)
    assert {v.split for v in adapter("hmdb51").list_videos(hmdb, "3")} == {"test"}


def test_hmdb51_unknown_tag_is_refused_with_its_place(hmdb: Path) -> None:
    path = hmdb / "testTrainMulti_7030_splits/sword_test_split1.txt"
    path.write_text("a_sword_0.avi 1\nb_sword_0.avi 3\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"sword_test_split1\.txt, line 2: 'b_sword_0\.avi 3'"):
        adapter("hmdb51").list_videos(hmdb, "1")


def test_unused_videos_are_neither_counted_nor_missed(hmdb: Path) -> None:
    (hmdb / "hmdb51_org/sword_exercise/X_sword_exercise_u_0.avi").unlink()
    manifest = prepare(adapter("hmdb51"), hmdb, "1")
    assert len(manifest.usable("train") + manifest.usable("test")) == 3
    assert manifest.left_out() == []
    assert summary(manifest)["counts"]["unused"] == {"usable": 0, "left_out": 1}
    assert summary(manifest)["test_videos_sharing_a_group_with_train"] == 1


# --- folder with a CSV


@pytest.mark.parametrize("blank", ["", "   ", "\u00a0"])
def test_a_class_of_blanks_is_none(blank: str, tmp_path: Path) -> None:
    root = table(tmp_path / "own", f"a/1.mp4,{blank},train,")
    with pytest.raises(DatasetError, match="line 2"):
        adapter("folder").list_videos(root, "1")


def test_folder_reads_paths_classes_splits_and_groups(tmp_path: Path) -> None:
    root = table(tmp_path / "own", "a/1.mp4,a,train,scene 1", "a/2.mp4,a,test,", "b/3.mp4,b,unused,scene 2")
    listed = adapter("folder").list_videos(root, "1")
    assert [(v.id, v.path, v.label, v.split, v.group) for v in listed] == [
        ("a/1.mp4", "a/1.mp4", "a", "train", "scene 1"),
        ("a/2.mp4", "a/2.mp4", "a", "test", ""),
        ("b/3.mp4", "b/3.mp4", "b", "unused", "scene 2"),
    ]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path,class,split\n", "1.mp4,a,train"),
        ("\ufeffpath,class,split\n", "1.mp4,a,train"),  # as spreadsheet programs write UTF-8
        ("fps,split,note,class,path\n", '25,train,"x, y",a,1.mp4'),
        ("path,class,split,group\n", "1.mp4,a,train"),
    ],
)
def test_folder_takes_other_columns_and_no_group(tmp_path: Path, header: str, row: str) -> None:
    (listed,) = adapter("folder").list_videos(table(tmp_path / "own", row, header=header), "1")
    assert (listed.path, listed.label, listed.split, listed.group) == ("1.mp4", "a", "train", "")


def test_folder_csv_is_chosen_by_the_split(tmp_path: Path) -> None:
    root = table(tmp_path / "own", "1.mp4,a,train,", name="easy.csv")
    table(root, "1.mp4,a,test,", name="hard.csv")
    folder = adapter("folder")
    assert folder.splits(root) == ["easy.csv", "hard.csv"]
    assert [folder.list_videos(root, name)[0].split for name in ("easy.csv", "hard.csv")] == ["train", "test"]
    with pytest.raises(DatasetError, match=r"exactly one CSV is needed, it has easy\.csv, hard\.csv"):
        folder.list_videos(root, "1")
    with pytest.raises(DatasetError, match=r"a CSV named 'esy\.csv' is needed, it has easy\.csv, hard\.csv"):
        folder.list_videos(root, "esy.csv")


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("path,label,split\n", ["1.mp4,a,train"], "no column 'class'; it has: path, label, split"),
        ("path;class;split\n", ["1.mp4;a;train"], "no column 'path'"),
        ("", [], "no column 'path'"),
        (HEADER, [], "the list is empty"),
        (HEADER, ["1.mp4,a,tain,"], "line 2: split 'tain' is not one of .*did you mean 'train'"),
        (HEADER, ["1.mp4,a,val,"], "line 2: split 'val' is not one of train, test, unused"),
        (HEADER, ["1.mp4,a"], "line 2: split None is not one of"),
        (HEADER, ["1.mp4,,train,"], "line 2: the class is empty"),
        (HEADER, [",a,train,"], "line 2: path '' is not below the root"),
        (HEADER, ["../1.mp4,a,train,"], r"path '\.\./1\.mp4' is not below the root"),
        (HEADER, ["a/../../1.mp4,a,train,"], "is not below the root"),
        (HEADER, ["/data/1.mp4,a,train,"], "path '/data/1.mp4' is not below the root"),
        (HEADER, ["1.mp4,a,train,", "2.mp4,a,test,", "./1.mp4,a,test,"], "line 4: './1.mp4' is listed twice"),
    ],
)
def test_folder_csv_that_is_malformed_is_refused(
    tmp_path: Path, header: str, rows: list[str], said: str
) -> None:
    root = table(tmp_path / "own", *rows, header=header)
    with pytest.raises(DatasetError, match=said) as error:
        adapter("folder").list_videos(root, "1")
    assert str(root / "videos.csv") in str(error.value)


def test_folder_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    root = table(tmp_path / "own")
    (root / "videos.csv").write_bytes("path,class,split\n1.mp4,café,train\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"videos\.csv"):
        adapter("folder").list_videos(root, "1")


# --- wrong roots and names


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "folder"])
def test_a_root_that_is_not_there_is_refused_with_the_layout(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"no folder '.*nowhere' for dataset '{name}'") as error:
        adapter(name).list_videos(tmp_path / "nowhere", "1")
    assert adapter(name).layout in str(error.value)


@pytest.mark.parametrize(
    ("name", "other"), [("ucf101", "hmdb"), ("hmdb51", "ucf"), ("folder", "ucf"), ("folder", "hmdb")]
)
def test_the_root_of_another_dataset_is_refused(name: str, other: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(other)
    with pytest.raises(DatasetError, match=f"does not look like dataset '{name}'") as error:
        adapter(name).list_videos(root, "1")
    assert adapter(name).layout in str(error.value)


def test_an_unknown_dataset_is_refused_with_a_suggestion() -> None:
    with pytest.raises(DatasetError) as error:
        adapter("ucf-101")
    assert "'ucf-101' (did you mean 'ucf101'?); known: ucf101, hmdb51, ssv2, kinetics400" in str(error.value)
