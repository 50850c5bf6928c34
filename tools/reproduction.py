"""Generates the reproduction page, the page of systems, the table of methods, the table of run options.

They are made of ``methods/reproduction.yaml``, the methods' classes, the docstrings of their Configs, which give
the reason for every choice, and the docstring of ``RunOptions``. ``make reproduction`` writes them.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import docstring_tables
import systems_page
from docstring_tables import markdown

from vcil_bench import registry
from vcil_bench.classifier import ClassifierConfig
from vcil_bench.common.config import build, read_yaml
from vcil_bench.common.docstrings import docstrings, explained
from vcil_bench.method import Method
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.options import RunOptions
from vcil_bench.report import published
from vcil_bench.report.systems import PAGE as SYSTEMS
from vcil_bench.report.systems import System, system_of

STANDARD = (
    "relative 1e-9 plus absolute 1e-11 in float64, relative 1e-4 plus absolute 1e-5 in float32; gradients too "
    "where they were recorded"
)
PAGE = Path("docs/reproduction.md")
# Pages with a generated table between two comments, <!-- generated: NAME --> and <!-- end: NAME -->.
TABLES = {"methods": Path("docs/methods.md"), "options": Path("docs/running.md")}
PROTOCOL = "tcd_ucf101_10x5"  # says in the table of methods on which backbone a method runs by default


@dataclass(frozen=True, kw_only=True)
class Check:
    """A function and the recorded numbers it equals.

    Attributes:
        function: Dotted name below ``vcil_bench``.
        golden: Name of the file in ``tests/golden``, without its ending.
        by: Whose code made the numbers: the ``authors``', or a ``second_computation`` of the paper's formula.
        against: What made the numbers, as the page says it.
        tolerance: ``standard`` or what is otherwise allowed.
    """

    function: str
    golden: str
    by: Literal["authors", "second_computation"]
    against: str
    tolerance: str

    def resolve(self) -> Any:
        """Return the function; raises AttributeError or ImportError if there is none."""
        module, _, name = self.function.rpartition(".")
        return getattr(importlib.import_module(f"vcil_bench.{module}"), name)


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What is known of a method's faithfulness; see the head of ``methods/reproduction.yaml``."""

    code: str
    checked: list[Check]
    text: list[str]
    differs: list[str]


def load() -> dict[str, Reproduction]:
    """Return the entry of every method named in ``methods/reproduction.yaml``."""
    path = registry.methods_folder() / "reproduction.yaml"
    raw = read_yaml(path)
    return {name: build(Reproduction, values, f"{path}: {name}") for name, values in raw.items()}


def page(entries: Mapping[str, Reproduction]) -> str:
    """Return the reproduction page as Markdown."""
    parts = [
        "# What is reproduced, and what is re-implemented",
        "Generated from `methods/reproduction.yaml` and the methods' docstrings by `tools/reproduction.py`.",
        "Each method is checked function by function: against the authors' code, on inputs and outputs recorded "
        "from it (`tests/golden`), or, where no code exists, against a second computation of its formulas. This "
        "says nothing about whole runs, with one exception: a small run of TCD's authors' code is followed from "
        "the first weights to the last prediction. **No number of a published table has been reproduced yet.** "
        f"The standard tolerance is {STANDARD}.",
        "Where the paper, and the code if there is any, are silent or contradict themselves, a choice had to be "
        "made. Each method's table lists its keys, the value chosen, the alternatives and the reason; "
        "`--set KEY=VALUE` takes an alternative.",
        _overview(entries),
    ]
    for name, entry in entries.items():
        parts += _section(name, entry)
    parts += ["## Shared training recipe", *_keys(ClassifierConfig, [ClassifierConfig])]
    return "\n\n".join(parts) + "\n"


def methods_table(entries: Mapping[str, Reproduction]) -> str:
    """Return the table of methods: each method's paper, the backbones it runs on, exemplars and status."""
    clip = {name for name, backbone in BACKBONES.items() if "text" in backbone.provides}
    rows = []
    for name, entry in entries.items():
        cls = _method(name)
        chosen = cls.backbone_for(PROTOCOL)[0]
        runs = []
        for family in (clip, BACKBONES.keys() - clip):
            fits = any(cls.needs <= BACKBONES[member].provides for member in family)
            runs.append("default" if chosen in family else "yes" if fits else "no")
        paper = re.split("[;(]", cls.paper)[0].strip()
        exemplars = "yes" if cls.uses_memory else "no"
        rows.append([f"[{name}](reproduction.md#{name})", paper, *runs, exemplars, _status(entry)])
    headers = ["method", "paper", "CLIP", "ResNet, TSM", "exemplars", "status"]
    return markdown(rows, headers)


def systems(entries: Mapping[str, Reproduction]) -> str:
    """Return the page of systems as Markdown."""
    systems_of_numbers = [system_of(line["method"]) for line in published.lines()]

    def status(name: str) -> str | None:
        return _status(entries[name]) if name in entries else None

    def numbers(system: System) -> int:
        return systems_of_numbers.count(system)

    return systems_page.page(status, numbers)


def _status(entry: Reproduction) -> str:
    """Say in a few words what a method was checked against."""
    authors, second = _numbers_of_functions(entry)
    if authors and not entry.code.startswith("none"):
        return f"{authors} function{'s' if authors != 1 else ''} equal to published code" + (
            ", the rest from the paper" if entry.text else ""
        )
    if entry.text:
        formulas = authors + second  # where it has no code, another method's
        return "re-implemented from the paper" + (f", {formulas} formulas checked" if formulas else "")
    return entry.code.removeprefix("none; ")


def _numbers_of_functions(entry: Reproduction) -> tuple[int, int]:
    """Return how many functions equal the authors' code, and how many others a second computation."""
    functions = {check.function for check in entry.checked}
    authors = {c.function for c in entry.checked if c.by == "authors"}
    return len(authors), len(functions - authors)


def _method(name: str) -> type[Method]:
    cls = registry.find(name).cls
    assert cls is not None
    return cls


def options_table() -> str:
    """Return the table of the run options."""
    ((_, entries),) = explained(RunOptions).sections
    return docstring_tables.table(RunOptions, entries, ("option", "default", "other values", "what it does"))


def with_table(text: str, name: str, table: str) -> str:
    """Return a page with its generated table replaced."""
    start, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}{table}\n{end}{after}"


def _overview(found: Mapping[str, Reproduction]) -> str:
    rows = []
    for name, entry in found.items():
        parts = "yes" if entry.text else "no"
        rows.append([f"[{name}](#{name})", entry.code, *_numbers_of_functions(entry), parts])
    second = "functions equal to a second computation"
    return markdown(rows, ["method", "code", "functions equal to code", second, "parts from text alone"])


def _section(name: str, entry: Reproduction) -> list[str]:
    cls = _method(name)
    parts = [f"## {name}", f"Paper: {cls.paper}.  \nCode: {entry.code}."]
    if entry.checked:
        rows = [
            [f"`{c.function}`", c.against, c.tolerance, f"`tests/golden/{c.golden}.npz`"] for c in entry.checked
        ]
        parts.append(markdown(rows, ["function", "equal to", "tolerance", "numbers"]))
    for title, lines in (
        ("Written from text alone:", entry.text),
        ("Known differences:", entry.differs),
    ):
        if lines:
            parts.append(title + "\n\n" + "\n".join(f"- {line}" for line in lines))
    configs = [c for c in cls.Config.__mro__ if dataclasses.is_dataclass(c)]
    parts += _keys(cls.Config, [config for config in configs if config is not ClassifierConfig])
    if ClassifierConfig in configs:
        parts.append("Its other keys are those of the [shared training recipe](#shared-training-recipe).")
    return [*parts, *_recipes(cls)]


def _keys(config: type, documented: Sequence[type]) -> list[str]:
    """Return a Config's table and what its docstrings say beside it.

    Args:
        config: The class whose defaults stand in the table.
        documented: It and its base classes whose keys are to be in the table.
    """
    texts = [explained(base, text) for base, text in docstrings(config) if base in documented]
    sections = [section for one in texts for section in one.sections]
    in_tables = {key for _, entries in sections for keys in entries for key in keys}
    inherits = issubclass(config, ClassifierConfig) and config is not ClassifierConfig
    shared = {f.name: f.default for f in dataclasses.fields(ClassifierConfig)} if inherits else {}
    rest: dict[tuple[str, ...], str] = {}
    for f in dataclasses.fields(config):
        if f.name not in in_tables and f.name not in shared:
            rest[(f.name,)] = "stated, see above"
        elif f.name not in in_tables and f.default != shared[f.name]:
            rest[(f.name,)] = f"the shared recipe has {docstring_tables.code(shared[f.name])}"
    parts = [text for one in texts for text in (one.summary, *one.prose)]
    for title, entries in ([("Stated:", rest)] if rest else []) + sections:
        parts += [] if title == "Attributes:" else [title]
        parts.append(docstring_tables.table(config, entries, ("key", "choice", "alternatives", "reason")))
    return parts


def _recipes(cls: type[Method]) -> list[str]:
    """Return what a method changes on some protocols, by itself or as its base classes do."""
    merged: dict[str, dict[str, Any]] = {}
    for pattern, recipe in cls.all_recipes():
        merged[pattern] = merged.get(pattern, {}) | dict(recipe)
    return [
        f"On `{pattern}`: " + ", ".join(f"`{key}={value}`" for key, value in recipe.items()) + "."
        for pattern, recipe in merged.items()
    ]


def main() -> None:
    """Write the pages, and the tables into theirs."""
    entries = load()
    PAGE.write_text(page(entries), encoding="utf-8")
    Path(SYSTEMS).write_text(systems(entries), encoding="utf-8")
    for name, table in (("methods", methods_table(entries)), ("options", options_table())):
        path = TABLES[name]
        path.write_text(with_table(path.read_text(encoding="utf-8"), name, table), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}, {SYSTEMS} and the tables in {' and '.join(map(str, TABLES.values()))}\n")


if __name__ == "__main__":
    main()
