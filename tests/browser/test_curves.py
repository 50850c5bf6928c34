"""Curves in a browser: few lines at first, more by chips, a band for one, the readout in the line's style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made_up_pages import fabricate, papers_page, site, some, until
from predicted_records import write_run

from vcil_bench.record import load_all
from vcil_bench.report.page import build
from vcil_bench.report.table_file import built_in
from vcil_bench.report.tables import groups

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
DRAWN = "document.getElementById('plot').data.filter((trace) => trace.meta)"


def chips(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("#c-pressed .chip").all_inner_texts()]


def test_the_best_of_each_family_and_the_bound_come_first(visit: Callable[..., Page]) -> None:
    page = visit(site(*fabricate(methods=21)[: 21 * 3]))
    assert len(chips(page)) <= 6
    page = visit(papers_page(), "#curves?group=tcd_ucf101_10x5")
    assert sorted(text[2:] for text in chips(page)) == [
        "Joint training (bound)",
        "alpha",
        "beta NME",
        "gamma",
    ]
    bound = page.evaluate(f"{DRAWN}.find((trace) => trace.name === 'Joint training').line")
    assert (bound["dash"], bound["width"]) == ("6px,4px", 1.2)


def test_chips_add_and_remove_lines_by_key(visit: Callable[..., Page]) -> None:
    page = visit(papers_page(), "#curves?group=tcd_ucf101_10x5")
    before = page.evaluate(f"{DRAWN}.length")
    first = page.locator("#c-pressed .chip", has_text="alpha")
    assert first.get_attribute("aria-pressed") == "true"
    first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate(f"{DRAWN}.length") == before - 2
    page.locator("#c-more > summary").click()
    page.locator("#c-more .chip", has_text="beta CNN").click()
    assert page.evaluate(f"{DRAWN}.length") == before
    lines = page.evaluate(f"Object.fromEntries({DRAWN}.map((trace) => [trace.name, trace.line.dash]))")
    assert lines["beta CNN"] == "solid"
    assert lines["beta NME"] == "8px,3px"
    page.get_by_role("button", name="usual lines").click()
    assert page.locator("#c-pressed .chip", has_text="alpha").count() == 1
    assert "lines=" not in page.url


def test_a_band_is_drawn_for_one_line_at_a_time(visit: Callable[..., Page]) -> None:
    page = visit(papers_page(), "#curves?group=tcd_ucf101_10x5")
    bands = "document.getElementById('plot').data.filter((trace) => trace.fill && trace.x.length).length"
    assert page.evaluate(bands) == 0
    page.locator("#c-pressed .chip", has_text="beta NME").hover()
    assert page.evaluate(bands) == 2  # accuracy and forgetting
    assert "±1 standard deviation of beta NME (3 class orders)" in page.inner_text("#c-note")
    page.locator("#curves-title").hover()
    assert page.evaluate(bands) == 0


def test_axis_ticks_name_and_table(visit: Callable[..., Page]) -> None:
    page = visit(papers_page(), "#curves?group=tcd_ucf101_10x5")
    assert page.evaluate("document.getElementById('plot').layout.xaxis.tickvals") == [2, 3]
    whole = page.evaluate("document.getElementById('plot').layout.yaxis.range")
    page.select_option("#c-range", "fit")
    fitted = page.evaluate("document.getElementById('plot').layout.yaxis.range")
    assert whole[0] == 0
    assert whole[1] >= 100
    assert fitted[1] - fitted[0] < whole[1] - whole[0]
    image = page.locator("#plot .main-svg").first
    assert image.get_attribute("role") == "img"
    label = image.get_attribute("aria-label")
    assert label is not None
    assert "UCF101 10x5" in label
    page.locator("#c-data > summary").click()
    assert page.locator("#c-table table").count() == 2
    assert "± 5.00" in page.locator("#c-table").inner_text()


def test_another_protocol_is_drawn(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    assert len(chips(page)) == 3
    page.select_option("#c-group", index=1)
    until(page, f"{DRAWN}.length === 2")  # one row, a curve on either side


def test_the_bar_of_the_plot_holds_what_stays_on_the_page(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    opened: list[str] = []
    page.context.on("page", lambda other: opened.append(other.url))
    page.hover("#plot")
    buttons = page.locator("#plot .modebar-btn")
    names = buttons.evaluate_all("all => all.map(one => one.dataset.title)")
    assert names == ["Zoom", "Pan", "Reset axes"]
    for number in range(buttons.count()):
        buttons.nth(number).click()
    assert opened == []


def test_reported_numbers_are_hollow_marks_beside_the_line(visit: Callable[..., Page], tmp_path: Path) -> None:
    protocol = {"name": "tcd_hmdb51_5x5", "label": "tcd_hmdb51_5x5", "fingerprint": "f" * 64}
    sizes = (26, 5, 5, 5, 5, 5)
    for method in ("acil", "tcd", "podnet"):
        write_run(tmp_path, method, 1, skill=0.5, sizes=sizes, protocol=protocol, data={"kind": "real"})
    records, _ = load_all(tmp_path)
    page = visit(build(records, [], groups(records), [], reported=built_in()), "#curves")
    hollow = "document.getElementById('plot').data.filter((trace) => /-open$/.test(trace.marker?.symbol))"
    marks = page.evaluate(f"{hollow}.map((trace) => [trace.xaxis, trace.x, trace.y, trace.marker.color])")
    lines = page.evaluate(f"{DRAWN}.map((trace) => [trace.name, trace.line.color])")
    # SFCL's Table 3 has ACIL's accuracy after every task; none of the three's forgetting is reported.
    colour = dict(lines)["ACIL"]
    assert marks == [["x", [26, 31, 36, 41, 46, 51], [61.28, 55.59, 51.67, 49.02, 44.86, 44.18], colour]]
    assert "Hollow marks" in page.inner_text("#c-note")
    page.locator("#c-pressed .chip", has_text="ACIL").click()
    assert page.evaluate(f"{hollow}.length") == 0
    assert "Hollow marks" not in page.inner_text("#c-note")
