"""``vcil-bench doctor``: describes this machine and checks the whole path on its GPUs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results, completed_by, data_roots
from .progress import loading_torch

if TYPE_CHECKING:
    from vcil_bench.doctor.outcome import Line

MARGIN = 22  # columns before what was looked at


def add_to(commands: Commands) -> None:
    """Add ``doctor``."""
    doctor = add_command(
        commands,
        "doctor",
        "describe this machine, say what it lacks and what to do, and check the whole path on its GPUs",
        """
        vcil-bench doctor --only machine                              # devices, weights, data, disk: seconds
        vcil-bench doctor --only machine --data ucf101=/data/ucf101   # fail unless the dataset lies there
        vcil-bench doctor --only machine --backbone clip_vit_b16      # fail unless its weights are there
        vcil-bench doctor --gpu                                       # everything, about ten minutes
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
        help="fail unless these datasets lie in these folders (default: none)",
    )
    action = doctor.add_argument(
        "--backbone",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="fail unless the weights of these are on this machine (default: none)",
    )
    completed_by(action, "backbones")
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


def _shown(line: Line) -> str:
    """Return a line of the table; in a terminal it is running text, folded at its margin."""
    if not sys.stdout.isatty():
        return f"{line.result:8} {line.check:12} {line.what:34} {line.figure}"
    return textwrap.fill(
        f"{line.result:8} {line.check:12} {line.what}: {line.figure}",
        max(MARGIN + 24, shutil.get_terminal_size().columns),
        subsequent_indent=" " * MARGIN,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _doctor(options: argparse.Namespace) -> int:
    with loading_torch():
        from vcil_bench.doctor import report

    if options.list:
        for name, summary, gpus in report.names():
            print(f"{name:12} {summary}{f' ({gpus} GPUs)' if gpus > 1 else ''}")
        return ExitCode.DONE
    lines = []
    examined = report.examine(
        options.results,
        only=options.only,
        need_gpu=options.gpu,
        backbones=options.backbone,
        roots=data_roots(options.data),
    )
    for line in examined:
        lines.append(line)
        if not options.json:  # at once: all checks take minutes
            print(_shown(line), flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(line) for line in lines], indent=1, ensure_ascii=False))
    else:
        counts = [f"{n} {r}" for r in report.RESULTS if (n := sum(line.result == r for line in lines))]
        print(f"doctor: {', '.join(counts)}")
    return ExitCode.FAILED if any(line.result == "failed" for line in lines) else ExitCode.DONE
