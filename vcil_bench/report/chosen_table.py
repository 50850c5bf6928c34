"""A table of chosen methods on chosen protocols, below what papers report: one's own row under theirs.

Any method with records can stand in it, a plugin too; nothing is imported of it. Reported numbers are those of
the comparison tables (``papers.yaml``, or a user's file), where they are of the same metric.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcil_bench.common.errors import UserError, did_you_mean
from vcil_bench.identity import fingerprint_now
from vcil_bench.metrics import METRICS
from vcil_bench.protocol import load
from vcil_bench.record import Record

from . import layout, tables
from .comparison_table import columns_of, describe
from .labels import Labels
from .layout import MEASURED, REPORTED, Block, Head, Layout, Number
from .published import number_of
from .ranking import Candidate, rank
from .table_file import TableSpec

HEADLINE = "headline"
FIRST = "first"


@dataclass(frozen=True)
class Choice:
    """What a table shows.

    Attributes:
        methods: Names; behind a colon a variant, ``*`` for all; behind ``@`` who ran it, nothing for here, where
            not all are wanted; the ``.py`` file of a plugin; empty for every method with runs on the protocols.
        protocols: Names, or labels of derived protocols.
        metrics: Names of metrics, or ``headline`` for each protocol's.
        readouts: Names, each with columns of its own, or ``first`` for each method's first.
        published: Whether reported numbers stand above.
        std: Whether deviations over class orders are shown.
        digits: Decimals.
    """

    methods: list[str]
    protocols: list[str]
    metrics: list[str]
    readouts: list[str]
    published: bool = False
    std: bool = True
    digits: int = 2


@dataclass(frozen=True)
class _Column:
    """A column: protocol, metric, and readout or ``first``."""

    protocol: str
    metric: str
    readout: str


def make(records: Sequence[Record], choice: Choice, specs: Sequence[TableSpec], labels: Labels) -> Layout:
    """Make the table.

    Args:
        records: Any records; of each protocol those count that were made on it as it is now, on its own kind of
            data and with weights that were trained.
        choice: What it shows.
        specs: The tables that reported numbers are taken from.
        labels: What methods and protocols are called.

    Raises:
        UserError: A name is that of no method with records, no protocol, metric or readout.
    """
    groups = {protocol: rows_on(records, protocol) for protocol in choice.protocols}
    _check_readouts(choice, groups)
    columns = [
        _Column(protocol, metric, readout)
        for protocol in choice.protocols
        for metric in _metrics(choice, protocol, groups[protocol])
        for readout in choice.readouts
    ]
    chosen = choose(choice.methods, [row for several in groups.values() for row in several], choice.protocols)
    measured, described = _measured(chosen, columns, groups, labels)
    blocks = [Block(REPORTED, _reported(columns, specs)), Block(MEASURED, measured)] if choice.published else []
    blocks = [block for block in blocks or [Block(MEASURED, measured)] if block.rows]
    formulas = dict.fromkeys(f"{METRICS[c.metric].title}: {METRICS[c.metric].formula}." for c in columns)
    text = (
        f"Percent. {' '.join(formulas)} Measured here: mean"
        + (" ± sample standard deviation" if choice.std else "")
        + " over the protocol's seeds, (n/N) where seeds are missing."
    )
    if choice.published:
        sources = dict.fromkeys(
            cell.source for row in blocks[0].rows for cell in row.cells if cell and cell.source
        )
        text += f" Reported: {'; '.join(sources)}." if sources else " No reported numbers are on file."
    names = ", ".join(dict.fromkeys(" ".join(labels.protocol(p)).strip() for p in choice.protocols))
    heads = [_head(column, columns, labels) for column in columns]
    return Layout("chosen", f"Results on {names}", text, heads, described, blocks, choice.std, choice.digits)


def rows_on(records: Sequence[Record], protocol: str) -> list[tables.Row]:
    """Return the rows of a protocol, of runs on the protocol as it is now; none where it was never run.

    Args:
        records: Any records.
        protocol: Its name, or the label of a derived one.

    Raises:
        UserError: There is no such protocol, neither here nor in the records.
    """
    labelled = [r for r in records if r.data["protocol"]["label"] == protocol]
    if not labelled:
        known = dict.fromkeys(r.data["protocol"]["label"] for r in records)
        try:
            load(protocol)
        except UserError:
            raise UserError(
                f"no protocol {protocol!r}{did_you_mean(protocol, known)}; give names of vcil-bench list "
                f"protocols, "
                f"or labels that records have: {', '.join(known) or 'there are no records'}"
            ) from None
    usable = [
        group for group in tables.groups(labelled) if group.records[0].data["weights"]["source"] != "random"
    ]
    # One fingerprint and one kind of data: today's protocol, and what it is about.
    usable.sort(
        key=lambda group: (not _is_current(group.records[0]), group.records[0].data["data"]["kind"], group.label)
    )
    return tables.rows(usable[0]) if usable else []


def _is_current(record: Record) -> bool:
    protocol = record.data["protocol"]
    return (
        fingerprint_now(record.as_written.protocol_reference, protocol["overrides"]) == protocol["fingerprint"]
    )


def choose(
    methods: Sequence[str], rows: Sequence[tables.Row], protocols: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return method, variant and origin of each chosen line, in the order asked for.

    Args:
        methods: As in ``Choice``.
        rows: All rows there are.
        protocols: Said in errors.

    Raises:
        UserError: Nothing was run under a name.
    """
    origins: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    files: dict[str, str] = {}
    for row in rows:
        origins[row.method][row.variant].add(row.origin)
        for record in row.runs:
            files[Path(record.data["method"]["file"]).name] = row.method
    chosen: dict[tuple[str, str, str], None] = {}
    for text in methods or sorted(origins):
        asked, at, origin = text.partition("@")
        name, _, variant = asked.partition(":")
        if name.endswith(".py"):
            name = files.get(Path(name).name, name)
        if name not in origins:
            raise UserError(
                f"--methods {name!r}: no records on {', '.join(protocols)}{did_you_mean(name, origins)}; "
                f"there are: {', '.join(sorted(origins)) or 'none'}; run vcil-bench run {name} {protocols[0]}, "
                "or give --results"
            )
        there = sorted(origins[name], key=lambda v: (v != "default", v))
        if variant in ("", "*"):
            wanted = ["default"] if not variant and "default" in there else there
        elif variant in there:
            wanted = [variant]
        else:
            raise UserError(
                f"--methods {text!r}: {name} has no variant {variant!r}{did_you_mean(variant, there)}; there "
                f"are: {', '.join(there)}, and * for all"
            )
        lines = [(name, v, who) for v in wanted for who in sorted(origins[name][v]) if not at or who == origin]
        if not lines:
            by = sorted({who or "here" for v in wanted for who in origins[name][v]})
            raise UserError(
                f"--methods {text!r}: nobody of that name ran it{did_you_mean(origin, by)}; it was run by: "
                f"{', '.join(by)} (@ alone is here)"
            )
        chosen.update(dict.fromkeys(lines))
    return list(chosen)


def _metrics(choice: Choice, protocol: str, rows: Sequence[tables.Row]) -> list[str]:
    """Return the metrics of a protocol's columns."""
    names = []
    for metric in choice.metrics:
        if metric == HEADLINE:
            if rows:
                first = (rows[0].complete or rows[0].unfinished)[0]
                metric = first.data["protocol"]["metrics"]["headline"]
            else:
                metric = load(protocol).spec.metrics.headline
        if metric not in METRICS:
            raise UserError(
                f"--metric {metric!r}: no such metric{did_you_mean(metric, METRICS)}; there are: {HEADLINE}, "
                f"{', '.join(METRICS)}"
            )
        names.append(metric)
    return list(dict.fromkeys(names))


def _check_readouts(choice: Choice, groups: dict[str, list[tables.Row]]) -> None:
    there = dict.fromkeys(row.readout for rows in groups.values() for row in rows)
    for readout in choice.readouts:
        if there and readout != FIRST and readout not in there:
            raise UserError(
                f"--readout {readout!r}: no method on these protocols has it{did_you_mean(readout, there)}; "
                f"there "
                f"are: {FIRST} (of each method), {', '.join(there)}"
            )


def _measured(
    chosen: Sequence[tuple[str, str, str]],
    columns: Sequence[_Column],
    groups: dict[str, list[tables.Row]],
    labels: Labels,
) -> tuple[list[layout.Row], list[str]]:
    """Return the rows of runs, and which descriptions they show."""
    lines: list[tuple[tuple[str, str, str], list[tables.Row | None]]] = []
    for line in chosen:
        mine = {
            protocol: [row for row in rows if (row.method, row.variant, row.origin) == line]
            for protocol, rows in groups.items()
        }
        # The same variant on weights of several files is several lines.
        places = max(len({row.backbone for row in rows}) for rows in mine.values())
        for place in range(places):
            lines.append((line, [_row_of(mine[c.protocol], c.readout, place) for c in columns]))
    numbers = _numbers([rows for _, rows in lines], columns)
    runs = [[r for row in rows if row for r in row.complete or row.unfinished] for _, rows in lines]
    about = [describe(_once(several)) for several in runs]
    described = [
        name for i, name in enumerate(("backbone", "exemplars")) if len({texts[i] for texts in about}) > 1
    ]
    shown = [i for i, name in enumerate(("backbone", "exemplars")) if name in described]
    made = []
    for ((method, variant, origin), rows), cells, texts in zip(lines, numbers, about, strict=True):
        label = labels.method(f"{method}:{variant}") if variant != "default" else labels.method(method)
        if variant != "default" and label == f"{method}:{variant}":
            label = f"{labels.method(method)} ({variant.replace('+', ', ')})"
        name = f"{method}:{variant}"
        if origin:
            label, name = f"{label} [{origin}]", f"{name}@{origin}"
        note = ", ".join(dict.fromkeys(row.notes for row in rows if row and row.notes))
        made.append(layout.Row(label, [texts[i] for i in shown], cells, note, name))
    return made, described


def _once(runs: Sequence[Record]) -> list[Record]:
    return list({record.path: record for record in runs}.values())


def _row_of(rows: Sequence[tables.Row], readout: str, place: int) -> tables.Row | None:
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    if place >= len(backbones):
        return None
    mine = [row for row in rows if row.backbone == backbones[place]]
    wanted = mine if readout == FIRST else [row for row in mine if row.readout == readout]
    return wanted[0] if wanted else None


def _numbers(
    lines: Sequence[Sequence[tables.Row | None]], columns: Sequence[_Column]
) -> list[list[Number | None]]:
    """Return the numbers of measured lines, marked column by column."""
    numbers: list[list[Number | None]] = [[] for _ in lines]
    for place, column in enumerate(columns):
        there = [row[place] for row in lines]
        candidates = [
            Candidate(row.complete, row.readout, not row.incomplete and not row.stale)
            for row in there
            if row is not None
        ]
        rank(candidates, column.metric)
        marks = iter(candidates)
        for cells, row in zip(numbers, there, strict=True):
            mark = next(marks).mark if row is not None else ""
            cells.append(_number(row, column.metric, mark) if row is not None else None)
    return numbers


def _number(row: tables.Row, metric: str, mark: str) -> Number | None:
    values = row.values(metric)
    if not len(values):
        return None
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return Number(float(np.mean(values)), deviation, len(values), row.seeds, mark, row.readout)


def _reported(columns: Sequence[_Column], specs: Sequence[TableSpec]) -> list[layout.Row]:
    """Return the rows of the comparison tables that report the columns' metrics.

    Where tables repeat each other a method has one row; numbers that differ from those of an earlier table stand
    in a row that names its source.
    """
    rows: dict[str, list[Number | None]] = {}
    for spec in specs:
        if not spec.comparison:
            continue
        theirs = columns_of(spec)
        for row in spec.rows:
            cells: list[Number | None] = [None] * len(columns)
            for place, column in enumerate(columns):
                for other in theirs:
                    fits = (other.protocol, other.metric, other.step) == (column.protocol, column.metric, None)
                    if not fits or (column.readout != FIRST and other.readout not in (None, column.readout)):
                        continue
                    number = number_of(
                        spec, row, other.title, other.protocol, other.published_metric, other.published_readout
                    )
                    if number is not None and cells[place] is None:
                        readout = other.readout or ("" if column.readout == FIRST else column.readout)
                        cells[place] = Number(number.value, readout=readout, source=number.source)
            if not any(cells):
                continue
            before = rows.get(row.label)
            if before is None:
                rows[row.label] = cells
            elif _agree(before, cells):
                rows[row.label] = [a or b for a, b in zip(before, cells, strict=True)]
            else:
                source = next(cell.source for cell in cells if cell).partition(",")[0]
                rows[f"{row.label} (in {source})"] = cells
    read = Counter(cell.readout for cells in rows.values() for cell in cells if cell and cell.readout)
    usual = read.most_common(1)[0][0] if read else ""
    return [layout.Row(label, [], cells, _other_readouts(cells, usual)) for label, cells in rows.items()]


def _other_readouts(cells: Sequence[Number | None], usual: str) -> str:
    """Return a note on reported numbers of another readout than the other rows'."""
    others = dict.fromkeys(cell.readout for cell in cells if cell and cell.readout not in ("", usual))
    return f"reported with the readout {', '.join(others)}" if others else ""


def _agree(first: Sequence[Number | None], second: Sequence[Number | None]) -> bool:
    return all(a is None or b is None or a.mean == b.mean for a, b in zip(first, second, strict=True))


def _head(column: _Column, columns: Sequence[_Column], labels: Labels) -> Head:
    group, part = labels.protocol(column.protocol)
    leaf = []
    if len({c.metric for c in columns if c.protocol == column.protocol}) > 1:
        leaf.append(METRICS[column.metric].title)
    if column.readout != FIRST:
        leaf.append(labels.readout(column.readout))
    readout = "" if column.readout == FIRST else column.readout
    return Head(group, part, " ".join(leaf), column.protocol, column.metric, readout)
