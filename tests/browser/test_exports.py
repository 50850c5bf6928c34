"""Exports in a browser: the files are opened, and their numbers compared with those of the records."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up_pages import HOSTILE, papers, papers_page, site
from made_up_records import record_data
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


def saved(page: Page, box: str, button: str, folder: Path) -> Path:
    """Click an export's button and return the file that the browser saved."""
    with page.expect_download() as download:
        page.locator(box).get_by_role("button", name=re.compile(f"as {button}:")).first.click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def accuracies(method: str, place: str, readout: str) -> list[list[float]]:
    """Recompute accuracy after each step, per seed, from the counts of the records."""
    return [
        [100 * sum(step["correct"][readout]) / (20 * len(step["correct"][readout])) for step in data["steps"]]
        for data in papers()
        if (data["method"]["name"], data["protocol"]["name"]) == (method, place) and data["variant"] == "default"
    ]


def test_the_leaderboard_as_csv_holds_the_records_numbers(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(papers_page())
    path = saved(page, "#board-exports", "CSV", tmp_path)
    assert path.name == "vcil-bench-leaderboard.csv"
    rows = read(path)
    assert [row["Method"] for row in rows] == ["gamma", "beta", "beta", "alpha", "Joint training, clip_tiny"]
    assert [row["kind"] for row in rows] == [*["measured"] * 4, "bound"]
    for row, (method, readout) in zip(
        rows,
        [("gamma", "cnn"), ("beta", "nme"), ("beta", "cnn"), ("alpha", "cnn"), ("joint", "cnn")],
        strict=True,
    ):
        for place, head in (("tcd_ucf101_10x5", "UCF101 10x5"), ("tcd_hmdb51_5x5", "HMDB51 5x5")):
            means = np.mean(accuracies(method, place, readout), axis=1)
            assert float(row[head]) == pytest.approx(means.mean(), abs=1e-4)
            assert float(row[f"{head} std"]) == pytest.approx(means.std(ddof=1), abs=1e-4)
            assert int(row[f"{head} orders"]) == len(means)
    assert rows[0]["UCF101 5x10"] == ""


def test_a_protocols_table_as_csv_follows_filter_and_sorting(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(papers_page())
    page.fill("#f-text", "pictures")
    page.locator("details.group").nth(1).locator("th[data-key=headline] button").click()
    rows = read(saved(page, "details.group:nth-of-type(2) .exports", "CSV", tmp_path))
    assert [row["Method"] for row in rows] == ["alpha", "alpha", "beta", "beta", "Joint training"]
    assert [row["Variant"] for row in rows][:2] == ["moe=False", "default"]
    (head,) = (key for key in rows[0] if key.startswith("Acc (avg") and key.endswith("↑"))
    means = np.mean(accuracies("beta", "tcd_ucf101_10x5", "cnn"), axis=1)
    assert float(rows[2][head]) == pytest.approx(means.mean(), abs=1e-4)
    best = np.mean(accuracies("beta", "tcd_ucf101_10x5", "nme"), axis=1).mean()
    assert float(rows[2]["Behind best"]) == pytest.approx(means.mean() - best, abs=1e-4)


def test_curves_as_csv_svg_and_png(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(papers_page(), color_scheme="dark")
    page.select_option("#c-group", "tcd_ucf101_10x5")
    page.locator("#c-pressed .chip", has_text="gamma").click()
    rows = read(saved(page, "#c-exports", "CSV", tmp_path))
    assert {row["method"] for row in rows} == {"alpha", "beta", "Joint training"}
    assert len(rows) == 2 * page.locator("#c-pressed .chip").count()
    for row in rows:
        method, readout = row["method"].replace("Joint training", "joint"), row["readout"].lower()
        step = {"2": 0, "3": 1}[row["classes seen"]]
        values = np.array(accuracies(method, "tcd_ucf101_10x5", readout))[:, step]
        assert float(row["accuracy"]) == pytest.approx(values.mean(), abs=1e-3)
        assert float(row["accuracy std"]) == pytest.approx(values.std(ddof=1), abs=1e-3)
    drawn = ElementTree.parse(saved(page, "#c-exports", "SVG", tmp_path)).getroot()
    texts = [node.text for node in drawn.iter("{http://www.w3.org/2000/svg}text") if node.text]
    assert "UCF101 10x5" in texts
    assert "beta NME" in texts
    assert not [text for text in texts if "gamma" in text]
    picture = Image.open(saved(page, "#c-exports", "PNG", tmp_path)).convert("RGB")
    assert picture.size[0] == 3300
    assert picture.getpixel((5, 5)) == (255, 255, 255)  # light, whatever the screen is
    assert np.asarray(picture).min() < 100  # dark text on it


def test_latex_has_grouped_heads_and_true_minus_signs(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(papers_page())
    text = saved(page, "#board-exports", "LaTeX", tmp_path).read_text(encoding="utf-8")
    assert r"\multicolumn{1}{c}{HMDB51} & \multicolumn{2}{c}{UCF101} \\" in text
    assert r"\cmidrule(lr){5-6}" in text
    best = np.mean(accuracies("beta", "tcd_ucf101_10x5", "nme"))
    assert rf"\textbf{{{best:.2f}}}" in text
    page.select_option("#b-metric", "backward_forgetting")
    text = saved(page, "#board-exports", "LaTeX", tmp_path).read_text(encoding="utf-8")
    assert re.search(r"\$-\d+\.\d\d\$", text)
    assert not re.search(r"& -\d", text)


def test_latex_compiles_whatever_records_say(visit: Callable[..., Page], tmp_path: Path) -> None:
    pdflatex = shutil.which("pdflatex")
    if pdflatex is None:
        pytest.skip("needs pdflatex")
    bad = [
        record_data(
            method=name, seed=seed, variant=variant, reason=HOSTILE, weights={"pretraining": "100 % of #1_{2}"}
        )
        for seed in (1, 2, 3)
        for name, variant in ((HOSTILE, "a_b=\\input{x}^2~$&%"), ("=1+1", "default"))
    ]
    page = visit(site(*papers(), *bad))
    page.check("#b-variants")
    page.check("#b-deviations")
    saved(page, "#board-exports", "LaTeX", tmp_path).rename(tmp_path / "board.tex")
    saved(page, "details.group:nth-of-type(1) .exports", "LaTeX", tmp_path).rename(tmp_path / "group.tex")
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage[a3paper,margin=1cm]{geometry}\\usepackage{booktabs,array}\n"
        "\\begin{document}\\input{board}\n\n\\input{group}\\end{document}\n"
    )
    done = subprocess.run(
        [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-1500:]
    text = saved(page, "#board-exports", "CSV", tmp_path).read_text(encoding="utf-8")
    assert "'=1+1" in text  # no formula for a spreadsheet
