"""``vcil-bench grid``: methods x protocols x seeds, on this machine's GPUs or a Slurm cluster."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import (
    Commands,
    add_assignments,
    add_command,
    add_results,
    completed_by,
    data_roots,
    whole_number,
)
from .progress import loading_torch, progress_bars

if TYPE_CHECKING:
    from vcil_bench.grid.experiments import Experiment
    from vcil_bench.grid.launchers import Engine
    from vcil_bench.grid.scheduler import Cell


def add_to(commands: Commands) -> None:
    """Add ``grid``."""
    grid = add_command(
        commands,
        "grid",
        "run methods x protocols x seeds, or a table of a paper, as many at once as there are GPUs",
        """
        vcil-bench grid stpr,tcd tcd_ucf101_10x5 --data ucf101=/data/ucf101
        vcil-bench grid stpr synthetic_3x4 --set lr=0.01,0.02 fssd=true,false --dry-run     # a sweep of four
        vcil-bench grid --table stpr_components --data ucf101=/data/ucf101 hmdb51=/data/hmdb51
        vcil-bench grid stpr tcd_ucf101_10x5 --table stpr_components --data ucf101=/data/ucf101
        vcil-bench grid --table stpr_components --dry-run                                   # what it would take
        vcil-bench grid all synthetic_3x4 --table stpr_components --dry-run --trial         # measured
        vcil-bench grid stpr tcd_ucf101_10x5 --data ucf101=/data/ucf101 --engine slurm --slurm partition=gpu
        """,
    )
    action = grid.add_argument(
        "methods", metavar="METHODS", nargs="?", help="joined by commas; with --table those of it (default: all)"
    )
    completed_by(action, "methods")
    action = grid.add_argument(
        "protocols",
        metavar="PROTOCOLS",
        nargs="?",
        help="joined by commas; with --table those of it (default: all)",
    )
    completed_by(action, "protocols")
    action = grid.add_argument(
        "--table",
        metavar="ID",
        help="every run behind this table of a paper, variants included; see: list tables (default: none)",
    )
    completed_by(action, "tables")
    grid.add_argument("--seeds", default="all", help="joined by commas (default: all of each protocol)")
    grid.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=ROOT",
        help="folder of a dataset, as DATASET=ROOT, or as PROTOCOL=ROOT for one protocol alone (default: the "
        "dataset's own, which embedded clips have)",
    )
    add_assignments(
        grid,
        "for every run, as for 'run'; lr=0.01,0.02 is a sweep, every combination of which is a run (default: "
        "what methods say)",
    )
    add_results(grid, "folder for the records")
    grid.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be run and what that takes, and end (default: run)",
    )
    grid.add_argument(
        "--trial",
        action="store_true",
        help="with --dry-run: time 20 steps of every run here (default: estimate from records)",
    )
    grid.add_argument("--gpus", default="all", help="none, or numbers joined by commas (default: all)")
    grid.add_argument(
        "--jobs", type=int, metavar="N", help="runs at a time per GPU, or on the processor (default: 1)"
    )
    grid.add_argument("--retries", type=int, default=1, metavar="N", help="for a run that died (default: 1)")
    grid.add_argument(
        "--skip-impossible",
        action="store_true",
        help="leave out runs that cannot be made (default: run nothing then)",
    )
    grid.add_argument(
        "--rerun-stale",
        action="store_true",
        help="move stale records aside and run anew (default: refuse, as what cannot run)",
    )
    grid.add_argument(
        "--engine",
        choices=["local", "slurm", "submitit-local"],  # the last tries on one machine what a cluster runs
        default="local",
        metavar="{local,slurm}",
        help="this machine, or a cluster (default: local)",
    )
    grid.add_argument(
        "--slurm",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="what a job asks for: partition=..., timeout_min=..., cpus_per_task=... (default: the cluster's)",
    )
    grid.set_defaults(run=_grid)


def _grid(options: argparse.Namespace) -> int:
    _check(options)
    seeds = (
        None if options.seeds == "all" else [whole_number(text, "--seeds") for text in options.seeds.split(",")]
    )
    with loading_torch():
        from vcil_bench.grid import display, scheduler

    request = scheduler.Request(
        _experiments(options),
        seeds,
        data_roots(options.data),
        options.results,
        options.rerun_stale,
    )
    engine = _engine(options)
    with progress_bars() as progress:
        cells = scheduler.cells(request, progress, prepare=options.trial or not options.dry_run)
    if options.dry_run:
        return _dry_run(options, cells, engine)
    impossible = [cell for cell in cells if cell.status == "impossible"]
    if impossible and not options.skip_impossible:
        more = f" (and {len(impossible) - 1} more)" if len(impossible) > 1 else ""
        raise UserError(
            f"{impossible[0].name}{more}: {impossible[0].reason}; --skip-impossible runs the grid without"
        )
    todo = [cell for cell in cells if cell.status is None]
    with nullcontext() if options.quiet else display.View(_say) as view:
        watch = view.watch if view is not None else lambda running, cells: None
        ended = scheduler.run(todo, engine, options.retries, watch, _say)
    print(display.table(cells))
    if not ended:
        return ExitCode.STOPPED
    if len(impossible) == len(cells):
        raise UserError("nothing was run: no run of this grid is possible, for the reasons above")
    where = "" if options.results == Path("results") else f" --results {shlex.quote(str(options.results))}"
    print(f"\nnext: vcil-bench results{where}; vcil-bench report{where}")
    return ExitCode.FAILED if any(cell.status == "failed" for cell in cells) else ExitCode.DONE


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together, before anything is loaded.

    Raises:
        UserError: Says what, and the way out.
    """
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: at least 1 run at a time is needed; leave it out for 1")
    if options.retries < 0:
        raise UserError(f"--retries {options.retries}: give 0 to try each run once, or more")
    if options.slurm and options.engine == "local":
        raise UserError(f"--slurm {options.slurm[0]}: only for --engine slurm; leave it out")
    if options.trial and not options.dry_run:
        raise UserError("--trial: only with --dry-run, whose estimates it measures; add that, or leave it out")
    if options.trial and options.engine != "local":
        raise UserError(
            f"--trial: times runs on this machine, not with --engine {options.engine}; make the trial on a "
            "machine like the cluster's, without --engine"
        )
    if options.table is None and (options.methods is None or options.protocols is None):
        raise UserError(
            "name METHODS and PROTOCOLS, joined by commas, or a table of a paper with --table ID (see: "
            "vcil-bench list tables)"
        )


def _experiments(options: argparse.Namespace) -> list[Experiment]:
    """Return what is to be run.

    Raises:
        UserError: Names that are unknown, values that are malformed.
    """
    from vcil_bench.grid import experiments
    from vcil_bench.report.comparison_table import FREE_OPTIONS

    methods, protocols = ((named or "all").split(",") for named in (options.methods, options.protocols))
    if options.table is None:
        return experiments.product(methods, protocols, options.assignments)
    strange = [
        key for text in options.assignments if (key := text.partition("=")[0].strip()) not in FREE_OPTIONS
    ]
    if strange:
        _say(f"note: --set {strange[0]} makes variants, which table {options.table} will not show")
    return experiments.of_table(options.table, methods, protocols, options.assignments)


def _engine(options: argparse.Namespace) -> Engine:
    """Return where runs are started.

    Raises:
        UserError: GPUs or a cluster that are not there.
    """
    from vcil_bench.common.config import parse_assignments
    from vcil_bench.grid.launchers import LocalEngine, visible_gpus
    from vcil_bench.grid.scheduler import ALL_AT_ONCE
    from vcil_bench.grid.slurm import SubmititEngine

    if options.engine == "local":
        return LocalEngine(visible_gpus(options.gpus), options.jobs or 1)
    cluster = "slurm" if options.engine == "slurm" else "local"
    # A cluster has a queue of its own, this machine has not.
    slots = options.jobs or (ALL_AT_ONCE if cluster == "slurm" else 1)
    wanted = parse_assignments(options.slurm)
    return SubmititEngine(cluster, options.results / "submitit", wanted, slots, _say)


def _dry_run(options: argparse.Namespace, cells: Sequence[Cell], engine: Engine) -> int:
    """Say what a grid would run, and what that takes."""
    import torch

    from vcil_bench.grid import display, estimate, trial
    from vcil_bench.grid.launchers import LocalEngine
    from vcil_bench.record import load_all
    from vcil_bench.report.terminal_table import show
    from vcil_bench.run.environment import device_name

    device = None
    if isinstance(engine, LocalEngine):
        kind = "cuda" if engine.gpus else "cpu"
        device = estimate.Device(device_name(torch.device(kind)), kind)
    trials: dict[Experiment, estimate.Estimate] = {}
    if options.trial:
        for cell in cells:
            if cell.status is None and cell.experiment not in trials:
                _say(f"trial: {cell.name} ...")
                trials[cell.experiment] = trial.hold(cell, engine)
    found, _ = load_all(options.results)
    needs = estimate.needs(cells, found, device, trials)
    sheet, bases = display.plan_sheet(needs)
    show(sheet)
    print()
    for line in (*bases, *display.plan_totals(needs, engine.slots, options.results)):
        print(line)
    for cell in cells:
        if cell.status == "impossible":
            print(f"impossible: {cell.name}: {' '.join(cell.reason.split())}")
    if all(cell.status == "impossible" for cell in cells):
        raise UserError("no run of this grid is possible, for the reasons above")
    return ExitCode.DONE
