"""``vcil-bench check``: runs the contract's checks on a method, one line each."""

from __future__ import annotations

import argparse
import dataclasses
import json

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_assignments, add_command, completed_by
from .progress import loading_torch


def add_to(commands: Commands) -> None:
    """Add ``check``."""
    check = add_command(
        commands,
        "check",
        "check that a method keeps the contract, in seconds",
        """
        vcil-bench check my_method.py                  # a file
        vcil-bench check tcd --backbone tsm_tiny       # on another backbone than its own
        vcil-bench check stpr --set moe=false          # a variant
        """,
    )
    action = check.add_argument("method", metavar="METHOD", help="a name (see: list methods) or a .py file")
    completed_by(action, "methods")
    action = check.add_argument(
        "--backbone", metavar="NAME", help="backbone to check on (default: the small one of the method's kind)"
    )
    completed_by(action, "backbones")
    add_assignments(check, "method config (default here: 2 for keys that count epochs, batch_size 4)")
    check.add_argument("--json", action="store_true", help="print the outcomes as JSON (default: lines)")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    with loading_torch():
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
