"""``vcil-bench report``: writes tables and curves from the records."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results, path_argument


def add_to(commands: Commands) -> None:
    """Add ``report``."""
    report = add_command(
        commands,
        "report",
        "write tables and curves from the records",
        """
        vcil-bench report                                   # results/ into reports/index.html
        vcil-bench report --results mine --out mine/report
        """,
    )
    add_results(report)
    report.add_argument(
        "--out", type=path_argument, default=Path("reports"), metavar="DIR", help="where to (default: reports)"
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from vcil_bench.report.build import write

    if not options.results.is_dir():
        raise UserError(f"no results folder {str(options.results)!r}; run something first or give --results")
    written = write(options.results, options.out)
    print(f"{written.records} records; {len(written.files)} files")
    for note in written.notes:
        print(f"not drawn: {note}")
    print(f"wrote {written.files[0]} and, below {options.out}, tables and figures")
    for error in written.errors:
        print(f"vcil-bench: error: left out: {error}", file=sys.stderr)
    return ExitCode.FAILED if written.errors else ExitCode.DONE
