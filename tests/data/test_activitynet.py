"""ActivityNet: the authors' pickles in their shape, what they list over a folder of videos, and a run on it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clip_factory import barcode_frame, encode_frames
from dataset_factory import video
from PIL import Image
from tiny_dataset import Tiny

from vcil_bench import cli, record
from vcil_bench.common.errors import UserError
from vcil_bench.data import loader as loader_module
from vcil_bench.data.activitynet import Instance, read_instance
from vcil_bench.data.datasets import DatasetError, VideosMissing, adapter, vclimb_import
from vcil_bench.data.datasets.vclimb_import import Source, VclimbError, git_blob, import_pickle
from vcil_bench.data.prepare import prepare
from vcil_bench.data.prepare.report import summary
from vcil_bench.protocol import imported_lists, load
from vcil_bench.testing.small_data import COLOURS, draw_clip
from vcil_bench.training.resume import PhaseSaver

pytestmark = pytest.mark.usefixtures("own_cache")

TRIMMED, UNTRIMMED = "vclimb_activitynet_10_trimmed", "vclimb_activitynet_10_untrimmed"
Item = dict[str, str]
Lists = dict[str, list[dict[str, list[Item]]]]


def name_of(number: int) -> str:
    return f"v_{number:_>11}"


def item(number: int, start: float, end: float, duration: float = 2.0) -> Item:
    """Make an instance as the authors' files hold it: six texts."""
    return {
        "t_start": str(start),
        "t_end": str(end),
        "video_duration": str(duration),
        "filename": name_of(number),
        "fps": "30.0",
        "video_frames": str(30 * duration),
    }


def lists_of(tasks: int = 10) -> Lists:
    """Make lists in the authors' order with a video of two instances and one of one in every class."""
    loaded = load(f"vclimb_activitynet_{tasks}_trimmed")
    names = [[loaded.class_names[i] for i in ids] for ids in loaded.tasks(1000)]
    numbers = {name: 2 * number for number, name in enumerate(n for task in names for n in task)}
    return {
        part: [
            {
                name: [
                    item(base + numbers[name], 0.0, 0.5),
                    item(base + numbers[name], 0.75, 2.0),
                    item(base + numbers[name] + 1, 0.5, 1.5),
                ]
                for name in task
            }
            for task in names
        ]
        for base, part in ((0, "train"), (1000, "val"))
    }


def write(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=3))
    return path


def known(monkeypatch: pytest.MonkeyPatch, path: Path, *protocols: str) -> Path:
    """Take a made file for the authors' file, whose blob id and number of videos it does not have."""
    blob = git_blob(path.read_bytes())
    sources = [
        dataclasses.replace(s, git_blob=blob, videos=None) if set(protocols) & set(s.protocols.values()) else s
        for s in vclimb_import.SOURCES
    ]
    monkeypatch.setattr(vclimb_import, "SOURCES", tuple(sources))
    return path


def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: Lists) -> None:
    import_pickle(known(monkeypatch, write(tmp_path / "made.pkl", lists), TRIMMED))


# --- items and pickles


def test_an_item_is_six_texts() -> None:
    assert read_instance(item(7, 0.25, 1.5)) == Instance(name_of(7), 0.25, 1.5, 2.0, 30.0)


@pytest.mark.parametrize(
    "change",
    [
        {"filename": "v_short"},
        {"filename": "x_12345678901"},
        {"filename": "../v_12345678901"},
        {"t_start": "soon"},
        {"t_start": "nan"},
        {"t_end": "inf"},
        {"t_end": 1.5},
        {"fps": "0"},
        {"video_duration": "-1"},
        {"label": "Surfing"},
    ],
)
def test_other_items_are_none(change: dict[str, Any]) -> None:
    assert read_instance({**item(7, 0.25, 1.5), **change}) is None
    assert read_instance("v_12345678901") is None
    assert read_instance({k: v for k, v in item(7, 0.25, 1.5).items() if k != "fps"}) is None


def spoilt(change: str) -> Lists:
    """Return lists that are wrong in one way."""
    lists = lists_of()
    train = lists["train"]
    if change == "a test list":
        lists["test"] = lists["val"]
    elif change == "the order of another file":
        return lists_of(20)
    elif change == "two classes swapped":
        items = list(train[0].items())
        train[0] = dict([items[1], items[0], *items[2:]])
    elif change == "another class in val":
        lists["val"][0]["Kitesurfing"] = lists["val"][0].pop("Hula hoop")
    elif change == "a number as a number":
        train[0]["Hula hoop"][0]["t_start"] = 0.5  # type: ignore[assignment]
    elif change == "a class without training videos":
        train[0]["Hula hoop"] = []
    elif change == "a class of instances without a length":
        lists["val"][0]["Hula hoop"] = [item(1002, 1.0, 1.0), item(1003, 1.5, 0.5)]
    elif change == "a class whose videos have another, too":
        train[0]["Hula hoop"] = [item(0, 0.0, 0.5), item(1, 0.0, 0.5)]
    return lists


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("a test list", "its lists are not named train, val;"),
        ("the order of another file", r"its tasks have \[10, 10, .* classes, not \[20, 20, "),
        ("two classes swapped", "its class order is not that of vclimb_activitynet_10_trimmed"),
        ("another class in val", "the classes of its val tasks are not those of its train tasks"),
        ("a number as a number", r"train, task 0, class 'Hula hoop': cannot tell which video \{'t_start': 0\.5"),
        ("a class without training videos", "train: class 'Hula hoop' has no videos;"),
        (
            "a class of instances without a length",
            "val: class 'Hula hoop' has no instance that ends after it begins",
        ),
        ("a class whose videos have another, too", "train: class 'Making a lemonade' is left without an untrim"),
    ],
)
def test_lists_of_another_shape_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    path = known(monkeypatch, write(tmp_path / "x.pkl", spoilt(change)), TRIMMED)
    with pytest.raises(VclimbError, match=said) as error:
        import_pickle(path)
    assert str(error.value).endswith(f"download ActivityNet_data_10tasks.pkl from {vclimb_import.URL}")
    assert vclimb_import.imported_splits("activitynet") == []


def test_a_file_of_other_instances_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.pkl", lists_of())
    (source,) = (s for s in vclimb_import.SOURCES if TRIMMED in s.protocols.values())
    monkeypatch.setattr(
        vclimb_import, "SOURCES", (dataclasses.replace(source, git_blob=git_blob(path.read_bytes())),)
    )
    with pytest.raises(
        VclimbError, match=r"lists \(600, 600\) videos for \('train', 'val'\), not \(15410, 7654"
    ):
        import_pickle(path)


@pytest.mark.parametrize("tasks", [10, 20])
def test_one_file_gives_trimmed_and_untrimmed_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tasks: int
) -> None:
    names = [f"vclimb_activitynet_{tasks}_{kind}" for kind in ("trimmed", "untrimmed")]
    path = known(monkeypatch, write(tmp_path / "made.pkl", lists_of(tasks)), *names)
    assert cli.main(["prepare", "vclimb", "--pickle", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"200 classes in {tasks} tasks; videos: 600 train, 600 val" in said
    assert f"protocol {names[0]} and protocol {names[1]} can now be run" in said
    splits = [f"vclimb_{tasks}_trimmed", f"vclimb_{tasks}_untrimmed"]
    assert adapter("activitynet").splits(tmp_path) == splits


# --- the list over a folder


def folder_of_frames(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(barcode_frame(number, 96, 48)).save(folder / f"img_{number + 1:05}.jpg")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Lay out videos of the first classes of the made lists, in several folders and as frames."""
    root = tmp_path / "anet"
    video(root / f"v1-3/train_val/{name_of(0)}.mp4", frames=50)
    video(root / f"val/{name_of(1000)}.mkv", frames=50)
    folder_of_frames(root / f"rawframes/{name_of(1)}", 60)
    return root


def test_trimmed_splits_list_every_instance(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(tmp_path, monkeypatch, lists_of())
    listed = adapter("activitynet").list_videos(root, "vclimb_10_trimmed")
    assert [v.split for v in listed] == ["train"] * 600 + ["test"] * 600
    assert len({v.id for v in listed}) == 1200
    first = [v for v in listed if v.label == "Making a lemonade"]
    assert [(v.id, v.path, v.group) for v in first] == [
        (f"{name_of(0)}_0", f"v1-3/train_val/{name_of(0)}.mp4", name_of(0)),
        (f"{name_of(0)}_1", f"v1-3/train_val/{name_of(0)}.mp4", name_of(0)),
        (f"{name_of(1)}_0", f"rawframes/{name_of(1)}", name_of(1)),
        (f"{name_of(1000)}_0", f"val/{name_of(1000)}.mkv", name_of(1000)),
        (f"{name_of(1000)}_1", f"val/{name_of(1000)}.mkv", name_of(1000)),
        (f"{name_of(1001)}_0", f"{name_of(1001)}.mp4", name_of(1001)),  # missing
    ]
    parts = [v.interval for v in first]
    assert [(p.start, p.end, p.duration, p.fps, p.min_frames) for p in parts if p is not None] == [
        (0.0, 0.5, 2.0, None, 8),
        (0.75, 2.0, 2.0, None, 8),
        (0.5, 1.5, 2.0, 30.0, 8),
        (0.0, 0.5, 2.0, None, 8),
        (0.75, 2.0, 2.0, None, 8),
        (0.5, 1.5, 2.0, None, 8),
    ]
    manifest = prepare(adapter("activitynet"), root, "vclimb_10_trimmed")
    assert [(v.id, v.span) for v in (*manifest.usable("train"), *manifest.usable("test"))] == [
        (f"{name_of(0)}_0", range(0, 12)),
        (f"{name_of(0)}_1", range(19, 50)),
        (f"{name_of(1)}_0", range(15, 45)),
        (f"{name_of(1000)}_0", range(0, 12)),
        (f"{name_of(1000)}_1", range(19, 50)),
    ]
    found = summary(manifest)
    assert found["missing"] == 1195
    assert found["test_videos_sharing_a_group_with_train"] == 0
    assert found["lists"].startswith("LISTS DIFFER: 600 train videos listed, published are 15410")


def test_untrimmed_splits_list_every_video_once_and_name_those_that_leave(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = lists_of()
    task = lists["train"][0]
    task["Hula hoop"].append(item(1, 0.5, 1.5))  # the second video of the first class: two classes
    task["Disc dog"].append(item(500, 1.5, 1.5))
    task["Disc dog"].append(item(501, 1.5, 0.5))
    imported(tmp_path, monkeypatch, lists)
    listed = adapter("activitynet").list_videos(root, "vclimb_10_untrimmed")
    assert len({v.id for v in listed}) == len(listed) == 402 + 400
    train = [v for v in listed if v.split == "train"]
    assert [v.id for v in train[:4]] == [name_of(0), name_of(2), name_of(3), name_of(4)]
    assert all(v.id == v.group for v in train)
    assert {v.id: (v.label, v.excluded) for v in train if v.excluded} == {
        name_of(1): (
            "Making a lemonade",
            "instances of several classes, which keep no untrimmed video in vCLIMB",
        ),
        name_of(500): ("Disc dog", "no instance with a length, without which vCLIMB keeps no untrimmed video"),
        name_of(501): ("Disc dog", "no instance with a length, without which vCLIMB keeps no untrimmed video"),
    }
    manifest = prepare(adapter("activitynet"), root, "vclimb_10_untrimmed")
    assert [(v.id, v.span) for v in manifest.usable("train")] == [(name_of(0), range(0, 50))]
    counts = summary(manifest)["intervals"]["train"]
    assert sorted(counts["excluded"].values()) == [1, 2]
    assert (counts["intervals"], counts["end_after_the_video"]) == (402, 0)


def test_odd_instances_are_listed_and_counted(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = lists_of()
    lists["train"][0]["Making a lemonade"] += [
        item(0, 1.0, 2.5),  # ends after its video
        item(0, 1.5, 1.0),
        item(0, 0.0, 0.25),
        *[item(0, 0.0, 0.5)] * 3,  # as the first
    ]
    lists["train"][0]["Hula hoop"].append(item(0, 0.0, 1.0))
    imported(tmp_path, monkeypatch, lists)
    manifest = prepare(adapter("activitynet"), root, "vclimb_10_trimmed")
    counts = summary(manifest)["intervals"]["train"]
    assert counts == {
        "intervals": 607,
        "videos": 400,
        "end_after_the_video": 1,
        "do_not_end_after_they_begin": 1,
        "repeat_another": 3,
        "videos_of_several_classes": 1,
        "too_few_frames": 2,
        "excluded": {},
    }
    short = {v.id: v.problem for v in manifest.left_out() if v.is_too_short}
    assert short == {
        f"{name_of(0)}_3": "1.5 to 1 s have 0 frames, fewer than 8",
        f"{name_of(0)}_4": "0 to 0.25 s have 6 frames, fewer than 8",
    }
    assert {v.id: v.span for v in manifest.usable("train")}[f"{name_of(0)}_2"] == range(25, 50)


def test_a_folder_without_imported_lists_is_told_how_to_get_them(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anet = adapter("activitynet")
    for split, file in (("vclimb_10_untrimmed", "10tasks"), ("vclimb_20_trimmed", "20tasks")):
        with pytest.raises(DatasetError, match=rf"get https://.*/ActivityNet_data_{file}\.pkl and import it"):
            anet.list_videos(root, split)
    with pytest.raises(DatasetError, match="no split 'mine'; found: none; its splits are the vCLIMB authors'"):
        anet.list_videos(root, "mine")
    assert cli.main(["prepare", "activitynet", str(root)]) == 2
    said = capsys.readouterr().err
    assert f"{root}: no list of activitynet is imported" in said
    assert "vclimb_10_trimmed, vclimb_10_untrimmed from ActivityNet_data_10tasks.pkl; vclimb_20_trimmed" in said
    assert "import it with 'vcil-bench prepare vclimb --pickle FILE'" in said
    with pytest.raises(DatasetError, match="no folder"):
        anet.list_videos(tmp_path / "nowhere", "vclimb_10_trimmed")


def test_stored_lists_that_leave_a_class_without_a_video_are_refused_by_its_name(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(tmp_path, monkeypatch, lists_of())
    (source,) = (s for s in vclimb_import.SOURCES if TRIMMED in s.protocols.values())
    videos = imported_lists.read_videos(source.file, source.git_blob)
    videos["train"]["Hula hoop"] = [item(2, 1.0, 1.0)]
    imported_lists.write(
        source.file, source.git_blob, imported_lists.read_tasks(source.file, source.git_blob), videos
    )
    with pytest.raises(DatasetError, match="train list: class 'Hula hoop' is left without an untrimmed video"):
        adapter("activitynet").list_videos(root, "vclimb_10_untrimmed")


def change_item(stored: Any, key: str, value: str) -> None:
    stored["videos"]["train"]["Hula hoop"][0][key] = value


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: change_item(stored, "fps", "x"),
        lambda stored: change_item(stored, "t_end", "1.9"),
        lambda stored: stored["videos"].pop("val"),
        lambda stored: stored.update(videos=list(stored["videos"])),
        lambda stored: stored.pop("sha256"),
        lambda stored: stored.update(schema=1),
    ],
)
def test_stored_lists_that_were_changed_are_refused(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Any], object]
) -> None:
    imported(tmp_path, monkeypatch, lists_of())
    (path,) = (tmp_path / "cache").rglob("videos.json")
    stored = json.loads(path.read_bytes())
    path.write_text(json.dumps(stored), encoding="utf-8")  # the same content, laid out anew
    anet = adapter("activitynet")
    assert len(anet.list_videos(root, "vclimb_10_trimmed")) == 1200
    damage(stored)
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(UserError, match=r"videos\.json: damaged.* import ActivityNet_data_10tasks\.pkl again"):
        anet.list_videos(root, "vclimb_10_trimmed")
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(UserError, match=r"videos\.json: damaged"):
        anet.list_videos(root, "vclimb_10_trimmed")


def test_a_link_to_itself_is_left_out_of_every_command(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, monkeypatch, lists_of())
    (root / f"{name_of(3)}.mp4").symlink_to(f"{name_of(3)}.mp4")
    assert cli.main(["prepare", "activitynet", str(root), "--split", "vclimb_10_trimmed"]) == 0
    assert f"left out: {name_of(3)}_0: Too many levels of symbolic links" in capsys.readouterr().out
    assert cli.main(["verify", TRIMMED, "--data", str(root), "--json"]) == 1  # classes without a video
    found = {entry["check"]: entry["text"] for entry in json.loads(capsys.readouterr().out)}
    assert re.match(r"3 of 800 can be decoded in full; left out: 797 \(", found["files"])
    assert cli.main(["run", "replay", TRIMMED, "--data", str(root), "--results", str(tmp_path / "r")]) == 2
    assert "train videos of activitynet cannot be used" in capsys.readouterr().err


def test_a_folder_without_a_single_video_is_refused(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(tmp_path, monkeypatch, lists_of())
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideosMissing, match=r"not one of its 1200 listed videos is there.*v_<YouTube id>\.mp4"):
        adapter("activitynet").list_videos(tmp_path / "empty", "vclimb_10_trimmed")


def test_verify_says_what_the_test_is_and_what_is_odd(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, monkeypatch, lists_of())
    (tmp_path / "empty").mkdir()
    assert cli.main(["verify", TRIMMED, "--data", str(tmp_path / "empty"), "--json"]) == 0
    found = {entry["check"]: (entry["level"], entry["text"]) for entry in json.loads(capsys.readouterr().out)}
    assert found["class order"][0] == "ok"
    assert found["test set"][0] == "note"
    assert "official validation set of activitynet: nothing may be selected on it" in found["test set"][1]
    assert found["shared groups"] == (
        "ok",
        "0 of 600 test videos share a YouTube video with a training video of their class",
    )
    assert found["intervals"] == ("note", "test intervals: 600 of 400 videos")
    assert found["published lists"][0] == "warning"


@pytest.mark.parametrize("name", [TRIMMED, UNTRIMMED])
def test_a_protocol_can_be_looked_at_before_anything_is_imported(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert cli.main(["show", name]) == 0
    said = capsys.readouterr().out
    assert "nothing may be selected on it" in " ".join(said.split())
    assert "1: Making a lemonade, Hula hoop" in said


# --- a run

PROTOCOL = {
    "name": "tiny_activitynet",
    "version": 1,
    "title": "four colours in videos of two each",
    "dataset": {"name": "activitynet", "split": "vclimb_10_trimmed"},
    "classes": {
        "num": 4,
        "names": list(COLOURS),
        "order": {"kind": "listed", "names": ["blue", "white", "green", "red"]},
    },
    "tasks": {"sizes": [2, 2]},
    "seeds": [1],
    "clip": {"frames": 4, "size": 64, "train_crop": "center", "flip": False},
    "memory": {"unit": "instances", "total": 4, "frames": 2},
    "metrics": {"headline": "final_task_mean"},
}
PER_SECOND = 12


@pytest.fixture
def tiny_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    """Import a tiny pickle over real videos, that show a class of the first task, then one of the second.

    Four training and two test videos, two instances each: without their intervals classes cannot be told apart.
    """
    root = tmp_path / "net"
    root.mkdir()
    lists: Lists = {part: [{"blue": [], "white": []}, {"green": [], "red": []}] for part in ("train", "val")}
    number = 0
    for part, count in (("train", 2), ("val", 1)):
        for first, second in (("blue", "red"), ("white", "green")):
            for _ in range(count):
                frames = [f for c in (first, second) for f in draw_clip(COLOURS[c], number % 5, PER_SECOND)]
                encode_frames(root / f"{name_of(number)}.mp4", frames, fps=PER_SECOND)
                lists[part][0][first].append(item(number, 0.0, 1.0))
                lists[part][1][second].append(item(number, 1.0, 2.25))
                number += 1
    lists["train"][0]["blue"].append(item(0, 0.0, 0.25))  # too short, and left out
    path = write(tmp_path / "tiny.pkl", lists)
    protocol = tmp_path / "tiny_activitynet.yaml"
    protocol.write_text(yaml.safe_dump(PROTOCOL), encoding="utf-8")
    source = Source(
        "activitynet", {"vclimb_10_trimmed": str(protocol)}, path.name, git_blob(path.read_bytes()), (9, 4)
    )
    monkeypatch.setattr(vclimb_import, "SOURCES", (source,))
    assert cli.main(["prepare", "vclimb", "--pickle", str(path)]) == 0
    return Tiny(root, protocol)


QUICK = ["--set", "max_missing=0.2", "checkpoint_minutes=0", "epochs=2", "epochs_first=2", "batch_size=3"]


def outcome(folder: Path) -> tuple[Any, bytes]:
    """Return counts, losses and exemplars of every step, and the predictions."""
    (path,) = folder.glob("*/*/*-s1.json")
    found = record.load(path)
    assert found.complete
    steps = [(s["correct"], s["losses"], s["costs"]["memory"]) for s in found.data["steps"]]
    return steps, path.with_suffix(".npz").read_bytes()


@pytest.mark.parametrize("method", ["icarl", pytest.param("replay", marks=pytest.mark.slow)])
def test_a_run_with_exemplars_is_cut_off_and_ends_in_the_same(
    tiny_net: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    saved = 0
    stop_at: int | None = None
    original = PhaseSaver.maybe_save

    def maybe_save(saver: PhaseSaver, *arguments: Any, **more: Any) -> None:
        nonlocal saved
        original(saver, *arguments, **more)
        saved += 1
        if saved == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(PhaseSaver, "maybe_save", maybe_save)
    assert tiny_net.run(method, tmp_path / "whole", *QUICK) == 0
    in_all = saved
    for _ in range(2):
        saved, stop_at = 0, in_all // 3
        assert tiny_net.run(method, tmp_path / "cut", *QUICK) == 130
    stop_at = None
    assert tiny_net.run(method, tmp_path / "cut", *QUICK) == 0
    steps, predictions = outcome(tmp_path / "whole")
    assert outcome(tmp_path / "cut") == (steps, predictions)
    assert [memory["videos"] for _, _, memory in steps] == [4, 4]
    assert [memory["frames"] for _, _, memory in steps] == [8, 8]
    (path,) = (tmp_path / "whole").glob("*/*/*-s1.json")
    data = record.load(path).data["data"]
    assert (data["train_videos"], data["test_videos"]) == (8, 4)
    assert data["left_out"] == [
        {"id": f"{name_of(0)}_1", "split": "train", "problem": "0 to 0.25 s have 3 frames, fewer than 8"}
    ]
    told = {finding["check"]: finding["text"] for finding in data["verified"]}
    assert "nothing may be selected on it" in told["test set"]


@pytest.mark.slow
def test_a_run_depends_on_where_intervals_lie(
    tiny_net: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_net.run("replay", tmp_path / "right", *QUICK) == 0
    real = loader_module.read_frames
    monkeypatch.setattr(
        loader_module, "read_frames", lambda path, indices, decoder: real(path, indices % PER_SECOND, decoder)
    )
    assert tiny_net.run("replay", tmp_path / "wrong", *QUICK) == 0
    right, wrong = (outcome(tmp_path / name)[0] for name in ("right", "wrong"))
    assert [losses for _, losses, _ in right] != [losses for _, losses, _ in wrong]


@pytest.mark.slow
def test_a_run_reads_intervals_from_a_frame_store(
    tiny_net: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert tiny_net.main("prepare", "activitynet", tiny_net.root, "--store", store) == 0
    said = capsys.readouterr().out
    assert "train intervals: 9 of 4 videos; 4 end after their video; 4 videos have several classes" in said
    assert "6 videos stored, 0 were there" in said
    stored = [*QUICK, "store=true", f"store_dir={store}"]
    assert tiny_net.run("replay", tmp_path / "results", *stored) == 0
