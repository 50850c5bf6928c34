"""The page of a comparison in a real browser: the same numbers as ``vcil-bench compare`` prints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reference_pages import FOLDER, SEEDS, cells, changed, files, guesses, number, paths, reference_page

from vcil_bench.cli import main

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
ROWS = "#compare/synthetic_3x4/stpr/default/text/synthetic_3x4/lwf/default/cnn"


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the command on the records of the page and return what it prints as JSON."""
    for path in paths():
        folder = tmp_path / "results" / path.parent.relative_to(FOLDER.parent)
        folder.mkdir(parents=True, exist_ok=True)
        for file in (path, path.with_suffix(".npz")):
            shutil.copy(file, folder)

    def compare(*arguments: str) -> Any:
        capsys.readouterr()
        assert main(["compare", *arguments, "--results", str(tmp_path / "results"), "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    return compare


def check(page: Page, wanted: Any) -> None:
    """Compare every table of the page with what the command says."""
    by_title = {line[0].rsplit(" ", 1)[0]: line[1:] for line in cells(page, "#part-metrics table")[1:]}
    titles = {"average_incremental_accuracy": "Acc (avg. incremental)", "final_accuracy": "Acc (final)"}
    titles |= {"backward_forgetting": "BWF", "tcd_forgetting": "Forgetting (TCD)"}
    for metric in wanted["metrics"]:
        first, second, difference, interval, record, p = by_title[titles[metric["metric"]]]
        shown = [number(text) for text in (first, second, difference)]
        assert shown == pytest.approx([metric[key] for key in ("first", "second", "difference")], abs=0.0051)
        if interval != "–":
            ends = [number(text) for text in interval.split(" to ")]
            assert ends == pytest.approx([metric["low"], metric["high"]], abs=0.0056)
        counts = [int(part) for part in record.split("–")]
        assert [*counts, 0][:3] == [metric["wins"], metric["losses"], metric["ties"]]
        assert float(p) == pytest.approx(metric["sign_p"], rel=5e-3)
    _, *lines = cells(page, "#part-tasks table.heat")
    for line, row in zip(lines, wanted["matrix"], strict=True):
        for text, value in zip(line[2:], row, strict=True):
            assert text == "" if value is None else number(text) == pytest.approx(value, abs=0.051)
    _, *lines = cells(page, "#part-tasks details table")
    keys = ("first_learnt", "second_learnt", "learnt", "first_final", "second_final", "final")
    for line, task in zip(lines, wanted["tasks"], strict=True):
        assert [number(text) for text in line[1:]] == pytest.approx([task[key] for key in keys], abs=0.051)
    _, *lines = cells(page, ".mcnemar")
    assert [line[0] for line in lines] == [f"seed {test['seed']}" for test in wanted["mcnemar"]]
    for line, test in zip(lines, wanted["mcnemar"], strict=True):
        assert [int(text) for text in line[1:5]] == [
            test[key] for key in ("both", "only_first", "only_second", "neither")
        ]
        assert float(line[5]) == pytest.approx(test["p"], rel=5e-2)
    settings = {
        line[0]
        for table in range(page.locator("#part-settings table").count())
        for line in page.locator("#part-settings table")
        .nth(table)
        .evaluate(
            "(table) => [...table.rows].slice(1).map((row) => [...row.cells].map((cell) => cell.textContent))"
        )
    }
    assert settings == {setting["key"] for setting in wanted["settings"]}


def test_rows_are_compared_as_the_command_does(visit: Callable[..., Page], told: Callable[..., Any]) -> None:
    page = visit(reference_page(), ROWS)
    page.wait_for_selector(".mcnemar")
    check(page, told("stpr", "lwf"))
    intervals = [line[4] for line in cells(page, "#part-metrics table")[1:]]
    assert intervals[0] != "–"  # of the headline
    assert "never below 0.25" in page.inner_text("#part-metrics")


def test_the_other_way_round_every_sign_turns(visit: Callable[..., Page], told: Callable[..., Any]) -> None:
    turned = "#compare/synthetic_3x4/lwf/default/cnn/synthetic_3x4/stpr/default/text"
    page = visit(reference_page(), turned)
    page.wait_for_selector(".mcnemar")
    check(page, told("lwf", "stpr"))


def test_readouts_and_variants_are_compared(visit: Callable[..., Page], told: Callable[..., Any]) -> None:
    icarl = "synthetic_3x4/icarl/default"
    page = visit(reference_page(), f"#compare/{icarl}/nme/{icarl}/cnn")
    page.wait_for_selector(".mcnemar")
    check(page, told("icarl", "icarl", "--readout", "nme,cnn"))
    stpr = "synthetic_3x4/stpr"
    page.goto(f"{page.url.partition('#')[0]}#compare/{stpr}/default/text/{stpr}/fssd%3DFalse/text")
    page.get_by_role("heading", name="fssd=False").wait_for()
    page.wait_for_selector(".mcnemar")
    check(page, told("stpr:default", "stpr:fssd=False"))


def test_two_runs_are_compared(visit: Callable[..., Page], told: Callable[..., Any]) -> None:
    runs = ("synthetic_3x4/stpr/default-s1000", "synthetic_3x4/icarl/default-s1000")
    page = visit(reference_page(), f"#compare/run/{'~~'.join(runs)}")
    page.wait_for_selector(".mcnemar")
    files = [str(FOLDER.parent / f"{run}.json") for run in runs]
    check(page, told(*files))
    page.get_by_role("combobox", name="B classifier").select_option("cnn")
    page.get_by_role("heading", name="CNN").wait_for()
    page.wait_for_selector(".mcnemar")
    check(page, told(*files, "--readout", "text,cnn"))
    page.get_by_role("combobox", name="B run").select_option(label="LwF.MC seed 1993")
    page.get_by_role("heading", name="seed 1993").wait_for()
    assert "no class order in common" in page.inner_text("#detail")


def test_videos_that_one_alone_recognises(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), ROWS)
    page.wait_for_selector(".mcnemar")
    alone: dict[str, list[int]] = {}
    by_class: dict[str, list[int]] = {}
    for seed in SEEDS:
        hits = []
        for method, readout in (("stpr", "text"), ("lwf", "cnn")):
            record, arrays = files(method, seed)
            last = guesses(arrays, readout)[-1]
            names = [record["class_names"][c] for c in record["class_order"]]
            right = {
                str(video): (guess == true, names[true])
                for video, guess, true in zip(arrays["videos"], last, arrays["labels"].tolist(), strict=True)
            }
            hits.append(right)
        for video, (first, name) in hits[0].items():
            second = hits[1][video][0]
            counts = by_class.setdefault(name, [0, 0])
            counts[0] += first and not second
            counts[1] += second and not first
            if first and not second:
                alone.setdefault(video, []).append(seed)
    _, *lines = cells(page, "#part-videos .tall table")
    assert {line[0]: [int(line[1]), int(line[2])] for line in lines} == {
        name: counts for name, counts in by_class.items() if any(counts)
    }
    page.get_by_text("that only A recognises").press("Enter")
    page.wait_for_selector(".lost")
    _, *lines = cells(page, ".lost")
    assert {line[-3]: line[-1] for line in lines} == {
        video: ", ".join(map(str, seeds)) for video, seeds in alone.items()
    }


def test_two_ticked_rows_are_compared_on_a_click(visit: Callable[..., Page], told: Callable[..., Any]) -> None:
    page = visit(reference_page(), "#protocols/synthetic_3x4")
    page.get_by_label("compare StPR, text, default").check()
    page.get_by_label("compare LwF.MC, CNN, default").check()
    page.get_by_role("link", name="Compare", exact=True).click()
    page.wait_for_selector(".mcnemar")
    assert page.url.endswith(ROWS)
    check(page, told("stpr", "lwf"))
    page.go_back()
    page.wait_for_selector("#home:visible")
    assert page.locator(".overview input:checked").count() == 2


def without_names(data: Any) -> None:
    """Take the names of test videos from the page, as of runs with more videos than it names."""
    for run in data["runs"]:
        run["videos"] = None


def test_videos_without_names_are_paired_by_their_place(
    visit: Callable[..., Page], told: Callable[..., Any]
) -> None:
    page = visit(changed(reference_page(), without_names), ROWS)
    page.wait_for_selector(".mcnemar")
    check(page, told("stpr", "lwf"))  # which pairs by names


@pytest.mark.parametrize("what", ["manifest_sha256", "left_out", "class_order", "labels"])
def test_videos_without_names_of_other_lists_are_not_paired(what: str, visit: Callable[..., Page]) -> None:
    def differ(data: Any) -> None:
        without_names(data)
        pool = data["pool"]
        for run in data["runs"]:
            if not run["id"].startswith("synthetic_3x4/lwf/"):
                continue
            if what == "labels":
                for outcome in run["outcomes"].values():
                    labels = pool[outcome["labels"]]
                    pool.append([labels[-1], *labels[1:-1], labels[0]])
                    outcome["labels"] = len(pool) - 1
            elif what == "class_order":
                order = pool[run["class_order"]]
                pool.append([order[1], order[0], *order[2:]])
                run["class_order"] = len(pool) - 1
            else:
                other = {"manifest_sha256": "0" * 64, "left_out": [{"id": "a", "split": "test", "problem": "b"}]}
                pool.append(pool[run["data"]] | {what: other[what]})
                run["data"] = len(pool) - 1

    page = visit(changed(reference_page(), differ), ROWS)
    page.wait_for_selector("#part-videos p")
    for _ in range(50):
        if "Unpacking" not in page.inner_text("#detail"):
            break
        page.wait_for_timeout(100)
    assert page.locator(".mcnemar").count() == 0
    assert page.locator("#part-metrics table").count() == 1
