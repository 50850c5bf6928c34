"""Tables of protocols in a browser: sorted, filtered, compared, opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from made_up_pages import papers, papers_page, site, some, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


def shown(page: Page) -> list[str]:
    return page.locator(".overview tbody th[scope=row] a").all_inner_texts()


def test_sorting_by_mouse_and_keyboard(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    first = page.locator("details.group").first
    head = first.locator("th[data-key=headline]")
    assert head.get_attribute("aria-sort") == "descending"  # best first
    assert shown(page)[:4] == ["beta", "alpha", "gamma", "delta"]  # what has no value comes last
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert shown(page)[:4] == ["gamma", "alpha", "beta", "delta"]
    first.locator("th[data-key=backward_forgetting] button").click()
    assert head.get_attribute("aria-sort") is None
    assert shown(page)[:4] == ["gamma", "alpha", "beta", "delta"]


def test_filters(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    assert len(shown(page)) == 5
    page.fill("#f-text", "memory DELTA")
    assert shown(page) == ["delta"]
    page.fill("#f-text", "exemplar-free beta")
    assert shown(page) == ["beta"]
    page.click("#filters button[type=reset]")
    assert len(shown(page)) == 5
    page.select_option("#f-data", "synthetic")
    assert page.locator("details.group:visible").count() == 1
    assert len(shown(page)) == 1
    page.select_option("#f-data", "")
    page.check("#f-complete")
    assert len(shown(page)) == 3
    page.select_option("#f-method", "beta")
    assert shown(page) == ["beta"]
    assert page.inner_text("#shown") == "1 of 5 rows shown"
    page.fill("#f-text", "nobody")
    assert "No row matches “nobody”" in page.inner_text("#none-shown")
    page.locator("#none-shown button").click()
    assert len(shown(page)) == 5
    assert page.evaluate("document.activeElement.id") == "f-text"


def test_columns_that_say_nothing_are_named_in_a_line(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    table = page.locator("details.group").first
    keys = table.locator("thead th[data-key]").evaluate_all("all => all.map(one => one.dataset.key)")
    assert not {"variant", "backbone", "notes"} & set(keys)
    assert "backbone: clip_tiny" in table.locator(".constant").inner_text()
    heights = table.locator("tbody tr:not(.like)").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert max(heights) <= 30
    tables = page.locator("details.group").nth(1).locator("tbody tr")
    lines = [tables.filter(has_text=name).first for name in ("alpha", "beta")]
    alpha, beta = (float(line.locator("td.number").first.inner_text().split()[0]) for line in lines)
    assert f"−{beta - alpha:.2f}" in lines[0].inner_text()
    assert "best" in lines[1].inner_text()


def test_runs_of_a_row_open_beside_their_number(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    button = page.locator(".overview button.pop").first
    button.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.innerText") == "seed 1"
    assert page.locator("#pop li").count() == 3
    page.keyboard.press("Escape")
    assert page.locator("#pop").is_hidden()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail:visible")
    assert "#run/tcd_hmdb51_5x5/" in page.url


def test_two_rows_are_chosen_for_a_comparison(visit: Callable[..., Page]) -> None:
    page = visit(papers_page())
    group = page.locator("details.group").nth(1)
    assert page.locator("#compare-bar").is_hidden()
    group.get_by_label("compare beta, NME, default").check()
    assert page.locator("#compare").count() == 0
    group.get_by_label("compare gamma, CNN, default").check()
    assert page.locator("#compare").get_attribute("href") == (
        "#compare/tcd_ucf101_10x5/beta/default/nme/tcd_ucf101_10x5/gamma/default/cnn"
    )
    group.get_by_label("compare alpha, CNN, default").check()  # the first is let go
    assert group.locator("input:checked").count() == 2
    page.locator("details.group").first.get_by_label("compare gamma, CNN, default").check()
    assert group.locator("input:checked").count() == 0  # only rows of one table compare
    page.get_by_role("button", name="Clear", exact=True).last.click()
    assert page.locator("#compare-bar").is_hidden()


def test_of_many_tables_the_first_is_open(visit: Callable[..., Page]) -> None:
    made = papers()
    for number in range(2):
        for data in papers()[:3]:
            data["protocol"] |= {
                "name": f"made_{number}",
                "label": f"made_{number}",
                "fingerprint": f"{number}" * 64,
            }
            data["run_id"] = f"made_{number}/{data['seed']}"
            made.append(data)
    page = visit(site(*made))
    assert page.locator("details.group[open]").count() == 1
    page.locator("details.group > summary").nth(1).click()
    until(page, "document.querySelectorAll('details.group')[1].querySelectorAll('tbody tr').length > 0")
