"""Records are the evidence: nothing damaged is read as a number, and nothing written is lost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_records import record_data
from tiny_dataset import Tiny

from vcil_bench import record as records
from vcil_bench.common.files import StorageError
from vcil_bench.record import RecordError, variant_name


def test_round_trip(tmp_path: Path) -> None:
    data = record_data(data={"root": "/Vidéos/ördner"})
    path = records.record_path(tmp_path, "made_up", "alpha", "default", 1)
    assert path == tmp_path / "made_up" / "alpha" / "default-s1.json"
    records.save(path, data)
    found = records.load(path)
    assert found.data == data
    assert found.complete
    np.testing.assert_array_equal(found.matrix("cnn"), [[1.0, np.nan], [0.5, 0.5]])


def test_metrics_come_from_counts(tmp_path: Path) -> None:
    records.save(tmp_path / "r.json", record_data(correct=[[4], [2, 1]], totals=[4, 2]))
    found = records.load(tmp_path / "r.json")
    # After step 1 4 of 4 videos are right, after step 2 3 of 6; task 1 falls from 4/4 to 2/4.
    assert found.metric("average_incremental_accuracy", "cnn") == pytest.approx((1 + 0.5) / 2)
    assert found.metric("final_accuracy", "cnn") == pytest.approx(0.5)
    assert found.metric("backward_forgetting", "cnn") == pytest.approx(0.5)


def _set(*keys: str | int, value: object) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


def _drop(*keys: str | int) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return change


DAMAGE = {
    "another schema": (_set("schema", value=2), "schema 2.*reads schema 1"),
    "no schema": (_drop("schema"), "schema None"),
    "a missing section": (_drop("weights"), "weights"),
    "a missing key": (_drop("protocol", "fingerprint"), "fingerprint"),
    "an unknown status": (_set("status", value="done"), "status"),
    "a count above its total": (_set("steps", 1, "correct", "cnn", value=[5, 1]), "counts of step 1"),
    "a negative count": (_set("steps", 0, "correct", "cnn", value=[-1]), r"steps\[0\].correct"),
    "a rounded count": (_set("steps", 0, "correct", "cnn", value=[3.5]), r"steps\[0\].correct"),
    "a count too few": (_set("steps", 1, "correct", "cnn", value=[2]), "counts of step 1"),
    "a count too many": (_set("steps", 1, "correct", "cnn", value=[2, 1, 0]), "counts of step 1"),
    "a readout without counts": (_set("method", "readouts", value=["cnn", "nme"]), "nme"),
    "complete with a step missing": (_drop("steps", 1), "1 steps of 2"),
    "tasks that do not fit": (_set("classes_per_task", value=[2, 2]), "class order"),
    "totals that do not fit": (_set("test_videos", value=[4]), "class order"),
    "steps that are no list": (_set("steps", value=None), "inconsistent"),
    "a section that is no mapping": (_set("protocol", value=[]), "inconsistent"),
    "a task without test videos": (
        lambda data: data.update(record_data(correct=[[4], [2, 0]], totals=[4, 0])),
        "inconsistent",
    ),
    "an unknown metric": (_set("protocol", "metrics", "headline", value="accuracy"), "'accuracy'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_record_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    change, reason = DAMAGE[damage]
    data = record_data()
    change(data)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(RecordError, match=reason) as caught:
        records.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        json.dumps(record_data()).encode()[:-1],
        b"\xff\xfe",
        b"\0" * 64,
    ],
    ids=["empty", "list", "null", "truncated", "no text", "zeros"],
)
def test_file_that_is_no_record_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        records.load(path)
    assert str(path) in str(caught.value)


def test_unfinished_record_may_lack_steps(tmp_path: Path) -> None:
    records.save(tmp_path / "r.json", record_data(correct=[[4]], status="partial"))
    assert not records.load(tmp_path / "r.json").complete


class TestVariantName:
    """Names of files that follow from what was changed on the command line."""

    def test_says_what_was_changed(self) -> None:
        assert variant_name({}) == "default"
        assert variant_name({"lr": 0.1, "backbone": "clip_tiny"}) == "backbone=clip_tiny+lr=0.1"
        assert variant_name({"b": 1, "a": 2}) == variant_name({"a": 2, "b": 1})

    @pytest.mark.parametrize(
        "value", ["../../etc/passwd", "a b", "a/b\\c:d*?", "Ä\n", "x" * 300, "{} 走路", [1, {"a": None}]]
    )
    def test_is_safe_as_a_file_name(self, value: object) -> None:
        name = variant_name({"weights": value})
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=+-")
        assert len(name) <= 80

    def test_different_values_have_different_names(self) -> None:
        values = ["a b", "a_b", "a/b", "a__b", "a", "A", 1, 10, 1.5, "x" * 100, "x" * 101, "é", "è", [1], None]
        names = [variant_name({"template": value}) for value in values]
        assert len(set(names)) == len(values)

    def test_value_cannot_pass_for_a_further_key(self) -> None:
        assert variant_name({"weights": "a+x=1"}) != variant_name({"weights": "a", "x": 1})


class TestSaving:
    """Writing happens in full or not at all."""

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    @pytest.mark.parametrize("where", ["replace", "fsync"])
    def test_interrupted_write_leaves_the_old_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
    ) -> None:
        path = tmp_path / "r.json"
        records.save(path, record_data(seed=1))
        before = path.read_bytes()

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), fail)
        with pytest.raises((StorageError, KeyboardInterrupt)) as caught:
            records.save(path, record_data(seed=2))
        if isinstance(error, OSError):
            assert f"{path}: cannot be written (No space left on device)" in str(caught.value)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(StorageError, match="cannot be written"):
            records.save(file / "r.json", record_data())

    def test_superseding_keeps_every_old_record_and_its_predictions(self, tmp_path: Path) -> None:
        path = records.record_path(tmp_path, "made_up", "alpha", "default", 1)
        for number in range(3):  # within one second, so that the time alone does not tell them apart
            records.save(path, record_data(run_id=f"run {number}"))
            records.save_predictions(records.predictions_path(path), {"labels": np.array([number])})
            moved = records.supersede(path)
            assert not path.exists()
            assert not records.predictions_path(path).exists()
            assert records.load(moved).data["run_id"] == f"run {number}"
        kept = sorted((path.parent / "superseded").glob("*/*.json"))
        assert len(kept) == 3
        for file in kept:
            number = int(records.load(file).data["run_id"].split()[1])
            with np.load(records.predictions_path(file), allow_pickle=False) as arrays:
                assert arrays["labels"] == number
        assert records.load_all(tmp_path) == ([], [])

    def test_load_all_gives_records_and_errors_by_path(self, tmp_path: Path) -> None:
        for method, seed in (("beta", 1), ("alpha", 2), ("alpha", 1)):
            path = records.record_path(tmp_path, "made_up", method, "default", seed)
            records.save(path, record_data(method=method, seed=seed))
        bad = records.record_path(tmp_path, "made_up", "alpha", "default", 3)
        bad.write_text("{", encoding="utf-8")
        found, errors = records.load_all(tmp_path)
        assert [(r.data["method"]["name"], r.data["seed"]) for r in found] == [
            ("alpha", 1),
            ("alpha", 2),
            ("beta", 1),
        ]
        (error,) = errors
        assert str(bad) in str(error)

    def test_a_shipped_record_gives_way_to_the_same_run_on_the_same_protocol_alone(self, tmp_path: Path) -> None:
        shipped = records.record_path(tmp_path / "reference", "made_up", "alpha", "default", 1)
        own = records.record_path(tmp_path, "made_up", "alpha", "default", 1)
        records.save(shipped, record_data())
        records.save(own, record_data(protocol={"fingerprint": "of an earlier version"}))
        assert [r.path for r in records.load_all(tmp_path)[0]] == sorted([own, shipped])
        records.save(own, record_data())
        assert [r.path for r in records.load_all(tmp_path)[0]] == [own]


def test_predictions_of_a_run_give_its_counts(tiny: Tiny, tmp_path: Path) -> None:
    assert tiny.run("zero_shot", tmp_path, "--set", "weights=random") == 0
    (path,) = tmp_path.glob("*/*/*.json")
    data = records.load(path).data
    assert data["predictions"] is not None
    file = path.with_name(data["predictions"]["file"])
    assert data["predictions"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    with np.load(file, allow_pickle=False) as arrays:
        labels, tasks = arrays["labels"], arrays["task"]
        assert len(arrays["videos"]) == sum(data["test_videos"]) == len(set(arrays["videos"].tolist()))
        for i, step in enumerate(data["steps"]):
            best = arrays[f"top5/{i}/text"]
            seen = tasks <= i
            assert best.shape == (seen.sum(), 5)
            assert best.max() < step["classes_seen"]
            right = best[:, 0] == labels[seen]
            assert step["correct"]["text"] == [int(right[tasks[seen] == j].sum()) for j in range(i + 1)]
            assert ((best >= 0).sum(axis=1) == min(5, step["classes_seen"])).all()
    # The labels count through the class order, and the class of a clip is its folder's name.
    order = [data["class_names"][i] for i in data["class_order"]]
    with np.load(file, allow_pickle=False) as arrays:
        assert [v.split("/")[0] for v in arrays["videos"].tolist()] == [order[label] for label in labels]


def test_counts_and_predictions_that_disagree_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    assert tiny.run("zero_shot", tmp_path) == 0
    (path,) = tmp_path.glob("*/zero_shot/*.json")
    whole = path.read_text(encoding="utf-8")
    data = json.loads(whole)
    counts = data["steps"][2]["correct"]["text"]
    counts[0] = counts[0] - 1 if counts[0] else 1
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(records.RecordError, match="changed by hand"):
        records.load(path)
    path.write_text(whole, encoding="utf-8")
    records.load(path)
    records.predictions_path(path).write_bytes(b"garbage")
    with pytest.raises(records.RecordError, match="not the predictions"):
        records.load(path)
