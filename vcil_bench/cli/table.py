"""``vcil-bench table``: chosen methods and protocols as a table for a paper, below the reported numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results, completed_by, path_argument


def add_to(commands: Commands) -> None:
    """Add ``table``."""
    table = add_command(
        commands,
        "table",
        "print a table of chosen methods and protocols, as LaTeX, Markdown or CSV",
        """
        vcil-bench table --methods stpr,tcd --protocols synthetic_3x4
        # below reported numbers, for a paper; mine.py is a method of your own
        vcil-bench table --methods tcd,mine.py --protocols tcd_hmdb51_5x5 --published --format tex
        # an ablation, in two metrics
        vcil-bench table --methods stpr,stpr:moe=False --protocols synthetic_3x4 --metric headline,final_accuracy
        """,
    )
    chosen = table.add_argument(
        "--methods",
        type=_names,
        default=[],
        metavar="A,B",
        help="names or .py files of methods with records, joined by commas; behind a colon a variant, or * for "
        "all; behind @ who ran it, if it was elsewhere (default: every method with records on the protocols, by "
        "its default runs)",
    )
    completed_by(chosen, "methods")
    chosen = table.add_argument(
        "--protocols",
        type=_names,
        required=True,
        metavar="P,Q",
        help="names, joined by commas; there is no default",
    )
    completed_by(chosen, "protocols")
    chosen = table.add_argument(
        "--metric",
        type=_names,
        default=["headline"],
        metavar="NAME",
        help="metrics, joined by commas, each with columns of its own (default: headline, each protocol's own)",
    )
    completed_by(chosen, "metrics")
    table.add_argument(
        "--readout",
        type=_names,
        default=["first"],
        metavar="NAME",
        help="readouts, joined by commas, each with columns of its own, such as cnn,nme (default: first, each "
        "method's first)",
    )
    table.add_argument(
        "--published", action="store_true", help="put the numbers that papers report above (default: without)"
    )
    table.add_argument(
        "--papers", type=path_argument, metavar="FILE", help="your tables with reported numbers (default: none)"
    )
    table.add_argument(
        "--std",
        choices=["none", "small"],
        default="small",
        help="deviation over class orders: in small print behind each number, or none (default: small)",
    )
    table.add_argument("--digits", type=int, default=2, metavar="N", help="decimals, 0 to 6 (default: 2)")
    table.add_argument(
        "--format", choices=["tex", "md", "csv"], default="md", help="of the output (default: md)"
    )
    table.add_argument(
        "--float",
        action="store_true",
        help="tex: wrap the body in a table environment (default: the body alone)",
    )
    table.add_argument(
        "--labels",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=LABEL",
        help="what methods, variants (NAME:VARIANT) and protocols are called (default: the papers' names)",
    )
    table.add_argument(
        "--out", type=path_argument, metavar="FILE", help="file to write (default: standard output)"
    )
    add_results(table)
    table.set_defaults(run=_table)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name; join names by single commas")
    return names


def _table(options: argparse.Namespace) -> int:
    from vcil_bench.report import chosen_table, latex, layout_text, papers
    from vcil_bench.report.labels import read_labels

    from .records import read_records

    if not 0 <= options.digits <= 6:
        raise UserError(f"--digits {options.digits}: give 0 to 6")
    if options.float and options.format != "tex":
        raise UserError(f"--float: only for --format tex, this is {options.format}; leave it out")
    choice = chosen_table.Choice(
        options.methods,
        options.protocols,
        options.metric,
        options.readout,
        published=options.published,
        std=options.std != "none",
        digits=options.digits,
    )
    records = read_records(options.results)
    made = chosen_table.make(records, choice, papers.specs(options.papers), read_labels(options.labels))
    if not made.blocks:
        raise UserError(
            f"nothing to show: no finished runs on {', '.join(options.protocols)} below {options.results}; run "
            "something first, or add --published"
        )
    if options.format == "tex":
        text = latex.table(made) if options.float else latex.body(made)
    else:
        text = {"md": layout_text.markdown, "csv": layout_text.long_form}[options.format](made)
    write_text(text, options.out)
    return ExitCode.DONE


def write_text(text: str, out: Path | None) -> None:
    """Print text, or write it to a file and say so."""
    from vcil_bench.common.files import check_writable, write_atomically

    if out is None:
        print(text, end="")
        return
    check_writable(out.parent)
    write_atomically(out, text.encode())
    print(f"wrote {out}")
