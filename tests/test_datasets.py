from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from clip_factory import barcode_video

from vcil_bench.data import manifest as manifests
from vcil_bench.data.datasets import DatasetError, adapter
from vcil_bench.data.manifest import DataError, Manifest, manifest_path, prepare, summary
from vcil_bench.protocol import Protocol, load
from vcil_bench.stream import TaskStream

HEADER = "path,class,split,group\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCIL_BENCH_CACHE", str(tmp_path / "cache"))


def video(path: Path, frames: int = 6, first: int = 0) -> Path:
    """Make a video of a few kilobytes, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return barcode_video(path, frames, first=first, width=96, height=48, codec="mpeg4")


def lines(path: Path, *content: str, end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in content).encode())


def table(root: Path, *rows: str, header: str = HEADER, name: str = "videos.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return root


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
    assert "'ucf-101' (did you mean 'ucf101'?); known: ucf101, hmdb51, folder, synthetic" in str(error.value)


# --- manifests

SOUND = {  # path: (class, split, frames, first number burnt in)
    "a/1.avi": ("a", "train", 6, 0),
    "a/2.avi": ("a", "test", 7, 10),
    "b/1.avi": ("b", "train", 8, 20),
    "b/2.avi": ("b", "test", 9, 30),
    "c/1.avi": ("c", "train", 10, 40),
    "c/2.avi": ("c", "test", 11, 50),
}


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make six sound videos of three classes; to be copied, not changed."""
    root = tmp_path_factory.mktemp("sound")
    for path, (_, _, frames, first) in SOUND.items():
        video(root / path, frames, first)
    return table(root, *(f"{path},{label},{split}," for path, (label, split, _, _) in SOUND.items()))


@pytest.fixture
def root(sound_files: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound_files, tmp_path / "root"))


def prepared(root: Path) -> Manifest:
    return prepare(adapter("folder"), root, "videos.csv")


def damage(root: Path) -> dict[str, str]:
    """Break four of the six videos in four ways and return what should be said of each."""
    (root / "a/1.avi").unlink()
    (root / "a/2.avi").write_bytes(b"")
    (root / "b/1.avi").write_text("<html>404 Not Found</html>" * 50, encoding="utf-8")
    whole = (root / "c/1.avi").read_bytes()
    (root / "c/1.avi").write_bytes(whole[: int(len(whole) * 0.95)])  # most of so small an AVI is its header
    return {
        "a/1.avi": "missing",
        "a/2.avi": "empty",
        "b/1.avi": "not a video",
        "c/1.avi": "data are missing",
    }


def test_prepare_counts_the_frames_of_sound_videos(root: Path) -> None:
    manifest = prepared(root)
    assert {v.path: (v.label, v.split, v.frames) for v in manifest.videos} == {
        path: facts[:3] for path, facts in SOUND.items()
    }
    assert manifest.left_out() == []
    assert manifest.class_names() == ["a", "b", "c"]
    assert [v.path for v in manifest.usable("test")] == ["a/2.avi", "b/2.avi", "c/2.avi"]
    manifest.check_complete(0.0)


def test_prepare_names_every_broken_video(root: Path) -> None:
    said = damage(root)
    manifest = prepared(root)
    problems = {v.path: v.problem for v in manifest.left_out()}
    assert problems.keys() == said.keys()
    for path, text in said.items():
        assert text in str(problems[path])
    assert [v.path for v in manifest.usable("train") + manifest.usable("test")] == ["b/2.avi", "c/2.avi"]
    frames = {v.path: v.frames for v in manifest.videos}
    assert frames["a/1.avi"] == frames["a/2.avi"] == frames["b/1.avi"] == 0
    assert 0 < frames["c/1.avi"] < 10  # those before the damage; the video is left out all the same


def test_prepare_writes_manifest_and_report(root: Path, tmp_path: Path) -> None:
    said = damage(root)
    manifest = prepared(root)
    path = manifest_path("folder", root, "videos.csv")
    assert path.is_relative_to(tmp_path / "cache")
    header, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (header["dataset"], header["kind"], header["root"]) == ("folder", "real", str(root))
    assert rows == [dataclasses.asdict(v) for v in manifest.videos]
    report = json.loads(path.with_suffix(".report.json").read_text(encoding="utf-8"))
    assert {entry["id"] for entry in report["left_out"]} == said.keys()
    assert report["counts"] == {
        "train": {"usable": 0, "left_out": 3},
        "test": {"usable": 2, "left_out": 1},
        "unused": {"usable": 0, "left_out": 0},
    }
    assert report["sha256"] == manifest.sha256


def test_prepare_reports_progress_to_the_end(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(adapter("folder"), root, "videos.csv", lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]


def test_unchanged_files_are_not_read_again_and_changed_ones_are(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepared(root)
    read: list[str] = []
    real: Callable = manifests.probe

    def probe(path: Path) -> object:
        read.append(path.relative_to(root).as_posix())
        return real(path)

    monkeypatch.setattr(manifests, "probe", probe)
    assert prepared(root) == before
    assert read == []
    video(root / "b/2.avi", frames=12)
    after = prepared(root)
    assert read == ["b/2.avi"]
    assert {v.path: v.frames for v in after.videos}["b/2.avi"] == 12
    assert after.sha256 != before.sha256


def test_a_file_of_the_same_size_but_another_time_is_read_again(root: Path) -> None:
    before = prepared(root)
    path = root / "b/2.avi"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, 0))
    assert prepared(root).sha256 != before.sha256


def test_facts_are_shared_between_the_splits_of_a_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(root)
    shutil.copy(root / "videos.csv", root / "other.csv")
    monkeypatch.setattr(manifests, "probe", None)
    assert len(prepare(adapter("folder"), root, "other.csv").usable("train")) == 3


def test_manifest_hash_does_not_depend_on_where_the_files_lie(root: Path, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(root, tmp_path / "elsewhere"))
    os.utime(elsewhere / "a/1.avi", ns=(0, 0))
    assert prepared(elsewhere).sha256 == prepared(root).sha256


@pytest.mark.parametrize(
    "change", [{"label": "b"}, {"split": "test"}, {"frames": 5}, {"sha256": "0"}, {"problem": "damaged"}]
)
def test_manifest_hash_changes_with_what_a_result_depends_on(root: Path, change: dict[str, object]) -> None:
    manifest = prepared(root)
    videos = (dataclasses.replace(manifest.videos[0], **change), *manifest.videos[1:])
    assert dataclasses.replace(manifest, videos=videos).sha256 != manifest.sha256


@pytest.mark.parametrize("line", ['{"id": "a/1.avi"}', '{"id": "a/1'])
def test_a_stored_manifest_of_another_version_is_made_anew(root: Path, line: str) -> None:
    manifest = prepared(root)
    path = manifest_path("folder", root, "videos.csv")
    path.write_text(f'{{"schema": 0}}\n{line}\n', encoding="utf-8")
    assert prepared(root) == manifest


def test_too_many_missing_videos_are_refused(root: Path) -> None:
    (root / "b/2.avi").unlink()
    manifest = prepared(root)
    with pytest.raises(DataError, match=r"1 of 3 test videos of folder.*first: b/2\.avi: missing") as error:
        manifest.check_complete(0.3)
    assert "max_missing" in str(error.value)
    manifest.check_complete(0.34)


def test_a_split_without_videos_is_never_complete(tmp_path: Path) -> None:
    root = table(tmp_path / "own", "1.avi,a,train,")
    video(root / "1.avi")
    with pytest.raises(DataError, match="lists no test videos"):
        prepared(root).check_complete(1.0)


def test_leaks_between_train_and_test_are_found(root: Path) -> None:
    clean = summary(prepared(root))
    assert clean["test_videos_sharing_a_group_with_train"] is None
    assert clean["identical_files_in_train_and_test"] == []
    shutil.copy(root / "a/1.avi", root / "a/2.avi")
    rows = [f"{path},{label},{split}," for path, (label, split, _, _) in SOUND.items()]
    rows[2:4] = ["b/1.avi,b,train,scene", "b/2.avi,b,test,scene"]
    rows[4:6] = ["c/1.avi,c,train,one", "c/2.avi,c,test,other"]
    rows.append("c/3.avi,c,unused,other")  # what nobody trains on leaks nothing
    shutil.copy(root / "c/2.avi", root / "c/3.avi")
    found = summary(prepared(table(root, *rows)))
    assert found["test_videos_sharing_a_group_with_train"] == 1
    assert found["identical_files_in_train_and_test"] == [["a/1.avi", "a/2.avi"]]


# --- the stream of tasks


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    path = tmp_path / "own.yaml"
    content = {
        "name": "own",
        "version": 1,
        "dataset": {"name": "folder", "split": "videos.csv"},
        "classes": {
            "num": 3,
            "names": ["a", "b", "c"],
            "order": {"kind": "listed", "names": ["c", "a", "b"]},
        },
        "tasks": {"sizes": [1, 2]},
        "seeds": [1],
        "clip": {"frames": 4, "size": 32},
        "metrics": {"headline": "final_accuracy"},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load(path)


def test_labels_are_positions_in_the_class_order(root: Path, protocol: Protocol) -> None:
    stream = TaskStream(protocol, prepared(root), 1)
    assert len(stream) == 2
    base, step = stream.task(0), stream.task(1)
    assert (base.class_ids, base.class_names, base.num_old, base.num_seen) == ((2,), ("c",), 0, 1)
    assert (step.class_ids, step.class_names, step.num_old, step.num_seen) == ((0, 1), ("a", "b"), 1, 3)
    assert [(s.id, s.label, s.frames) for s in base.train] == [("c/1.avi", 0, 10)]
    assert [(s.id, s.label, s.frames) for s in step.train] == [("a/1.avi", 1, 6), ("b/1.avi", 2, 8)]
    assert [s.path for s in base.train] == [root / "c/1.avi"]
    assert [(s.id, s.label) for s in stream.test(1)] == [("a/2.avi", 1), ("b/2.avi", 2)]


def test_tasks_hold_no_test_video_and_all_training_videos(root: Path, protocol: Protocol) -> None:
    manifest = prepared(root)
    stream = TaskStream(protocol, manifest, 1)
    train = [s.id for index in range(2) for s in stream.task(index).train]
    test = [s.id for index in range(2) for s in stream.test(index)]
    assert sorted(train) == [v.id for v in manifest.usable("train")]
    assert sorted(test) == [v.id for v in manifest.usable("test")]
    assert not set(test) & {s.id for s in stream.task(1, cumulative=True).train}


def test_a_cumulative_task_holds_all_earlier_training_videos(root: Path, protocol: Protocol) -> None:
    stream = TaskStream(protocol, prepared(root), 1)
    plain, cumulative = stream.task(1), stream.task(1, cumulative=True)
    assert cumulative.train == stream.task(0).train + plain.train
    assert dataclasses.replace(cumulative, train=plain.train) == plain
    assert stream.task(0, cumulative=True) == stream.task(0)


def test_broken_videos_do_not_reach_a_task(root: Path, protocol: Protocol) -> None:
    video(root / "a/3.avi")
    table(root, *(f"{p},{label},{s}," for p, (label, s, _, _) in SOUND.items()), "a/3.avi,a,train,")
    (root / "a/1.avi").write_bytes(b"")
    stream = TaskStream(protocol, prepared(root), 1)
    assert [s.id for s in stream.task(1).train] == ["a/3.avi", "b/1.avi"]


@pytest.mark.parametrize(("path", "split"), [("b/1.avi", "train"), ("b/2.avi", "test")])
def test_a_class_without_a_usable_video_is_refused(
    root: Path, protocol: Protocol, path: str, split: str
) -> None:
    (root / path).unlink()
    with pytest.raises(DataError, match=f"class 'b' has no usable {split} video"):
        TaskStream(protocol, prepared(root), 1)


@pytest.mark.parametrize(
    ("row", "said"),
    [("b/1.avi,B,train,", "not in the protocol: 'B'"), ("b/1.avi,b,unused,", "no video of: 'b'")],
)
def test_data_of_other_classes_are_refused(root: Path, protocol: Protocol, row: str, said: str) -> None:
    others = [f"{p},{label},{s}," for p, (label, s, _, _) in SOUND.items() if label != "b"]
    with pytest.raises(DataError, match=f"not those of protocol 'own'.*{said}"):
        TaskStream(protocol, prepared(table(root, *others, row)), 1)


def test_names_left_to_the_data_are_sorted_and_counted(root: Path, protocol: Protocol) -> None:
    shuffled = {"classes.names": None, "classes.order": {"kind": "numpy_shuffle"}}
    stream = TaskStream(protocol.derive(shuffled), prepared(root), 1)
    assert stream.class_names == ["a", "b", "c"]
    two = protocol.derive({**shuffled, "classes.num": 2, "tasks.sizes": [1, 1]})
    with pytest.raises(DataError, match="3 classes found, protocol 'own' has 2"):
        TaskStream(two, prepared(root), 1)
