"""The vCLIMB authors' lists: what is imported, what is refused, and what the import makes possible."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from dataset_factory import lines, video

from vcil_bench import cli, protocol
from vcil_bench.data.datasets import DatasetError, adapter, plain_pickle, vclimb_import
from vcil_bench.data.datasets.vclimb_import import VclimbError, git_blob, import_pickle
from vcil_bench.data.prepare import prepare
from vcil_bench.protocol import ProtocolError, load
from vcil_bench.stream import TaskStream

UCF, KINETICS = "vclimb_ucf101_10", "vclimb_kinetics400_10"
Lists = dict[str, list[dict[str, list[Any]]]]


pytestmark = pytest.mark.usefixtures("own_cache")


def ucf_lists(tasks: int = 10) -> Lists:
    """Make lists in the authors' order with three videos a class, one for each part."""
    loaded = load(f"vclimb_ucf101_{tasks}")
    names = [[loaded.class_names[i] for i in ids] for ids in loaded.tasks(1000)]
    return {
        part: [{name: [f"v_{name}_g{group:02}_c01"] for name in task} for task in names]
        for group, part in enumerate(("train", "val", "test"), start=1)
    }


def kinetics_lists(tasks: int = 10) -> Lists:
    """Make lists of all classes from the last to the first, known ones in front, with three kinds of items."""
    (source,) = (s for s in vclimb_import.SOURCES if f"vclimb_kinetics400_{tasks}" in s.protocols.values())
    first = source.in_base_task
    names = [*first, *(name for name in load(KINETICS).class_names[::-1] if name not in first)]
    per_task = 400 // tasks
    kinds = ("{}", "{}_000010_000020", "data/k400/{}_10_20.mp4")
    return {
        part: [
            {name: [kind.format(f"{part[:2]}-_{names.index(name):07}")] for name in names[i : i + per_task]}
            for i in range(0, 400, per_task)
        ]
        for part, kind in zip(("train", "val", "test"), kinds, strict=True)
    }


def write(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=3))
    return path


def known(monkeypatch: pytest.MonkeyPatch, path: Path, name: str, **changes: Any) -> Path:
    """Take a made file for the authors' file of a protocol, whose blob id the made one does not have."""
    blob = git_blob(path.read_bytes())
    sources = [
        dataclasses.replace(s, git_blob=blob, videos=None, **changes) if name in s.protocols.values() else s
        for s in vclimb_import.SOURCES
    ]
    monkeypatch.setattr(vclimb_import, "SOURCES", tuple(sources))
    return path


def with_blob(name: str, blob: str) -> protocol.Protocol:
    """Load a protocol whose order comes from a made file."""
    return load(name, {"classes.order.git_blob": blob})


# --- what the authors' files are known by


def test_blob_ids_are_gits() -> None:
    assert git_blob(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_every_vclimb_protocol_has_its_file_and_the_same_blob_id() -> None:
    needed = [name for source in vclimb_import.SOURCES for name in source.protocols.values()]
    assert sorted(needed) == [n for n in protocol.names() if n.startswith("vclimb")]
    for source in vclimb_import.SOURCES:
        for split, name in source.protocols.items():
            spec = load(name).spec
            assert (spec.dataset.name, str(spec.dataset.split)) == (source.dataset, split)
            assert split.split("_")[1] == str(len(spec.tasks.sizes))
            if spec.classes.order.kind == "imported":
                assert (spec.classes.order.file, spec.classes.order.git_blob) == (source.file, source.git_blob)


# --- pickles


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize("pickled_as", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_names_a_function_is_refused_unrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled_as: int
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(plain_pickle.PlainPickleError, match=r"names (posix|nt)\.system"):
        plain_pickle.load(pickle.dumps({"train": [Bomb()]}, protocol=pickled_as))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch pwned'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"(S'touch pwned'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
        pickle.dumps({1, 2}, protocol=2),  # a set is a global there
        b"Pany\n.",  # a persistent id
        pickle.dumps({"a": [1]})[:-5],
        b"",
        b"<html>404</html>",
        b"}\x94(K\x01b.",  # BUILD with a number as the state
    ],
)
def test_pickles_of_more_than_plain_data_are_refused(content: bytes) -> None:
    with pytest.raises(plain_pickle.PlainPickleError):
        plain_pickle.load(content)


@pytest.mark.parametrize("pickled_as", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_are_read(pickled_as: int) -> None:
    content = {"train": [{"a": ["1", "é"]}], "n": [1, 2.5, None, True]}
    assert plain_pickle.load(pickle.dumps(content, protocol=pickled_as)) == content


# --- files that are not the authors'


def test_another_file_under_the_right_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "UCF101_data.pkl", ucf_lists())
    with pytest.raises(VclimbError, match=r"git blob id is [0-9a-f]{40}, not e78263025417d4504c2ca7") as error:
        import_pickle(path)
    assert str(error.value).endswith(f"download UCF101_data.pkl from {vclimb_import.URL}")
    assert "\n" not in str(error.value)


def test_an_unknown_file_is_refused_with_all_that_are_known(tmp_path: Path) -> None:
    path = write(tmp_path / "other.pkl", Bomb())
    with pytest.raises(VclimbError, match="none of the authors' files'") as error:
        import_pickle(path)
    assert all(source.file in str(error.value) for source in vclimb_import.SOURCES)


def test_files_that_are_absent_or_far_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VclimbError, match=r"gone\.pkl: cannot be read \(No such file"):
        import_pickle(tmp_path / "gone.pkl")
    with (tmp_path / "huge.pkl").open("wb") as file:
        file.truncate(vclimb_import.MAX_BYTES + 1)
    with pytest.raises(VclimbError, match="bytes are more than any of the authors' files has"):
        import_pickle(tmp_path / "huge.pkl")
    with pytest.raises(VclimbError, match="null: is not a file"):  # a device's size is 0, whatever it gives
        import_pickle(Path("/dev/null"))


def test_a_hostile_file_with_a_known_id_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = known(monkeypatch, write(tmp_path / "x.pkl", Bomb()), UCF)
    with pytest.raises(VclimbError, match=r"x\.pkl: names .*system.*; download UCF101_data\.pkl from https"):
        import_pickle(path)
    assert not (tmp_path / "pwned").exists()


def spoilt(change: str) -> object:
    """Return lists of UCF101 that are wrong in one way."""
    lists = ucf_lists()
    train, test = lists["train"], lists["test"]
    if change == "no test":
        del lists["test"]
    elif change == "tasks of lists":
        train[0] = ["Surfing"]  # type: ignore[call-overload]
    elif change == "one task less":
        train.pop()
    elif change == "a class of another task":
        train[1]["Surfing"] = train[1].pop("Hammering")
    elif change == "two classes swapped":
        items = list(train[0].items())
        lists["train"][0] = dict([items[1], items[0], *items[2:]])
    elif change == "another item":
        train[0]["Surfing"] = [{"filename": "x"}]
    elif change == "another dataset's item":
        train[0]["Surfing"] = ["abseiling/x.mp4"]
    elif change == "another class in test":
        test[0]["Hammering"] = test[0].pop("Surfing")
    return lists


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no test", "its lists are not named train, val, test"),
        ("tasks of lists", "its train is not a list of tasks"),
        ("one task less", r"its tasks have \[11, 10, .* classes, not \[11, 10"),
        ("a class of another task", "its classes are not those of the dataset, each once: 'Hammering'"),
        ("two classes swapped", "its class order is not that of vclimb_ucf101_10"),
        ("another item", r"train, task 0, class 'Surfing': cannot tell which video \{'filename': 'x'\} is"),
        ("another dataset's item", r"cannot tell which video 'abseiling/x\.mp4' is"),
        ("another class in test", "the classes of its test tasks are not those of its train tasks"),
    ],
)
def test_lists_of_another_shape_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    path = known(monkeypatch, write(tmp_path / "x.pkl", spoilt(change)), UCF)
    with pytest.raises(VclimbError, match=said) as error:
        import_pickle(path)
    assert "download UCF101_data.pkl" in str(error.value)
    assert vclimb_import.imported_splits("ucf101") == []


def test_lists_of_another_number_of_videos_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.pkl", ucf_lists())
    source = dataclasses.replace(vclimb_import.SOURCES[0], git_blob=git_blob(path.read_bytes()))
    monkeypatch.setattr(vclimb_import, "SOURCES", (source,))
    with pytest.raises(VclimbError, match=r"lists \(101, 101, 101\) videos .* not \(9280, 1314, 2726\)"):
        import_pickle(path)


def test_kinetics_lists_without_the_known_class_in_the_base_task_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = kinetics_lists()
    turned = {part: tasks[::-1] for part, tasks in lists.items()}
    path = known(monkeypatch, write(tmp_path / "x.pkl", turned), KINETICS)
    with pytest.raises(VclimbError, match="'shuffling cards' is not in its first task"):
        import_pickle(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("none", None),
        ("a class of the second task", "'golf chipping' is not in its first task"),
        ("two classes swapped", "its first task are not in the authors' order: exercising arm, headbanging, "),
        ("two tasks swapped", "'exercising arm' is not in its first task"),
    ],
)
def test_the_known_task_of_kinetics_in_20_tasks_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str | None
) -> None:
    lists = kinetics_lists(20)
    assert list(lists["train"][0])[2:4] == ["front raises", "golf chipping"]
    for tasks in lists.values():
        items = list(tasks[0].items())
        if change == "a class of the second task":
            (other, videos), *_ = tasks[1].items()
            tasks[0] = dict([*items[:3], (other, videos), *items[4:]])
            tasks[1] = dict([items[3], *list(tasks[1].items())[1:]])
        elif change == "two classes swapped":
            tasks[0] = dict([*items[:2], items[3], items[2], *items[4:]])
        elif change == "two tasks swapped":
            tasks[0], tasks[1] = tasks[1], tasks[0]
    path = known(monkeypatch, write(tmp_path / "x.pkl", lists), "vclimb_kinetics400_20")
    if said is None:
        assert import_pickle(path).tasks == 20
        return
    with pytest.raises(VclimbError, match=said) as error:
        import_pickle(path)
    assert str(error.value).endswith(f"download Kinetics400_data_tasks_20.pkl from {vclimb_import.URL}")


# --- what an import makes possible


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Lay out the videos of two classes of the made lists, with an official split that has them all in train."""
    root = tmp_path / "ucf"
    names = [f"{n}/v_{n}_g{g:02}_c01.avi" for n in ("Surfing", "YoYo") for g in (1, 2, 3)]
    for number, name in enumerate(names):
        video(root / "UCF-101" / name, first=number)
    lines(root / "ucfTrainTestlist/trainlist01.txt", *(f"{name} 1" for name in names))
    lines(root / "ucfTrainTestlist/testlist01.txt")
    return root


def test_ucf101_gains_the_authors_split(
    tmp_path: Path, ucf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapter("ucf101").splits(ucf) == ["1"]
    path = known(monkeypatch, write(tmp_path / "renamed.pkl", ucf_lists()), UCF)
    assert cli.main(["prepare", "vclimb", "--pickle", str(path)]) == 0
    said = capsys.readouterr().out
    assert "101 classes in 10 tasks; videos: 101 train, 101 val, 101 test" in said
    assert "protocol vclimb_ucf101_10 can now be run" in said
    assert adapter("ucf101").splits(ucf) == ["1", "vclimb_10"]
    surfing = [v for v in adapter("ucf101").list_videos(ucf, "vclimb_10") if v.label == "Surfing"]
    assert [(v.id, v.path, v.split, v.group) for v in surfing] == [
        (f"Surfing/v_Surfing_g{g:02}_c01", f"UCF-101/Surfing/v_Surfing_g{g:02}_c01.avi", part, f"g{g:02}")
        for g, part in ((1, "train"), (2, "unused"), (3, "test"))
    ]
    assert cli.main(["prepare", "ucf101", str(ucf)]) == 0
    said = capsys.readouterr().out
    assert "ucf101, split 1: 2 classes" in said
    assert "ucf101, split vclimb_10: 101 classes" in said
    assert "LISTS DIFFER: 101 train videos listed, published are 9280" in said


def test_kinetics_order_and_videos_come_from_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = kinetics_lists()
    path = known(monkeypatch, write(tmp_path / "x.pkl", lists), KINETICS)
    blob = git_blob(path.read_bytes())
    loaded = with_blob(KINETICS, blob)
    with pytest.raises(ProtocolError, match="prepare vclimb --pickle Kinetics400_data_tasks_10"):
        loaded.order(1000)
    import_pickle(path)
    names = [[loaded.class_names[i] for i in ids] for ids in loaded.tasks(1000)]
    assert names == [list(task) for task in lists["train"]]
    assert loaded.order(1993) == loaded.order(1000)

    root = tmp_path / "k400"
    train, val, test = (lists[part][0]["shuffling cards"][0] for part in ("train", "val", "test"))
    youtube = test.removeprefix("data/k400/")[:11]
    video(root / f"train/shuffling_cards/{train}_000003_000013.mp4")
    video(root / f"test/{youtube}_000010_000020.mp4")
    assert adapter("kinetics400").splits(root) == ["vclimb_10"]
    listed = adapter("kinetics400").list_videos(root, "vclimb_10")
    found = [(v.id, v.path, v.split, v.group) for v in listed if v.label == "shuffling cards"]
    assert found == [
        (train, f"train/shuffling_cards/{train}_000003_000013.mp4", "train", train),
        (val, f"train/shuffling_cards/{val}.mp4", "unused", val[:11]),
        (test, f"test/{youtube}_000010_000020.mp4", "test", youtube),
    ]
    manifest = prepare(adapter("kinetics400"), root, "vclimb_10")
    assert [len(manifest.usable(part)) for part in ("train", "test")] == [1, 1]
    of_one = dataclasses.replace(manifest, videos=tuple(v for v in manifest.videos if v.facts.problem is None))
    small = loaded.derive(
        {
            "classes.num": 1,
            "classes.names": ["shuffling cards"],
            "classes.order": {"kind": "listed", "names": ["shuffling cards"]},
            "tasks.sizes": [1],
        }
    )
    stream = TaskStream(small, of_one, 1000)
    assert [s.id for s in (*stream.task(0).train, *stream.test(0))] == [train, test]


def test_the_fingerprint_covers_the_imported_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = set()
    for turn in (1, -1):
        lists = kinetics_lists()
        tasks = {part: [*of[:1], *of[1:][::turn]] for part, of in lists.items()}
        path = known(monkeypatch, write(tmp_path / f"{turn}.pkl", tasks), KINETICS)
        import_pickle(path)
        loaded = with_blob(KINETICS, git_blob(path.read_bytes()))
        expanded = loaded.expanded()
        expanded["classes"].pop("orders")
        fingerprints.add((loaded.fingerprint, json.dumps(expanded, sort_keys=True)))
    assert len(fingerprints) == len({f for f, _ in fingerprints}) == 2
    assert len({text for _, text in fingerprints}) == 1


def test_an_import_that_was_damaged_since_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = known(monkeypatch, write(tmp_path / "x.pkl", kinetics_lists()), KINETICS)
    folder = import_pickle(path).folder
    (folder / "order.json").write_text('{"schema": 1, "git', encoding="utf-8")
    loaded = with_blob(KINETICS, git_blob(path.read_bytes()))
    with pytest.raises(Exception, match=r"order\.json: damaged.*prepare vclimb --pickle Kinetics400"):
        loaded.order(1000)


@pytest.mark.parametrize(
    "command",
    [["vclimb"], ["vclimb", "root", "--pickle", "x.pkl"], ["ucf101", "--pickle", "x.pkl"]],
)
def test_commands_that_mix_import_and_dataset_are_refused(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prepare", *command]) == 2
    assert "'vcil-bench prepare vclimb --pickle FILE', FILE being one of: UCF101_data" in capsys.readouterr().err


def test_a_split_that_waits_for_its_import_says_how(ucf: Path) -> None:
    with pytest.raises(DatasetError, match=r"get https://.*/UCF101_data_20tasks\.pkl and import it with '"):
        adapter("ucf101").list_videos(ucf, "vclimb_20")
    with pytest.raises(DatasetError, match=r"no split 'vclimb_30'; found: 1$"):
        adapter("ucf101").list_videos(ucf, "vclimb_30")


# --- the authors' own lists, where they are at hand

REFERENCE = os.environ.get("VCIL_BENCH_REFERENCE")


@pytest.mark.slow
@pytest.mark.skipif(REFERENCE is None, reason="VCIL_BENCH_REFERENCE names no folder with the authors' lists")
@pytest.mark.parametrize(("tasks", "file"), [(10, "UCF101_data.pkl"), (20, "UCF101_data_20tasks.pkl")])
def test_the_authors_lists_of_ucf101_are_imported(tmp_path: Path, tasks: int, file: str) -> None:
    source = Path(str(REFERENCE)) / f"protocols/vclimb_ucf101_{tasks}tasks_videos.json"
    content = json.loads(source.read_text(encoding="utf-8"))
    done = import_pickle(write(tmp_path / file, content))  # byte for byte the authors' file
    assert done.videos == {"train": 9280, "val": 1314, "test": 2726}
    listed = list(vclimb_import.imported_videos("ucf101", f"vclimb_{tasks}"))
    train = {(label, match[1]) for label, match, part in listed if part == "train"}
    shared = sum((label, match[1]) in train for label, match, part in listed if part == "test")
    assert shared == {10: 2692, 20: 2703}[tasks]
    published = adapter("ucf101").published[f"vclimb_{tasks}"]
    verdict = published.verdict([(label, part) for label, _, part in listed])
    assert verdict == "lists as published: 9280 train / 2726 test"
