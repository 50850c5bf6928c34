"""``vcil-bench check``: runs the contract's checks on a method, one line each."""

from __future__ import annotations

import argparse
import dataclasses
import json

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import add_assignments


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add ``check``."""
    check = commands.add_parser("check", help="check that a method keeps the contract, in seconds")
    check.add_argument("method", metavar="METHOD", help="a name (see: list methods) or a .py file")
    check.add_argument(
        "--backbone", metavar="NAME", help="backbone to check on (default: the small one of the method's kind)"
    )
    add_assignments(check, "method config (defaults here: 2 for keys that count epochs, batch_size 4)")
    check.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from vcil_bench.common.config import parse_assignments
    from vcil_bench.testing.contract import results

    outcomes = []
    for result in results(options.method, options.backbone, config=parse_assignments(options.assignments)):
        outcomes.append(result)
        if not options.json:  # at once: all checks take some seconds
            print(result, flush=True)
    counts = [(sum(r.outcome == outcome for r in outcomes), outcome) for outcome in ("ok", "failed", "skipped")]
    if options.json:
        print(json.dumps([dataclasses.asdict(result) for result in outcomes], indent=1, ensure_ascii=False))
    else:
        print(f"{options.method}: {', '.join(f'{number} {outcome}' for number, outcome in counts if number)}")
    return ExitCode.FAILED if any(result.outcome == "failed" for result in outcomes) else ExitCode.DONE
