"""Checking of records: sound ones pass, and whatever was changed in one is caught by the check for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_dataset import Tiny

from vcil_bench import protocol as protocols
from vcil_bench import record as records
from vcil_bench.cli import main
from vcil_bench.identity import parts_of
from vcil_bench.verify.imported_records import take_in
from vcil_bench.verify.record_checks import NAMES, Here, check_records, failed, record_files

REFERENCE = Path(__file__).parents[2] / "results/reference/synthetic_3x4/icarl"
Arrays = dict[str, Any]
Tamper = Callable[[Any, Arrays], None]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Records of a method over all seeds, as somebody might send them."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "theirs"))


def outcomes(folder: Path, here: Here | None = None) -> dict[str, set[str]]:
    """Return the outcomes of each check over all records."""
    found: dict[str, set[str]] = {name: set() for name in NAMES}
    for check in check_records(record_files(folder), here or Here()):
        found[check.check].add(check.outcome)
    return found


def tampered(folder: Path, change: Tamper, *, seed: int = 1000, consistent: bool = True) -> None:
    """Change a record and its predictions; a careful forger makes hashes of files and of settings fit again."""
    path = folder / f"default-s{seed}.json"
    data = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as loaded:
        arrays = dict(loaded)
    change(data, arrays)
    data["predictions"] = data["predictions"] and {
        "file": path.with_suffix(".npz").name,
        "sha256": records.save_predictions(path.with_suffix(".npz"), arrays),
    }
    if consistent:
        data["identity"] |= parts_of(data, {})
    path.write_text(json.dumps(data))


def recount(data: Any, arrays: Arrays) -> None:
    """Make the counts those of the predictions."""
    for step in data["steps"]:
        for readout in step["correct"]:
            best = arrays[f"top5/{step['step']}/{readout}"][:, 0]
            hit = best == arrays["labels"][: len(best)]
            counts = np.bincount(arrays["task"][: len(best)][hit], minlength=step["step"] + 1)
            step["correct"][readout] = counts.tolist()


def one_count(data: Any, _: Arrays) -> None:
    data["steps"][2]["correct"]["nme"][0] -= 1


def no_predictions(data: Any, _: Arrays) -> None:
    data["predictions"] = None


def one_label(data: Any, arrays: Arrays) -> None:
    arrays["labels"][0] = (arrays["labels"][0] + 1) % data["classes_per_task"][0]
    recount(data, arrays)


def label_of_another_task(data: Any, arrays: Arrays) -> None:
    arrays["labels"][0] = len(data["class_order"]) - 1
    recount(data, arrays)


def another_order(data: Any, _: Arrays) -> None:
    order = data["class_order"]
    order[0], order[-1] = order[-1], order[0]


def another_seeds_order(data: Any, _: Arrays) -> None:
    data["class_order"] = protocols.load("synthetic_3x4").order(1993)


def other_class_names(data: Any, _: Arrays) -> None:
    data["class_names"][3] = "a mauve square standing still"


def another_fingerprint(data: Any, _: Arrays) -> None:
    data["protocol"]["fingerprint"] = "0" * 64


def a_larger_budget(data: Any, _: Arrays) -> None:
    data["protocol"]["spec"]["memory"]["per_class"] = 400


def too_many_exemplars(data: Any, _: Arrays) -> None:
    data["steps"][1]["costs"]["memory"]["videos"] = 4 * 15 + 1


def too_many_frames(data: Any, _: Arrays) -> None:
    data["steps"][1]["costs"]["memory"]["frames"] = 8 * 4 * 15 + 1


def exemplars_untold(data: Any, _: Arrays) -> None:
    data["method"]["uses_memory"] = False


def another_setting(data: Any, _: Arrays) -> None:
    data["config"]["lr"]["value"] = 7.0


def a_setting_of_the_command_line(data: Any, _: Arrays) -> None:
    data["config"]["lr"]["origin"] = "command line"


def a_seed_of_its_own(data: Any, _: Arrays) -> None:
    data["seed"] = 5


def unfinished(data: Any, _: Arrays) -> None:
    data["status"] = "failed"


def a_video_twice(_: Any, arrays: Arrays) -> None:
    arrays["videos"][1] = arrays["videos"][0]


def a_label_twice_among_the_best(_: Any, arrays: Arrays) -> None:
    arrays["top5/4/nme"][7, 1] = arrays["top5/4/nme"][7, 0]


def fewer_best_labels(_: Any, arrays: Arrays) -> None:
    arrays["top5/4/nme"][7, 4] = -1


def another_schema(data: Any, _: Arrays) -> None:
    data["schema"] = 2


CHANGES: list[tuple[Tamper, set[str]]] = [
    (one_count, {"counts"}),
    (no_predictions, {"counts"}),
    (one_label, {"labels"}),
    (label_of_another_task, {"labels"}),
    (another_order, {"class order", "labels"}),
    (another_seeds_order, {"class order", "labels"}),
    (other_class_names, {"class order", "labels"}),
    (another_fingerprint, {"protocol"}),
    (a_larger_budget, {"protocol"}),
    (too_many_exemplars, {"budget"}),
    (too_many_frames, {"budget"}),
    (exemplars_untold, {"budget"}),
    (a_setting_of_the_command_line, {"name"}),
    (a_seed_of_its_own, {"name", "class order"}),
    (unfinished, {"complete"}),
    (a_video_twice, {"predictions"}),
    (a_label_twice_among_the_best, {"predictions"}),
    (fewer_best_labels, {"predictions"}),
    (another_schema, {"form"}),
]


def test_sound_records_pass_and_what_cannot_be_checked_is_said(theirs: Path) -> None:
    found = outcomes(theirs)
    assert {name for name, several in found.items() if several != {"ok"}} <= {"training", "code"}
    assert found["training"] == {"unchecked"}


@pytest.mark.parametrize(("change", "caught"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_change_is_caught_though_all_hashes_fit(change: Tamper, caught: set[str], theirs: Path) -> None:
    tampered(theirs, change)
    checks = check_records(record_files(theirs), Here())
    by_seed = {check.record: set[str]() for check in checks}
    for check in failed(checks):
        by_seed[check.record].add(check.check)
    assert by_seed[str(theirs / "default-s1000.json")] == caught


def test_a_setting_changed_without_its_hash_is_caught(theirs: Path) -> None:
    tampered(theirs, another_setting, consistent=False)
    assert "failed" in outcomes(theirs)["identity"]


def test_a_label_is_caught_in_a_single_record_by_the_folders_of_the_videos(theirs: Path) -> None:
    tampered(theirs, one_label)
    assert outcomes(theirs / "default-s1000.json")["labels"] == {"failed"}


def test_predictions_of_another_run_are_caught(theirs: Path) -> None:
    shutil.copy(theirs / "default-s1993.npz", theirs / "default-s1000.npz")
    found = outcomes(theirs)
    assert "failed" in found["counts"]
    (theirs / "default-s1000.npz").unlink()
    assert "failed" in outcomes(theirs)["counts"]


def test_a_seed_that_lacks_and_one_that_is_there_twice(theirs: Path) -> None:
    (theirs / "default-s1993.json").unlink()
    assert outcomes(theirs)["seeds"] == {"unchecked"}
    shutil.copytree(theirs, theirs / "again")
    assert outcomes(theirs)["seeds"] == {"failed"}


def test_the_lists_of_the_dataset_decide_on_labels(theirs: Path) -> None:
    record = records.load(theirs / "default-s1000.json")
    stored = records.read_predictions(record)
    names, order = record.data["class_names"], record.data["class_order"]
    truth = {str(v): names[order[k]] for v, k in zip(stored.videos, stored.labels, strict=True)}
    assert outcomes(theirs, Here(labels=truth))["labels"] == {"ok"}
    truth[str(stored.videos[3])] = "another class"
    assert outcomes(theirs, Here(labels=truth))["labels"] == {"failed"}


def test_other_records_of_the_same_data_decide_on_labels(theirs: Path, tmp_path: Path) -> None:
    """A forger who renames the folders, too, is told by what other records hold."""
    here = Here([records.load(path) for path in sorted(REFERENCE.parent.glob("lwf/*.json"))])
    assert len(here.records) == 3
    assert outcomes(theirs, here)["labels"] == {"ok"}
    for seed in (1000, 1993, 2021):  # consistently in all of them
        tampered(theirs, swap_two_classes, seed=seed)
    assert "failed" in outcomes(theirs, here)["labels"]


def swap_two_classes(data: Any, arrays: Arrays) -> None:
    """Give the videos of two classes, of the same task or not, each other's class."""
    position = {class_id: label for label, class_id in enumerate(data["class_order"])}
    videos = arrays["videos"]
    a, b = (position[class_id] for class_id in (0, 1))
    first, second = arrays["labels"] == a, arrays["labels"] == b
    videos[first], videos[second] = videos[second].copy(), videos[first].copy()


def test_a_protocol_of_ones_own_is_compared_where_its_file_is_given(theirs: Path, tmp_path: Path) -> None:
    text = (Path(protocols.__file__).parents[2] / "protocols/synthetic_3x4.yaml").read_text()
    mine, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    mine.write_text(text.replace("name: synthetic_3x4", "name: mine"))
    other.write_text(mine.read_text().replace("per_class: 4", "per_class: 5"))

    def onto_mine(data: Any, _: Arrays) -> None:
        loaded = protocols.load(mine)
        said = data["protocol"] | {"name": "mine", "label": "mine", "fingerprint": loaded.fingerprint}
        data["protocol"] = said | {"origin": "/theirs/mine.yaml", "spec": said["spec"] | {"name": "mine"}}
        data["run_id"] = f"mine/icarl/default-s{data['seed']}"

    for seed in (1000, 1993, 2021):
        tampered(theirs, onto_mine, seed=seed)
    for here, outcome in ((Here(), "unchecked"), (Here(protocol=mine), "ok"), (Here(protocol=other), "failed")):
        found = outcomes(theirs, here)
        assert found["protocol"] == {outcome}
        assert found["class order"] == {"unchecked" if outcome == "unchecked" else "ok"}


@pytest.mark.slow
def test_the_lists_below_a_root_are_read(tiny: Tiny, tmp_path: Path) -> None:
    assert tiny.run("zero_shot", tmp_path / "r", "--set", "weights=random") == 0
    arguments = ["check-record", tmp_path / "r", "--results", tmp_path / "none", "--protocol", tiny.protocol]
    assert tiny.main(*arguments, "--data", tiny.root) == 0
    other = tiny.copy(tmp_path / "other")
    table = (other / "videos.csv").read_text()
    (other / "videos.csv").write_text(table.replace("red,test", "blue,test", 1))
    assert tiny.main(*arguments, "--data", other) == 1


def test_neither_checking_nor_comparing_imports_torch(theirs: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(theirs, results / "synthetic_3x4/icarl")
    code = f"""
import sys
from vcil_bench.cli import main
assert main(["check-record", {str(theirs)!r}, "--results", {str(results)!r}]) == 0
assert main(["compare", "icarl", "icarl", "--readout", "nme,cnn", "--results", {str(results)!r}]) == 0
assert not [m for m in sys.modules if m == "torch" or m.startswith("vcil_bench.methods.")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


class TestCommands:
    """The command line: exit codes, JSON, and what import leaves behind."""

    def run(self, *arguments: str | Path) -> int:
        return main([str(argument) for argument in arguments])

    def test_exit_codes_and_json(self, theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        results = tmp_path / "none"
        assert self.run("check-record", theirs, "--results", results) == 0
        assert self.run("check-record", theirs / "default-s1000.json", "--results", results) == 0
        assert self.run("check-record", tmp_path / "nothing", "--results", results) == 2
        assert self.run("check-record", "--results", results) == 2
        assert self.run("check-record", "--list") == 0
        tampered(theirs, one_count)
        capsys.readouterr()
        assert self.run("check-record", theirs, "--results", results, "--json") == 1
        told = json.loads(capsys.readouterr().out)
        assert [t["check"] for t in told if t["outcome"] == "failed"] == ["counts"]
        assert set(told[0]) == {"record", "check", "outcome", "text"}

    def test_import_copies_what_was_checked(self, theirs: Path, tmp_path: Path) -> None:
        results = tmp_path / "results"
        given = ["--name", "northlab", "--who", "A. Doe", "--source", "mail", "--results", results]
        assert self.run("import-records", theirs, *given) == 0
        loaded, errors = records.load_all(results)
        assert not errors
        assert [r.data["seed"] for r in loaded] == [1000, 1993, 2021]
        for record in loaded:
            assert record.origin is not None
            assert (record.origin.name, record.origin.who, record.origin.source) == (
                "northlab",
                "A. Doe",
                "mail",
            )
            assert record.origin.checked
            assert "training" in record.origin.unchecked
            assert record.place == f"elsewhere/northlab/{record.data['run_id']}.json"
            original = theirs / record.path.name
            for suffix in (".json", ".npz"):
                digests = [hashlib.sha256(p.with_suffix(suffix).read_bytes()) for p in (record.path, original)]
                assert digests[0].digest() == digests[1].digest()
        assert self.run("import-records", theirs, *given) == 2  # that name is taken
        assert self.run("import-records", theirs, *given[2:], "--name", "../up") == 2

    def test_import_takes_all_or_nothing(self, theirs: Path, tmp_path: Path) -> None:
        tampered(theirs, one_label, seed=2021)
        results = tmp_path / "results"
        assert self.run("import-records", theirs, "--name", "n", "--who", "w", "--results", results) == 1
        assert not results.exists()

    def test_a_folder_without_its_origin_is_not_read(self, theirs: Path, tmp_path: Path) -> None:
        results = tmp_path / "results"
        take_in(record_files(theirs), [], results, name="n", who="w", source="")
        (results / "elsewhere/n/origin.yaml").unlink()
        loaded, errors = records.load_all(results)
        assert not loaded
        assert len(errors) == 1
