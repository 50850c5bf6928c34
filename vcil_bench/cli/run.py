"""``vcil-bench run``: one method on one protocol, for one seed or all of them."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print, shown

from .arguments import (
    Commands,
    add_assignments,
    add_command,
    add_results,
    completed_by,
    path_argument,
    whole_number,
)
from .progress import is_main, loading_torch, progress_bars

if TYPE_CHECKING:
    from vcil_bench.common.stopping import StopRequest

DRAWING_S = 60.0  # for another process to draw the same picture


def add_to(commands: Commands) -> None:
    """Add ``run``."""
    run = add_command(
        commands,
        "run",
        "run a method on a protocol; finished runs are reused",
        """
        vcil-bench run stpr synthetic_3x4 --seed 1000 --device cpu     # embedded clips, minutes
        vcil-bench run stpr tcd_ucf101_10x5 --data /data/ucf101        # all seeds of the protocol
        vcil-bench run tcd tcd_ucf101_10x5 --data /data/ucf101 --set backbone=clip_vit_b16 precision=bf16
        vcil-bench run icarl tcd_ucf101_10x5 --data /data/ucf101 --set protocol.memory.per_class=10
        """,
    )
    action = run.add_argument("method", metavar="METHOD", help="a name (see: list methods) or a .py file")
    completed_by(action, "methods")
    action = run.add_argument(
        "protocol", metavar="PROTOCOL", help="a name (see: list protocols) or a .yaml file"
    )
    completed_by(action, "protocols")
    run.add_argument("--seed", default="all", help="one of the protocol's seeds, or all (default: all)")
    run.add_argument(
        "--data",
        type=path_argument,
        metavar="ROOT",
        help="folder of the dataset (default: its own, which embedded clips have)",
    )
    add_assignments(
        run,
        "method config (see: show METHOD), run options (see: show options), and protocol.KEY for a derived "
        "protocol (default: what these say)",
    )
    add_results(run, "folder for the records")
    run.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:N or mps (default: auto, a GPU if there is one)"
    )
    run.add_argument(
        "--force", action="store_true", help="move finished records aside and run anew (default: reuse them)"
    )
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from vcil_bench.common.stopping import StopRequest

    stop = StopRequest()
    with stop.heard():
        return _run_until(options, stop)


def _run_until(options: argparse.Namespace, stop: StopRequest) -> int:
    """Run, with the torch it needs; a request to stop is heard from here on."""
    from vcil_bench import protocol
    from vcil_bench.common.config import parse_assignments

    seed = None if options.seed == "all" else whole_number(options.seed, "--seed")
    protocol.load(options.protocol)  # the commonest slips are answered before torch is imported

    with (
        stop.held_back(),
        loading_torch(),
    ):  # raised inside an import, it would be dropped, or leave half a module
        from vcil_bench.common.files import locked, remove
        from vcil_bench.nets.parallel.team import TeamError
        from vcil_bench.report.curves import draw
        from vcil_bench.report.results_matrix import group_sheet, partial_result
        from vcil_bench.report.tables import Group, rows
        from vcil_bench.report.terminal_table import show
        from vcil_bench.run import loop
        from vcil_bench.run.evaluation import EvaluationError
        from vcil_bench.run.files import unfinished
        from vcil_bench.run.plan import make_plan
        from vcil_bench.training import TrainingError
    stop.follow()

    plan = make_plan(
        options.method,
        options.protocol,
        seed=seed,
        assignments=parse_assignments(options.assignments),
        results=options.results,
        device=options.device,
    )
    stop.follow()
    with progress_bars() as progress:

        def say(line: str) -> None:
            progress.console.print(shown(line), markup=False, highlight=False, soft_wrap=True)

        try:
            records = loop.run(
                plan, data=options.data, force=options.force, progress=progress, say=say, stop=stop
            )
        except (TrainingError, EvaluationError, TeamError) as error:
            print(f"vcil-bench: the run failed: {error}", file=sys.stderr)
            return ExitCode.FAILED if isinstance(error, TeamError) else ExitCode.FAILED_FOR_GOOD
    if not is_main():
        return ExitCode.DONE
    group = Group(plan.protocol.label, plan.protocol.label, records)
    print()
    what = "" if plan.variant == "default" else f" ({plan.variant.replace('+', ' ')})"
    print(f"{plan.method.name}{what} on {plan.protocol.label}; percent, mean ± deviation over class orders:")
    show(group_sheet(group))
    for record in records:
        if text := partial_result(record):
            print(text)
    print()
    for record in records:
        print(f"record: {record.path}")
    if any(record.complete for record in records):
        picture = records[0].path.with_name(plan.variant)
        vector = picture.with_name(f"{picture.name}.svg")
        try:
            with locked(vector, wait_s=DRAWING_S):  # runs of other seeds draw it, too
                for path in unfinished(vector):
                    remove(path)
                curves = draw(rows(group), f"{plan.method.name} on {plan.protocol.label}", picture)
            print(f"curve:  {curves[1]}")
        except UserError as error:  # the records are complete without it
            print(f"vcil-bench: warning: no curve: {error}", file=sys.stderr)
    where = "" if options.results == Path("results") else f" --results {shlex.quote(str(options.results))}"
    print(f"next:   vcil-bench results{where}; vcil-bench report{where}")
    return ExitCode.DONE
