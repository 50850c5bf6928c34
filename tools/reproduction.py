"""The reproduction page: per method what equals published code, what is written from text, and each free choice.

It is made of ``methods/reproduction.yaml`` and of what the methods themselves say: their papers, and the
docstrings of their Configs, where every choice has its reason. ``make reproduction`` writes it.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from vcil_bench import registry
from vcil_bench.classifier import ClassifierConfig
from vcil_bench.common.config import build, read_yaml
from vcil_bench.method import Method

STANDARD = (
    "relative 1e-9 plus absolute 1e-11 in float64, relative 1e-4 plus absolute 1e-5 in float32; gradients too "
    "where they were recorded"
)
PAGE = Path("docs/reproduction.md")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A function and the recorded numbers it equals.

    Attributes:
        function: Dotted name below ``vcil_bench``.
        golden: Name of the file in ``tests/golden``, without its ending.
        against: What made the numbers.
        tolerance: ``standard`` or what is otherwise allowed.
    """

    function: str
    golden: str
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


def page(found: Mapping[str, Reproduction]) -> str:
    """Return the page as Markdown."""
    parts = [
        "# What is reproduced, and what is re-implemented",
        "Made by `make reproduction` from `methods/reproduction.yaml` and the methods' own docstrings.",
        "Each method is checked against published code function by function, on inputs and outputs recorded "
        "from that code (`tests/golden`), or against a second computation of its formulas where no code exists. "
        "That says nothing about whole runs, but for TCD's, where a small run of the authors' code is followed "
        "from the first weights to the last prediction: **no number of a published table has been reproduced "
        f"yet.** The standard tolerance is {STANDARD}.",
        "A free choice is a value or a rule on which the paper, and the code where there is some, say nothing, "
        "or two things. It stands with its reason under the method's config; `--set KEY=VALUE` takes the other.",
        _overview(found),
    ]
    for name, entry in found.items():
        parts += _section(name, entry)
    parts.append("## Shared training recipe")
    parts.append(_docstring(ClassifierConfig))
    return "\n\n".join(parts) + "\n"


def _overview(found: Mapping[str, Reproduction]) -> str:
    rows = []
    for name, entry in found.items():
        functions = {check.function for check in entry.checked}
        authors = {c.function for c in entry.checked if not c.against.startswith("second computation")}
        rows.append(
            [
                f"[{name}](#{name})",
                entry.code,
                len(authors),
                len(functions - authors),
                "yes" if entry.text else "no",
            ]
        )
    return tabulate(
        rows,
        headers=[
            "method",
            "code",
            "functions equal to code",
            "functions equal to a second computation",
            "parts from text alone",
        ],
        tablefmt="github",
    )


def _section(name: str, entry: Reproduction) -> list[str]:
    cls = registry.find(name).cls
    assert cls is not None
    parts = [f"## {name}", f"Paper: {cls.paper}.  \nCode: {entry.code}."]
    if entry.checked:
        rows = [
            [f"`{c.function}`", c.against, c.tolerance, f"`tests/golden/{c.golden}.npz`"] for c in entry.checked
        ]
        parts.append(tabulate(rows, headers=["function", "equal to", "tolerance", "numbers"], tablefmt="github"))
    for title, lines in (
        ("Written from text alone:", entry.text),
        ("Known differences:", entry.differs),
    ):
        if lines:
            parts.append(title + "\n\n" + "\n".join(f"- {line}" for line in lines))
    parts.append("Config, with every free choice and its reason:")
    configs = [c for c in cls.Config.__mro__ if dataclasses.is_dataclass(c)]
    parts += [_docstring(config) for config in configs if config is not ClassifierConfig]
    if ClassifierConfig in configs:
        parts.append("Its other keys are those of the [shared training recipe](#shared-training-recipe).")
    parts.append(_defaults(cls))
    return parts


def _docstring(config: type) -> str:
    """Return a Config's docstring as it stands, which is where the choices are explained."""
    return f"```text\n{config.__name__}: {inspect.getdoc(config)}\n```"


def _defaults(cls: type[Method]) -> str:
    """Return the defaults, and what the recipes change."""
    rows = [[f"`{f.name}`", f"`{f.default}`"] for f in dataclasses.fields(cls.Config)]
    text = (
        "<details><summary>Defaults and recipes</summary>\n\n"
        + tabulate(rows, headers=["key", "default"], tablefmt="github")
        + "\n"
    )
    for pattern, recipe in cls.all_recipes():
        values = ", ".join(f"`{key}={value}`" for key, value in recipe.items())
        text += f"\nOn `{pattern}`: {values}\n"
    return text + "\n</details>"


def main() -> None:
    """Write the page into the folder of the documents."""
    PAGE.write_text(page(load()), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
