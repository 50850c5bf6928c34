"""``table`` and ``figure`` on the records that come with the harness, as a user gives them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from vcil_bench.cli import main

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "synthetic_3x4"
TABLE = ("table", "--protocols", "synthetic_3x4")
FIGURE = ("figure", "curves", "--protocol", "synthetic_3x4")


@pytest.fixture(autouse=True)
def few_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where two methods have results."""
    folder = tmp_path / "results" / "synthetic_3x4"
    folder.mkdir(parents=True)
    for method in ("icarl", "tcd"):
        (folder / method).symlink_to(REFERENCE / method)
    monkeypatch.chdir(tmp_path)


def test_a_table_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TABLE, "--methods", "tcd,icarl", "--format", "csv"]) == 0
    printed = capsys.readouterr().out
    lines = list(csv.DictReader(io.StringIO(printed)))
    assert [line["label"] for line in lines] == ["TCD", "iCaRL"]
    out = tmp_path / "sub" / "table.tex"
    assert main([*TABLE, "--methods", "tcd", "--format", "tex", "--labels", "tcd=A_B", "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert r"A\_B" in text
    assert r"\begin{table}" not in text
    assert main([*TABLE, "--methods", "tcd", "--format", "tex", "--float", "--out", str(out)]) == 0
    assert r"\begin{table}" in out.read_text(encoding="utf-8")


def test_figures_are_written_in_the_formats_asked_for(tmp_path: Path) -> None:
    files = [tmp_path / f"x.{suffix}" for suffix in ("pdf", "svg", "png")]
    more = ["--methods", "tcd", "--width", "84mm", "--quantity", "accuracy", "--out", *map(str, files)]
    assert main([*FIGURE, *more]) == 0
    assert all(file.stat().st_size > 0 for file in files)


@pytest.mark.pictures
def test_the_same_figure_has_the_same_bytes(tmp_path: Path) -> None:
    first, again = ([tmp_path / f"{name}.{suffix}" for suffix in ("pdf", "svg", "png")] for name in "ab")
    for files in (first, again):
        assert main([*FIGURE, "--methods", "tcd", "--width", "6in", "--out", *map(str, files)]) == 0
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]
    assert first[0].read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("kind", ["forgetting", "cost", "matrix", "confusion"])
def test_every_kind_is_drawn(kind: str, tmp_path: Path) -> None:
    given = ["figure", kind, *FIGURE[2:], "--methods", "icarl", "--readout", "nme"]
    assert main([*given, "--width", "5in", "--out", str(tmp_path / "x.svg")]) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        [*TABLE, "--digits", "9"],
        [*TABLE, "--float"],
        [*TABLE, "--methods", "tdc"],
        [*FIGURE, "--out", "x.jpg"],
        [*FIGURE, "--methods", "tcd", "--readout", "text"],
        ["figure", "matrix", *FIGURE[2:], "--methods", "icarl,tcd"],
        [*FIGURE, "--methods", "tcd", "--width", "0.6in", "--out", "x.pdf"],
    ],
)
def test_what_cannot_be_is_refused(wrong: list[str], tmp_path: Path) -> None:
    assert main(wrong) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.parametrize(
    "wrong", [[*FIGURE, "--width", "3"], [*FIGURE, "--width", "99in"], [*TABLE, "--methods", "a,,b"]]
)
def test_what_cannot_be_read_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(wrong)
    assert end.value.code == 2
