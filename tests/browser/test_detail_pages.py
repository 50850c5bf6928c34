"""Pages of rows, runs and comparisons in a real browser: small and dark screens, keys, axe, bad texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from accessibility import violations
from made_up_records import record_data
from reference_pages import reference_page

from vcil_bench.record import Record
from vcil_bench.report.page import build
from vcil_bench.report.tables import groups

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">\u2028&<!--<script>{{7*7}}%41~~"
PHONE = {"viewport": {"width": 390, "height": 844}}
STPR, LWF = "synthetic_3x4/stpr/default/text", "synthetic_3x4/lwf/default/cnn"
PLACES = {
    "row": f"#row/{STPR}",
    "run": "#run/synthetic_3x4/stpr/default-s1000?class=0",
    "rows": f"#compare/{STPR}/{LWF}",
    "runs": "#compare/run/synthetic_3x4/stpr/default-s1000~~synthetic_3x4/icarl/default-s1000",
}


def settled(page: Page) -> None:
    """Wait until nothing is left to be unpacked."""
    page.wait_for_selector("#detail h1")
    for _ in range(100):
        if "Unpacking" not in page.inner_text("#detail"):
            return
        page.wait_for_timeout(50)
    pytest.fail("something was never unpacked")


def walk(page: Page, place: str) -> None:
    page.goto(f"{page.url.partition('#')[0]}{place}")
    settled(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(visit: Callable[..., Page], scheme: str) -> None:
    page = visit(reference_page(), PLACES["row"], color_scheme=scheme)
    for name, place in {**PLACES, "none": "#row/nothing"}.items():
        walk(page, place)
        if name == "run":
            for summary in page.locator("#detail details > summary").all():
                summary.click()
        assert violations(page) == [], name


def test_pages_fit_a_phone(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), PLACES["row"], **PHONE, is_mobile=True, has_touch=True)
    for name, place in PLACES.items():
        walk(page, place)
        for summary in page.locator("#detail details > summary").all():
            summary.click()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["viewport"]["width"], name


def test_plots_have_a_name_and_their_numbers_beside_them(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), PLACES["row"])
    settled(page)
    plots = page.locator("#detail .plot")
    assert plots.count() == 3
    for plot in plots.all():
        assert plot.get_attribute("role") == "img"
        assert plot.get_attribute("aria-label")
        assert plot.locator(".main-svg").count()
        assert plot.locator("..").locator("table tbody tr").count() >= 4
        assert plot.locator(".modebar-btn").count() == 0


def test_back_leads_to_where_one_was(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), PLACES["row"])
    settled(page)
    seed = page.locator("#part-orders").get_by_role("link", name="seed 1993")
    seed.scroll_into_view_if_needed()
    before = page.evaluate("window.scrollY")
    assert before > 0
    seed.press("Enter")
    page.wait_for_selector("#run-title")
    assert page.evaluate("[window.scrollY, document.activeElement.id]") == [0, "run-title"]
    page.go_back()
    page.wait_for_selector("#row-title")
    page.wait_for_timeout(300)
    assert page.evaluate("window.scrollY") == pytest.approx(before, abs=2)
    assert page.evaluate("document.activeElement.textContent") == "seed 1993"
    page.go_forward()
    page.wait_for_selector("#run-title")
    page.locator("#back").press("Enter")
    page.wait_for_selector("#home:visible")
    assert page.locator("#detail").is_hidden()


def test_titles_name_the_page(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), PLACES["row"])
    home = page.title().partition(" – ")[2]
    titles = []
    for place in PLACES.values():
        walk(page, place)
        titles.append(page.title())
        assert page.title().endswith(f" – {home}")
    assert len(set(titles)) == len(titles)
    assert titles[0].startswith("StPR text on synthetic_3x4")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("#run/made_up/nobody/default-s1", "No such run"),
        ("#row/made_up/nobody/default/cnn", "No such row"),
        (f"#compare/{STPR}/nobody", "Nothing to compare"),
        ("#compare/run/a~~b", "Nothing to compare"),
        ("#nonsense", "No such page"),
        ("#toString/x", "No such page"),
        ("#row/%ff", "No such row"),
    ],
)
def test_unknown_addresses_say_so(visit: Callable[..., Page], place: str, said: str) -> None:
    page = visit(reference_page(), place)
    assert page.inner_text("#detail h1") == said
    page.locator("#back").press("Enter")
    page.wait_for_selector("#home:visible")


def test_hostile_records_do_nothing(visit: Callable[..., Page]) -> None:
    made: list[Any] = []
    for seed, method in ((1, HOSTILE), (2, HOSTILE), (1, "alpha"), (2, "alpha")):
        data: Any = record_data(
            method=method, variant=HOSTILE, seed=seed, config={HOSTILE: {"value": HOSTILE, "origin": HOSTILE}}
        )
        data["class_names"] = [HOSTILE, "<b>b</b>", "c"]
        data["steps"][0]["losses"] = [{"phase": HOSTILE, "epoch": 1, HOSTILE: 1.0}]
        data["run_id"] = f"{HOSTILE}/{method}/{seed}/%ff"
        data["data"]["verified"] = [{"level": "warning", "check": HOSTILE, "text": HOSTILE}]
        made.append(data)
    loaded = [Record(Path(f"results/{i}.json"), data) for i, data in enumerate(made)]
    page = visit(build(loaded, [], groups(loaded), []))
    told = HOSTILE.partition("\u2028")[0]
    links = page.locator("a[href^='#row/']").evaluate_all("all => all.map((one) => one.getAttribute('href'))")
    assert links
    for link in dict.fromkeys(links):
        walk(page, link)
        assert told in page.inner_text("#detail h1, #detail .sentence, #detail") or "alpha" in page.inner_text(
            "#detail h1"
        )
        options = page.get_by_role("combobox", name="Compare with")
        if options.count():
            options.select_option(index=1)
            page.wait_for_selector("#compare-title")
            settled(page)
        walk(page, link)
        page.locator("#part-orders a").first.click()
        page.wait_for_selector("#run-title")
        settled(page)
        options = page.get_by_role("combobox", name="Compare with")
        options.select_option(index=1)
        page.wait_for_selector("#compare-title")
        settled(page)
        assert page.locator("img").count() == 0
        assert "taken" not in page.title().replace(HOSTILE, "").replace(told, "")


def test_print_unfolds_everything(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), PLACES["run"])
    settled(page)
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#detail details:not([open])").count() == 0
    assert page.locator(".contents").is_hidden()
    assert page.locator(".pickers").is_hidden()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("#part-record details[open]").count() == 0
    assert page.pdf().startswith(b"%PDF")
