"""``vcil-bench results``: methods x protocols with their headline metric, in the terminal or for a program."""

from __future__ import annotations

import argparse
import csv
import json
import sys

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results, completed_by


def add_to(commands: Commands) -> None:
    """Add ``results``."""
    results = add_command(
        commands,
        "results",
        "show what was measured: methods x protocols",
        """
        vcil-bench results                                        # all methods on all protocols, headline metric
        vcil-bench results --protocol 'tcd_*' --method stpr tcd   # some of them
        vcil-bench results --metric backward_forgetting --readout headline
        vcil-bench results --marks                                # the best in bold, as in the report
        vcil-bench results --format csv > results.csv
        """,
    )
    chosen = results.add_argument(
        "--protocol",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="these protocols; patterns such as 'tcd_*' are taken (default: all with results)",
    )
    completed_by(chosen, "protocols")
    chosen = results.add_argument(
        "--method",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="these methods, or patterns of them (default: all with results)",
    )
    completed_by(chosen, "methods")
    chosen = results.add_argument(
        "--metric", metavar="NAME", help="see: show metrics (default: the headline metric of each protocol)"
    )
    completed_by(chosen, "metrics")
    results.add_argument(
        "--readout",
        metavar="NAME",
        help="such as cnn or nme, or 'headline' for each method's first (default: all)",
    )
    results.add_argument(
        "--format",
        choices=["table", "md", "csv", "json"],
        help="table as wide as the window, Markdown, or a line per number (default: table, md if piped)",
    )
    results.add_argument(
        "--marks",
        action="store_true",
        help="mark the best, which takes a while with many runs (default: no marks)",
    )
    add_results(results)
    results.set_defaults(run=_results)


def _results(options: argparse.Namespace) -> int:
    from vcil_bench.metrics import METRICS
    from vcil_bench.record import load_all
    from vcil_bench.report import terminal_table
    from vcil_bench.report.ranking import EXPLANATION
    from vcil_bench.report.results_matrix import matrix, partial_result, plain, sheet

    if not options.results.is_dir():
        raise UserError(f"no results folder {str(options.results)!r}; run something first or give --results")
    records, errors = load_all(options.results)
    table = matrix(
        records,
        protocols=options.protocol,
        methods=options.method,
        metric=options.metric,
        readout=options.readout,
        ranked=options.marks,
    )
    if options.format == "csv":
        lines = plain(table)
        writer = csv.DictWriter(sys.stdout, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    elif options.format == "json":
        print(json.dumps(plain(table), indent=1, ensure_ascii=False))
    else:
        if options.format == "md":
            print(terminal_table.markdown(sheet(table)))
        else:
            terminal_table.show(sheet(table))
        print()
        for name in dict.fromkeys(table.metrics):
            print(f"{METRICS[name].title}: {METRICS[name].formula}.")
        print("Percent, mean ± standard deviation over class orders; (n/N): seeds are missing.")
        shown = [entry for line in table.entries.values() for entry in line if entry is not None]
        if any(entry.row.stale for entry in shown):
            print("*: stale, code or protocol have changed since (--format csv has all notes).")
        if options.marks:
            print(EXPLANATION)
        kept = {id(run) for entry in shown for run in entry.row.runs}
        for record in records:
            if id(record) in kept and (text := partial_result(record)):
                print(f"{record.data['run_id']}: {text}")
    for error in errors:
        print(f"vcil-bench: error: left out: {error}", file=sys.stderr)
    return ExitCode.FAILED if errors else ExitCode.DONE
