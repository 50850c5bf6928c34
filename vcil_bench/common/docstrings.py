"""Docstrings of configuration dataclasses taken apart: what is said of each key, for help and for tables."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection
from dataclasses import dataclass, field

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


def docstrings(config: type) -> list[tuple[type, str]]:
    """Return the docstrings of a dataclass and its bases; what a class says of a key, its bases do not."""
    told: set[str] = set()
    texts = []
    for cls in config.__mro__:
        if dataclasses.is_dataclass(cls):
            texts.append((cls, _without(inspect.getdoc(cls) or "", told)))
            told |= {key for _, entries in explained(cls).sections for keys in entries for key in keys}
    return texts


def _without(text: str, told: Collection[str]) -> str:
    """Return a docstring without the entries of keys that were told, and without sections that have no other."""
    kept, paragraphs = True, []
    for paragraph in text.split("\n\n"):
        lines = []
        for line in paragraph.split("\n"):
            if start := ENTRY.fullmatch(line):
                kept = not set(start[1].split(", ")) <= set(told)
            elif not line.startswith(" "):
                kept = True
            lines += [line] if kept else []
        if lines == [paragraph] or len(lines) > 1:
            paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def explained(config: type, docstring: str | None = None) -> Explained:
    """Take a dataclass's docstring apart: entries are lines ``key[, key]: text`` indented once in a section.

    Args:
        config: The class.
        docstring: What is taken of its docstring; None for all.
    """
    keys = {f.name for f in dataclasses.fields(config)}
    text = docstring if docstring is not None else inspect.getdoc(config) or ""
    summary, _, rest = text.partition("\n\n")
    result = Explained(plain(summary))
    for paragraph in filter(None, rest.split("\n\n")):
        title, *lines = paragraph.split("\n")
        if not (title.endswith(":") and lines and all(line.startswith("    ") for line in lines)):
            result.prose.append(plain(paragraph))
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
            result.prose.append(f"{title} {plain(' '.join(loose))}")
        if entries:
            result.sections.append((plain(title), {named: plain(" ".join(text)) for named, text in entries}))
    return result


def plain(text: str) -> str:
    """Return a docstring's text as one line of Markdown."""
    return re.sub(r"``([^`]*)``", r"`\1`", " ".join(text.split()))
