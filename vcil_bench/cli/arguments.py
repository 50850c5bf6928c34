"""Arguments that several commands share: paths, ``--set``, numbers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from vcil_bench.common.errors import UserError
from vcil_bench.common.terminal_text import print


class Parser(argparse.ArgumentParser):
    """Ends a wrong command in one line, as every other user error."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and end with exit code 2."""
        print(f"vcil-bench: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def path_argument(text: str) -> Path:
    """Read a path, if the system can tell whether anything lies there."""
    path = Path(text)
    try:
        text.encode()  # records name paths, and are UTF-8
        path.exists()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{text!a} is not UTF-8; rename the folder") from error
    except OSError as error:  # such as a name that is too long
        raise argparse.ArgumentTypeError(f"{text[:40]}... is no path ({error.strerror})") from error
    return path


def add_assignments(parser: argparse.ArgumentParser, text: str) -> None:
    """Let a command take ``--set``, which may stand several times and take several assignments each time."""
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="assignments", help=text
    )


def whole_number(text: str, option: str) -> int:
    """Read the value of an option that is a whole number, or ``all``, which the caller has looked for.

    Raises:
        UserError: It is neither.
    """
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{option} {text!r} is neither a whole number nor 'all'") from None


def add_results(parser: argparse.ArgumentParser) -> None:
    """Let a command take ``--results``."""
    parser.add_argument(
        "--results",
        type=path_argument,
        default=Path("results"),
        metavar="DIR",
        help="folder of the records (default: results)",
    )
