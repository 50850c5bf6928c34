"""``vcil-bench report``: writes tables, curves and figures from the records."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results, completed_by, path_argument
from .progress import report_progress
from .records import check_results


def add_to(commands: Commands) -> None:
    """Add ``report``."""
    report = add_command(
        commands,
        "report",
        "write tables, curves and a page from the records",
        """
        vcil-bench report                                   # results/ into reports/index.html
        vcil-bench report --results mine --out mine/report --papers my_tables.yaml
        vcil-bench report --only synthetic_3x4 --no-figures --out reports/quick
        vcil-bench report --anonymous                       # for a double-blind review, into reports/anonymous/
        """,
    )
    add_results(report)
    report.add_argument(
        "--out",
        type=path_argument,
        metavar="DIR",
        help="where to write; figures of last time are drawn again only where something changed (default: "
        "reports; with --anonymous: reports/anonymous)",
    )
    report.add_argument(
        "--papers",
        type=path_argument,
        metavar="FILE",
        help="tables of your own, with numbers that papers report, in the form of papers.yaml (default: none)",
    )
    only = report.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="PROTOCOL",
        help="report these protocols alone (default: all that have records)",
    )
    completed_by(only, "protocols")
    report.add_argument(
        "--no-figures",
        action="store_true",
        help="leave the figures out, which take longest (default: draw them)",
    )
    report.add_argument(
        "--thumbnails",
        action="store_true",
        help="show small pictures of test videos on the page where their folder is on this machine; mind their "
        "licence before you hand it on (default: of the embedded clips alone)",
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
    from vcil_bench.report.build import Wish, write

    check_results(options.results)
    telling, out = Telling.NO_PATHS, Path("reports")
    if options.anonymous:
        telling, out = Telling.ANONYMOUS, out / "anonymous"
    elif options.paths:
        telling = Telling.EVERYTHING
    out = options.out or out
    wish = Wish(
        options.papers,
        tuple(options.only),
        figures=not options.no_figures,
        thumbnails=options.thumbnails,
        telling=telling,
    )
    with report_progress() as moved:
        written = write(options.results, out, wish, moved)
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
