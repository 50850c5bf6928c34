"""Reported numbers on the page: what papers publish on a protocol, beside what was measured on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vcil_bench.report.comparison_table import Column, columns_of
from vcil_bench.report.labels import Labels
from vcil_bench.report.published import Published, number_of
from vcil_bench.report.table_file import RowSpec, TableSpec
from vcil_bench.report.tables import Group

from .rows import kind_of

# Metrics that are points of a curve, and of which.
PARTS = {"step_accuracy": "accuracy", "final_accuracy": "accuracy", "backward_forgetting": "forgetting"}


def reported_on(group: Group, specs: Sequence[TableSpec]) -> list[dict[str, Any]]:
    """Return the numbers that comparison tables report on a group's protocol; none on data that were made up.

    Args:
        group: The protocol's records.
        specs: The tables, whose columns say which metric here a source's means. A number that several of them
            have stands once.
    """
    numbers: list[dict[str, Any]] = []
    for spec, column, row, number in _reported(group, specs):
        if not spec.comparison or column.step is not None:
            continue
        line = {
            "label": row.label,
            "readout": Labels().readout(column.readout) if column.readout else "",
            "metric": column.metric,
            "value": number.value,
            "source": number.source,
            "backbone": number.backbone,
        }
        if not any(_same(line, other) for other in numbers):
            numbers.append(line)
    return numbers


def reported_points(group: Group, specs: Sequence[TableSpec]) -> list[dict[str, Any]]:
    """Return the reported numbers that are points of a method's curves; none on data that were made up.

    Accuracy after a step, and final accuracy and backward forgetting after the last; of methods as they are, not
    of their variants. Averages over steps are no points.

    Args:
        group: The protocol's records.
        specs: The tables; a point that several of them have stands once.
    """
    points: list[dict[str, Any]] = []
    for _, column, row, number in _reported(group, specs):
        if column.metric not in PARTS or row.method is None or row.config or row.overrides:
            continue
        point = {
            "method": row.method,
            "readout": column.readout,
            "part": PARTS[column.metric],
            "step": column.step,  # None: the last
            "value": number.value,
            "source": number.source,
        }
        if point not in points:
            points.append(point)
    return points


def _reported(
    group: Group, specs: Sequence[TableSpec]
) -> Iterator[tuple[TableSpec, Column, RowSpec, Published]]:
    """Yield all that tables report on a group's protocol, by table, column and row."""
    protocol = group.records[0].data["protocol"]
    if kind_of(group) != "real" or protocol["overrides"]:
        return
    for spec in specs:
        for column in columns_of(spec):
            if column.protocol != protocol["name"]:
                continue
            for row in spec.rows:
                names = column.published_metric, column.published_readout
                number = number_of(spec, row, column.title, column.protocol, *names)
                if number is not None:
                    yield spec, column, row, number


def _same(number: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(number[key] == other[key] for key in ("label", "readout", "metric", "value"))
