"""The tables of papers, regenerated from records: those of ``papers.yaml``, and of a user's file behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vcil_bench.record import Record

from . import table_file
from .comparison_table import Table, fill
from .labels import Labels
from .table_file import TableSpec


def specs(file: Path | None = None) -> list[TableSpec]:
    """Return the tables of ``papers.yaml`` and, behind them, those of a user's file."""
    built_in = table_file.built_in()
    return [*built_in, *(table_file.read(file, [spec.id for spec in built_in]) if file else [])]


def tables(records: Sequence[Record], file: Path | None = None) -> list[Table]:
    """Regenerate every table from records and reported numbers.

    Raises:
        ConfigError: Something is wrong with the user's file.
    """
    return [fill(spec, records, Labels()) for spec in specs(file)]
