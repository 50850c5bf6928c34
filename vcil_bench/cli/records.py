"""Records that a command draws or tables: those that can be read, without paths and names; the others named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.errors import UserError
from vcil_bench.common.terminal_text import print

if TYPE_CHECKING:
    from vcil_bench.record import Record


def read_records(results: Path) -> list[Record]:
    """Return what may be shown of the records below a results folder; damaged ones are named on standard error.

    Raises:
        UserError: There is no such folder.
    """
    from vcil_bench.record import load_all
    from vcil_bench.report.anonymity import Cover, Telling

    check_results(results)
    records, errors = load_all(results)
    for error in errors:
        print(f"vcil-bench: error: left out: {error}", file=sys.stderr)
    return Cover(Telling.NO_PATHS, results, records).records(records)


def check_results(results: Path) -> None:
    """Refuse a results folder that is not there.

    Raises:
        UserError: Says what to do.
    """
    if not results.is_dir():
        raise UserError(f"no results folder {str(results)!r}; run something first or give --results")
