"""Terminal tables: prints a table as wide as the window, in blocks where its columns do not fit side by side.

Piped into a file it is Markdown, so that what is kept can be pasted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from tabulate import tabulate

from vcil_bench.common.terminal_text import print, shown

STYLES = {"best": "bold", "second": "italic", "": ""}
SETTINGS = "variant"  # heading of names that are lists of settings, joined by +
LEAST_SETTINGS = 14  # columns for them, however narrow the window
ENOUGH_SETTINGS = 24  # columns, or a third of the window, which they share with values
GAP = 2  # columns between columns
RULES = Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")  # under the heading and between sections
SIGNS = {"best": "**", "second": "*", "": ""}


@dataclass(frozen=True)
class Sheet:
    """A table of R rows: columns that name a row, and columns of values.

    Attributes:
        names: Headings of the columns that name a row.
        titles: Headings of the columns of values.
        rows: Per row its names.
        cells: Per row its values as text [R][len(titles)].
        marks: Per row and value ``best``, ``second`` or nothing [R][len(titles)].
        sections: Rows behind which a rule is drawn.
    """

    names: Sequence[str]
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    cells: Sequence[Sequence[str]]
    marks: Sequence[Sequence[str]]
    sections: frozenset[int] = field(default_factory=frozenset)


def show(sheet: Sheet) -> None:
    """Print a table: to a terminal as wide as it is, anywhere else as Markdown."""
    if not sys.stdout.isatty():
        print(markdown(sheet))
        return
    console = Console()
    for number, table in enumerate(blocks(sheet, console.width)):
        if number:
            console.print()
        console.print(table)


def blocks(sheet: Sheet, width: int) -> list[Table]:
    """Return tables that fit a window: the names in each, and as many columns of values as there is room for.

    One column of values stands in a block at least. Values and names are never cut; settings are folded.
    """
    names = _name_widths(sheet, width)
    values = [_value_width(sheet, place) for place in range(len(sheet.titles))]
    tables: list[Table] = []
    begin = 0
    while begin < len(values) or not tables:
        end = begin + 1
        while (
            end < len(values)
            and sum(names) + sum(values[begin : end + 1]) + GAP * (len(names) + end - begin) <= width
        ):
            end += 1
        tables.append(_table(sheet, names, values, begin, end))
        begin = end
    return tables


def markdown(sheet: Sheet) -> str:
    """Return a table as Markdown, best in bold, second best in italics."""
    lines = [
        [*row, *(f"{SIGNS[mark]}{cell}{SIGNS[mark]}" for cell, mark in zip(cells, marks, strict=True))]
        for row, cells, marks in zip(sheet.rows, sheet.cells, sheet.marks, strict=True)
    ]
    plain = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return tabulate(plain, headers=[*sheet.names, *sheet.titles], tablefmt="pipe", disable_numparse=True)


def _name_widths(sheet: Sheet, width: int) -> list[int]:
    """Return the widths of the names; settings get what is left beside the others and the widest value."""
    natural = [
        max([len(heading), *(cell_len(_folded(row[place], heading)) for row in sheet.rows)])
        for place, heading in enumerate(sheet.names)
    ]
    others = sum(w for w, heading in zip(natural, sheet.names, strict=True) if heading != SETTINGS)
    widest = max((_value_width(sheet, place) for place in range(len(sheet.titles))), default=0)
    room = min(width - others - widest - GAP * (len(natural) + 1), max(ENOUGH_SETTINGS, width // 3))
    room = max(LEAST_SETTINGS, room)
    return [min(w, room) if heading == SETTINGS else w for w, heading in zip(natural, sheet.names, strict=True)]


def _value_width(sheet: Sheet, place: int) -> int:
    """Return the width of a column of values, whose heading is folded at its spaces."""
    words = _title(sheet.titles[place]).split()
    return max([*map(cell_len, words), *(cell_len(row[place]) for row in sheet.cells)])


def _title(heading: str) -> str:
    """Return a heading whose arrow stays with its last word."""
    return heading.replace(" ↑", "↑").replace(" ↓", "↓")


def _folded(name: str, heading: str) -> str:
    """Return a name, settings with spaces between them, at which they are folded."""
    return name.replace("+", " ") if heading == SETTINGS else name


def _table(sheet: Sheet, names: Sequence[int], values: Sequence[int], begin: int, end: int) -> Table:
    """Return the table of the values from ``begin`` to ``end``."""
    heads = [
        *(Column(head, width=width, overflow="fold") for head, width in zip(sheet.names, names, strict=True)),
        *(
            Column(_title(head), width=width, justify="right")
            for head, width in zip(sheet.titles[begin:end], values[begin:end], strict=True)
        ),
    ]
    table = Table(*heads, box=RULES, show_edge=False, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for number, (row, cells, marks) in enumerate(zip(sheet.rows, sheet.cells, sheet.marks, strict=True)):
        table.add_row(
            *(Text(_folded(shown(name), heading)) for name, heading in zip(row, sheet.names, strict=True)),
            *(Text(shown(c), STYLES[m]) for c, m in zip(cells[begin:end], marks[begin:end], strict=True)),
            end_section=number in sheet.sections,
        )
    return table
