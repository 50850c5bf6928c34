"""Numbers that papers report: ``published.csv``, one line a number, with its source and how far to trust it."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from .table_file import RowSpec, TableSpec


@dataclass(frozen=True)
class Published:
    """A reported number.

    Attributes:
        value: In percent.
        source: Where it stands, with how far that is to be trusted.
        backbone: As the source says it; empty where nothing is known.
    """

    value: float
    source: str
    backbone: str


def number_of(
    spec: TableSpec, row: RowSpec, title: str, protocol: str, metric: str, readout: str | None
) -> Published | None:
    """Return the number that stands in a cell of a table, None where none was reported.

    Args:
        spec: The table.
        row: The row.
        title: The column's key in the row's ``reported``.
        protocol: The column's protocol.
        metric: The column's metric, as the source calls it.
        readout: The column's readout, as the source calls it; None takes any.
    """
    if title in row.reported:
        return Published(row.reported[title], row.source, "")
    for line in _lines().get((protocol, row.published or "", metric), []):
        if (
            line["source"] in spec.sources
            and line["table"] in spec.tables
            and line["exemplars"].endswith(row.exemplars)
            and readout in (None, line["readout"])
        ):
            source = f"{line['source']}, {line['table']} ({line['trust']})"
            return Published(float(line["value"]), source, line["backbone"])
    return None


def lines() -> Iterator[dict[str, str]]:
    """Yield the file's lines."""
    text = (resources.files("vcil_bench.report") / "published.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())


@cache
def _lines() -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """Return the lines by protocol, method and metric, in the file's order."""
    sorted_out: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for line in lines():
        sorted_out[line["protocol"], line["method"], line["metric"]].append(line)
    return dict(sorted_out)
