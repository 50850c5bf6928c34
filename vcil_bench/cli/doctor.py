"""``vcil-bench doctor``: describes this machine and checks the whole path on its GPUs."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import path_argument


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add ``doctor``."""
    doctor = commands.add_parser("doctor", help="describe this machine and check the whole path on its GPUs")
    doctor.add_argument("--gpu", action="store_true", help="refuse a machine without a GPU")
    doctor.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="checks (see --list); default: all",
    )
    doctor.add_argument("--list", action="store_true", help="list the checks")
    doctor.add_argument("--json", action="store_true", help="print the lines as JSON")
    doctor.add_argument("--results", type=path_argument, default=Path("results"), metavar="DIR")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from vcil_bench.doctor import report

    if options.list:
        for name, summary, gpus in report.names():
            print(f"{name:12} {summary}{f' ({gpus} GPUs)' if gpus > 1 else ''}")
        return ExitCode.DONE
    lines = []
    for line in report.examine(options.results, only=options.only, need_gpu=options.gpu):
        lines.append(line)
        if not options.json:  # at once: all checks take minutes
            print(f"{line.result:8} {line.check:12} {line.what:34} {line.figure}", flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(line) for line in lines], indent=1, ensure_ascii=False))
    else:
        counts = [f"{n} {r}" for r in report.RESULTS if (n := sum(line.result == r for line in lines))]
        print(f"doctor: {', '.join(counts)}")
    return ExitCode.FAILED if any(line.result == "failed" for line in lines) else ExitCode.DONE
