"""The page of systems, made from vcil_bench/report/systems.yaml; ``tools/reproduction.py`` writes it."""

from __future__ import annotations

import typing
from collections.abc import Callable

from docstring_tables import markdown

from vcil_bench import registry
from vcil_bench.report.systems import System, families

INTRODUCTION = """\
# Systems

Every system that the documents behind this project name, or the published tables that reports set beside its
own: which method here it is and what that was checked against, or why there is none. `KEY=VALUE` is no method,
but an option of many (`--set`). The last column counts a system's numbers in `vcil_bench/report/published.csv`,
its ablations included. [What is reproduced](reproduction.md) says per method what equals which code.

Generated from `vcil_bench/report/systems.yaml` and `methods/reproduction.yaml` by `tools/systems_page.py`."""
HEADERS = ["system", "paper", "here", "how far, or why not", "published numbers"]


def page(status: Callable[[str], str | None], numbers: Callable[[System], int]) -> str:
    """Return the page as Markdown.

    Args:
        status: Says what a method was checked against; None if there is no such method.
        numbers: Counts the published numbers of a system.
    """
    parts = [INTRODUCTION]
    for family in families():
        rows = [[s.name, s.paper, *_here(s, status), str(numbers(s) or "–")] for s in family.systems]
        parts += [f"## {family.title}", markdown(rows, HEADERS)]
    return "\n\n".join(parts) + "\n"


def _here(system: System, status: Callable[[str], str | None]) -> tuple[str, str]:
    """Return what a system is here, and how far, or why it is not."""
    note = [system.note] if system.note else []
    if system.missing:
        return "no", "; ".join([system.missing, *note])
    if system.option:
        if not is_an_option(system.option):
            return "not yet", "; ".join(note)
        return f"`{system.option}`", "; ".join(
            ["an option of [most methods](running.md#tuning-a-frozen-clip)", *note]
        )
    there = [(name, text) for name in system.methods if (text := status(name)) is not None]
    if not there:
        return "not yet", "; ".join(note)
    links = ", ".join(f"[{name}](reproduction.md#{name})" for name, _ in there)
    texts = [text if len(there) == 1 else f"{name}: {text}" for name, text in there]
    return links, "; ".join([*texts, *note])


def is_an_option(option: str) -> bool:
    """Tell whether the config of a built-in method takes a value, ``KEY=VALUE``."""
    key, _, value = option.partition("=")
    for entry in registry.find_all().values():
        hints = typing.get_type_hints(entry.cls.Config) if entry.cls is not None else {}
        if value in typing.get_args(hints.get(key)):
            return True
    return False
