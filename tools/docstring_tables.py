"""Markdown tables of a configuration dataclass: keys, defaults, allowed values, and what its docstring says."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal

ENTRY = re.compile(r"    (\w+(?:, \w+)*): (.*)")


@dataclass
class Explained:
    """A docstring taken apart.

    Attributes:
        summary: Its first sentence.
        prose: Paragraphs that explain no single key.
        sections: Per section its title and its entries: keys that are explained together, and the explanation.
    """

    summary: str
    prose: list[str] = field(default_factory=list)
    sections: list[tuple[str, dict[tuple[str, ...], str]]] = field(default_factory=list)


def explained(config: type) -> Explained:
    """Take a dataclass's docstring apart: entries are lines ``key[, key]: text`` indented once in a section."""
    keys = {f.name for f in dataclasses.fields(config)}
    summary, _, rest = (inspect.getdoc(config) or "").partition("\n\n")
    result = Explained(_plain(summary))
    for paragraph in filter(None, rest.split("\n\n")):
        title, *lines = paragraph.split("\n")
        if not (title.endswith(":") and lines and all(line.startswith("    ") for line in lines)):
            result.prose.append(_plain(paragraph))
            continue
        entries: list[tuple[tuple[str, ...], list[str]]] = []
        loose: list[str] = []
        for line in lines:
            start = ENTRY.fullmatch(line)
            if start and set(named := tuple(start[1].split(", "))) <= keys:
                entries.append((named, [start[2]]))
            elif entries:
                entries[-1][1].append(line.strip())
            else:
                loose.append(line.strip())
        if loose:
            result.prose.append(f"{title} {_plain(' '.join(loose))}")
        if entries:
            result.sections.append((_plain(title), {named: _plain(" ".join(text)) for named, text in entries}))
    return result


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


def _plain(text: str) -> str:
    """Return a docstring's text as one line of Markdown."""
    return re.sub(r"``([^`]*)``", r"`\1`", " ".join(text.split()))
