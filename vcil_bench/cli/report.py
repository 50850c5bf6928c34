"""``vcil-bench report``: writes tables, curves and figures from the records."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import add_results, path_argument
from .progress import report_progress
from .records import check_results

EXAMPLES = """\
examples:
  vcil-bench report
  vcil-bench report --results results --out reports --papers my_tables.yaml
  vcil-bench report --only synthetic_3x4 --no-figures --out reports/quick
"""


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add ``report``."""
    report = commands.add_parser(
        "report",
        help="write tables, curves and a page from the records",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_results(report)
    report.add_argument(
        "--out",
        type=path_argument,
        default=Path("reports"),
        metavar="DIR",
        help="where to write; figures of last time are drawn again only where something changed (default: "
        "reports)",
    )
    report.add_argument(
        "--papers",
        type=path_argument,
        metavar="FILE",
        help="tables of your own, with numbers that papers report, in the form of papers.yaml (default: none)",
    )
    report.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="PROTOCOL",
        help="report these protocols alone (default: all that have records)",
    )
    report.add_argument(
        "--no-figures",
        action="store_true",
        help="leave the figures out, which take longest (default: draw them)",
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from vcil_bench.report.build import Wish, write

    check_results(options.results)
    wish = Wish(options.papers, tuple(options.only), figures=not options.no_figures)
    with report_progress() as moved:
        written = write(options.results, options.out, wish, moved)
    print(f"{written.records} records; {len(written.files)} files")
    for note in written.notes:
        print(f"not drawn: {note}")
    print(f"wrote {written.files[0]} and, below {options.out}, tables and figures")
    for error in written.errors:
        print(f"vcil-bench: error: left out: {error}", file=sys.stderr)
    return ExitCode.FAILED if written.errors else ExitCode.DONE
