"""Verification finds what training and testing share, from lists alone, and says what it cannot know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import packed_page
import pytest
from made_up_records import record_data
from tiny_dataset import Tiny

from vcil_bench import protocol
from vcil_bench.data.datasets import Listed, adapter
from vcil_bench.data.prepare import prepare
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.nets.weights import WeightsInfo
from vcil_bench.protocol import imported_lists
from vcil_bench.record import Record, RecordError, load
from vcil_bench.report.page import build
from vcil_bench.report.tables import groups, markdown
from vcil_bench.verify.checks import Finding, findings, of_lists, of_protocol, per_task
from vcil_bench.verify.pretraining_overlap import overlap, stated

UCF = "tcd_ucf101_10x5"
RENDERED = WeightsInfo("clip_tiny", "embedded", "", "")


def one(found: list[Finding], check: str) -> Finding:
    """Return the only finding of a check."""
    (finding,) = [finding for finding in found if finding.check == check]
    return finding


def listed(part: str, label: str, group: str, number: int) -> Listed:
    name = f"{label}/v_{label}_{group}_c{number:02}"
    return Listed(name, f"{name}.avi", label, part, group)


def made() -> list[Listed]:
    """Make a list: two of three test videos share class and group, the third the group's name alone."""
    return [
        *(listed("train", "Archery", "g01", 1), listed("train", "Archery", "g02", 1)),
        listed("train", "Biking", "g03", 1),
        *(listed("test", "Archery", "g01", 2), listed("test", "Archery", "g02", 2)),
        *(listed("test", "Archery", "g03", 1), listed("unused", "Biking", "g04", 1)),
    ]


def test_shared_groups_are_counted_within_a_class() -> None:
    found = one(of_lists(protocol.load(UCF), made()), "shared groups")
    assert found.level == "warning"
    assert found.text.startswith("2 of 3 test videos share a source video")


def test_films_are_counted_across_classes_too() -> None:
    found = [f for f in of_lists(protocol.load("tcd_hmdb51_5x5"), made()) if f.check == "shared groups"]
    assert [(f.level, f.text.split(" test")[0]) for f in found] == [("warning", "2 of 3"), ("note", "1 of 3")]


def test_nothing_shared_is_ok_and_no_groups_are_not_known() -> None:
    apart = [v for v in made() if v.split != "test" or v.group == "g03"]
    assert one(of_lists(protocol.load(UCF), apart), "shared groups").level == "ok"
    bare = [Listed(v.id, v.path, v.label, v.split, "") for v in made()]
    found = one(of_lists(protocol.load(UCF), bare), "shared groups")
    assert (found.level, "not known" in found.text) == ("note", True)


def test_a_video_in_both_lists_is_an_error_and_one_listed_twice_a_warning() -> None:
    train, test = listed("train", "Archery", "g01", 1), listed("test", "Archery", "g01", 1)
    again = listed("train", "Archery", "g02", 1)
    found = of_lists(protocol.load(UCF), [train, test, again, again])
    assert one(found, "shared videos").level == "error"
    assert train.id in one(found, "shared videos").text
    assert [(f.level, again.id in f.text) for f in found if f.check == "lists"] == [
        ("ok", False),
        ("warning", True),
    ]


def test_classes_that_are_not_the_protocol_s_are_an_error(tiny: Tiny) -> None:
    loaded = protocol.load(tiny.protocol)
    videos = adapter("folder").list_videos(tiny.root, "videos.csv")
    (found,) = per_task(loaded, videos, [1])
    assert found.text == "seed 1: train 12 = 6 + 3 + 3, test 8 = 4 + 2 + 2"
    (found,) = per_task(loaded, [v for v in videos if v.label != "red"], [1])
    assert (found.level, found.text) == ("error", "3 classes in the data, 4 in the protocol")
    (first, _) = per_task(loaded, [v for v in videos if (v.label, v.split) != ("red", "test")], [1])
    assert (first.level, first.text) == ("error", "1 without a test video (red)")


def test_orders_are_held_against_their_hashes() -> None:
    found = of_protocol(protocol.load(UCF), [1000, 1993, 2021])
    assert [f.level for f in found if f.check == "class order"] == ["ok"] * 3
    derived = protocol.load(UCF, {"seeds": [7]})
    assert one(of_protocol(derived, [7]), "class order").level == "note"
    wrong = protocol.load(UCF, {"classes.order_sha256": {1000: "0" * 64}})
    assert one(of_protocol(wrong, [1000]), "class order").level == "error"


def test_lists_are_held_against_the_published_counts() -> None:
    found = one(of_lists(protocol.load(UCF), made()), "published lists")
    assert (found.level, "3 train videos listed, published are 9537" in found.text) == ("warning", True)


@pytest.mark.parametrize("name", ["tcd_ssv2_10x9", "kinetics400_40x10_seeded"])
def test_a_validation_set_used_for_testing_is_told(name: str) -> None:
    assert one(of_protocol(protocol.load(name), [1000]), "test set").level == "note"


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_s_own_weights_are_judged(name: str) -> None:
    verdict, text = overlap(stated(name, None), "ucf101")
    assert verdict == ("excluded" if BACKBONES[name].embedded_sibling == name else "not known")
    assert "unknown data" not in text  # its source stands in the table


@pytest.mark.parametrize("name", ["clip_tiny", "tsm_tiny"])
def test_stated_weights_are_those_that_are_loaded(name: str) -> None:
    assert stated(name, None).source == BACKBONES[name].load(None).weights.source


def test_overlap_is_known_excluded_or_not_known() -> None:
    seen = WeightsInfo("x", "somebody's", "", "Kinetics-400 (240k videos)")
    assert overlap(seen, "kinetics400")[0] == "known"
    assert overlap(seen, "ucf101")[0] == "not known"
    assert overlap(stated("clip_vit_b16", "random"), "kinetics400")[0] == "excluded"
    assert overlap(stated("clip_vit_b16", "mine.pt"), "kinetics400")[0] == "not known"
    assert "more images" in overlap(stated("tsm_resnet50", "resnet50.fb_swsl_ig1b_ft_in1k"), "ucf101")[1]


def test_manifests_tell_of_equal_and_damaged_files(tiny: Tiny, tmp_path: Path) -> None:
    root = tiny.copy(tmp_path / "data")
    (root / "red/4.mp4").write_bytes((root / "red/0.mp4").read_bytes())
    (root / "blue/0.mp4").write_bytes(b"nothing")
    found = findings(protocol.load(tiny.protocol), prepare(adapter("folder"), root, "videos.csv"), RENDERED, [2])
    assert one(found, "identical files").level == "warning"
    assert "red/0.mp4=red/4.mp4" in one(found, "identical files").text
    assert one(found, "files").text == "19 of 20 can be decoded in full; left out: 1 (blue/0.mp4)"
    assert one(found, "videos per task").text.startswith("seed 2: train 11 = ")


def test_lists_are_verified_without_a_single_video(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("Archery/v_Archery_g01_c01.avi 1\r\n", encoding="utf-8")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c02.avi\r\n", encoding="utf-8")
    assert tiny.main("verify", UCF, "--data", tmp_path, "--json") == 1  # it has one of 101 classes
    found = [Finding(**entry) for entry in json.loads(capsys.readouterr().out)]
    assert "the lists alone were verified" in one(found, "files").text
    assert one(found, "shared groups").text.startswith("1 of 1 ")
    assert one(found, "classes").level == "error"


def test_the_command_ends_in_0_without_errors_and_judges_what_is_asked(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.main("verify", tiny.protocol, "--data", tiny.root, "--set", "backbone=clip_tiny") == 0
    assert "0 error, 0 warning" in capsys.readouterr().out
    assert tiny.main("verify", UCF, "--set", "weights=random") == 2
    assert "backbone=NAME" in capsys.readouterr().err
    assert tiny.main("verify", UCF, "--set", "lr=1") == 2
    assert "'protocol.'" in capsys.readouterr().err


def test_verifying_imports_no_torch() -> None:
    code = "import sys, vcil_bench.verify.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_s_record_holds_what_was_verified(tiny: Tiny, tmp_path: Path) -> None:
    assert tiny.run("zero_shot", tmp_path) == 0
    (path,) = tmp_path.glob("*/zero_shot/*.json")
    stored = [Finding(**entry) for entry in load(path).data["data"]["verified"]]
    manifest = prepare(adapter("folder"), tiny.root, "videos.csv")
    assert stored == findings(protocol.load(tiny.protocol), manifest, RENDERED, [1])


def test_warnings_stand_under_the_table_and_notes_do_not() -> None:
    verified = [
        {"level": "warning", "check": "shared groups", "text": "2 of 3 test videos share\na group"},
        {"level": "note", "check": "pretraining", "text": "nobody knows"},
    ]
    data = [record_data(seed=seed, data={"verified": verified}) for seed in (1, 2)]
    (group,) = groups([Record(Path(f"{d['seed']}.json"), d) for d in data])
    text = markdown(group)
    assert "warned: shared groups" in text
    assert text.count("- Warning, shared groups: 2 of 3 test videos share a group.\n") == 1
    assert "nobody knows" not in text


def test_a_record_with_malformed_findings_is_refused(tmp_path: Path) -> None:
    for number, verified in enumerate((["words"], [{"level": "ok", "check": "x"}], {"level": "ok"}, None)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(record_data(data={"verified": verified})), encoding="utf-8")
        with pytest.raises(RecordError, match="inconsistent"):
            load(path)


def test_the_page_holds_findings() -> None:
    verified = [{"level": "warning", "check": "shared groups", "text": "2 of 3"}]
    data = record_data(data={"verified": verified})
    records = [Record(Path("results/made_up/alpha/default-s1.json"), data)]
    page = build(records, [], groups(records), [])
    stored = packed_page.content(page)
    assert stored["pool"][stored["runs"][0]["data"]]["verified"] == verified


def test_vclimb_shares_groups_where_the_official_split_shares_none() -> None:
    """Both splits as numbers of videos per class and group, which is all of the lists that counts here."""
    with np.load(Path(__file__).parents[1] / "golden" / "ucf101_groups.npz", allow_pickle=False) as counts:
        splits = {name: counts[name] for name in counts.files}

    def from_counts(numbers: np.ndarray, parts: tuple[str, ...]) -> list[Listed]:
        names = protocol.load(UCF).class_names
        return [
            Listed(f"{name}/g{group + 1:02}_{part}{i}", "", name, part, f"g{group + 1:02}")
            for name, by_group in zip(names, numbers, strict=True)
            for group, by_part in enumerate(by_group)
            for part, count in zip(parts, by_part, strict=True)
            for i in range(count)
        ]

    vclimb = of_lists(
        protocol.load("vclimb_ucf101_10"), from_counts(splits["vclimb_10"], ("train", "unused", "test"))
    )
    official = of_lists(protocol.load(UCF), from_counts(splits["official_1"], ("train", "test")))
    assert one(vclimb, "shared groups").level == "warning"
    assert one(vclimb, "shared groups").text.startswith("2692 of 2726 test videos")
    assert one(official, "shared groups").level == "ok"
    assert one(official, "shared groups").text.startswith("0 of 3783 test videos")


@pytest.mark.slow
def test_published_lists_share_what_they_are_known_to_share(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """vCLIMB's UCF101 split against the official one; neither list is distributed here."""
    folder = os.environ.get("VCIL_BENCH_REFERENCE")
    if folder is None:
        pytest.skip("VCIL_BENCH_REFERENCE names no folder with the published lists")
    lists = Path(folder) / "protocols"
    monkeypatch.setenv("VCIL_BENCH_CACHE", str(tmp_path))
    _import_vclimb(lists)
    for name, level, shared in ((UCF, "ok", "0 of 3783"), ("vclimb_ucf101_10", "warning", "2692 of 2726")):
        assert tiny.main("verify", name, "--data", lists / "ucf101", "--json") == 0
        found = [Finding(**entry) for entry in json.loads(capsys.readouterr().out)]
        assert one(found, "published lists").level == "ok"
        assert one(found, "shared groups").level == level
        assert one(found, "shared groups").text.startswith(f"{shared} test videos")


def _import_vclimb(lists: Path) -> None:
    """Import the authors' 10-task list from its content in JSON."""
    about = json.loads((lists / "vclimb_ucf101_10tasks.json").read_text(encoding="utf-8"))
    parts = json.loads((lists / "vclimb_ucf101_10tasks_videos.json").read_text(encoding="utf-8"))
    videos = {
        part: {label: names for task in tasks for label, names in task.items()} for part, tasks in parts.items()
    }
    imported_lists.write("UCF101_data.pkl", about["git_blob"], about["tasks"], videos)
