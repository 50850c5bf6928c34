"""``vcil-bench doctor``: describes this machine and checks the whole path on its GPUs."""

from __future__ import annotations

import argparse
import dataclasses
import json

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results
from .progress import loading_torch


def add_to(commands: Commands) -> None:
    """Add ``doctor``."""
    doctor = add_command(
        commands,
        "doctor",
        "describe this machine, say what it lacks and what to do, and check the whole path on its GPUs",
        """
        vcil-bench doctor --only machine                            # devices, weights, decoders, folders: seconds
        vcil-bench doctor --only machine --data ucf101=/data/ucf101 # and whether a dataset lies there
        vcil-bench doctor --gpu                                     # everything, about ten minutes
        vcil-bench doctor --list
        """,
    )
    doctor.add_argument(
        "--gpu", action="store_true", help="refuse a machine without a GPU (default: skip what needs one)"
    )
    doctor.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=ROOT",
        help="look whether these datasets lie in these folders (default: none)",
    )
    doctor.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="checks, see --list (default: all)",
    )
    doctor.add_argument("--list", action="store_true", help="list the checks (default: make them)")
    doctor.add_argument("--json", action="store_true", help="print the lines as JSON (default: text)")
    add_results(doctor)
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    with loading_torch():
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
