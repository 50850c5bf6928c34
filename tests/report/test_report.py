"""Tables and curves from records: right numbers, nothing mixed that must not be, the same bytes twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from made_up_records import record_data
from tiny_dataset import Tiny

from vcil_bench import record as records
from vcil_bench.record import Record, RecordData
from vcil_bench.report.build import Written, write
from vcil_bench.report.curves import accuracy_curve, forgetting_curve
from vcil_bench.report.tables import groups, rows

# Counts of three seeds on tasks of 4 and 2 test videos, and what they come to by hand, in percent:
#                    accuracies after steps   average   final   BWF
#   [[4], [2, 1]]    4/4, 3/6                   75       50      50
#   [[2], [2, 2]]    2/4, 4/6                58 1/3    66 2/3     0
#   [[1], [2, 0]]    1/4, 2/6                29 1/6    33 1/3   -25
SEEDS = {1: [[4], [2, 1]], 2: [[2], [2, 2]], 3: [[1], [2, 0]]}
AVERAGE = [75, 175 / 3, 175 / 6]
FINAL = [50, 200 / 3, 100 / 3]
BWF = [50, 0, -25]


def put(results: Path, data: RecordData) -> Path:
    """Save a record where a run would have."""
    name, protocol = data["method"]["name"], data["protocol"]["label"]
    path = records.record_path(results, protocol, name, data["variant"], data["seed"])
    records.save(path, data)
    return path


def report(tmp_path: Path, *data: RecordData) -> Written:
    """Write the report of some records."""
    (tmp_path / "results").mkdir(exist_ok=True)
    for one in data:
        put(tmp_path / "results", one)
    return write(tmp_path / "results", tmp_path / "reports")


def table(tmp_path: Path, label: str = "made_up") -> pd.DataFrame:
    return pd.read_csv(tmp_path / "reports" / label / "table.csv", keep_default_na=False, na_values=[""])


def markdown(tmp_path: Path, label: str = "made_up") -> list[dict[str, str]]:
    """Read the rows of a report's Markdown table."""
    text = (tmp_path / "reports" / label / "table.md").read_text(encoding="utf-8")
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def labels(tmp_path: Path) -> set[str]:
    """Return the names of the tables in a report."""
    return {path.parent.name for path in (tmp_path / "reports").glob("*/table.md")}


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    report(tmp_path, *(record_data(seed=seed, correct=counts) for seed, counts in SEEDS.items()))
    (row,) = table(tmp_path).to_dict("records")
    assert (row["n"], row["seeds"]) == (3, 3)
    for metric, values in (
        ("average_incremental_accuracy", AVERAGE),
        ("final_accuracy", FINAL),
        ("backward_forgetting", BWF),
    ):
        mean = sum(values) / 3
        deviation = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
        assert row[f"{metric}_mean"] == pytest.approx(mean, abs=1e-5)
        assert row[f"{metric}_std"] == pytest.approx(deviation, abs=1e-5)
    (cells,) = markdown(tmp_path)
    assert cells["Acc (avg. incremental) ↑"] == "54.17 ± 23.20"
    assert cells["Acc (final) ↑"] == "50.00 ± 16.67"
    assert cells["BWF ↓"] == "8.33 ± 38.19"
    assert cells["n"] == "3/3"
    assert cells["notes"] == ""


def test_missing_seed_is_shown(tmp_path: Path) -> None:
    report(tmp_path, record_data(seed=1, correct=SEEDS[1]), record_data(seed=2, correct=SEEDS[2]))
    (cells,) = markdown(tmp_path)
    assert cells["n"] == "2/3"
    assert cells["Acc (avg. incremental) ↑"] == "66.67 ± 11.79 (*)"
    assert cells["notes"] == "2 of 3 seeds"
    text = (tmp_path / "reports" / "made_up" / "table.md").read_text(encoding="utf-8")
    assert "(*) marks rows where they are not all there" in text


def test_single_seed_has_no_deviation(tmp_path: Path) -> None:
    report(tmp_path, record_data(seed=1))
    (cells,) = markdown(tmp_path)
    assert cells["Acc (final) ↑"] == "50.00 (*)"
    assert np.isnan(table(tmp_path)["final_accuracy_std"][0])


@pytest.mark.parametrize("status", ["partial", "failed"])
def test_unfinished_runs_are_noted_and_never_averaged(tmp_path: Path, status: str) -> None:
    report(
        tmp_path,
        record_data(seed=1, correct=SEEDS[1]),
        record_data(seed=2, correct=SEEDS[2], status=status),  # even with all its counts
        record_data(seed=3, correct=[[0]], status=status),
        record_data(method="beta", seed=1, correct=[], status=status),
    )
    alpha, beta = markdown(tmp_path)
    assert alpha["Acc (final) ↑"] == "50.00 (*)"
    assert alpha["notes"] == f"1 of 3 seeds, 2 {status}"
    assert beta["Acc (final) ↑"] == "– (*)"
    assert beta["notes"] == f"0 of 3 seeds, 1 {status}"


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        pytest.param(
            {"data": {"kind": "synthetic"}},
            "synthetic data",
        ),
        ({"weights": {"source": "random"}}, "random weights"),
        ({"protocol": {"fingerprint": "e" * 64}}, "eeeeeeee"),
    ],
    ids=["synthetic", "random weights", "fingerprint"],
)
def test_what_cannot_be_compared_never_shares_a_table(
    tmp_path: Path, changes: Mapping[str, dict[str, str]], mark: str
) -> None:
    written = report(tmp_path, record_data(method="alpha"), record_data(method="beta", **changes))
    found = {label: {row["method"] for row in markdown(tmp_path, label)} for label in labels(tmp_path)}
    assert sorted(map(sorted, found.values())) == [["alpha"], ["beta"]]
    assert len(written.files) == len(set(written.files))
    (label,) = [label for label, methods in found.items() if methods == {"beta"}]
    heading = (tmp_path / "reports" / label / "table.md").read_text(encoding="utf-8").splitlines()[0]
    assert mark in heading


def test_random_weights_are_no_statement(tmp_path: Path) -> None:
    report(tmp_path, record_data(weights={"source": "random"}))
    index = (tmp_path / "reports" / "index.md").read_text(encoding="utf-8")
    assert "no statement about any method" in index


def test_derived_protocol_says_what_was_changed(tmp_path: Path) -> None:
    derived = {"label": "made_up~eeeeeeee", "fingerprint": "e" * 64, "overrides": {"clip.frames": 4}}
    report(tmp_path, record_data(protocol=derived))
    assert "[derived: clip.frames=4]" in (tmp_path / "reports" / "index.md").read_text(encoding="utf-8")


def test_variants_and_backbones_are_rows_of_their_own(tmp_path: Path) -> None:
    report(
        tmp_path,
        record_data(),
        record_data(variant="lr=1"),
        record_data(variant="weights=w", weights={"source": "/somewhere/w.safetensors"}),
        record_data(method="beta", weights={"name": "clip_vit_b16", "source": "openai"}),
    )
    rows = [(row["method"], row["variant"], row["backbone"]) for row in markdown(tmp_path)]
    assert rows == [
        ("alpha", "default", "clip_tiny"),
        ("alpha", "lr=1", "clip_tiny"),
        ("alpha", "weights=w", "clip_tiny (w.safetensors)"),
        ("beta", "default", "clip_vit_b16"),
    ]


def test_every_readout_is_a_row(tmp_path: Path) -> None:
    data = record_data()
    data["method"]["readouts"] = ["cnn", "nme"]
    for step in data["steps"]:
        step["correct"]["nme"] = [0] * len(step["correct"]["cnn"])
    report(tmp_path, data)
    assert [(row["readout"], row["Acc (final) ↑"]) for row in markdown(tmp_path)] == [
        ("cnn", "50.00 (*)"),
        ("nme", "0.00 (*)"),
    ]


def test_stale_rows_are_marked(tmp_path: Path) -> None:
    method = tmp_path / "alpha.py"
    method.write_text("# changed since\n", encoding="utf-8")
    data = record_data(identity={"alpha.py": "0" * 16})
    data["method"]["file"] = str(method)
    report(tmp_path, data, record_data(method="beta", identity={"beta.py": "0" * 16}))
    alpha, beta = markdown(tmp_path)
    assert "stale: alpha.py changed" in alpha["notes"]
    assert "stale" not in beta["notes"]  # its file is not there


def test_videos_left_out_are_noted(tmp_path: Path) -> None:
    left_out = [{"id": "a", "split": "test", "problem": "missing"}]
    report(tmp_path, record_data(), record_data(seed=2, data={"left_out": left_out}))
    (row,) = markdown(tmp_path)
    assert "1 videos left out" in row["notes"]


def test_csv_and_markdown_agree(tmp_path: Path) -> None:
    report(
        tmp_path,
        *(record_data(seed=seed, correct=counts) for seed, counts in SEEDS.items()),
        record_data(method="beta", seed=1),
        record_data(method="gamma", seed=1, correct=[], status="failed"),
    )
    rows, cells = table(tmp_path), markdown(tmp_path)
    assert len(rows) == len(cells) == 3
    titles = {
        "average_incremental_accuracy": "Acc (avg. incremental) ↑",
        "final_accuracy": "Acc (final) ↑",
        "backward_forgetting": "BWF ↓",
    }
    for (_, row), shown in zip(rows.iterrows(), cells, strict=True):
        assert row["method"] == shown["method"]
        assert shown["n"] == f"{row['n']}/{row['seeds']}"
        assert ("" if pd.isna(row["notes"]) else row["notes"]) == shown["notes"]
        for metric, title in titles.items():
            mean, deviation = row[f"{metric}_mean"], row[f"{metric}_std"]
            text = "–" if pd.isna(mean) else f"{mean:.2f}"
            text += "" if pd.isna(deviation) else f" ± {deviation:.2f}"
            assert shown[title].removesuffix(" (*)").strip("*") == text


def test_bar_in_a_text_does_not_break_the_table(tmp_path: Path) -> None:
    report(tmp_path, record_data(weights={"source": "/somewhere/a|b.safetensors"}))
    text = (tmp_path / "reports" / "made_up" / "table.md").read_text(encoding="utf-8")
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_curves_follow_the_counts(tmp_path: Path) -> None:
    found = records.load(put(tmp_path, record_data(correct=[[4], [2, 1]])))
    np.testing.assert_allclose(accuracy_curve(found, "cnn"), [100, 50])
    np.testing.assert_allclose(forgetting_curve(found, "cnn"), [0, 50])


@pytest.mark.pictures
def test_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    data = [record_data(seed=seed, correct=counts) for seed, counts in SEEDS.items()]
    data += [record_data(method="beta", seed=1), record_data(method="beta", variant="lr=1", seed=1)]
    written = report(tmp_path, *data)
    names = sorted(str(file.relative_to(tmp_path / "reports")) for file in written.files)
    files = {"curves.png", "curves.svg", "variants/beta.png", "variants/beta.svg", "table.csv", "table.md"}
    files |= {"curves.pdf", "variants/beta.pdf", "curves.csv"}
    assert {"index.html", "index.md", *(f"made_up/{name}" for name in files)} <= set(names)
    assert {n.partition("/")[0] for n in names} == {"index.html", "index.md", "made_up", "papers"}
    assert {Path(n).suffix for n in names if n.startswith("papers/")} == {".md", ".csv", ".tex"}
    assert sorted(names) == sorted(set(names))
    first = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in written.files}
    assert report(tmp_path).files == written.files
    assert {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in written.files} == first
    folder = tmp_path / "reports" / "made_up"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    svg = (folder / "curves.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    for name in (">alpha<", ">beta (1/3 seeds)<"):
        assert name in svg
    assert ">beta lr=1 (1/3 seeds)<" in (folder / "variants" / "beta.svg").read_text(encoding="utf-8")


def test_corrupt_record_is_named_and_the_others_reported(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, out = tmp_path / "results", tmp_path / "reports"
    put(results, record_data())
    bad = put(results, record_data(method="beta"))
    bad.write_bytes(bad.read_bytes()[:50])
    assert tiny.main("report", "--results", results, "--out", out) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("vcil-bench: error: ")
    assert str(bad) in line
    assert "1 records" in printed.out
    assert [row["method"] for row in markdown(tmp_path)] == ["alpha"]
    text = (out / "index.md").read_text(encoding="utf-8")
    assert bad.relative_to(tmp_path).as_posix() in text
    assert str(bad) not in text  # which is told on the terminal alone


def _sections() -> list[tuple[str, str]]:
    data = json.loads(json.dumps(record_data()))
    return [(name, key) for name in ("protocol", "method", "data", "weights") for key in data[name]]


def test_record_without_a_key_never_ends_the_report(tmp_path: Path) -> None:
    for section, key in _sections():
        data = json.loads(json.dumps(record_data(method=f"no_{section}_{key}")))
        del data[section][key]
        path = tmp_path / "results" / "made_up" / f"no_{section}_{key}" / "default-s1.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(data), encoding="utf-8")
    report(tmp_path, record_data())
    assert "alpha" in {row["method"] for row in markdown(tmp_path)}


def test_empty_results(tiny: Tiny, tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "reports"
    results.mkdir()
    assert tiny.main("report", "--results", results, "--out", out) == 0
    assert "No records in results" in (out / "index.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_report_imports_neither_torch_nor_a_method(tmp_path: Path) -> None:
    data = record_data(method="zero_shot", identity={"vcil_bench.losses": "0" * 16})
    data["method"] |= {"origin": "built-in", "file": "zero_shot.py"}
    data["protocol"] |= {"name": "synthetic_3x4", "origin": "protocols/synthetic_3x4.yaml"}
    put(tmp_path / "results", data)
    code = (
        "import sys\nfrom vcil_bench.cli import main\n"
        f"assert main(['report', '--results', {str(tmp_path / 'results')!r}, '--out', {str(tmp_path)!r}]) == 0\n"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('vcil_bench.methods.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "stale: protocol, vcil_bench.losses changed" in (tmp_path / "index.md").read_text("utf-8")


def test_seeds_on_other_data_or_weights_are_marked() -> None:
    changes = [
        {},
        {"data": {"manifest_sha256": "8" * 64}},
        {"weights": {"sha256": "9" * 64}},
    ]
    made = [
        Record(Path(f"{seed}.json"), record_data(seed=seed, **change))
        for seed, change in enumerate(changes, start=1)
    ]
    (row,) = rows(groups(made)[0])
    assert row.notes == "seeds differ in data, weights"


def _ranked(tmp_path: Path) -> dict[tuple[str, str], str]:
    """Return the headline cell of every row of a report."""
    return {(row["method"], row["readout"]): row["Acc (avg. incremental) ↑"] for row in markdown(tmp_path)}


def test_best_is_bold_and_loses_it_with_a_seed(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        put(tmp_path / "results", record_data(method="good", seed=seed, correct=[[4], [4, 2]]))
        put(tmp_path / "results", record_data(method="fair", seed=seed, correct=[[3], [3, 1]]))
        put(tmp_path / "results", record_data(method="poor", seed=seed, correct=[[1], [1, 0]]))
        bound = record_data(method="bound", seed=seed, correct=[[4], [4, 2]])
        bound["method"]["data_access"] = "cumulative"
        put(tmp_path / "results", bound)
    report(tmp_path)
    cells = _ranked(tmp_path)
    assert cells["good", "cnn"].startswith("**100.00")
    assert cells["fair", "cnn"].startswith("*")
    assert not cells["fair", "cnn"].startswith("**")
    assert not cells["poor", "cnn"].startswith("*")
    assert not cells["bound", "cnn"].startswith("*")
    (tmp_path / "results" / "made_up" / "good" / "default-s3.json").unlink()
    report(tmp_path)
    cells = _ranked(tmp_path)
    assert cells["good", "cnn"] == "100.00 ± 0.00 (*)"
    assert cells["fair", "cnn"].startswith("**")
    row = next(row for row in markdown(tmp_path) if row["method"] == "good")
    assert row["n"] == "2/3"


def test_other_weights_are_ranked_apart(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        put(tmp_path / "results", record_data(method="good", seed=seed, correct=[[4], [4, 2]]))
        put(tmp_path / "results", record_data(method="fair", seed=seed, correct=[[3], [3, 1]]))
        other = {"name": "other", "pretraining": "labelled pictures"}
        put(tmp_path / "results", record_data(method="apart", seed=seed, correct=[[1], [1, 0]], weights=other))
    report(tmp_path)
    assert not _ranked(tmp_path)["apart", "cnn"].startswith("*")


def test_records_that_came_along_give_way_to_ones_own(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for seed in (1, 2):
        put(results / "reference", record_data(seed=seed, correct=[[4], [4, 2]]))
    report(tmp_path)
    assert _ranked(tmp_path)["alpha", "cnn"] == "100.00 ± 0.00 (*)"
    put(results, record_data(seed=2, correct=[[0], [0, 0]]))
    report(tmp_path)
    assert _ranked(tmp_path)["alpha", "cnn"] == "50.00 ± 70.71 (*)"
    (row,) = markdown(tmp_path)
    assert row["n"] == "2/3"


SENSELESS: list[tuple[tuple[str, ...], object]] = [
    (("seed",), "1000"),
    (("protocol", "seeds"), None),
    (("protocol", "seeds"), ["1"]),
    (("protocol", "overrides"), None),
    (("identity",), None),
    (("method", "readouts"), []),
    (("data", "left_out"), None),
    (("config",), None),
    (("config",), {"lr": 0.1}),
    (("environment",), None),
    (("sessions",), None),
    (("predictions",), "lost.npz"),
    (("class_order",), [0, 0, 0]),
    (("method", "name"), "half \ud800"),
    (("protocol", "label"), "../../escaped"),
]


def test_records_that_make_no_sense_are_left_out_by_name(tmp_path: Path) -> None:
    results = tmp_path / "results"
    put(results, record_data(method="sound"))
    for number, (path, value) in enumerate(SENSELESS):
        target = put(results, record_data(method=f"broken{number}"))
        data = json.loads(target.read_text(encoding="utf-8"))
        place = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        target.write_text(json.dumps(data), encoding="utf-8")
    written = report(tmp_path)
    assert written.records == 1
    assert len(written.errors) == len(SENSELESS)
    for number, (path, _) in enumerate(SENSELESS):
        assert any(f"broken{number}/" in str(error) for error in written.errors), path
    assert not (tmp_path.parent / "escaped").exists()


def test_steps_without_costs_and_damaged_predictions_are_left_out(tmp_path: Path) -> None:
    put(tmp_path / "results", record_data(method="sound"))
    target = put(tmp_path / "results", record_data(method="no_costs"))
    data = json.loads(target.read_text(encoding="utf-8"))
    del data["steps"][0]["costs"]
    target.write_text(json.dumps(data), encoding="utf-8")
    other = put(tmp_path / "results", record_data(method="cut"))
    half = b"PK\x03\x04 cut short"
    records.predictions_path(other).write_bytes(half)
    data = json.loads(other.read_text(encoding="utf-8"))
    data["predictions"] = {"file": "x", "sha256": hashlib.sha256(half).hexdigest()}
    other.write_text(json.dumps(data), encoding="utf-8")
    written = report(tmp_path)
    assert written.records == 1
    assert sorted("no_costs" in str(error) for error in written.errors) == [False, True]


def test_a_copy_of_a_record_does_not_count_twice(tmp_path: Path) -> None:
    path = put(tmp_path / "results", record_data(seed=1))
    copy = path.with_name("copy-s1.json")
    copy.write_bytes(path.read_bytes())
    written = report(tmp_path)
    assert written.records == 1
    assert "a copy elsewhere is not read" in str(written.errors[0])
    (row,) = markdown(tmp_path)
    assert row["n"] == "1/3"


@pytest.mark.parametrize(
    ("name", "source", "shown"),
    [
        ("tsm_resnet34", "timm resnet34.tv_in1k", "tsm_resnet34"),
        ("tsm_resnet34", "timm resnet34.a1_in1k", "tsm_resnet34 (timm resnet34.a1_in1k)"),
        ("tsm_resnet50", "timm resnet34.tv_in1k", "tsm_resnet50 (timm resnet34.tv_in1k)"),
        ("clip_vit_b16", "openai", "clip_vit_b16"),
        ("clip_vit_b16", "/weights/mine.safetensors", "clip_vit_b16 (mine.safetensors)"),
        ("clip_tiny", "embedded", "clip_tiny"),
    ],
)
def test_weights_are_named_unless_they_are_the_backbone_s_own(name: str, source: str, shown: str) -> None:
    found = Record(Path("x.json"), record_data(weights={"name": name, "source": source}))
    (group,) = groups([found])
    (row,) = rows(group)
    assert row.backbone == shown
