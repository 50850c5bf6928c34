r"""Tables as LaTeX with booktabs, ready for ``\input``; ``preview.tex`` compiles them all."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .papers import Table, texts

MAX_COLUMNS = 4  # of a block: more would be too small to read
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "<": r"$<$",
    ">": r"$>$",
}
_MARKED = (
    "Bold: best of ours among runs whose weights saw the same data, and all not significantly worse (paired "
    "bootstrap over test videos); underlined: second best."
)
_MARKS = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}


def escape(text: str) -> str:
    """Return text as LaTeX shows it as it stands; characters beyond its fonts become question marks."""
    text = " ".join(text.split())
    quoted = re.sub(r'"([^"]*)"', r"``\1''", text)
    return "".join(_SPECIAL.get(c, c if c.isascii() else "?") for c in quoted)


def table(made: Table) -> str:
    """Return a table: per column ours, the published number and the difference; wide ones in several blocks."""
    starts = range(0, len(made.columns), MAX_COLUMNS)
    noted = dict.fromkeys(f"{line.label}: {line.notes}" for line in made.lines if line.notes)
    notes = [rf"\par\smallskip\footnotesize $\dagger$ {escape('. '.join(noted))}"] if noted else []
    blocks = [_block(made, range(i, min(i + MAX_COLUMNS, len(made.columns)))) for i in starts]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape(f'{made.spec.title}. {made.caption} {_MARKED}')}}}",
            rf"\label{{tab:{made.spec.id.replace('_', '-')}}}",
            "\n\\medskip\n\n".join(blocks),
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _block(made: Table, chosen: range) -> str:
    """Return a tabular of some of a table's columns."""
    columns = [made.columns[i] for i in chosen]
    heads = " & ".join(rf"\multicolumn{{3}}{{c}}{{{escape(column.title)}}}" for column in columns)
    rules = " ".join(rf"\cmidrule(lr){{{4 + 3 * i}-{6 + 3 * i}}}" for i in range(len(columns)))
    below = " & ".join(["method", "backbone", "exemplars", *(["ours", "publ.", r"$\Delta$"] * len(columns))])
    lines = []
    for line in made.lines:
        dagger = r"$^\dagger$" if line.notes else ""
        cells = [escape(line.label) + dagger, escape(line.backbone), escape(line.exemplars)]
        for cell in (line.cells[i] for i in chosen):
            parts = texts(cell)
            cells += [
                _MARKS[cell.mark] % escape(parts["ours"]),
                escape(parts["published"]),
                escape(parts["difference"]),
            ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join(
        [
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{lll{'rrr' * len(columns)}}}",
            r"\toprule",
            rf" & & & {heads} \\",
            rules,
            below + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
        ]
    )


def preview(names: Sequence[str]) -> str:
    """Return a document that shows the tables of these files."""
    inputs = "\n".join(rf"\input{{{name}}}" + "\n\\clearpage" for name in names)
    return (
        "\\documentclass{article}\n\\usepackage[a3paper,margin=1.5cm]{geometry}\n\\usepackage{booktabs}\n"
        f"\\usepackage{{graphicx}}\n\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
