"""What prepare finds in a folder, and the tasks that a protocol makes of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dataset_factory import table, video

from vcil_bench.data.datasets import adapter
from vcil_bench.data.manifest import DataError, Manifest, manifest_path
from vcil_bench.data.prepare import prepare
from vcil_bench.data.prepare import read_facts as fact_reader
from vcil_bench.data.prepare.report import summary
from vcil_bench.protocol import Protocol, load
from vcil_bench.stream import TaskStream

pytestmark = pytest.mark.usefixtures("own_cache")


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
    assert {v.path: (v.label, v.split, v.facts.frames) for v in manifest.videos} == {
        path: facts[:3] for path, facts in SOUND.items()
    }
    assert manifest.left_out() == []
    assert manifest.class_names() == ["a", "b", "c"]
    assert [v.path for v in manifest.usable("test")] == ["a/2.avi", "b/2.avi", "c/2.avi"]
    manifest.check_complete(0.0)


def test_prepare_names_every_broken_video(root: Path) -> None:
    said = damage(root)
    manifest = prepared(root)
    problems = {v.path: v.facts.problem for v in manifest.left_out()}
    assert problems.keys() == said.keys()
    for path, text in said.items():
        assert text in str(problems[path])
    assert [v.path for v in manifest.usable("train") + manifest.usable("test")] == ["b/2.avi", "c/2.avi"]
    frames = {v.path: v.facts.frames for v in manifest.videos}
    assert frames["a/1.avi"] == frames["a/2.avi"] == frames["b/1.avi"] == 0
    assert 0 < frames["c/1.avi"] < 10  # those before the damage; the video is left out all the same


def test_prepare_writes_manifest_and_report(root: Path, tmp_path: Path) -> None:
    said = damage(root)
    manifest = prepared(root)
    path = manifest_path("folder", root, "videos.csv")
    assert path.is_relative_to(tmp_path / "cache")
    header, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (header["dataset"], header["kind"], header["root"]) == ("folder", "real", str(root))
    flat = [dataclasses.asdict(v) for v in manifest.videos]
    assert all(row.pop("interval") is row.pop("excluded") is None for row in flat)  # of whole videos not written
    assert rows == [row | row.pop("facts") for row in flat]
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
    real: Callable = fact_reader.probe

    def probe(path: Path) -> object:
        read.append(path.relative_to(root).as_posix())
        return real(path)

    monkeypatch.setattr(fact_reader, "probe", probe)
    assert prepared(root) == before
    assert read == []
    video(root / "b/2.avi", frames=12)
    after = prepared(root)
    assert read == ["b/2.avi"]
    assert {v.path: v.facts.frames for v in after.videos}["b/2.avi"] == 12
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
    monkeypatch.setattr(fact_reader, "probe", None)
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
    first = manifest.videos[0]
    if change.keys() & {"label", "split"}:
        first = dataclasses.replace(first, **change)
    else:
        first = dataclasses.replace(first, facts=dataclasses.replace(first.facts, **change))
    videos = (first, *manifest.videos[1:])
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
    assert [s.path for s in base.train] == [str(root / "c/1.avi")]
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
