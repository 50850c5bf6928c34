"""The reproduction page says what is so: each entry is held to the code, the numbers and the tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import reproduction
import systems_page
from docstring_tables import table

from vcil_bench import registry
from vcil_bench.common.docstrings import explained
from vcil_bench.options import RunOptions
from vcil_bench.report import systems

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
        "vclimb_34",
        "ucf101_groups",
        *("dist_01", "dist_02", "dist_03", "aim_05", "sta_06", "sta_07", "counts_04"),
    }  # docs/pitfalls.md: protocols, clips, metrics, splits, tunings
    assert of_methods - elsewhere == {check.golden for _, check in CHECKS}


def test_the_page_is_the_one_that_would_be_written() -> None:
    assert (ROOT / reproduction.PAGE).read_text(encoding="utf-8") == reproduction.page(ENTRIES), (
        "run make reproduction"
    )


def test_the_page_of_systems_is_the_one_that_would_be_written() -> None:
    assert (ROOT / systems.PAGE).read_text(encoding="utf-8") == reproduction.systems(ENTRIES), (
        "run make reproduction"
    )


def test_every_built_in_method_stands_on_the_page_of_systems() -> None:
    page = (ROOT / systems.PAGE).read_text(encoding="utf-8")
    assert [name for name in ENTRIES if f"[{name}](reproduction.md#{name})" not in page] == []


def test_a_system_whose_method_or_option_is_not_there_is_not_said_to_be_here() -> None:
    page = systems_page.page(lambda name: "checked" if name == "tcd" else None, lambda system: 0)
    assert "| [tcd](reproduction.md#tcd) | checked | – |" in page
    assert page.count("](reproduction.md#") == 1
    assert systems_page.is_an_option("tc_clip=spread")
    assert not systems_page.is_an_option("tc_clip=nonsense")


@pytest.mark.parametrize("name", reproduction.TABLES)
def test_the_tables_of_methods_and_options_are_those_that_would_be_written(name: str) -> None:
    text = (ROOT / reproduction.TABLES[name]).read_text(encoding="utf-8")
    table = reproduction.methods_table(ENTRIES) if name == "methods" else reproduction.options_table()
    assert reproduction.with_table(text, name, table) == text, "run make reproduction"


def test_every_run_option_is_explained() -> None:
    ((_, entries),) = explained(RunOptions).sections
    assert [key for keys in entries for key in keys] == [f.name for f in dataclasses.fields(RunOptions)]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_key_of_a_method_is_explained(name: str) -> None:
    cls = registry.find(name).cls
    assert cls is not None
    texts = [explained(config) for config in cls.Config.__mro__ if dataclasses.is_dataclass(config)]
    in_tables = {key for text in texts for _, entries in text.sections for keys in entries for key in keys}
    in_prose = " ".join(part for text in texts for part in text.prose)
    silent = [f.name for f in dataclasses.fields(cls.Config) if f.name not in in_tables]
    assert all(f"`{key}`" in in_prose for key in silent), silent


@dataclasses.dataclass(frozen=True)
class Example:
    """What the example has.

    A paragraph about ``rate``.

    Attributes:
        kind: ``one`` way
            or ``another``.
        first, second: Two that
            go together.

    Rules without a key:
        The paper says: nothing.
    """

    rate: float = 0.5
    kind: Literal["one", "another"] = "one"
    first: bool = True
    second: int | None = None


def test_a_docstring_becomes_a_table() -> None:
    text = explained(Example)
    assert text.summary == "What the example has."
    assert text.prose == ["A paragraph about `rate`.", "Rules without a key: The paper says: nothing."]
    ((title, entries),) = text.sections
    assert title == "Attributes:"
    assert table(Example, entries, ("key", "choice", "others", "why")).splitlines()[2:] == [
        "| `kind` | `one` | `another` | `one` way or `another`. |",
        "| `first`<br>`second` | `true`<br>`null` | `false`<br>a whole number | Two that go together. |",
    ]
