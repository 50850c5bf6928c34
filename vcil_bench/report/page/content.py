"""Content of the page: gathers all that its script works on, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from vcil_bench.identity import same_numbers
from vcil_bench.metrics import METRICS
from vcil_bench.record import Record
from vcil_bench.record_schema import MemoryUse
from vcil_bench.report.curves import legends
from vcil_bench.report.kept_parts import KeptParts
from vcil_bench.report.labels import Labels
from vcil_bench.report.style import dashes_of, family_of, style_of
from vcil_bench.report.table_file import TableSpec
from vcil_bench.report.tables import Group, Row, rows

from .leaderboard import about, standings_of
from .outcomes import MORE_NAMES, outcomes_of
from .pairs import pairs_of
from .pool import Pool
from .reported import reported_on, reported_points
from .rows import kind_of, row_of, section_of
from .runs import run_of
from .thumbnails import Thumbnails

ORDER = ("real", "random weights", "synthetic")  # of kinds: what says something about methods comes first


def content_of(
    records: Sequence[Record],
    groups: Sequence[Group],
    specs: Sequence[TableSpec] = (),
    thumbnails: Thumbnails | None = None,
    kept: KeptParts | None = None,
) -> dict[str, Any]:
    """Return all that the page's script works on.

    Args:
        records: All records read.
        groups: The same records, sorted into groups that may share a table.
        specs: Tables whose reported numbers are shown.
        thumbnails: Makes pictures of test videos; None makes those of the embedded clips.
        kept: Parts that an earlier report has made; takes those that are made.
    """
    pool = Pool()
    thumbnails = thumbnails or Thumbnails()
    outcomes = outcomes_of(records, pool, MORE_NAMES if thumbnails.of_others else None, kept)
    names = _names(records)
    numbers = {record.path: number for number, record in enumerate(records)}
    places: dict[Path, tuple[int, int]] = {}
    sections: list[dict[str, Any]] = []
    ordered = sorted(groups, key=lambda group: ORDER.index(kind_of(group).partition(",")[0]))
    all_rows: list[Row] = []
    for group in ordered:
        lines: list[dict[str, Any]] = []
        group_rows = rows(group)
        all_rows += group_rows
        standings = standings_of(group, group_rows)
        for row, legend, standing in zip(group_rows, legends(group_rows), standings, strict=True):
            runs = sorted([*row.complete, *row.unfinished], key=lambda r: r.data["seed"])
            for record in runs:
                places.setdefault(record.path, (len(sections), len(lines)))
            line = row_of(group, row, legend, [numbers[record.path] for record in runs])
            lines.append(line | standing)
        sections.append(section_of(group, lines))
        sections[-1] |= {
            "pairs": pairs_of(group, group_rows),
            "published": reported_on(group, specs),
            "points": reported_points(group, specs),
        }
    methods = sorted({record.data["method"]["name"] for record in records})
    readouts = sorted({name for record in records for name in record.data["method"]["readouts"]})
    return {
        "metrics": {
            name: {"title": metric.title, "formula": metric.formula, "up": metric.higher_is_better}
            for name, metric in METRICS.items()
        },
        "methods": {name: {"label": Labels().method(name)} for name in methods},
        "readouts": {name: {"label": Labels().readout(name), "dash": dashes_of(name)} for name in readouts},
        "about": about(records, all_rows),
        # For comparisons: what a record does not count was nothing; what computes the same is the same.
        "memory": [field.name for field in fields(MemoryUse)],
        "same_code": _same_code(records),
        "groups": sections,
        "runs": [
            run_of(record, name, places.get(record.path), pool)
            | {"outcomes": outcome.readouts, "videos": outcome.videos}
            for record, name, outcome in zip(records, names, outcomes, strict=True)
        ],
        "pool": pool.values,
        "thumbnails": thumbnails.of(
            [(record, outcome.names) for record, outcome in zip(records, outcomes, strict=True)]
        ),
        "styles": _styles(methods),
    }


def _same_code(records: Iterable[Record]) -> dict[str, str]:
    """Return, by module and hash of records, the hash of the last version that computes the same numbers."""
    there = {" ".join(part) for record in records for part in record.data["identity"].items()}
    return {
        f"{entry.module} {digest}": entry.versions[-1]
        for entry in same_numbers()
        for digest in entry.versions[:-1]
        if f"{entry.module} {digest}" in there
    }


def _styles(methods: Iterable[str]) -> dict[str, list[str]]:
    """Return colour, marker, the marker as a character and the family, by method."""
    styles = {}
    for method in methods:
        style = style_of(method)
        styles[method] = [style.colour, style.marker, style.glyph, family_of(method)]
    return styles


def _names(records: Sequence[Record]) -> list[str]:
    """Return a name per record that nothing else on the page has: its run id, numbered where copies share it."""
    taken: set[str] = set()
    names = []
    for record in records:
        name, number = record.data["run_id"], 1
        while name in taken:
            number += 1
            name = f"{record.data['run_id']}~{number}"
        taken.add(name)
        names.append(name)
    return names
