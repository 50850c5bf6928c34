"""``vcil-bench verify``: class orders, lists, and what train and test share."""

from __future__ import annotations

import argparse
import json

from vcil_bench.common.terminal_text import print

from .arguments import add_assignments, path_argument
from .progress import bar, progress_bars


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add ``verify``."""
    verify = commands.add_parser("verify", help="check class orders, lists, and what train and test share")
    verify.add_argument("protocol", metavar="PROTOCOL", help="a name (see: list protocols) or a .yaml file")
    verify.add_argument(
        "--data", type=path_argument, metavar="ROOT", help="folder of the dataset; its lists are enough"
    )
    add_assignments(verify, "backbone and weights to judge (default: all that fit), and protocol.KEY")
    verify.add_argument("--json", action="store_true", help="print the findings as JSON")
    verify.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from vcil_bench import protocol
    from vcil_bench.common.config import parse_assignments
    from vcil_bench.verify.checks import as_plain, chosen_weights, verify

    given = parse_assignments(options.assignments)
    prefix = "protocol."
    overrides = {key.removeprefix(prefix): given.pop(key) for key in list(given) if key.startswith(prefix)}
    loaded = protocol.load(options.protocol)
    if overrides:
        loaded = loaded.derive(overrides)
    weights = chosen_weights(loaded, given)
    with progress_bars() as progress:
        found = verify(loaded, options.data, weights, bar(progress, f"{loaded.spec.dataset.name}, files"))
    if options.json:
        print(json.dumps(as_plain(found), indent=1, ensure_ascii=False))
    else:
        for one in found:
            print(f"{one.level:8} {one.check:16} {one.text}")
        levels = [one.level for one in found]
        counts = ", ".join(f"{levels.count(level)} {level}" for level in ("error", "warning", "note", "ok"))
        print(f"{loaded.label}: {counts}")
    return int(any(one.level == "error" for one in found))
