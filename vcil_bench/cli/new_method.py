"""``vcil-bench new-method``: writes a method to start from, as a file or as a package."""

from __future__ import annotations

import argparse
from pathlib import Path

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, path_argument


def add_to(commands: Commands) -> None:
    """Add ``new-method``."""
    new = add_command(
        commands,
        "new-method",
        "write a method to start from, which passes 'check' as it is",
        """
        vcil-bench new-method my_method                       # my_method.py
        vcil-bench new-method my_method --package --out code  # a package with test and CI file
        """,
    )
    new.add_argument("name", metavar="NAME", help="lower-case letters, digits and _, such as my_method")
    new.add_argument(
        "--package", action="store_true", help="a package to install, with test and CI file (default: a file)"
    )
    new.add_argument(
        "--out", type=path_argument, default=Path(), metavar="DIR", help="folder to write to (default: this one)"
    )
    new.set_defaults(run=_new_method)


def _new_method(options: argparse.Namespace) -> int:
    from vcil_bench.testing.scaffold import write_method, write_package

    write = write_package if options.package else write_method
    written = write(options.name, options.out)
    for path in written:
        print(f"wrote {path}")
    if options.package:
        print(f"next: pip install -e {options.out / written[0].parent.name}; vcil-bench check {options.name}")
    else:
        print(f"next: vcil-bench check {written[0]}")
    return ExitCode.DONE
