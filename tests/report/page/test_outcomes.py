"""What test videos were taken for: unpacked as a browser does, held against the predictions, within budgets."""

from __future__ import annotations

import json
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from packed_page import content, unpacked
from predicted_records import write_run

from vcil_bench import record as files
from vcil_bench.record import Record, load_all
from vcil_bench.report import page
from vcil_bench.report.page.outcomes import Budget, Outcome, outcomes_of
from vcil_bench.report.page.pool import Pool
from vcil_bench.report.tables import groups

HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">"


def numbers(text: str) -> list[int]:
    return [number for (number,) in struct.iter_unpack("<H", unpacked(text))]


def made(folder: Path, budget: Budget | None = None) -> tuple[list[Record], list[Outcome], Pool]:
    records, errors = load_all(folder)
    assert not errors
    pool = Pool()
    return records, outcomes_of(records, pool, budget), pool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of runs of three sizes, one without predictions."""
    for method, more in (
        ("small", {"readouts": ("cnn", "nme")}),
        ("large", {"per_class": 30}),
        ("middle", {"per_class": 12}),
        ("bare", {"stored": False}),
    ):
        for seed in (1, 2):
            write_run(tmp_path, method, seed, skill=0.6, **more)  # type: ignore[arg-type]
    return tmp_path


def test_every_prediction_is_there(folder: Path) -> None:
    records, outcomes, pool = made(folder)
    for record, outcome in zip(records, outcomes, strict=True):
        if record.data["method"]["name"] == "bare":
            assert outcome == Outcome()
            continue
        arrays = np.load(record.path.with_suffix(".npz"))
        assert outcome.readouts is not None
        assert outcome.videos is not None
        assert pool.values[outcome.videos] == arrays["videos"].tolist() == list(outcome.names)
        assert list(outcome.readouts) == record.data["method"]["readouts"]
        for readout, told in outcome.readouts.items():
            assert told["kind"] == "predictions"
            assert pool.values[told["labels"]] == arrays["labels"].tolist()
            expected = [int(best) for step in range(3) for best in arrays[f"top5/{step}/{readout}"][:, 0]]
            assert numbers(told["data"]) == expected


def test_counts_of_classes_are_those_of_the_predictions(folder: Path) -> None:
    records, outcomes, pool = made(folder, Budget(videos=0))
    for record, outcome in zip(records, outcomes, strict=True):
        if outcome.readouts is None:
            assert record.data["method"]["name"] == "bare"
            continue
        assert outcome.videos is None
        arrays = np.load(record.path.with_suffix(".npz"))
        labels = arrays["labels"].tolist()
        for readout, told in outcome.readouts.items():
            assert told["kind"] == "classes"
            assert pool.values[told["totals"]] == [labels.count(c) for c in range(6)]
            expected = []
            for step, learnt in enumerate((3, 5, 6)):
                best = arrays[f"top5/{step}/{readout}"][:, 0].tolist()
                for c in range(learnt):
                    expected.append(sum(b == k == c for b, k in zip(best, labels[: len(best)], strict=True)))
            assert numbers(told["data"]) == expected
            wrong = Counter((k, b) for b, k in zip(best, labels, strict=True) if b != k)
            taken: dict[str, list[list[int]]] = {}
            for (k, b), number in sorted(wrong.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
                taken.setdefault(str(k), []).append([b, number])
            assert told["taken"] == {k: several[:3] for k, several in taken.items()}


def test_a_class_without_test_videos_has_a_place(tmp_path: Path) -> None:
    path = write_run(tmp_path, "alpha", 1, skill=0.5, per_class=2)
    arrays = dict(np.load(path.with_suffix(".npz")))
    arrays["labels"][arrays["labels"] == 5] = 4  # the last class has none
    data = json.loads(path.read_text(encoding="utf-8"))
    for step in data["steps"]:
        best = arrays[f"top5/{step['step']}/cnn"][:, 0]
        hits = arrays["task"][: len(best)][best == arrays["labels"][: len(best)]]
        step["correct"]["cnn"] = np.bincount(hits, minlength=step["step"] + 1).tolist()
    data["predictions"]["sha256"] = files.save_predictions(path.with_suffix(".npz"), arrays)
    files.save(path, data)
    _, (outcome,), pool = made(tmp_path, Budget(videos=0))
    assert outcome.readouts is not None
    assert len(numbers(outcome.readouts["cnn"]["data"])) == 3 + 5 + 6
    assert pool.values[outcome.readouts["cnn"]["totals"]][5] == 0


def test_small_runs_come_first_and_budgets_hold(folder: Path) -> None:
    def kinds(budget: Budget) -> dict[str, set[str | None]]:
        records, outcomes, _ = made(folder, budget)
        told: dict[str, set[str | None]] = {}
        size = {"predictions": 0, "classes": 0}
        for record, outcome in zip(records, outcomes, strict=True):
            kind = next(iter(outcome.readouts.values()))["kind"] if outcome.readouts else None
            told.setdefault(record.data["method"]["name"], set()).add(kind)
            if kind is not None:
                size[kind] += len(json.dumps(outcome.readouts))
        assert size["predictions"] <= budget.videos
        assert size["classes"] <= budget.classes
        return told

    assert kinds(Budget()) == {
        "small": {"predictions"}, "middle": {"predictions"}, "large": {"predictions"}, "bare": {None},
    }  # fmt: skip
    mixed = kinds(Budget(videos=1_700, classes=100_000))
    assert (mixed["small"], mixed["large"]) == ({"predictions"}, {"classes"})
    assert set.union(*kinds(Budget(videos=0, classes=0)).values()) == {None}


def test_names_are_stored_of_small_runs_alone(folder: Path) -> None:
    for budget, named in ((Budget(), {"small", "middle", "large"}), (Budget(named=100), {"small", "middle"})):
        records, outcomes, _ = made(folder, budget)
        with_names = {
            record.data["method"]["name"]
            for record, outcome in zip(records, outcomes, strict=True)
            if outcome.names
        }
        assert with_names == named
    assert not any(outcome.names for outcome in made(folder, Budget(names=10))[1])


def test_hostile_names_of_videos_stay_text(tmp_path: Path) -> None:
    names = [f"{HOSTILE}{i}" for i in range(24)]
    write_run(tmp_path, "alpha", 1, skill=0.5, names=names)
    records, _ = load_all(tmp_path)
    html = page.build(records, [], groups(records), [])
    assert "<img src=x" not in html
    stored = content(html)
    assert sorted(stored["pool"][stored["runs"][0]["videos"]]) == sorted(names)


def test_predictions_that_were_changed_never_reach_the_page(tmp_path: Path) -> None:
    path = write_run(tmp_path, "alpha", 1, skill=0.5)
    arrays = dict(np.load(path.with_suffix(".npz")))
    arrays["top5/2/cnn"][0, 0] = (arrays["top5/2/cnn"][0, 0] + 1) % 6
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    records, errors = load_all(tmp_path)
    assert (len(records), len(errors)) == (0, 1)
