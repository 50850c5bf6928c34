"""Results in the terminal: the numbers of the report's tables, like with like, nothing cut in a small window."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from made_up_records import record_data
from rich.console import Console
from tiny_dataset import Tiny

from vcil_bench import record as records
from vcil_bench.metrics import average_incremental_accuracy
from vcil_bench.record import Record
from vcil_bench.report import tables
from vcil_bench.report.results_matrix import ResultsError, group_sheet, matrix, partial_result, plain, sheet
from vcil_bench.report.terminal_table import Sheet, blocks, markdown

COUNTS = {"alpha": ((4,), (2, 1)), "beta": ((3,), (3, 2)), "bound": ((4,), (4, 2))}


def made(method: str, seed: int, **changes: Any) -> Record:
    data = record_data(method=method, seed=seed, correct=COUNTS.get(method, COUNTS["alpha"]), **changes)
    return Record(Path(f"/{method}-{seed}.json"), data)


@pytest.fixture
def some() -> list[Record]:
    joint = {"data_access": "cumulative"}
    other = {"name": "other", "label": "other", "fingerprint": "e" * 64}
    return [
        *(made("alpha", seed) for seed in (1, 2, 3)),
        *(_with(made("bound", seed), joint) for seed in (1, 2, 3)),
        *(made("beta", seed) for seed in (1, 2)),
        *(made("beta", seed, protocol=other) for seed in (1, 2, 3)),
    ]


def _with(record: Record, changes: dict[str, Any]) -> Record:
    """Change the method's section, whose name the helper sets."""
    record.data["method"].update(changes)  # type: ignore[typeddict-item]
    return record


def test_numbers_are_those_of_the_counts(some: list[Record]) -> None:
    lines = {(line["protocol"], line["method"]): line for line in plain(matrix(some))}
    R = [[1.0, float("nan")], [2 / 4, 1 / 2]]
    assert lines["made_up", "alpha"]["mean"] == pytest.approx(100 * average_incremental_accuracy(R, [4, 2]))
    assert lines["made_up", "alpha"]["std"] == pytest.approx(0)
    assert (lines["made_up", "beta"]["n"], lines["made_up", "beta"]["seeds"]) == (2, 3)
    assert len(lines) == 4


def test_rows_are_the_best_first_and_bounds_last(some: list[Record]) -> None:
    shown = sheet(matrix(some))
    assert [row[0] for row in shown.rows] == ["beta", "alpha", "bound"]
    assert shown.sections == {1}
    assert list(shown.names) == ["method"]  # all are default variants on one backbone, with one readout
    assert list(shown.titles) == ["made_up", "other"]
    assert shown.cells[0][0].endswith("(2/3)")
    assert shown.cells[1][1] == ""


def test_a_stale_number_has_an_asterisk(some: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tables, "changed_since", lambda record: ["code"] * (record.data["method"]["name"] == "beta")
    )
    shown = sheet(matrix(some, protocols=["made_up"]))
    assert [row[0].endswith(" *") for row in shown.cells] == [True, False, False]


def test_marks_are_those_of_the_reports_table(some: list[Record]) -> None:
    ranked = {line["method"]: line["mark"] for line in plain(matrix(some, protocols=["made_up"], ranked=True))}
    (group,) = (g for g in tables.groups(some) if g.label == "made_up")
    lines = tables.rows(group)
    wanted = {row.method: marks[0] for row, marks in zip(lines, tables.marks(lines, group.metrics), strict=True)}
    assert ranked == wanted
    assert {line["mark"] for line in plain(matrix(some))} == {""}


def test_what_is_asked_for_is_shown(some: list[Record]) -> None:
    assert {line["protocol"] for line in plain(matrix(some, protocols=["oth*"]))} == {"other"}
    assert {line["method"] for line in plain(matrix(some, methods=["alpha", "bo*"]))} == {"alpha", "bound"}
    assert {line["metric"] for line in plain(matrix(some, metric="max_forgetting"))} == {"max_forgetting"}
    assert len(plain(matrix(some, readout="headline"))) == len(plain(matrix(some, readout="cnn"))) == 4


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"metric": "final_acuracy"}, "did you mean 'final_accuracy'"),
        ({"protocols": ["made_upp"]}, "did you mean 'made_up'"),
        ({"methods": ["gamma"]}, "there are some of: alpha, beta, bound"),
        ({"readout": "nme"}, "readouts: headline, cnn"),
        ({"protocols": ["other"], "methods": ["alpha"]}, "nothing was run of this choice"),
    ],
)
def test_what_is_not_there_is_named(some: list[Record], asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ResultsError, match=says):
        matrix(some, **asked)
    with pytest.raises(ResultsError, match="no records"):
        matrix([])


def test_a_partial_run_tells_what_it_measured() -> None:
    partial = made("alpha", 1, status="partial")
    partial.data["steps"] = partial.data["steps"][:1]
    assert partial_result(partial) == "partial: seed 1, 1 of 2 tasks, top-1 100.00 % of 4 videos"
    assert partial_result(made("alpha", 1)) is None


def test_a_runs_table_has_all_metrics(some: list[Record]) -> None:
    (group,) = (g for g in tables.groups(some) if g.label == "other")
    shown = group_sheet(group)
    assert len(shown.titles) == 3
    assert [list(row) for row in shown.rows] == [["beta", "3/3"]]


WIDE = Sheet(
    ["method", "variant"],
    ["one long heading ↑", "two", "three"],
    [["alpha", "lr=0.1+epochs=20+batch_size=40+fssd=False"]],
    [["12.34 ± 5.67", "12.34 ± 5.67", "12.34 ± 5.67"]],
    [["best", "", "second"]],
)


@pytest.mark.parametrize(("width", "number"), [(40, 3), (60, 2), (110, 1)])
def test_a_table_fits_the_window_and_nothing_is_cut(width: int, number: int) -> None:
    made = blocks(WIDE, width)
    assert len(made) == number
    text = io.StringIO()
    console = Console(file=text, width=width)
    for table in made:
        console.print(table)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert text.getvalue().count("12.34 ± 5.67") == 3
    assert all(part in text.getvalue() for part in ("lr=0.1", "epochs=20", "batch_size=40", "fssd=False"))
    assert "…" not in text.getvalue()


def test_markdown_has_the_marks() -> None:
    row = [cell.strip() for cell in markdown(WIDE).splitlines()[2].strip("|").split("|")]
    assert row[2:] == ["**12.34 ± 5.67**", "12.34 ± 5.67", "*12.34 ± 5.67*"]


@pytest.fixture
def folder(some: list[Record], tmp_path: Path) -> Path:
    for record in some:
        data = record.data
        path = records.record_path(
            tmp_path, data["protocol"]["label"], data["method"]["name"], "default", data["seed"]
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        records.save(path, data)
    return tmp_path


def test_the_command_gives_every_format(folder: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    for chosen in ("csv", "json", "md", "table"):
        assert tiny.main("results", "--results", folder, "--format", chosen) == 0
    *lines, rest = capsys.readouterr().out.split("[\n", maxsplit=1)
    read = list(csv.DictReader(io.StringIO(lines[0])))
    parsed, end = json.JSONDecoder().raw_decode("[\n" + rest)
    assert [line["method"] for line in read] == [line["method"] for line in parsed]
    assert [float(line["mean"]) for line in read] == [line["mean"] for line in parsed]
    assert ("[\n" + rest)[end:].count("| method") == 2  # neither is a terminal
    assert tiny.main("results", "--results", folder / "nowhere") == 2
    assert tiny.main("results", "--results", folder, "--method", "gamma") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
