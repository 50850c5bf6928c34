"""``vcil-bench grid``: methods x protocols x seeds, on this machine's GPUs or a Slurm cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import add_assignments, path_argument, whole_number
from .progress import progress_bars


def add_to(commands: Commands) -> None:
    """Add ``grid``."""
    grid = commands.add_parser("grid", help="run methods x protocols x seeds, as many at once as there are GPUs")
    grid.add_argument("methods", metavar="METHODS", help="joined by commas")
    grid.add_argument("protocols", metavar="PROTOCOLS", help="joined by commas")
    grid.add_argument("--seeds", default="all", help="joined by commas, or all of each protocol (default)")
    grid.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=ROOT",
        help="folder of a dataset, as DATASET=ROOT, or as PROTOCOL=ROOT for one protocol alone",
    )
    add_assignments(grid, "for every run, as for 'run'")
    grid.add_argument("--results", type=path_argument, default=Path("results"), metavar="DIR")
    grid.add_argument("--gpus", default="all", help="all (default), none, or numbers joined by commas")
    grid.add_argument("--jobs", type=int, metavar="N", help="runs at a time per GPU, or on the processor (1)")
    grid.add_argument("--retries", type=int, default=1, metavar="N", help="for a run that died (1)")
    grid.add_argument("--skip-impossible", action="store_true", help="leave out runs that cannot be made")
    grid.add_argument("--rerun-stale", action="store_true", help="move stale records aside and run anew")
    grid.add_argument(
        "--engine",
        choices=["local", "slurm", "submitit-local"],  # the last tries on one machine what a cluster runs
        default="local",
        metavar="{local,slurm}",
        help="this machine (default), or a cluster",
    )
    grid.add_argument(
        "--slurm",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="what a job asks for: partition=..., timeout_min=..., cpus_per_task=...",
    )
    grid.set_defaults(run=_grid)


def _grid(options: argparse.Namespace) -> int:
    from vcil_bench.common.config import parse_assignments
    from vcil_bench.grid import display, scheduler
    from vcil_bench.grid.launchers import Engine, LocalEngine, visible_gpus
    from vcil_bench.grid.slurm import SubmititEngine

    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: at least 1 run at a time is needed; leave it out for 1")
    if options.retries < 0:
        raise UserError(f"--retries {options.retries}: give 0 to try each run once, or more")
    if options.slurm and options.engine == "local":
        raise UserError(f"--slurm {options.slurm[0]}: only for --engine slurm; leave it out")
    request = scheduler.Request(
        options.methods.split(","),
        options.protocols.split(","),
        None if options.seeds == "all" else [whole_number(text, "--seeds") for text in options.seeds.split(",")],
        _roots(options.data),
        options.assignments,
        options.results,
        options.rerun_stale,
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    engine: Engine
    if options.engine == "local":
        engine = LocalEngine(visible_gpus(options.gpus), options.jobs or 1)
    else:
        cluster = "slurm" if options.engine == "slurm" else "local"
        # A cluster has a queue of its own, this machine has not.
        slots = options.jobs or (scheduler.ALL_AT_ONCE if cluster == "slurm" else 1)
        wanted = parse_assignments(options.slurm)
        engine = SubmititEngine(cluster, options.results / "submitit", wanted, slots, say)
    with progress_bars() as progress:
        cells = scheduler.cells(request, progress)
    impossible = [cell for cell in cells if cell.status == "impossible"]
    if impossible and not options.skip_impossible:
        more = f" (and {len(impossible) - 1} more)" if len(impossible) > 1 else ""
        raise UserError(
            f"{impossible[0].name}{more}: {impossible[0].reason}; --skip-impossible runs the grid without"
        )
    todo = [cell for cell in cells if cell.status is None]
    with display.View(say) as view:
        ended = scheduler.run(todo, engine, options.assignments, options.retries, view.watch, say)
    print(display.table(cells))
    if not ended:
        return ExitCode.STOPPED
    if len(impossible) == len(cells):
        raise UserError("nothing was run: no run of this grid is possible, for the reasons above")
    return ExitCode.FAILED if any(cell.status == "failed" for cell in cells) else ExitCode.DONE


def _roots(pairs: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=ROOT`` pairs."""
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"--data {pair!r} names no dataset; give it as NAME=ROOT, such as ucf101={pair}")
    return {name: Path(root) for name, _, root in (pair.partition("=") for pair in pairs)}
