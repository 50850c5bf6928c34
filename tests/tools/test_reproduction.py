"""The reproduction page says what is so: each entry is held to the code, the numbers and the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import reproduction

from vcil_bench import registry

ROOT = Path(__file__).parents[2]
ENTRIES = reproduction.load()
CHECKS = [(name, check) for name, entry in ENTRIES.items() for check in entry.checked]


def test_every_built_in_method_has_an_entry() -> None:
    assert set(ENTRIES) == {name for name, entry in registry.find_all().items() if entry.origin == "built-in"}


@pytest.mark.parametrize(("name", "check"), CHECKS, ids=lambda x: getattr(x, "function", x))
def test_a_checked_function_exists_and_a_test_compares_it_with_its_numbers(
    name: str, check: reproduction.Check
) -> None:
    assert callable(check.resolve())
    assert (ROOT / "tests/golden" / f"{check.golden}.npz").is_file()
    short = check.function.rpartition(".")[2]
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    users = [text for text in texts if f'"{check.golden}"' in text and short in text]
    assert users, f"no test compares {short} with {check.golden}"


def test_all_recorded_numbers_of_methods_are_accounted_for() -> None:
    of_methods = {path.stem for path in (ROOT / "tests/golden").glob("*.npz")}
    elsewhere = {
        "tcd_01",
        "tcd_09",
        "tcd_11",
        "tcd_14",
        "vclimb_16",
        "ucf101_groups",
    }  # the README's table: protocols, clips, metrics, splits
    assert of_methods - elsewhere == {check.golden for _, check in CHECKS}


def test_the_page_is_the_one_that_would_be_written() -> None:
    assert (ROOT / reproduction.PAGE).read_text(encoding="utf-8") == reproduction.page(ENTRIES), (
        "run make reproduction"
    )
