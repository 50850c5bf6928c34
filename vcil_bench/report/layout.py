"""The form of a table in a paper: grouped heads, reported rows, a rule, and what was measured here below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .comparison_table import Cell, Column, Table
from .labels import Labels

REPORTED, MEASURED = "Reported", "Measured here"


@dataclass(frozen=True)
class Head:
    """A column's heading, from the widest group to the column itself.

    Attributes:
        group: Shared by neighbours, such as a dataset.
        part: What is split of it, such as ``10x5``.
        leaf: What a part has several columns of, such as readouts; may be empty.
        protocol: Name of the protocol.
        metric: Name of the metric.
        readout: Name of the readout; empty where each method has its first.
    """

    group: str
    part: str
    leaf: str
    protocol: str
    metric: str
    readout: str


@dataclass(frozen=True)
class Number:
    """A number of a cell, in percent.

    Attributes:
        mean: The mean over class orders, or what was reported.
        deviation: The sample deviation over class orders; None where there is none.
        n: Finished runs, 0 for a reported number.
        seeds: Runs the protocol asks for.
        mark: ``best``, ``second`` or nothing.
        readout: The readout it is of.
        source: Where a reported number stands.
    """

    mean: float
    deviation: float | None = None
    n: int = 0
    seeds: int = 0
    mark: str = ""
    readout: str = ""
    source: str = ""

    def text(self, digits: int, *, std: bool) -> tuple[str, str]:
        """Return the number and what stands behind it in small print: deviation, and ``(n/N)``."""
        behind = f" ± {self.deviation:.{digits}f}" if std and self.deviation is not None else ""
        lacking = f" ({self.n}/{self.seeds})" if self.n and self.n != self.seeds else ""
        return f"{self.mean:.{digits}f}".replace("-", "−"), behind + lacking


@dataclass(frozen=True)
class Row:
    """A row of the layout.

    Attributes:
        label: What it is called.
        about: Its backbone, exemplars and pretraining, those of them that the table shows.
        cells: A number per column, None where there is none.
        note: Said below the table.
        name: The method and variant behind a measured row.
    """

    label: str
    about: list[str]
    cells: list[Number | None]
    note: str = ""
    name: str = ""


@dataclass(frozen=True)
class Block:
    """Rows between two rules.

    Attributes:
        title: ``Reported`` or ``Measured here``.
        rows: They.
    """

    title: str
    rows: list[Row]


@dataclass(frozen=True)
class Layout:
    """A table to be written.

    Attributes:
        id: Name of its files and its LaTeX label.
        title: Short caption.
        text: All that a reader must know.
        heads: One per column.
        described: Which of ``backbone``, ``exemplars`` and ``pretraining`` have columns.
        blocks: Those that have rows.
        std: Whether deviations are shown.
        digits: Decimals.
    """

    id: str
    title: str
    text: str
    heads: list[Head]
    described: list[str]
    blocks: list[Block] = field(default_factory=list)
    std: bool = True
    digits: int = 2


def of_table(table: Table) -> Layout:
    """Lay out a comparison table; reported numbers stand once, however many lines of runs a row has."""
    labels = Labels()
    heads = [_head(column, labels, beside_bwf=table.spec.bwf) for column in table.columns]
    described = [
        name
        for name in ("backbone", "exemplars")
        if len({getattr(line, name) for line in table.lines} - {"–"}) > 1
    ]
    reported: dict[tuple[str, tuple[float | None, ...]], Row] = {}
    for line in table.lines:
        cells = [_reported(cell, column) for cell, column in zip(line.cells, table.columns, strict=True)]
        if any(cells):
            key = line.label, tuple(cell.mean if cell else None for cell in cells)
            reported.setdefault(key, Row(line.label, ["" for _ in described], cells))
    measured = [
        Row(
            line.label,
            [getattr(line, name) for name in described],
            [_measured(cell) for cell in line.cells],
            line.notes,
            line.label,
        )
        for line in table.lines
        if any(cell.run for cell in line.cells)
    ]
    blocks = [
        block for block in (Block(REPORTED, [*reported.values()]), Block(MEASURED, measured)) if block.rows
    ]
    return Layout(table.spec.id, table.spec.title, table.caption, heads, described if measured else [], blocks)


def _head(column: Column, labels: Labels, *, beside_bwf: bool) -> Head:
    """Return a column's heading."""
    group, part = labels.protocol(column.protocol)
    leaf = column.leaf or ("Acc" if beside_bwf else "")
    if column.step is not None:
        leaf = str(column.step)
        metric = column.title.removeprefix(column.protocol).rpartition(" after task ")[0].strip()
        part = f"{part}, {metric} after task"
    return Head(group, part, leaf, column.protocol, column.metric, column.readout or "")


def _reported(cell: Cell, column: Column) -> Number | None:
    if cell.published is None:
        return None
    return Number(cell.published, readout=column.published_readout or "", source=cell.source)


def _measured(cell: Cell) -> Number | None:
    """Return a cell's measured number."""
    if not cell.run:
        return None
    return Number(cell.mean, cell.deviation, len(cell.values), cell.seeds, cell.mark, cell.readout)


def spans(titles: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return runs of equal neighbours: the title, the first place and the one behind the last."""
    found: list[tuple[str, int, int]] = []
    for place, title in enumerate(titles):
        if found and found[-1][0] == title:
            found[-1] = (title, found[-1][1], place + 1)
        else:
            found.append((title, place, place + 1))
    return found
