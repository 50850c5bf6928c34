"""Reported numbers on the page: what papers publish on a protocol, beside what was measured on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vcil_bench.report.comparison_table import columns_of
from vcil_bench.report.labels import Labels
from vcil_bench.report.published import number_of
from vcil_bench.report.table_file import TableSpec
from vcil_bench.report.tables import Group

from .rows import kind_of


def reported_on(group: Group, specs: Sequence[TableSpec]) -> list[dict[str, Any]]:
    """Return the numbers that comparison tables report on a group's protocol; none on data that were made up.

    Args:
        group: The protocol's records.
        specs: The tables, whose columns say which metric here a source's means. A number that several of them
            have stands once.
    """
    protocol = group.records[0].data["protocol"]
    if kind_of(group) != "real" or protocol["overrides"]:
        return []
    numbers: list[dict[str, Any]] = []
    for number in _numbers(protocol["name"], specs):
        if not any(_same(number, other) for other in numbers):
            numbers.append(number)
    return numbers


def _numbers(protocol: str, specs: Sequence[TableSpec]) -> Iterator[dict[str, Any]]:
    for spec in specs:
        if not spec.comparison:
            continue
        for column in columns_of(spec):
            if column.protocol != protocol or column.step is not None:
                continue
            for row in spec.rows:
                names = column.published_metric, column.published_readout
                number = number_of(spec, row, column.title, column.protocol, *names)
                if number is not None:
                    yield {
                        "label": row.label,
                        "readout": Labels().readout(column.readout) if column.readout else "",
                        "metric": column.metric,
                        "value": number.value,
                        "source": number.source,
                        "backbone": number.backbone,
                    }


def _same(number: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(number[key] == other[key] for key in ("label", "readout", "metric", "value"))
