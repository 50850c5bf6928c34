"""Comparison tables as text: Markdown with the measured number beside the reported one, and CSV in long form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate

from .comparison_table import Cell, Line, Table
from .labels import Labels
from .ranking import EXPLANATION
from .tables import origin_of

if TYPE_CHECKING:
    import pandas as pd


def frame(table: Table) -> pd.DataFrame:
    """Return a table in long form, one line per cell, for ``.csv``."""
    import pandas as pd

    lines = []
    for line in table.lines:
        for column, cell in zip(table.columns, line.cells, strict=True):
            lines.append(
                {
                    "table": table.spec.id,
                    "row": line.label,
                    "origin": ", ".join(dict.fromkeys(filter(None, map(origin_of, cell.records)))),
                    "backbone": line.backbone,
                    "exemplars": line.exemplars,
                    "pretraining": line.pretraining,
                    "protocol": column.protocol,
                    "readout": cell.readout or column.readout or "",
                    "metric": column.metric,
                    "step": "" if column.step is None else column.step,
                    "measured_mean": cell.mean if cell.run else np.nan,
                    "measured_std": cell.deviation if cell.run and cell.deviation is not None else np.nan,
                    "n": len(cell.values),
                    "seeds": cell.seeds,
                    "reported": cell.published if cell.published is not None else np.nan,
                    "difference": cell.difference if cell.difference is not None else np.nan,
                    "source": cell.source,
                    "mark": cell.mark,
                    "behind_best_low": cell.versus.low * 100 if cell.versus else np.nan,
                    "behind_best_high": cell.versus.high * 100 if cell.versus else np.nan,
                    "sign_test_p": cell.versus.sign_p if cell.versus else np.nan,
                    "notes": line.notes,
                }
            )
    return pd.DataFrame(lines)


def texts(cell: Cell) -> dict[str, str]:
    """Return the parts of a cell as text: measured, reported and difference."""
    difference = cell.difference
    return {
        "measured": cell.measured,
        "reported": "–" if cell.published is None else f"{cell.published:.2f}",
        "difference": "" if difference is None else signed(difference),
    }


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, a true minus among them."""
    return f"{value:+.{digits}f}".replace("-", "−")


def as_plain(table: Table) -> dict[str, Any]:
    """Return a table for pages, see ``PaperTable``, without columns that hold no number."""
    labels = Labels()
    places = [
        i
        for i in range(len(table.columns))
        if any(line.cells[i].run or line.cells[i].published is not None for line in table.lines)
    ]
    places = places or [*range(len(table.columns))]  # of a table without any number
    empty = [c for i, c in enumerate(table.columns) if i not in places]
    described, noted, rows, marks = _lines(table, places)
    cells_hold = (
        "Each cell: measured here | reported (difference)."
        if table.measured
        else "Reported numbers; nothing of this table was measured here yet."
    )
    left_out = ", ".join(_title(labels, column.protocol, column.leaf) for column in empty)
    heads = [(*labels.protocol(table.columns[i].protocol), table.columns[i].leaf) for i in places]
    return {
        "id": table.spec.id,
        "title": table.spec.title,
        "note": f"{cells_hold} {table.caption}"
        + (f" Without any number, and so left out: {left_out}." if left_out else ""),
        "groups": [*("" for _ in described), *(group for group, _, _ in heads), *([""] if noted else [])],
        "headers": [
            *described,
            *(" ".join(part for part in parts if part) for _, *parts in heads),
            *(["notes"] if noted else []),
        ],
        "rows": rows,
        "marks": marks,
        "measured": table.measured,
    }


def _lines(
    table: Table, places: Sequence[int]
) -> tuple[list[str], bool, list[list[dict[str, str]]], list[list[str]]]:
    """Return some columns as text: headings before them, whether notes stand behind, rows and marks."""
    described = described_by(table)
    noted = any(line.notes for line in table.lines)
    rows, marks = [], []
    for line in table.lines:
        cells = []
        for cell in (line.cells[i] for i in places):
            t = texts(cell)
            rest = ""
            if cell.published is not None:
                rest = t["reported"] + (f" ({t['difference']})" if t["difference"] else "")
            measured = t["measured"] if table.measured else ("" if rest else "–")
            cells.append({"ours": measured, "rest": rest})
        before = [line.label, *(text for _, text in about(line, described))]
        rows.append([*map(_alone, before), *cells, *([_alone(line.notes)] if noted else [])])
        marks.append([*("" for _ in before), *(line.cells[i].mark for i in places), *([""] if noted else [])])
    return ["method", *described], noted, rows, marks


def described_by(table: Table) -> list[str]:
    """Return which of backbone, exemplars and pretraining tell something, in a table with runs."""
    names = ("backbone", "exemplars", "pretraining")
    return [name for name in names if any(getattr(line, name) != "–" for line in table.lines)]


def about(line: Line, described: list[str]) -> list[tuple[str, str]]:
    """Return these descriptions of a line."""
    return [(name, getattr(line, name)) for name in described]


def _title(labels: Labels, protocol: str, leaf: str) -> str:
    return " ".join(part for part in (*labels.protocol(protocol), leaf) if part)


def _alone(text: str) -> dict[str, str]:
    """Return a cell that is not compared with anything."""
    return {"ours": text, "rest": ""}


def markdown(table: Table) -> str:
    """Return a table as Markdown, best in bold, second best in italics."""
    described, noted, rows, all_marks = _lines(table, range(len(table.columns)))
    titles = (_title(Labels(), column.protocol, column.leaf) for column in table.columns)
    headers = [*described, *titles, *(["notes"] if noted else [])]
    sign = {"best": "**", "second": "*", "": ""}
    lines = []
    for row, marks in zip(rows, all_marks, strict=True):
        line = []
        for cell, mark in zip(row, marks, strict=True):
            parts = [f"{sign[mark]}{cell['ours']}{sign[mark]}" if cell["ours"] else "", cell["rest"]]
            line.append(" / ".join(part for part in parts if part).replace("|", "/"))
        lines.append(line)
    text = tabulate(lines, headers=headers, tablefmt="pipe", disable_numparse=True)
    cells = (
        "Cells: measured here / reported (difference)." if table.measured else "All numbers are reported ones."
    )
    return f"## {table.spec.title}\n\n{text}\n\n{table.caption}\n\n{EXPLANATION} {cells}\n"
