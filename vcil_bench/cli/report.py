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
        vcil-bench report --anonymous                       # for a double-blind review, into reports/anonymous/
        """,
    )
    add_results(report)
    report.add_argument(
        "--out",
        type=path_argument,
        metavar="DIR",
        help="where to (default: reports; with --anonymous: reports/anonymous)",
    )
    told = report.add_mutually_exclusive_group()
    told.add_argument(
        "--paths",
        action="store_true",
        help="show absolute paths, host and user names that records hold (default: they are left out)",
    )
    told.add_argument(
        "--anonymous",
        action="store_true",
        help="also leave out code version, kernel, senders and papers of methods of one's own (default: "
        "they are shown)",
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from vcil_bench.report.anonymity import Telling
    from vcil_bench.report.build import write

    if not options.results.is_dir():
        raise UserError(f"no results folder {str(options.results)!r}; run something first or give --results")
    telling, out = Telling.NO_PATHS, Path("reports")
    if options.anonymous:
        telling, out = Telling.ANONYMOUS, out / "anonymous"
    elif options.paths:
        telling = Telling.EVERYTHING
    out = options.out or out
    written = write(options.results, out, telling)
    print(f"{written.records} records; {len(written.files)} files")
    for note in written.notes:
        print(f"not drawn: {note}")
    print(f"wrote {written.files[0]} and, below {out}, tables and figures")
    if written.strange:
        print(
            f"vcil-bench: warning: {len(written.strange)} files in {out} are of no anonymous report, such as "
            f"{written.strange[0]}; remove them before you hand the folder on",
            file=sys.stderr,
        )
    for error in written.errors:
        print(f"vcil-bench: error: left out: {error}", file=sys.stderr)
    return ExitCode.FAILED if written.errors else ExitCode.DONE
