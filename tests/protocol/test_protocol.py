from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from golden_files import golden

from vcil_bench import protocol
from vcil_bench.common.config import ConfigError
from vcil_bench.common.errors import UserError
from vcil_bench.protocol import ClipSpec, MemorySpec, Protocol, ProtocolError, load

NAMES = [
    "kinetics400_40x10_seeded",
    "synthetic_3x4",
    "synthetic_6x4",
    *(f"tcd_hmdb51_{cell}" for cell in ("1x25", "25x1", "5x5")),
    *(f"tcd_ssv2_{cell}" for cell in ("10x9", "1x90", "3x30", "5x18")),
    *(f"tcd_ucf101_{cell}" for cell in ("10x5", "1x50", "2x25", "5x10")),
    *(f"vclimb_activitynet_{tasks}_{kind}" for tasks in (10, 20) for kind in ("trimmed", "untrimmed")),
    *(f"vclimb_kinetics400_{tasks}" for tasks in (10, 20)),
    *(f"vclimb_ucf101_{tasks}" for tasks in (10, 20)),
]
IMPORTED = ["vclimb_kinetics400_10", "vclimb_kinetics400_20"]
RUNNABLE = [name for name in NAMES if name not in IMPORTED]
TCD = [name for name in NAMES if name.startswith("tcd_")]
CELLS = {  # protocol: golden name
    "tcd_ucf101_10x5": "ucf_51_10x5",
    "tcd_ucf101_5x10": "ucf_51_5x10",
    "tcd_ucf101_2x25": "ucf_51_2x25",
    "tcd_hmdb51_5x5": "hmdb_26_5x5",
    "tcd_hmdb51_1x25": "hmdb_26_1x25",
    "tcd_ssv2_10x9": "ssv2_84_10x9",
    "tcd_ssv2_5x18": "ssv2_84_5x18",
}
# Of the versions that there are; records and tables are found by them.
FINGERPRINTS = {
    "kinetics400_40x10_seeded": "3b8e7c475d505350",
    "synthetic_3x4": "853d9fb9b87a9072",
    "synthetic_6x4": "7ad5a93566dd7e84",
    "tcd_hmdb51_1x25": "6a07ebc3b04003fe",
    "tcd_hmdb51_25x1": "02b5756108bbdcb3",
    "tcd_hmdb51_5x5": "39c8a5bcc5b417cf",
    "tcd_ssv2_10x9": "3a650050329fd8b9",
    "tcd_ssv2_5x18": "d6ee69f4cd803009",
    "tcd_ucf101_10x5": "03cee2f90eda4a52",
    "tcd_ucf101_2x25": "fd5beb1b46f7915a",
    "tcd_ucf101_1x50": "efe540430b24432d",
    "tcd_ssv2_3x30": "f3550b89fa0c9929",
    "tcd_ssv2_1x90": "069dce045c2e9987",
    "tcd_ucf101_5x10": "df68643fb34102b8",
    "vclimb_activitynet_10_trimmed": "98a1230bacf57efc",
    "vclimb_activitynet_10_untrimmed": "f318e67f4399244b",
    "vclimb_activitynet_20_trimmed": "23103edde09f426b",
    "vclimb_activitynet_20_untrimmed": "242e93c3f328e98c",
    "vclimb_ucf101_10": "9ca583cc84d9834d",
    "vclimb_ucf101_20": "1b57ba9535a6fcf7",
}
SHUFFLED = {"kind": "numpy_shuffle"}
SMALL: dict[str, Any] = {
    "name": "small",
    "version": 1,
    "dataset": {"name": "folder", "split": "videos.csv"},
    "classes": {"num": 4, "names": ["a", "b", "c", "d"], "order": SHUFFLED},
    "tasks": {"sizes": [2, 1, 1]},
    "seeds": [1, 2],
    "clip": {"frames": 4, "size": 32},
    "memory": {"per_class": 2},
    "metrics": {"headline": "final_accuracy", "also": ["backward_forgetting"]},
}


def small(tmp_path: Path, **changes: Any) -> Path:
    """Write the small protocol with some sections replaced; None leaves one out."""
    content = {key: value for key, value in {**SMALL, **changes}.items() if value is not None}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def task_of(loaded: Protocol, seed: int) -> dict[str, int]:
    """Return the task of each class name."""
    return {loaded.class_names[i]: t for t, ids in enumerate(loaded.tasks(seed)) for i in ids}


# --- the protocols that come with the package


def test_the_documented_protocols_ship() -> None:
    assert protocol.names() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_protocol_is_named_for_its_dataset_and_its_tasks(name: str) -> None:
    spec = load(name).spec
    match = re.fullmatch(r"(?:tcd_|vclimb_)?([a-z0-9]+)_(?:(\d+)x)?(\d+)(?:_seeded|_trimmed|_untrimmed)?", name)
    assert match is not None
    dataset, per_step, steps = match.groups()
    assert (spec.name, spec.dataset.name) == (name, dataset)
    assert spec.title
    if per_step is None:
        assert len(spec.tasks.sizes) == int(steps)
    elif name == "synthetic_6x4":  # six tasks of four classes: the other way round
        assert spec.tasks.sizes == [int(steps)] * int(per_step)
    else:  # the base task comes on top, but for Kinetics, whose first task is like the others
        increments = spec.tasks.sizes if dataset == "kinetics400" else spec.tasks.sizes[1:]
        assert increments == [int(per_step)] * int(steps)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_protocol_names_every_class_once(name: str) -> None:
    loaded = load(name)
    assert len(loaded.class_names) == loaded.spec.classes.num
    assert len(set(loaded.class_names)) == loaded.spec.classes.num
    assert all(text == text.strip() != "" for text in loaded.class_names)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_class_is_in_exactly_one_task(name: str) -> None:
    loaded = load(name)
    for seed in loaded.spec.seeds:
        tasks = loaded.tasks(seed)
        assert [len(ids) for ids in tasks] == loaded.spec.tasks.sizes
        ids = [i for task in tasks for i in task]
        assert sorted(ids) == list(range(loaded.spec.classes.num))
        assert ids == loaded.order(seed)


@pytest.mark.parametrize("name", TCD)
def test_tcd_class_orders_equal_the_authors(name: str) -> None:
    loaded, orders = load(name), golden("tcd_01")
    assert loaded.spec.seeds == ([1000] if "ssv2" in name else [1000, 1993, 2021])
    for seed in loaded.spec.seeds:
        expected = orders[f"order_n{loaded.spec.classes.num}_seed{seed}"]
        assert loaded.order(seed) == expected.tolist()


@pytest.mark.parametrize("name", CELLS)
def test_tcd_task_sizes_equal_the_authors(name: str) -> None:
    assert load(name).spec.tasks.sizes == golden("tcd_01")[f"task_sizes_{CELLS[name]}"].tolist()


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_order_has_a_stored_hash(name: str) -> None:
    classes, seeds = load(name).spec.classes, load(name).spec.seeds
    assert set(classes.order_sha256) == ({"all"} if classes.order.kind == "listed" else set(seeds))


@pytest.mark.parametrize(("name", "key"), [("tcd_ucf101_10x5", 1993), ("vclimb_ucf101_10", "all")])
def test_an_order_that_contradicts_its_hash_is_refused(name: str, key: int | str) -> None:
    shipped = load(name)
    stored = dict(shipped.spec.classes.order_sha256)
    with pytest.raises(ProtocolError, match=r"order_sha256") as error:
        shipped.derive({"classes.order_sha256": {**stored, key: "0" * 64}}).tasks(1993)
    assert stored[key] in str(error.value)


def test_changed_class_names_contradict_the_hash_of_a_listed_order() -> None:
    shipped = load("vclimb_ucf101_10")
    names = [shipped.class_names[1], shipped.class_names[0], *shipped.class_names[2:]]
    with pytest.raises(ProtocolError, match="order_sha256"):
        shipped.derive({"classes.names": names}).order(1000)


def test_orders_leave_numpys_global_generator_alone() -> None:
    before = np.random.get_state()[1].copy()
    load("tcd_ucf101_10x5").tasks(1000)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_ucf101_names_follow_class_ind_and_not_the_folders() -> None:
    names = load("tcd_ucf101_10x5").class_names
    assert names[34:36] == ["Hammering", "HammerThrow"]
    assert names[46:48] == ["JumpingJack", "JumpRope"]
    assert names[0] == "ApplyEyeMakeup"
    assert names[100] == "YoYo"
    assert "HandstandPushups" in names
    assert names == sorted(names, key=str.lower) != sorted(names)


def test_hmdb51_names_follow_tsn_unless_told_otherwise() -> None:
    names = load("tcd_hmdb51_5x5").class_names
    assert [names[i] for i in (20, 21, 44, 45)] == ["kick_ball", "kick", "sword_exercise", "sword"]
    alphabetical = load("tcd_hmdb51_5x5", {"dataset.label_map": "alphabetical"}).class_names
    assert alphabetical == sorted(names)
    assert [alphabetical[i] for i in (20, 21, 44, 45)] == ["kick", "kick_ball", "sword", "sword_exercise"]


# Tasks of the ids 20, 21, 44 and 45, whose names the two label maps swap in pairs.
@pytest.mark.parametrize(
    ("name", "seed", "tasks"),
    [
        ("tcd_hmdb51_5x5", 1000, (3, 1, 0, 0)),
        ("tcd_hmdb51_5x5", 1993, (1, 0, 2, 0)),
        ("tcd_hmdb51_5x5", 2021, (0, 5, 4, 5)),
        ("tcd_hmdb51_1x25", 1000, (11, 2, 0, 0)),
        ("tcd_hmdb51_1x25", 1993, (4, 0, 9, 0)),
        ("tcd_hmdb51_1x25", 2021, (0, 25, 20, 23)),
    ],
)
def test_alphabetical_label_map_moves_hmdb51_classes_between_tasks(
    name: str, seed: int, tasks: tuple[int, ...]
) -> None:
    tsn = task_of(load(name), seed)
    alphabetical = task_of(load(name, {"dataset.label_map": "alphabetical"}), seed)
    swapped = ["kick_ball", "kick", "sword_exercise", "sword"]
    assert tuple(tsn[c] for c in swapped) == tasks
    assert tuple(alphabetical[c] for c in ("kick", "kick_ball", "sword", "sword_exercise")) == tasks
    assert {c for c in tsn if tsn[c] != alphabetical[c]} <= set(swapped)
    assert tsn != alphabetical


def test_ssv2_and_kinetics_names_are_sorted() -> None:
    ssv2 = load("tcd_ssv2_10x9").class_names
    assert len(ssv2) == 174
    assert ssv2 == sorted(ssv2)
    assert ssv2[0] == "Approaching something with your camera"
    kinetics = load("kinetics400_40x10_seeded").class_names
    assert len(kinetics) == 400
    assert kinetics == sorted(kinetics)
    assert (kinetics[0], kinetics[-1]) == ("abseiling", "zumba")
    assert kinetics == load("vclimb_kinetics400_10").class_names


@pytest.mark.parametrize(
    ("name", "base", "step", "ends"),
    [
        (
            "vclimb_ucf101_10",
            [11, "Surfing", "SalsaSpin", "Rafting"],
            [10, "Hammering", "PushUps", "FrontCrawl"],
            [10, "ShavingBeard", "MoppingFloor", "CricketShot"],
        ),
        (
            "vclimb_ucf101_20",
            [6, "Bowling", "MoppingFloor", "SalsaSpin"],
            [5, "Rafting", "Rowing", "CuttingInKitchen"],
            [5, "BabyCrawling", "BoxingSpeedBag", "BasketballDunk"],
        ),
    ],
)
def test_vclimb_ucf101_tasks_are_the_authors(name: str, base: list, step: list, ends: list) -> None:
    loaded = load(name)
    tasks = [[loaded.class_names[i] for i in ids] for ids in loaded.tasks(1000)]
    for task, expected in ((tasks[0], base), (tasks[1], step), (tasks[-1], ends)):
        assert [len(task), task[0], task[1], task[-1]] == expected
    assert {len(task) for task in tasks[1:]} == {step[0]}


def test_a_listed_order_is_the_same_for_every_seed_and_a_shuffled_one_is_not() -> None:
    listed, shuffled = load("vclimb_ucf101_10"), load("tcd_ucf101_10x5")
    assert listed.tasks(1000) == listed.tasks(1993) == listed.tasks(2021)
    orders = [tuple(shuffled.order(seed)) for seed in (1000, 1993, 2021, 7)]
    assert len(set(orders)) == 4


@pytest.mark.parametrize("name", IMPORTED)
def test_vclimb_kinetics_names_the_missing_file_and_an_alternative(name: str) -> None:
    loaded = load(name)
    for attempt in (lambda: loaded.tasks(1000), lambda: loaded.fingerprint):
        with pytest.raises(ProtocolError, match=rf"Kinetics400_data_tasks_{name[-2:]}\.pkl") as error:
            attempt()
        assert "kinetics400_40x10_seeded" in str(error.value)


def test_the_seeded_kinetics_order_does_not_pass_for_vclimb() -> None:
    loaded = load("kinetics400_40x10_seeded")
    assert "vclimb" not in loaded.name
    assert "Never to be shown as vCLIMB" in loaded.spec.notes


def test_fingerprints_of_shipped_protocols_differ() -> None:
    assert len({load(name).fingerprint for name in RUNNABLE}) == len(RUNNABLE)


# --- fingerprint and derived protocols


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "another"),
        ("version", 2),
        ("dataset.split", 2),
        ("dataset.label_map", "alphabetical"),
        ("classes.order", {"kind": "listed", "file": "hmdb51_tsn.txt"}),
        ("tasks.sizes", [26, 10, 5, 5, 5]),
        ("tasks.sizes", [25, 6, 5, 5, 5, 5]),
        ("seeds", [1000]),
        ("seeds", [1000, 1993, 7]),
        ("clip.frames", 16),
        ("clip.size", 112),
        ("clip.short_side", 256),
        ("clip.interpolation", "bilinear"),
        ("clip.train_crop", "center"),
        ("clip.flip", False),
        ("clip.test_views.clips", 2),
        ("clip.test_views.crops", 3),
        ("memory.per_class", 10),
        ("memory.frames", "all"),
        ("memory", {"per_class": 5, "frames": 4, "fill": "interpolate"}),
        ("memory", {"total": 255, "frames": 8}),
        ("memory", None),
        ("metrics.headline", "final_accuracy"),
        ("metrics.also", ["max_forgetting"]),
    ],
)
def test_fingerprint_changes_with_every_key_that_means_something(key: str, value: object) -> None:
    shipped = load("tcd_hmdb51_5x5")
    assert shipped.derive({key: value}).fingerprint != shipped.fingerprint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("title", "another"),
        ("notes", "another"),
        ("source", {}),
        ("source.paper", "another"),
        ("clip.short_side", None),  # stands for clip.size, which it was
        ("classes.order_sha256", {}),  # a check, not a choice
    ],
)
def test_fingerprint_does_not_change_with_words(key: str, value: object) -> None:
    shipped = load("tcd_hmdb51_5x5")
    assert shipped.derive({key: value}).fingerprint == shipped.fingerprint


def test_fingerprint_changes_with_the_names_of_the_classes(tmp_path: Path) -> None:
    loaded = load(small(tmp_path))
    renamed = loaded.derive({"classes.names": ["b", "a", "c", "d"]})
    assert renamed.order(1) == loaded.order(1)
    assert renamed.fingerprint != loaded.fingerprint


def test_fingerprint_covers_every_clip_and_memory_field() -> None:
    expanded = load("tcd_hmdb51_5x5").expanded()
    # memory.fill came when the protocols had fingerprints; of its default they do not speak.
    younger = {"clip": set(), "memory": {"fill"}}
    for section, spec in (("clip", ClipSpec), ("memory", MemorySpec)):
        assert expanded[section].keys() == {field.name for field in dataclasses.fields(spec)} - younger[section]
    filled = load("tcd_hmdb51_5x5", {"memory.frames": 4, "memory.fill": "interpolate"}).expanded()
    assert filled["memory"].keys() == {field.name for field in dataclasses.fields(MemorySpec)}


@pytest.mark.parametrize(("name", "fingerprint"), FINGERPRINTS.items())
def test_a_fingerprint_stays_until_the_protocol_gets_a_new_version(name: str, fingerprint: str) -> None:
    assert load(name).fingerprint.startswith(fingerprint)


def test_every_protocol_that_can_be_loaded_has_its_fingerprint_pinned() -> None:
    assert set(FINGERPRINTS) == set(RUNNABLE)


@pytest.mark.parametrize(
    ("frames", "clip"), [(1, 8), (8, 8), (9, 8), ("all", 8), (1, 2), (2, 1)], ids=lambda value: str(value)
)
def test_interpolation_is_refused_where_there_is_nothing_to_fill(frames: int | str, clip: int) -> None:
    changes = {"memory.frames": frames, "clip.frames": clip}
    load("synthetic_3x4", changes)
    with pytest.raises(ConfigError, match=rf"memory\.fill: interpolate needs .* = {clip - 1}, not {frames},"):
        load("synthetic_3x4", {**changes, "memory.fill": "interpolate"})


def test_fingerprint_of_a_file_does_not_depend_on_defaults_written_out(tmp_path: Path) -> None:
    short = load(small(tmp_path)).fingerprint
    written = {"frames": 4, "size": 32, "flip": True, "train_crop": "multiscale", "short_side": 32}
    assert load(small(tmp_path, clip=written, memory={"per_class": 2, "frames": "all"})).fingerprint == short


def test_protocols_are_read_without_torch_and_hash_alike_in_another_process() -> None:
    code = (
        "import sys; from vcil_bench import protocol; "
        "print(*[protocol.load(n).fingerprint for n in sys.argv[1:]], 'torch' in sys.modules)"
    )
    names = ["tcd_ucf101_10x5", "vclimb_ucf101_20"]
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [*(load(name).fingerprint for name in names), "False"]


def test_a_bad_value_of_the_command_line_is_not_said_to_stand_in_the_file() -> None:
    with pytest.raises(ConfigError, match=r"yaml with protocol\.memory\.per_class=-1: memory\.per_class: -1"):
        load("synthetic_3x4").derive({"memory.per_class": -1})


def test_a_derived_protocol_is_marked_and_records_what_was_changed() -> None:
    shipped = load("tcd_ucf101_10x5")
    derived = shipped.derive({"clip.frames": 16})
    assert (shipped.label, shipped.overrides) == ("tcd_ucf101_10x5", {})
    assert derived.name == "tcd_ucf101_10x5"
    assert derived.label == f"tcd_ucf101_10x5~{derived.fingerprint[:8]}"
    assert derived.spec.clip.frames == 16
    assert shipped.spec.clip.frames == 8
    twice = derived.derive({"clip.flip": False})
    assert twice.overrides == {"clip.frames": 16, "clip.flip": False}
    assert twice.fingerprint == load("tcd_ucf101_10x5", twice.overrides).fingerprint


def test_a_derived_protocol_may_add_a_section_the_file_leaves_out(tmp_path: Path) -> None:
    loaded = load(small(tmp_path, memory=None))
    assert loaded.spec.memory is None
    assert loaded.derive({"memory.total": 8}).spec.memory == MemorySpec(total=8)


def test_an_override_of_an_unknown_or_impossible_key_is_refused() -> None:
    shipped = load("tcd_ucf101_10x5")
    with pytest.raises(ConfigError, match=r"clip: unknown key 'frame' \(did you mean 'frames'\?\)"):
        shipped.derive({"clip.frame": 16})
    with pytest.raises(ConfigError, match=r"protocol\.clip\.frames\.x: 'frames' holds a value"):
        shipped.derive({"clip.frames.x": 16})


# --- files of one's own


def test_a_file_of_ones_own_is_read_and_its_folder_names_come_later(tmp_path: Path) -> None:
    loaded = load(small(tmp_path, classes={"num": 4, "order": SHUFFLED}))
    assert [len(ids) for ids in loaded.tasks(1)] == [2, 1, 1]
    assert not loaded.has_class_names
    with pytest.raises(ProtocolError, match=r"classes\.names"):
        _ = loaded.class_names


def test_class_names_may_be_listed_in_the_order_they_are_learnt(tmp_path: Path) -> None:
    order = {"kind": "listed", "names": ["d", "a", "c", "b"]}
    loaded = load(small(tmp_path, classes={**SMALL["classes"], "order": order}))
    assert loaded.tasks(1) == [[3, 0], [2], [1]] == loaded.tasks(2)


def with_order(order: dict[str, Any]) -> dict[str, Any]:
    return {"classes": {**SMALL["classes"], "order": order}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"taks": 3}, ["unknown key 'taks' (did you mean 'tasks'?)", "allowed keys: name, version, dataset"]),
        ({"tasks": None}, ["missing key 'tasks'", "allowed keys: name, version, dataset"]),
        ({"clip": {"frame": 4, "size": 32}}, ["clip: unknown key 'frame'", "allowed keys: frames, size,"]),
        ({"clip": {"size": 32}}, ["clip: missing key 'frames'", "allowed keys: frames, size,"]),
        (
            {"clip": {"frames": 4, "size": 32, "test_views": {"crop": 5}}},
            ["test_views: unknown key 'crop' (did you mean 'crops'?)", "allowed keys: clips, crops"],
        ),
        ({"clip": {"frames": "four", "size": 32}}, ["clip: frames: 'four' is not a whole number"]),
        ({"clip": {"frames": True, "size": 32}}, ["clip: frames: True is not a whole number"]),
        (
            {"clip": {"frames": 4, "size": 32, "train_crop": "centre"}},
            ["train_crop: 'centre' is not allowed (did you mean 'center'?)", "multiscale, center"],
        ),
        ({"clip": {"frames": 4, "size": 32, "flip": "no way"}}, ["flip: 'no way' is not true or false"]),
        ({"clip": {"frames": 0, "size": 32}}, ["frames and size must be at least 1"]),
        ({"clip": {"frames": 4, "size": 32, "short_side": 30}}, ["clip.short_side: 30 is smaller"]),
        ({"clip": [4, 32]}, ["clip: expected a mapping, found [4, 32]"]),
        ({"seeds": [1, "x"]}, ["seeds[1]: 'x' is not a whole number"]),
        ({"seeds": []}, ["seeds: the list is empty"]),
        ({"seeds": [1, 2, 1]}, ["seeds: [1, 2, 1] holds one twice"]),
        ({"seeds": [-1]}, ["seeds: [-1] must lie in"]),
        ({"tasks": {"sizes": [2, 1]}}, ["tasks.sizes: [2, 1]", "classes.num = 4", "add up to 3"]),
        ({"tasks": {"sizes": [5, -1]}}, ["tasks.sizes: [5, -1] must be positive, but holds -1"]),
        ({"tasks": {"sizes": [0, 4]}}, ["tasks.sizes: [0, 4] must be positive, but holds 0"]),
        (
            {"metrics": {"headline": "final_acuracy"}},
            ["unknown metric 'final_acuracy' (did you mean 'final_accuracy'?)", "known: average_incremental"],
        ),
        ({"metrics": {"headline": "final_accuracy", "also": ["bwf"]}}, ["unknown metric 'bwf'"]),
        ({"memory": {"per_class": 2, "total": 8}}, ["either per_class or total"]),
        ({"memory": {"frames": 4}}, ["either per_class or total"]),
        (with_order({"kind": "listed"}), ["a listed order needs file or names"]),
        (with_order({"kind": "lsted"}), ["order: kind: 'lsted' is not allowed (did you mean 'listed'?)"]),
        ({"classes": {**SMALL["classes"], "names": ["a", "b", "c", "a"]}}, ["classes.num is 4, but 3"]),
        (
            {"dataset": {"name": "hmdb51", "label_map": "tns"}, "classes": {"num": 4, "order": SHUFFLED}},
            ["unknown label map 'tns' (did you mean 'tsn'?)", "alphabetical, tsn"],
        ),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: list[str]
) -> None:
    path = small(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        load(path)
    assert str(error.value).startswith(str(path))
    for text in said:
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ({"per_clas": 5}, "unknown key 'per_clas' (did you mean 'per_class'?); allowed keys: unit, per_class"),
        ({"per_class": "many"}, "per_class: 'many' is not"),
    ],
)
def test_a_wrong_key_in_the_memory_section_is_named(tmp_path: Path, memory: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(small(tmp_path, memory=memory))
    assert said in str(error.value)


@pytest.mark.parametrize("memory", [{"per_class": -3}, {"total": 0}, {"per_class": 2, "frames": 0}])
def test_an_impossible_memory_budget_is_refused(tmp_path: Path, memory: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="memory"):
        load(small(tmp_path, memory=memory))


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b", "c"],
        ["a", "b", "c", "x"],
        ["a", "b", "c", "c"],
        pytest.param(
            ["a", "b", "a", "c", "d"],
        ),
    ],
)
def test_a_listed_order_that_is_no_permutation_is_refused(tmp_path: Path, names: list[str]) -> None:
    loaded = load(small(tmp_path, **with_order({"kind": "listed", "names": names})))
    with pytest.raises(ProtocolError, match=r"classes\.order"):
        loaded.tasks(1)


def test_a_missing_list_file_is_named(tmp_path: Path) -> None:
    loaded = load(small(tmp_path, **with_order({"kind": "listed", "file": "nowhere.txt"})))
    with pytest.raises(ProtocolError, match=r"no list 'nowhere\.txt'"):
        loaded.order(1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nversion: 1\nname: b\n", r"line 3: malformed YAML \(the key 'name' is given twice"),
        ("name: a\nclip: {size: 4, size: 5}\n", "line 2.*the key 'size' is given twice"),
        ("name: a\nversion: b: c\n", "line 2: malformed YAML"),
        ("name: [a\n", "malformed YAML"),
        ("name: !!python/object:os.system x\n", "line 1: malformed YAML"),
        ("- name\n", "expected a mapping at the top, found list"),
        ("", "expected a mapping at the top, found NoneType"),
        pytest.param(
            "name: a\n? [b]\n: c\n",
            "line 2",
        ),
    ],
)
def test_malformed_yaml_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as error:
        load(path)
    assert str(error.value).startswith(str(path))


def test_a_file_that_cannot_be_read_is_a_users_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"title: caf\xe9\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)
    with pytest.raises(ProtocolError, match="no protocol file"):
        load(tmp_path / "absent.yaml")


def test_an_unknown_protocol_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ProtocolError) as error:
        load("tcd_ucf_10x5")
    assert "unknown protocol 'tcd_ucf_10x5' (did you mean 'tcd_ucf101_10x5'?)" in str(error.value)
    assert "synthetic_3x4" in str(error.value)


def test_only_listed_seeds_are_accepted() -> None:
    loaded = load("tcd_ssv2_10x9")
    loaded.check_seed(1000)
    with pytest.raises(ProtocolError, match=r"no seed 1993; its seeds: 1000 .*protocol\.seeds=\[1993\]"):
        loaded.check_seed(1993)
    loaded.derive({"seeds": [1993]}).check_seed(1993)
