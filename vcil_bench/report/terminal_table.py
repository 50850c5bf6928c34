"""Terminal tables: prints a table as wide as the window, in blocks where its columns do not fit side by side.

Piped into a file it is Markdown, so that what is kept can be pasted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from tabulate import tabulate

from vcil_bench.common.terminal_text import print, shown

STYLES = {"best": "bold", "second": "italic", "": ""}
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
    for number, table in enumerate(blocks(sheet, console)):
        if number:
            console.print()
        console.print(table, soft_wrap=False)


def blocks(sheet: Sheet, console: Console) -> list[Table]:
    """Return tables that fit the window's width: the names in each, and as many values as there is room for.

    One value stands in a block at least; where even that does not fit, names are cut short.
    """
    tables: list[Table] = []
    begin = 0
    while begin < len(sheet.titles) or not tables:
        end = begin + 1
        while end < len(sheet.titles) and _fits(_table(sheet, begin, end + 1), console):
            end += 1
        tables.append(_table(sheet, begin, end))
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


def _fits(table: Table, console: Console) -> bool:
    return table.__rich_measure__(console, console.options.update(max_width=10_000)).minimum <= console.width


def _table(sheet: Sheet, begin: int, end: int) -> Table:
    """Return the table of the values from ``begin`` to ``end``; headings may be folded, values not."""
    titles = sheet.titles[begin:end]
    heads = [
        *(Column(name, overflow="ellipsis", no_wrap=True) for name in sheet.names),
        *(Column(title, justify="right", overflow="fold") for title in titles),
    ]
    table = Table(*heads, box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for number, (row, cells, marks) in enumerate(zip(sheet.rows, sheet.cells, sheet.marks, strict=True)):
        values = [
            Text(shown(cell), STYLES[mark], no_wrap=True)
            for cell, mark in zip(cells[begin:end], marks[begin:end], strict=True)
        ]
        table.add_row(*(Text(shown(name)) for name in row), *values, end_section=number in sheet.sections)
    return table
