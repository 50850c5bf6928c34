"""The command line: one file a command, quick to start since torch is imported only by commands that need it."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from vcil_bench import __version__
from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from . import (
    check,
    check_record,
    compare,
    completion,
    doctor,
    fetch,
    figure,
    grid,
    import_records,
    new_method,
    prepare,
    progress,
    report,
    results,
    run,
    show,
    table,
    verify,
)
from .arguments import Parser

EXAMPLES = """EXAMPLES
  # train and test: minutes on two CPU cores
  vcil-bench run stpr synthetic_3x4 --seed 1000
  # what was measured so far; then tables, figures and one page in reports/
  vcil-bench results
  vcil-bench report
  # a method, its settings and their reasons
  vcil-bench show stpr
  # the runs behind a paper's table
  vcil-bench grid --table stpr_components --dry-run
  # is everything there that runs need?
  vcil-bench doctor --only machine"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, one of ``ExitCode``."""
    options = argparse.Namespace(verbose=False)
    try:
        parser = _parser()
        completion.enable(parser)
        parser.parse_args(arguments, options)
        with progress.quiet(options.quiet):
            return _run(options)
    except UserError as error:
        if options.verbose:
            traceback.print_exception(error)
        print(f"vcil-bench: error: {error}", file=sys.stderr)
        return ExitCode.REFUSED
    except KeyboardInterrupt:
        return ExitCode.STOPPED
    except BrokenPipeError:
        # The reader of our output (head, less) has closed it; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE


def _run(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options))
    except (SystemExit, GeneratorExit) as error:  # of a plugin or a library: nothing here ends so
        print(f"vcil-bench: error: the command was ended by {type(error).__name__}: {error}", file=sys.stderr)
        return ExitCode.FAILED


def _parser() -> Parser:
    parser = Parser(
        prog="vcil-bench",
        description="Benchmark Video Class-Incremental Learning methods.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vcil-bench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for command in (
        *(run, grid, results, show, verify, fetch, prepare, check, new_method, doctor, report),
        *(table, figure, compare, check_record, import_records),
    ):
        command.add_to(commands)
    return parser
