"""Address of the page in a browser: a reload or a sent link shows what its switches showed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from made_up_pages import papers_page, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


def state(page: Page) -> list[object]:
    """Return what the switches say and the tables show."""
    return [
        page.locator("#home select, #home input[type=search]").evaluate_all("all => all.map(one => one.value)"),
        page.locator("#home input[type=checkbox]").evaluate_all("all => all.map(one => one.checked)"),
        page.locator(".board").all_inner_texts(),
        page.locator(".overview").all_inner_texts(),
        page.locator("#c-pressed .chip").all_inner_texts(),
    ]


def change(page: Page) -> None:
    page.fill("#f-text", "a c%&=")
    page.fill("#f-text", "a")
    page.select_option("#f-data", "real")
    page.select_option("#b-metric", "final_accuracy")
    page.select_option("#b-readout", "cnn")
    page.check("#b-deviations")
    page.get_by_role("button", name="sort by UCF101 10x5").click()
    page.locator(".overview th[data-key=final_accuracy] button").first.click()
    page.select_option("#c-group", "tcd_ucf101_10x5")
    page.select_option("#c-range", "fit")
    page.locator("#c-pressed .chip").first.click()


def test_a_reload_and_a_sent_link_show_the_same(visit: Callable[..., Page]) -> None:
    text = papers_page()
    page = visit(text)
    usual = state(page)
    change(page)
    changed = state(page)
    assert changed != usual
    entries = page.evaluate("history.length")
    page.reload()
    until(page, "document.querySelector('#plot .main-svg') !== null")
    assert state(page) == changed
    assert page.evaluate("history.length") == entries
    other = visit(text, page.url[page.url.index("#") :])
    assert state(other) == changed
    assert "text=a&" in page.url
    page.fill("#f-text", "")
    assert "text=" not in page.url


def test_what_is_usual_is_left_out_of_the_address(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    start = page.url
    change(page)
    page.get_by_role("button", name="sort by UCF101 10x5").click()
    page.get_by_role("button", name="sort by UCF101 10x5").click()
    page.click("#filters button[type=reset]")
    page.select_option("#b-metric", "")
    page.select_option("#b-readout", "")
    page.uncheck("#b-deviations")
    page.locator(".overview th[data-key=headline] button").first.click()
    page.select_option("#c-range", "")
    page.select_option("#c-group", index=0)
    assert page.url.rstrip("#") == start


def test_the_state_stays_on_the_way_to_a_run_and_back(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    page.fill("#f-text", "beta")
    page.select_option("#b-metric", "final_accuracy")
    before = state(page)
    page.locator(".overview button.pop").first.click()
    page.locator("#pop a").first.click()
    page.wait_for_selector("#detail:visible")
    page.locator("#back").click()
    page.wait_for_selector("#home:visible")
    assert state(page) == before
    page.locator("nav a", has_text="Curves").click()
    assert state(page) == before
    assert "#curves?" in page.url
    assert "metric=final_accuracy" in page.url


def test_an_old_link_that_names_what_is_gone_shows_the_usual(visit: Callable[..., Page]) -> None:
    text = papers_page()
    usual = state(visit(text))
    gone = (
        "#leaderboard?metric=x&readout=y&protocol=z&method=m&backbone=b&data=d&group=g&sort=nothing:up&order=n"
    )
    assert state(visit(text, gone)) == usual
