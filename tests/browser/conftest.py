"""A headless Chromium, pages opened in it from disk, and its console, which must stay silent."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium of the system."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install 'vcil-bench[browser]'"
    )
    if CHROMIUM is None:
        pytest.skip("needs a chromium binary, such as the system's package")
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Open pages from disk; at the end the console must have stayed silent and nothing been asked for."""
    said: list[str] = []
    contexts = []

    def open_page(text: str, address: str = "", **options: Any) -> Page:
        file = tmp_path / "index.html"
        file.write_text(text, encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else said.append(r.url)
        )
        page.goto(file.as_uri() + address)
        # Hidden where no run is complete, undrawn where another page than the home page is shown.
        page.wait_for_selector("#plot .main-svg, #plot[hidden], #home[hidden]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
