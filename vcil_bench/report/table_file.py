"""Comparison tables as they stand in a YAML file: what rows and columns hold, which run belongs to which row.

The package's file is ``papers.yaml``; its head says what the keys mean. A file of a user's own has the same form
(``vcil-bench report --papers FILE``) and may hold reported numbers itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from vcil_bench.common.config import ConfigError, build
from vcil_bench.common.errors import did_you_mean
from vcil_bench.metrics import METRICS, STEP_METRICS
from vcil_bench.protocol import Protocol, load, names

Value = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """A row of a table file.

    Attributes:
        label: What it is called.
        published: Its method's name in ``published.csv``; None where nothing was published.
        exemplars: End of that file's column of exemplars, where a method has several rows there.
        reported: Numbers in percent by column, where ``published.csv`` lacks them: by the protocol's name and,
            where columns are split, behind it the readout as the source calls it, ``BWF`` or a step's title.
        source: Where ``reported`` stands.
        method: The method that is run for it; None where there is none.
        readouts: Those the row is about; empty for all of the method's.
        config: What is set for it.
        overrides: Of the protocol.
        provides: What its backbone must provide, where other backbones belong elsewhere.
    """

    label: str
    published: str | None = None
    exemplars: str = ""
    reported: dict[str, float] = field(default_factory=dict)
    source: str = ""
    method: str | None = None
    readouts: list[str] = field(default_factory=list)
    config: dict[str, Value] = field(default_factory=dict)
    overrides: dict[str, Value] = field(default_factory=dict)
    provides: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """A table of a table file.

    Attributes:
        id: Name of its files.
        title: Heading.
        protocols: Its columns.
        rows: Its rows.
        metric: Name of a metric of ours, see ``vcil_bench/metrics.py``.
        metrics: The same for single protocols.
        readouts: Splits columns: a readout as the source calls it, and its name here. Without, a column has any
            readout of the source, and a method's first of those measured here.
        bwf: Whether backward forgetting has columns, too.
        steps: Metrics after every step that have columns, and what the source calls them.
        sources: Whose numbers of ``published.csv`` are taken.
        tables: From which of their tables.
        published_metric: The metric's name there.
        note: What a reader must know.
        comparison: Whether it compares methods by their default runs. Then further methods with records on its
            protocols get rows below, and ``vcil-bench table`` takes its reported numbers.
    """

    id: str
    title: str
    protocols: list[str]
    rows: list[RowSpec]
    metric: str
    metrics: dict[str, str] = field(default_factory=dict)
    readouts: dict[str, str] = field(default_factory=dict)
    bwf: bool = False
    steps: dict[str, str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    published_metric: str = "Acc"
    note: str = ""
    comparison: bool = False

    def __post_init__(self) -> None:
        """Refuse names that are none.

        Raises:
            ConfigError: Names the value and what is allowed.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.id):
            raise ConfigError(f"id {self.id!r}: it names files; write it in a-z, 0-9, _ and -")
        of_runs: list[tuple[str, Iterable[str]]] = [
            (n, [*METRICS]) for n in (self.metric, *self.metrics.values())
        ]
        for name, known in [*of_runs, *((n, [*STEP_METRICS]) for n in self.steps)]:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ConfigError(f"unknown metric {name!r}{hint}; there are: {', '.join(known)}")
        for name in self.protocols:
            protocol_of(name)  # names what there is
        for row in self.rows:
            if row.reported and not row.source:
                raise ConfigError(
                    f"row {row.label!r}: 'reported' needs a 'source', the place where the numbers stand"
                )


def protocol_of(reference: str) -> Protocol:
    """Return a protocol by name or path; those of the package are read once."""
    return _built_in_protocol(reference) if reference in names() else load(reference)


@cache
def _built_in_protocol(name: str) -> Protocol:
    return load(name)


# LibYAML reads a long file in a tenth of the time, where PyYAML was built with it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def built_in() -> list[TableSpec]:
    """Return the tables of ``papers.yaml``."""
    text = (resources.files("vcil_bench.report") / "papers.yaml").read_text(encoding="utf-8")
    return _tables(yaml.load(text, Loader=_Loader), "papers.yaml")


def read(path: Path, taken: Iterable[str]) -> list[TableSpec]:
    """Read a user's file.

    Args:
        path: A YAML file that holds a list of tables, as ``papers.yaml`` does.
        taken: Names that tables have already.

    Raises:
        ConfigError: Names the file, the table and what is wrong.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: malformed YAML ({' '.join(str(error).split())})") from error
    if not isinstance(raw, list):
        raise ConfigError(f"{path}: expected a list of tables (- id: ...), found {type(raw).__name__}")
    specs = _tables(raw, str(path))
    names = [*taken, *(spec.id for spec in specs)]
    for spec in specs:
        if names.count(spec.id) > 1:
            raise ConfigError(f"{path}: the id {spec.id!r} is taken by another table; choose another")
    return specs


def _tables(raw: list[dict[str, object]], where: str) -> list[TableSpec]:
    return [
        build(TableSpec, table, f"{where}: {table.get('id') if isinstance(table, dict) else number}")
        for number, table in enumerate(raw)
    ]
