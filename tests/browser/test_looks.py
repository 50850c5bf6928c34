"""The page in a browser: desk, phone, dark, print, keys alone, axe, and records that are many or hostile."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_up_pages import HOSTILE, NAMES, fabricate, papers, papers_page, site, some
from made_up_records import record_data

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
PHONE = {"viewport": {"width": 390, "height": 844}}
OPEN_S, SORT_MS = 3, 150  # on a processor that is free


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"color_scheme": "dark"},
        {**PHONE, "is_mobile": True, "has_touch": True},
        {**PHONE, "color_scheme": "dark", "reduced_motion": "reduce"},
    ],
    ids=["desk", "dark", "phone", "phone dark"],
)
def test_it_fits_and_can_be_read(visit: Callable[..., Page], options: dict[str, Any]) -> None:
    page = visit(site(*fabricate(methods=4)), **options)
    for place in ("", f"#run/{NAMES[0]}/method_00/default-s0"):
        page.goto(page.url.partition("#")[0] + place)
        page.wait_for_selector("#detail h1" if place else "#leaderboard")
        wide = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1], "the page scrolls sideways"
    text, ground = (
        sum(map(int, re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.body).{key}"))[:3]))
        for key in ("color", "backgroundColor")
    )
    assert (text > ground) == (options.get("color_scheme") == "dark")
    assert abs(text - ground) > 500


def test_a_browser_that_cannot_unpack_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(papers_page(), encoding="utf-8")
    context = browser.new_context()
    context.add_init_script("delete window.DecompressionStream")
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector("#packed:visible")
    assert page.locator(".board").count() == 0
    assert errors == []
    context.close()


def test_a_phones_first_screen_has_numbers(visit: Callable[..., Page]) -> None:
    page = visit(papers_page(), **PHONE)
    assert not page.locator("#filter-box").get_attribute("open")
    box = page.locator(".board td.number a").first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 844
    assert 0 < box["x"] < 390 - box["width"]
    headline = page.locator(".overview td.number").first.bounding_box()
    assert headline is not None
    assert headline["x"] + headline["width"] < 390


def test_everything_is_reached_with_the_tab_key(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()[:3]))
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.id || document.activeElement.textContent).trim()"))
    wanted = ["skip", "f-text", "f-protocol", "f-data", "f-complete", "Clear", "b-metric", "b-readout"]
    wanted += ["CSV", "LaTeX", "alpha", "3/3", "c-group", "PNG", "SVG"]
    places = [reached.index(one) for one in wanted]
    assert places == sorted(places)


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["desk", "dark", "phone"])
def test_axe_has_nothing_to_say(visit: Callable[..., Page], options: dict[str, Any]) -> None:
    pytest.importorskip("axe_playwright_python", reason="needs axe: pip install 'vcil-bench[browser]'")
    axe = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    page = visit(papers_page(), **options)
    page.evaluate("document.querySelectorAll('#home details').forEach((one) => { one.open = true; })")
    page.evaluate(axe)
    violations = page.evaluate("axe.run().then((done) => done.violations)")
    told = [(v["id"], v["help"], [n["target"] for n in v["nodes"]][:4]) for v in violations]
    assert told == []


def test_print_has_no_controls_and_whole_tables(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    page.emulate_media(media="print")
    assert page.locator("#filters").is_hidden()
    assert page.locator("header.top").is_hidden()
    assert page.locator("#board-exports").is_hidden()
    assert page.locator(".overview .tick").first.is_hidden()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert page.pdf().startswith(b"%PDF")


def test_hostile_records_do_nothing(visit: Callable[..., Page]) -> None:
    bad = record_data(method=HOSTILE, reason=HOSTILE, status="failed", correct=[[1]])
    good = record_data(
        method=HOSTILE, variant=HOSTILE, seed=2, weights={"source": HOSTILE, "pretraining": HOSTILE}
    )
    for data, seed in ((bad, 1), (good, 2)):
        data["class_names"] = [HOSTILE, "<b>b</b>", "c"]
        data["steps"][0]["losses"] = [{"phase": HOSTILE, "epoch": 1, HOSTILE: 1.0}]
        data["run_id"] = f"{HOSTILE}/{seed}/%ff"
        data["protocol"] |= {"title": HOSTILE, "label": HOSTILE}
    page = visit(site(bad, good, *papers()[:3]))
    for button in page.locator(".overview button.pop").all():
        button.click()
        page.keyboard.press("Escape")
    for number in range(2):
        page.locator(".overview tbody button.pop", has_text="/3").nth(number).click()
        page.locator("#pop a").first.click()
        page.wait_for_selector("#detail h1")
        assert HOSTILE.partition("\u2028")[0] in page.inner_text("#detail")
        assert page.locator("img").count() == 0
        page.go_back()
        page.wait_for_selector("#home:visible")
    assert page.locator("img").count() == 0
    assert "taken" not in page.title().replace(HOSTILE, "")


def test_five_hundred_records_open_and_sort_without_delay(visit: Callable[..., Page]) -> None:
    page = visit(site(*fabricate()))
    # What a busy machine does beside it is no delay of the page's: the quickest of some tries counts.
    opened = min(_opening(page) for _ in range(3))
    took = page.evaluate(
        """async () => {
          const press = (query) => {
            const start = performance.now();
            document.querySelector(query).click();
            document.body.getBoundingClientRect(); // layout belongs to it
            return performance.now() - start;
          };
          const times = {};
          const heads = ["headline", "method"].map((key) => `details.group th[data-key=${key}] button`);
          for (const query of [...heads, ".board th button.sort", "#b-deviations"]) {
            times[query] = Math.min(...[1, 2, 3, 4, 5].map(() => press(query)));
          }
          return times;
        }"""
    )
    sys.stdout.write(f"opened in {opened:.1f} s, {took}\n")
    assert opened < OPEN_S
    assert max(took.values()) < SORT_MS


def _opening(page: Page) -> float:
    start = time.perf_counter()
    page.reload()
    page.wait_for_selector("#plot .main-svg", state="attached")
    return time.perf_counter() - start
