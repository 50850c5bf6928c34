"""Markdown tables of a configuration dataclass: keys, defaults, allowed values, and what its docstring says."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal


def table(config: type, entries: Mapping[tuple[str, ...], str], titles: tuple[str, str, str, str]) -> str:
    """Return a Markdown table with a row for each entry: keys, defaults, other values, the explanation.

    Args:
        config: Dataclass with the defaults and the types.
        entries: Keys that are explained together, and the explanation.
        titles: Of the four columns.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    types = typing.get_type_hints(config)
    rows = [
        [
            "<br>".join(f"`{key}`" for key in keys),
            "<br>".join(code(defaults[key]) for key in keys),
            "<br>".join(_others(types[key], defaults[key]) for key in keys),
            text,
        ]
        for keys, text in entries.items()
    ]
    return markdown(rows, titles)


def markdown(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    """Return a Markdown table, its cells as narrow as their text."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _others(kind: Any, default: Any) -> str:
    """Return the values that a key may take beside its default, as far as its type says."""
    kinds = typing.get_args(kind) if isinstance(kind, UnionType) else (kind,)
    values: list[str] = []
    for one in kinds:
        if typing.get_origin(one) is Literal:
            values += [code(value) for value in typing.get_args(one) if value != default]
        elif one is bool:
            values.append(code(not default))
        elif one is type(None):
            values += [] if default is None else [code(None)]
        else:
            words = {int: "a whole number", float: "a number", str: "text"}
            values.append(words.get(one, "a list of whole numbers"))
    return ", ".join(values)
