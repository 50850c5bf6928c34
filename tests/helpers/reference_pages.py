"""Pages made of reference records, and the files of those records, for tests of what the page says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from packed_page import content, with_content

from vcil_bench import record as records
from vcil_bench.report.page import build
from vcil_bench.report.tables import groups

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = Path(__file__).parents[2] / "results/reference/synthetic_3x4"
SEEDS = (1000, 1993, 2021)
RUNS = (("stpr", "default"), ("stpr", "fssd=False"), ("lwf", "default"), ("icarl", "default"))


def paths() -> list[Path]:
    """Return the records on the page."""
    return [FOLDER / method / f"{variant}-s{seed}.json" for method, variant in RUNS for seed in SEEDS]


@cache
def reference_page() -> str:
    """Return the page of four rows' records, five with iCaRL's two readouts."""
    loaded = [records.load(path) for path in paths()]
    return build(loaded, [], groups(loaded), [])


def changed(page: str, change: Callable[[dict[str, Any]], None]) -> str:
    """Return a page with other data."""
    data = content(page)
    change(data)
    return with_content(page, data)


def files(method: str, seed: int, variant: str = "default") -> tuple[Any, dict[str, Any]]:
    """Read JSON and arrays of a run, without any code of the package."""
    path = FOLDER / method / f"{variant}-s{seed}"
    return json.loads(path.with_name(f"{path.name}.json").read_text()), dict(np.load(f"{path}.npz"))


def guesses(arrays: dict[str, Any], readout: str) -> list[list[int]]:
    """Return per task learnt what each test video so far was taken for."""
    steps = sum(name.startswith("top5/") and name.endswith(f"/{readout}") for name in arrays)
    return [arrays[f"top5/{step}/{readout}"][:, 0].tolist() for step in range(steps)]


def cells(page: Page, selector: str) -> list[list[str]]:
    """Return the texts of a table's cells, its head first; of a folded one, too."""
    return page.evaluate(
        "(selector) => [...document.querySelector(selector).rows].map((row) => "
        "[...row.cells].map((cell) => cell.textContent))",
        selector,
    )


def number(text: str) -> float:
    """Read a number that may have a true minus."""
    return float(text.replace("\N{MINUS SIGN}", "-"))
