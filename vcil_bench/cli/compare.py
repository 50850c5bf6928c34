"""``vcil-bench compare``: two rows or two records beside each other, paired."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results, completed_by


def add_to(commands: Commands) -> None:
    """Add ``compare``."""
    compare = add_command(
        commands,
        "compare",
        "compare two rows or records: paired difference, wins, tasks, videos, settings",
        """
        vcil-bench compare stpr lwf --protocol synthetic_3x4
        vcil-bench compare icarl icarl --readout nme,cnn --protocol synthetic_3x4
        vcil-bench compare stpr stpr:fssd=False --protocol synthetic_3x4 --format json
        vcil-bench compare stpr stpr@northlab                    # ours against the one that was imported
        vcil-bench compare results/p/a/default-s1.json results/p/b/default-s1.json
        """,
    )
    for name, which in (("first", "A"), ("second", "B")):
        row = compare.add_argument(
            name,
            metavar=which,
            help="METHOD or METHOD:VARIANT (default variant: default), perhaps with @ORIGIN behind it (default: "
            "run here), or the path of a record",
        )
        completed_by(row, "methods")
    add_results(compare)
    chosen = compare.add_argument(
        "--protocol", metavar="NAME", help="the protocol (default: the one that both were run on, if it is one)"
    )
    completed_by(chosen, "protocols")
    chosen = compare.add_argument(
        "--metric",
        metavar="NAME,...",
        help="metrics, joined by commas (default: those of the protocol, its headline first)",
    )
    completed_by(chosen, "metrics")
    compare.add_argument(
        "--readout", metavar="NAME", help="readout of both, or A's,B's (default: the first of each method)"
    )
    compare.add_argument("--format", choices=("md", "json"), default="md", help="how to print (default: md)")
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from vcil_bench.record import load_all
    from vcil_bench.report.pairwise import compare_rows, find_pair, markdown

    records, errors = load_all(options.results)
    for error in errors:
        print(f"vcil-bench: warning: left out: {error}", file=sys.stderr)
    group, first, second = find_pair(
        records, options.first, options.second, protocol=options.protocol, readouts=_readouts(options.readout)
    )
    pair = compare_rows(group, first, second, options.metric.split(",") if options.metric else None)
    if options.format == "json":
        print(json.dumps(dataclasses.asdict(pair), indent=1, ensure_ascii=False))
    else:
        print(markdown(pair), end="")
    return ExitCode.DONE


def _readouts(text: str | None) -> tuple[str | None, str | None]:
    """Read ``--readout``: one for both, or one each.

    Raises:
        UserError: There are more than two.
    """
    if text is None:
        return None, None
    names = text.split(",")
    if len(names) > 2:
        raise UserError(f"--readout {text!r} names {len(names)} readouts; give one for both, or two")
    return names[0], names[-1]
