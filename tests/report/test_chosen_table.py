"""Tables of chosen methods, curves.csv and what a report keeps: every number computed again from the files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_records import record_data

from vcil_bench import record as records
from vcil_bench.common.errors import UserError
from vcil_bench.origin import Origin
from vcil_bench.protocol import load
from vcil_bench.record import Record
from vcil_bench.report import build, chosen_table, latex, layout_text, papers, significance
from vcil_bench.report.chosen_table import Choice
from vcil_bench.report.labels import Labels
from vcil_bench.report.layout import Layout

HMDB, UCF = "tcd_hmdb51_5x5", "tcd_ucf101_10x5"
SEEDS = (1000, 1993, 2021)


def run(folder: Path, method: str, seed: int, protocol: str = HMDB, **more: Any) -> Record:
    """Write a run of three tasks with two readouts, drawn from its name."""
    rng = np.random.default_rng(sum(map(ord, method + protocol)) + seed)
    loaded = load(protocol)
    totals = [40, 20, 10]
    data: Any = record_data(
        method=method,
        seed=seed,
        correct=[[int(rng.integers(1, n)) for n in totals[: i + 1]] for i in range(3)],
        totals=totals,
        protocol={
            **{"name": protocol, "label": protocol, "fingerprint": loaded.fingerprint},
            **{"origin": f"protocols/{protocol}.yaml", "seeds": [1000, 1993, 2021]},
            "spec": {"memory": {"per_class": 5, "total": None, "frames": 8}},
        },
        weights={"name": "tsm_resnet34", "source": "timm resnet34.tv_in1k", "pretraining": "ImageNet-1k"},
        **more,
    )
    data["method"]["readouts"] = ["cnn", "nme"]
    for i, step in enumerate(data["steps"]):
        step["correct"]["nme"] = [int(rng.integers(1, n)) for n in totals[: i + 1]]
    path = records.record_path(folder, protocol, method, data["variant"], seed)
    records.save(path, data)
    return records.load(path)


def made(found: list[Record], **choice: Any) -> Layout:
    wish: Any = {"methods": [], "protocols": [HMDB], "metrics": ["headline"], "readouts": ["first"]} | choice
    return chosen_table.make(found, Choice(**wish), papers.specs(), Labels())


def numbers(layout: Layout) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(layout_text.long_form(layout))))


def steps_of(file: Path, readout: str) -> tuple[list[float], list[float]]:
    """Compute accuracy and forgetting after every step from a record's file, without the harness."""
    data = json.loads(file.read_text(encoding="utf-8"))
    correct, totals = [step["correct"][readout] for step in data["steps"]], data["test_videos"]
    accuracy = [100 * sum(row) / sum(totals[: i + 1]) for i, row in enumerate(correct)]
    forgetting = [
        100 * statistics.fmean([(correct[j][j] - row[j]) / totals[j] for j in range(i)]) if i else 0.0
        for i, row in enumerate(correct)
    ]
    return accuracy, forgetting


def test_every_measured_number_is_that_of_the_files(tmp_path: Path) -> None:
    found = [run(tmp_path, m, s, p) for m in ("mine", "tcd") for s in SEEDS for p in (HMDB, UCF)]
    layout = made(
        found,
        protocols=[HMDB, UCF],
        metrics=["headline", "backward_forgetting", "final_accuracy"],
        readouts=["cnn", "nme"],
    )
    lines = numbers(layout)
    assert len(lines) == 2 * 2 * 3 * 2
    for line in lines:
        method = line["method"].partition(":")[0]
        curves = [
            steps_of(tmp_path / line["protocol"] / method / f"default-s{seed}.json", line["readout"])
            for seed in SEEDS
        ]
        values = {
            "average_incremental_accuracy": [statistics.fmean(accuracy) for accuracy, _ in curves],
            "final_accuracy": [accuracy[-1] for accuracy, _ in curves],
            "backward_forgetting": [forgetting[-1] for _, forgetting in curves],
        }[line["metric"]]
        assert float(line["mean"]) == pytest.approx(statistics.fmean(values), abs=1e-5)
        assert float(line["std"]) == pytest.approx(statistics.stdev(values), abs=1e-5)
        assert (line["n"], line["seeds"]) == ("3", "3")


def test_reported_numbers_stand_above_as_the_file_has_them(tmp_path: Path) -> None:
    layout = made([run(tmp_path, "mine", s) for s in SEEDS], published=True, readouts=["cnn", "nme"])
    assert [block.title for block in layout.blocks] == ["Reported", "Measured here"]
    with (Path(papers.__file__).parent / "published.csv").open(newline="", encoding="utf-8") as file:
        known = {
            (line["method"], line["readout"].lower(), float(line["value"]))
            for line in csv.DictReader(file)
            if line["protocol"] == HMDB and line["metric"] == "Acc"
        }
    reported = [line for line in numbers(layout) if line["numbers"] == "reported"]
    for line in reported:
        label = line["label"].partition(" (in ")[0]
        if line["source"].startswith(("HCE", "SFCL")):
            assert (label, line["readout"], float(line["mean"])) in known
        assert line["source"]
    labels = [line["label"] for line in reported if line["readout"] == "cnn"]
    assert {"TCD", "HCE", "SFCL", "StPR"} <= set(labels)
    assert len(labels) == len(set(labels))
    assert numbers(layout)[-1]["label"] == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"methods": ["mime"]},
        {"methods": ["mine:lr=1"]},
        {"protocols": ["tcd_hmdb51"]},
        {"metrics": ["accuracy"]},
        {"readouts": ["text"]},
    ],
)
def test_names_of_nothing_are_refused(wrong: dict[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        made([run(tmp_path, "mine", s) for s in SEEDS], **wrong)
    ((name,),) = wrong.values()
    assert repr(name) in str(error.value)


def test_variants_and_plugin_files_are_chosen_by_name(tmp_path: Path) -> None:
    found = [run(tmp_path, "mine", s) for s in SEEDS] + [run(tmp_path, "mine", s, variant="lr=1") for s in SEEDS]
    found += [run(tmp_path, "tuned", s, variant="lr=2") for s in SEEDS]

    def names(*methods: str) -> list[str]:
        return [row.name for row in made(found, methods=list(methods)).blocks[0].rows]

    assert names() == ["mine:default", "tuned:lr=2"]
    assert names("mine:lr=1", "mine") == ["mine:lr=1", "mine:default"]
    assert names("/elsewhere/mine.py:*") == ["mine:default", "mine:lr=1"]
    assert [row.label for row in made(found).blocks[0].rows] == ["mine", "tuned (lr=2)"]


def test_runs_from_elsewhere_have_rows_of_their_own(tmp_path: Path) -> None:
    found = [run(tmp_path, "mine", s) for s in SEEDS]
    sent = [run(tmp_path / "x", "mine", s) for s in SEEDS[:2]]
    lab = Origin(name="lab", who="", source="", received="")
    found += [dataclasses.replace(record, origin=lab) for record in sent]

    def described(*methods: str) -> list[tuple[str, str, int]]:
        shown = made(found, methods=list(methods)).blocks[0].rows
        return [(row.label, row.name, row.cells[0].n) for row in shown if row.cells[0] is not None]

    ours, theirs = ("mine", "mine:default", 3), ("mine [lab]", "mine:default@lab", 2)
    assert described() == described("mine") == [ours, theirs]
    assert described("mine@lab") == [theirs]
    assert described("mine:default@") == [ours]
    with pytest.raises(UserError) as error:
        described("mine@other")
    assert "lab" in str(error.value)


def test_missing_seeds_random_weights_and_old_protocols(tmp_path: Path) -> None:
    found = [run(tmp_path, "mine", s) for s in SEEDS[:2]]
    random = [run(tmp_path / "x", "random", s) for s in SEEDS]
    for record in random:
        record.data["weights"]["source"] = "random"
    old = [run(tmp_path / "y", "old", s) for s in SEEDS]
    for record in old:
        record.data["protocol"]["fingerprint"] = "0" * 64
    layout = made([*found, *random, *old])
    ((row,),) = (block.rows for block in layout.blocks)
    assert row.name == "mine:default"
    assert row.cells[0] is not None
    assert row.cells[0].text(1, std=True)[1].endswith(" (2/3)")
    assert r"mine$^\dagger$" in latex.body(layout)


def test_digits_and_deviations_are_as_asked(tmp_path: Path) -> None:
    found = [run(tmp_path, "mine", s) for s in SEEDS]
    (cell,) = made(found).blocks[0].rows[0].cells
    assert cell is not None
    text = latex.body(made(found, std=False, digits=1))
    assert f"mine & {cell.mean:.1f} " in text
    assert "pm" not in text.partition("toprule")[2]
    assert f"{cell.mean:.2f} ± {cell.deviation:.2f}" in layout_text.markdown(made(found))


def test_every_number_of_curves_csv_is_that_of_the_files(tmp_path: Path) -> None:
    for method in ("mine", "tcd"):
        for seed in SEEDS:
            run(tmp_path / "r", method, seed)
    run(tmp_path / "r", "mine", 1000, variant="lr=1")
    build.write(tmp_path / "r", tmp_path / "o", build.Wish(figures=False))
    with (tmp_path / "o" / HMDB / "curves.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 2 * 3
    assert {line["label"] for line in lines} == {"mine", "TCD"}
    for line in lines:
        seeds = SEEDS if line["variant"] == "default" else SEEDS[:1]
        files = [tmp_path / "r" / HMDB / line["method"] / f"{line['variant']}-s{seed}.json" for seed in seeds]
        curves = [steps_of(file, line["readout"]) for file in files]
        for number, name in enumerate(("accuracy", "forgetting")):
            values = [curve[number][int(line["step"])] for curve in curves]
            assert float(line[f"{name}_mean"]) == pytest.approx(statistics.fmean(values), abs=1e-5)
            if len(values) == 1:
                assert line[f"{name}_std"] == ""
            else:
                assert float(line[f"{name}_std"]) == pytest.approx(statistics.stdev(values), abs=1e-5)
        assert int(line["classes_seen"]) == (2, 3, 4)[int(line["step"])]
        assert line["n"] == str(len(seeds))


def test_a_report_of_one_protocol_without_figures(tmp_path: Path) -> None:
    for protocol in (HMDB, UCF):
        run(tmp_path / "r", "mine", 1000, protocol)
    written = build.write(tmp_path / "r", tmp_path / "o", build.Wish(only=(UCF,), figures=False))
    assert written.records == 1
    assert not list((tmp_path / "o").rglob("*.svg"))
    assert {path.parent.name for path in (tmp_path / "o").rglob("table.csv")} == {UCF}
    with pytest.raises(UserError) as error:
        build.write(tmp_path / "r", tmp_path / "o", build.Wish(only=("tcd_ucf101",)))
    assert UCF in str(error.value)


def test_comparisons_are_taken_from_the_last_report_unless_a_record_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("mine", "tcd"):
        for seed in SEEDS:
            run(tmp_path / "r", method, seed)
    compared: list[str] = []
    whole = significance._compare
    monkeypatch.setattr(significance, "_compare", lambda *given: compared.append(given[2]) or whole(*given))

    def report() -> tuple[int, bytes]:
        compared.clear()
        significance._KEPT.clear()  # as a new process
        build.write(tmp_path / "r", tmp_path / "o", build.Wish(figures=False))
        return len(compared), (tmp_path / "o" / build.COMPARISONS).read_bytes()

    first, kept = report()
    assert first > 0
    assert report() == (0, kept)
    (tmp_path / "o" / build.COMPARISONS).write_text("[", encoding="utf-8")
    assert report() == (first, kept)
    run(tmp_path / "r", "tcd", 2021, finished="2025-01-02T00:00:00Z")
    assert report() == (0, kept)  # nothing that a comparison is made of
    path = records.record_path(tmp_path / "r", HMDB, "tcd", "default", 2021)
    data = json.loads(path.read_text(encoding="utf-8"))
    data["steps"][2]["correct"]["cnn"][0] ^= 1
    path.write_text(json.dumps(data), encoding="utf-8")
    assert report()[0] > 0
