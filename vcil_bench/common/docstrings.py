"""Docstrings of configuration dataclasses taken apart: what is said of each key, for help and for tables."""

from __future__ import annotations

import dataclasses
import inspect
import re
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


def explained(config: type) -> Explained:
    """Take a dataclass's docstring apart: entries are lines ``key[, key]: text`` indented once in a section."""
    keys = {f.name for f in dataclasses.fields(config)}
    summary, _, rest = (inspect.getdoc(config) or "").partition("\n\n")
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
