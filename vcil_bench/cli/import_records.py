"""``vcil-bench import-records``: takes records that others made into the results, if they check out."""

from __future__ import annotations

import argparse
import sys

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, path_argument
from .check_record import add_grounds, grounds


def add_to(commands: Commands) -> None:
    """Add ``import-records``."""
    parser = add_command(
        commands,
        "import-records",
        "check records made elsewhere and take them into the results, with their origin",
        """
        # into results/elsewhere/northlab/; the name stands beside their numbers wherever these are shown
        vcil-bench import-records theirs/ --name northlab --who 'A. Doe, North Lab' --source https://example.org/r.zip
        """,
    )
    parser.add_argument("place", type=path_argument, metavar="FOLDER", help="a folder of records, or one record")
    parser.add_argument(
        "--name", required=True, metavar="NAME", help="short name of the sender (no default: it must be given)"
    )
    parser.add_argument(
        "--who", required=True, metavar="TEXT", help="who made the records (no default: it must be given)"
    )
    parser.add_argument(
        "--source", default="", metavar="TEXT", help="where they were had from (default: left empty)"
    )
    add_grounds(parser, "folder that they are taken into, and whose records they are compared with")
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    from vcil_bench.verify.imported_records import take_in
    from vcil_bench.verify.record_checks import check_records, failed, record_files

    files = record_files(options.place)
    checks = check_records(files, grounds(options, files))
    bad = list(failed(checks))
    if bad:
        for check in bad:
            print(f"vcil-bench: error: {check.record}: {check.check}: {check.text}", file=sys.stderr)
        print("nothing was taken in", file=sys.stderr)
        return ExitCode.FAILED
    folder = take_in(files, checks, options.results, name=options.name, who=options.who, source=options.source)
    unchecked = dict.fromkeys(check.check for check in checks if check.outcome == "unchecked")
    print(f"{len(files)} records taken into {folder}")
    print(f"could not be checked: {', '.join(unchecked)}")
    return ExitCode.DONE
