"""``vcil-bench figure``: one figure of chosen methods on a protocol, in the size that a paper has room for."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results, completed_by, path_argument
from .table import _names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vcil_bench.report.curves import Look
    from vcil_bench.report.tables import Row

KINDS = {
    "curves": "accuracy and forgetting against the number of classes seen",
    "forgetting": "accuracy of every task after each step, a panel per row",
    "cost": "accuracy against exemplars and statistics, trainable parameters, training time and FLOPs",
    "matrix": "accuracy on each task after each step, of one row",
    "confusion": "which tasks are taken for which, of one row",
}
INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72.27}  # LaTeX's points


def add_to(commands: Commands) -> None:
    """Add ``figure``."""
    figure = add_command(
        commands,
        "figure",
        "draw one figure for a paper, as PDF, SVG or PNG",
        """
        vcil-bench figure curves --protocol synthetic_3x4 --methods icarl,tcd --width 6.8in --out curves.pdf
        # in a column of a paper; mine.py is a method of your own
        vcil-bench figure curves --protocol synthetic_3x4 --methods tcd,mine.py --quantity accuracy --width 3.3in
        vcil-bench figure matrix --protocol synthetic_3x4 --methods icarl --readout nme --width 84mm
        """,
    )
    figure.add_argument(
        "kind",
        choices=[*KINDS],
        metavar="KIND",
        help="; ".join(f"{name}: {text}" for name, text in KINDS.items()) + "; there is no default",
    )
    chosen = figure.add_argument(
        "--protocol", required=True, metavar="NAME", help="a protocol with records; there is no default"
    )
    completed_by(chosen, "protocols")
    chosen = figure.add_argument(
        "--methods",
        type=_names,
        default=[],
        metavar="A,B",
        help="names or .py files of methods with records, joined by commas; behind a colon a variant, or * for "
        "all; behind @ who ran it, if it was elsewhere (default: every method, by its default runs)",
    )
    completed_by(chosen, "methods")
    figure.add_argument(
        "--readout",
        type=_names,
        default=["all"],
        metavar="NAME",
        help="readouts, joined by commas, or first for each method's first (default: all)",
    )
    figure.add_argument(
        "--quantity",
        choices=["both", "accuracy", "forgetting"],
        default="both",
        help="what curves show (default: both, side by side)",
    )
    figure.add_argument(
        "--width",
        type=_inches,
        metavar="LENGTH",
        help="such as 3.3in, 84mm, 240pt (default: what the kind needs)",
    )
    figure.add_argument("--height", type=_inches, metavar="LENGTH", help="alike (default: what fits the width)")
    figure.add_argument("--title", default="", metavar="TEXT", help="heading of the figure (default: none)")
    figure.add_argument(
        "--legend",
        choices=["direct", "below", "none"],
        default="direct",
        help="curves: names at the ends of lines, below, or none (default: direct)",
    )
    figure.add_argument(
        "--labels",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=LABEL",
        help="what methods are called (default: the papers' names)",
    )
    figure.add_argument(
        "--out",
        type=path_argument,
        nargs="+",
        metavar="FILE",
        help="files ending in .pdf, .svg or .png (default: KIND.pdf)",
    )
    add_results(figure)
    figure.set_defaults(run=_figure)


def _inches(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(in|cm|mm|pt)", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no length; give a number and in, cm, mm or pt, such as 3.3in"
        )
    inches = float(match[1]) * INCHES[match[2]]
    if not 0.5 <= inches <= 50:
        raise argparse.ArgumentTypeError(f"{text!r} is {inches:.1f} inches; give 0.5in to 50in")
    return inches


def _figure(options: argparse.Namespace) -> int:
    from vcil_bench.common.files import check_writable
    from vcil_bench.report import chosen_table
    from vcil_bench.report.curves import Look
    from vcil_bench.report.labels import read_labels
    from vcil_bench.report.style import SUFFIXES, save_as

    from .records import read_records

    files = options.out or [Path(f"{options.kind}.pdf")]
    for file in files:
        if file.suffix not in SUFFIXES:
            raise UserError(f"--out {str(file)!r}: give a file that ends in {', '.join(SUFFIXES)}")
        check_writable(file.parent)
    there = chosen_table.rows_on(read_records(options.results), options.protocol)
    chosen = chosen_table.choose(options.methods, there, [options.protocol])
    rows = [row for name in chosen for row in there if (row.method, row.variant, row.origin) == name]
    rows = [row for row in rows if row.complete]
    rows = _of_readouts(rows, options.readout)
    look = Look(
        options.width,
        options.height,
        read_labels(options.labels),
        options.legend,
        ("accuracy", "forgetting") if options.quantity == "both" else (options.quantity,),
    )
    made = _draw(options.kind, rows, options.title, look)
    for file in files:
        save_as(made, file)
        print(f"wrote {file}")
    return ExitCode.DONE


def _of_readouts(rows: list[Row], readouts: list[str]) -> list[Row]:
    """Return the rows of some readouts.

    Raises:
        UserError: No row is left, or no method has one of them.
    """
    from vcil_bench.common.errors import did_you_mean

    if not rows:
        raise UserError("nothing to draw: these methods have no finished run on this protocol; run them first")
    there = dict.fromkeys(row.readout for row in rows)
    first = {id(row) for row in rows if row.readout == row.complete[0].data["method"]["readouts"][0]}
    for name in readouts:
        if name not in ("all", "first", *there):
            raise UserError(
                f"--readout {name!r}: no method here has it{did_you_mean(name, there)}; there are: all, first, "
                f"{', '.join(there)}"
            )
    return [
        row
        for row in rows
        if "all" in readouts or row.readout in readouts or ("first" in readouts and id(row) in first)
    ]


def _draw(kind: str, rows: list[Row], title: str, look: Look) -> Figure:
    from vcil_bench.report import curves, figures

    if kind in ("matrix", "confusion"):
        if len(rows) != 1:
            names = ", ".join(f"{row.method_and_origin}:{row.variant} {row.readout}" for row in rows)
            raise UserError(
                f"a {kind} shows one row, these are {len(rows)} ({names}); choose by --methods and --readout"
            )
        draw = figures.accuracy_matrix_figure if kind == "matrix" else figures.confusion_figure
        made = draw(rows[0], title, look)
    else:
        several = {
            "curves": curves.curves_figure,
            "forgetting": figures.task_forgetting_figure,
            "cost": figures.cost_figure,
        }
        made = several[kind](rows, title, look)
    if made is None:
        raise UserError(
            f"no {kind} to draw: the predictions do not lie beside the records; copy the .npz files, too"
        )
    return made
