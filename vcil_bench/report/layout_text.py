"""A table's layout as Markdown, and as CSV with one line per number."""

from __future__ import annotations

import csv
import io

from tabulate import tabulate

from .layout import MEASURED, Layout, Number
from .ranking import EXPLANATION

_SIGNS = {"best": "**", "second": "*", "": ""}


def markdown(layout: Layout) -> str:
    """Return the table as Markdown; reported rows come first and say so."""
    several = len(layout.blocks) > 1
    heads = [" ".join(part for part in (h.group, h.part, h.leaf) if part) for h in layout.heads]
    lines = []
    for block in layout.blocks:
        for row in block.rows:
            about = [*row.about, *([""] * (len(layout.described) - len(row.about)))]
            cells = [_cell(number, layout) for number in row.cells]
            lines.append([row.label, *([block.title.lower()] if several else []), *about, *cells, row.note])
    headers = ["method", *(["numbers"] if several else []), *layout.described, *heads, "notes"]
    if not any(line[-1] for line in lines):
        lines, headers = [line[:-1] for line in lines], headers[:-1]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    text = tabulate(lines, headers=headers, tablefmt="pipe", disable_numparse=True)
    marked = any(number.mark for block in layout.blocks for row in block.rows for number in row.cells if number)
    return f"{text}\n\n{layout.text}{f' {EXPLANATION}' if marked else ''}\n"


def _cell(number: Number | None, layout: Layout) -> str:
    if number is None:
        return "–"
    text, behind = number.text(layout.digits, std=layout.std)
    sign = _SIGNS[number.mark]
    return f"{sign}{text}{behind}{sign}"


def long_form(layout: Layout) -> str:
    """Return the numbers as CSV, one a line, with six decimals whatever the table shows."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        [
            *("numbers", "method", "label", *layout.described, "protocol", "metric", "readout"),
            *("mean", "std", "n", "seeds", "mark", "source", "notes"),
        ]
    )
    for block in layout.blocks:
        kind = "measured" if block.title == MEASURED else "reported"
        for row in block.rows:
            about = [*row.about, *([""] * (len(layout.described) - len(row.about)))]
            for head, number in zip(layout.heads, row.cells, strict=True):
                if number is None:
                    continue
                std = "" if number.deviation is None else f"{number.deviation:.6f}"
                runs = [number.n, number.seeds] if block.title == MEASURED else ["", ""]
                table.writerow(
                    [
                        *(kind, row.name, row.label, *about, head.protocol, head.metric, number.readout),
                        *(f"{number.mean:.6f}", std, *runs, number.mark, number.source, row.note),
                    ]
                )
    return text.getvalue()
