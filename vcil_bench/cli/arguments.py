"""Arguments that several commands share: paths, ``--set``, numbers; every command's help with its examples."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from vcil_bench.common.errors import UserError
from vcil_bench.common.terminal_text import print

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = Any

Kind = Literal["methods", "protocols", "datasets", "sources", "backbones", "tables", "metrics", "names", "keys"]


class Parser(argparse.ArgumentParser):
    """Ends a wrong command in one line, as every other user error."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and end with exit code 2."""
        print(f"vcil-bench: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def add_command(commands: Commands, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    """Add a command with its help.

    Args:
        commands: Where to.
        name: What is typed.
        summary: What it does, in a line.
        examples: Commands, one a line, perhaps with a comment; they stand at the end of its ``--help``, each
            below its comment.
    """
    lines = []
    for line in textwrap.dedent(examples).strip().splitlines():
        command, _, comment = line.partition(" # ")
        lines += [*([f"# {comment.strip()}"] if comment else []), command.strip()]
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="\n".join(["EXAMPLES", *(f"  {line}" for line in lines)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress (default: it is shown)")
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="with an error, say where in the code it came up (default: what is wrong, in a line)",
    )
    return parser


def completed_by(action: argparse.Action, *kinds: Kind) -> None:
    """Let the shell complete an argument by names, which are looked up when they are asked for."""

    def names(prefix: str, **_: Any) -> Iterator[str]:
        from .completion import names_of

        return names_of(kinds, prefix)

    action.completer = names  # type: ignore[attr-defined]  # argcomplete's own way


def add_results(parser: argparse.ArgumentParser, text: str = "folder of the records") -> None:
    """Let a command take ``--results``."""
    parser.add_argument(
        "--results",
        type=path_argument,
        default=Path("results"),
        metavar="DIR",
        help=f"{text} (default: results)",
    )


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
    action = parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="assignments", help=text
    )
    completed_by(action, "keys")


def whole_number(text: str, option: str) -> int:
    """Read the value of an option that is a whole number, or ``all``, which the caller has looked for.

    Raises:
        UserError: It is neither.
    """
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{option} {text!r} is neither a whole number nor 'all'") from None


def data_roots(pairs: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=ROOT`` pairs."""
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"--data {pair!r} names no dataset; give it as NAME=ROOT, such as ucf101={pair}")
    return {name: Path(root) for name, _, root in (pair.partition("=") for pair in pairs)}
