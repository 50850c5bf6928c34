"""Leaderboard in a browser: what is in its cells, what its switches show, where its links lead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up_pages import papers, papers_page, until

from vcil_bench import metrics

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
LINES = ".board tbody tr:not(.like)"


def lines(page: Page) -> list[list[str]]:
    """Return the leaderboard's lines: method, readout, exemplars and numbers."""
    return page.locator(LINES).evaluate_all(
        "all => all.map(line => [...line.children].map(cell => cell.innerText.trim()))"
    )


def headings(page: Page) -> list[str]:
    return page.locator(".board tr.like").all_inner_texts()


def names(page: Page) -> list[str]:
    return page.locator(f"{LINES} th a").all_inner_texts()


def measured(metric: str, method: str, place: str, readout: str, variant: str = "default") -> str:
    """Recompute a cell from the counts of the records, without what the page is made with."""
    values = []
    for data in papers():
        if (data["method"]["name"], data["protocol"]["name"], data["variant"]) != (method, place, variant):
            continue
        totals, rows = np.array(data["test_videos"]), [step["correct"][readout] for step in data["steps"]]
        accuracies = [sum(row) / sum(totals[: len(row)]) for row in rows]
        drop = rows[0][0] / totals[0] - rows[1][0] / totals[0]
        values.append(100 * {"mean": float(np.mean(accuracies)), "last": accuracies[-1], "drop": drop}[metric])
    return f"{np.mean(values):.2f}".replace("-", "−")


def test_methods_stand_against_protocols_best_first_and_bounds_apart(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    assert page.locator(".board .spanner").all_inner_texts() == ["HMDB51", "UCF101"]
    assert page.locator(".board thead tr:nth-child(2) a").all_inner_texts() == ["5x5", "10x5", "5x10"]
    assert [text.partition(" ·")[0] for text in headings(page)] == [
        "captions",
        "pictures",
        "Bounds, not ranked: trained on the videos of all tasks so far",
    ]
    assert names(page) == ["gamma", "beta", "beta", "alpha", "Joint training"]
    table = lines(page)
    places = ("tcd_hmdb51_5x5", "tcd_ucf101_10x5", "tcd_ucf101_5x10")
    assert table[0][3:] == [*(measured("mean", "gamma", place, "cnn") for place in places[:2]), ""]
    best = [measured("mean", "beta", place, "nme") for place in places]
    assert table[1][1:] == ["NME", "none", f"{best[0]} 2/3", *best[1:]]
    assert table[3][3:] == [measured("mean", "alpha", place, "cnn") for place in places]
    bold = page.locator(".board strong").all_inner_texts()
    assert bold == best[1:]  # neither bounds, nor what lacks a class order
    assert page.locator(".board u").all_inner_texts() == [measured("mean", "beta", p, "cnn") for p in places[1:]]


def test_switches_change_metric_readout_variants_and_deviations(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    page.select_option("#b-metric", "final_accuracy")
    assert lines(page)[0][4] == measured("last", "gamma", "tcd_ucf101_10x5", "cnn")
    page.select_option("#b-metric", "backward_forgetting")
    alpha = next(line for line in lines(page) if "alpha" in line[0])
    assert alpha[4] == measured("drop", "alpha", "tcd_ucf101_10x5", "cnn")
    page.select_option("#b-metric", "")
    page.select_option("#b-readout", "nme")
    assert names(page) == ["beta"]
    page.select_option("#b-readout", "first")
    assert [line[1] for line in lines(page) if "beta" in line[0]] == ["CNN"]
    page.select_option("#b-readout", "best")
    assert [line[1] for line in lines(page) if "beta" in line[0]] == ["NME"]
    page.select_option("#b-readout", "")
    assert "variants (1 hidden)" in page.inner_text("#b-variants-label")
    page.check("#b-variants")
    (variant,) = (line for line in lines(page) if "moe=False" in line[0])
    assert variant[4] == measured("mean", "alpha", "tcd_ucf101_10x5", "cnn", "moe=False")
    page.check("#b-deviations")
    assert f"{measured('mean', 'gamma', 'tcd_ucf101_10x5', 'cnn')} ± 3.75" in lines(page)[0][4]
    assert page.evaluate("document.activeElement.id") == "b-deviations"


def test_every_metric_that_occurs_can_be_chosen(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    offered = page.locator("#b-metric option").evaluate_all("all => all.map(one => one.value)")
    assert offered[0] == ""
    assert set(offered[1:]) <= set(metrics.METRICS)
    assert {"average_incremental_accuracy", "final_accuracy", "backward_forgetting"} <= set(offered)


def test_sorting_by_a_protocol_and_back(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    page.check("#b-variants")
    button = page.get_by_role("button", name="sort by UCF101 10x5")
    before = names(page)
    button.click()
    head = page.locator(".board th[aria-sort]")
    assert head.get_attribute("aria-sort") == "descending"
    assert page.evaluate("document.activeElement.ariaLabel") == "sort by UCF101 10x5"
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(line[4]) for line in lines(page) if "alpha" in line[0] or "beta" in line[0]]
    assert values == sorted(values)
    page.keyboard.press("Enter")
    assert names(page) == before
    assert page.locator(".board th[aria-sort]").count() == 0


def test_cells_lead_to_rows_and_headings_to_tables(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    link = page.locator(LINES).nth(1).locator("td a").nth(1)
    assert link.get_attribute("href") == "#row/tcd_ucf101_10x5/beta/default/nme"
    words = link.get_attribute("title")
    assert words is not None
    assert "3 of 3 class orders" in words
    page.locator(".board thead a", has_text="5x10").click()
    until(page, "document.activeElement.tagName === 'SUMMARY'")
    assert page.evaluate("document.activeElement.innerText").startswith("UCF101 5x10")
    assert page.url.endswith("#protocols/tcd_ucf101_5x10")


def test_arrows_walk_over_the_numbers(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    page.locator(f"{LINES} th a").nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.innerText").startswith(
        measured("mean", "beta", "tcd_hmdb51_5x5", "nme")
    )
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.innerText").startswith(
        measured("mean", "beta", "tcd_hmdb51_5x5", "cnn")
    )
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # an empty cell is passed over, and beyond it is nothing
    assert page.evaluate("document.activeElement.innerText") == measured(
        "mean", "beta", "tcd_ucf101_5x10", "nme"
    )


def test_the_line_below_the_title_says_what_was_run(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    said = page.inner_text("#about")
    assert said.startswith("4 methods on 3 of ")
    assert "verify: 35 runs not checked" in said
