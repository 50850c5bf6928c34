"""Accessibility of a page in a browser, as axe-core judges it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with a page: the rule, and where."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe: pip install 'vcil-bench[browser]'"
    )
    told = axe.Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['target']}" for rule in told for node in rule["nodes"]]
