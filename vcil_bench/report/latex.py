r"""Tables as LaTeX with booktabs: a body for ``\input``, the same as a float, a document that shows all.

A body needs ``booktabs`` and ``array``. Tables wider than a page are split between groups of columns, in
one font size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .layout import Head, Layout, Number, spans

MAX_COLUMNS = 6  # of a tabular: with deviations, more would not fit a page of text
LABEL_CHARACTERS = 28  # of a first column that is not wrapped
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "<": r"$<$",
    ">": r"$>$",
}
_MARKS = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}


def escape(text: str) -> str:
    """Return text as LaTeX shows it as it stands; characters beyond its fonts become question marks."""
    text = " ".join(text.split())
    quoted = re.sub(r'"([^"]*)"', r"``\1''", text)
    return "".join(_SPECIAL.get(c, c if c.isascii() and c.isprintable() else "?") for c in quoted)


def body(layout: Layout) -> str:
    """Return the tabulars alone, without a float, to stand in an environment of one's own.

    What a reader must know stands in comments above, since captions in papers are short.
    """
    comments = [layout.title, layout.text, "Needs \\usepackage{booktabs,array}."]
    if any(number.mark for block in layout.blocks for row in block.rows for number in row.cells if number):
        comments.insert(
            2,
            "Bold: best measured here among runs whose weights saw the same data, and all not significantly "
            "worse "
            "(paired bootstrap over test videos); underlined: second best.",
        )
    noted = dict.fromkeys(
        f"{row.label}: {row.note}" for block in layout.blocks for row in block.rows if row.note
    )
    notes = [rf"\par\smallskip $\dagger$ {escape('. '.join(noted))}."] if noted else []
    numbers = [row.cells for block in layout.blocks for row in block.rows]
    parts = [part for part in _parts(layout.heads) if any(cells[i] for cells in numbers for i in part)]
    tabulars = [_tabular(layout, part) for part in parts] or [r"\emph{No numbers yet.}"]
    return "\n".join(
        [
            *(f"% {' '.join(comment.split())}" for comment in comments),
            r"\begingroup\small\centering\setlength{\tabcolsep}{4pt}%",
            "\n\\par\\medskip\n".join(tabulars),
            *notes,
            r"\par\endgroup",
            "",
        ]
    )


def table(layout: Layout) -> str:
    """Return the body in a float with a caption."""
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape(layout.title)}.}}",
            rf"\label{{tab:{layout.id.replace('_', '-')}}}",
            body(layout) + r"\end{table}",
            "",
        ]
    )


def _parts(heads: Sequence[Head]) -> list[range]:
    """Split columns between groups, or between their parts, so that none is wider than a page."""
    pieces: list[range] = []
    for _, start, end in spans([head.group for head in heads]):
        if end - start <= MAX_COLUMNS:
            pieces.append(range(start, end))
            continue
        for _, first, last in spans([head.part for head in heads[start:end]]):
            width = last - first
            each = -(-width // -(-width // (MAX_COLUMNS + 1)))  # a column more than to leave one alone
            pieces += [range(start + i, start + min(i + each, last)) for i in range(first, last, each)]
    joined: list[range] = []
    for piece in pieces:
        if joined and piece.stop - joined[-1].start <= MAX_COLUMNS:
            joined[-1] = range(joined[-1].start, piece.stop)
        else:
            joined.append(piece)
    return joined


def _tabular(layout: Layout, chosen: range) -> str:
    """Return a tabular of some of a layout's columns; rows without a number in any of them are left out."""
    heads = layout.heads[chosen.start : chosen.stop]
    before = 1 + len(layout.described)
    labels = [row.label for block in layout.blocks for row in block.rows]
    first = (
        "l"
        if max(map(len, labels), default=0) <= LABEL_CHARACTERS
        else r">{\raggedright\arraybackslash}p{4.4cm}"
    )
    about = r">{\raggedright\arraybackslash}p{2.2cm}" * len(layout.described)
    lines = [rf"\begin{{tabular}}{{@{{}}{first}{about}{'r' * len(heads)}@{{}}}}", r"\toprule"]
    lines += _heading(heads, layout.described)
    for block in layout.blocks:
        rows = [row for row in block.rows if any(row.cells[i] for i in chosen)]
        if not rows:
            continue
        lines.append(r"\midrule")
        if len(layout.blocks) > 1:
            lines.append(rf"\multicolumn{{{before + len(heads)}}}{{@{{}}l}}{{\emph{{{block.title}}}}} \\")
        for row in rows:
            cells = [escape(row.label) + (r"$^\dagger$" if row.note else ""), *map(escape, row.about)]
            cells += [_cell(row.cells[i], layout) for i in chosen]
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _heading(heads: Sequence[Head], described: Sequence[str]) -> list[str]:
    """Return up to three lines of heads, a rule below each group of several columns."""
    skip = len(described) + 1
    levels = [
        [head.group for head in heads],
        [f"{head.group}\0{head.part}" for head in heads],
        [f"{head.group}\0{head.part}\0{head.leaf}" for head in heads],
    ]
    shown = [level for level in levels if any(title.rpartition("\0")[2] for title in level)]
    lines = []
    for number, level in enumerate(shown):
        last = number == len(shown) - 1
        groups = spans(level) if not last else [(title, i, i + 1) for i, title in enumerate(level)]
        cells = ["method", *described] if last else [""] * skip
        rules = []
        for title, start, end in groups:
            text = escape(title.rpartition("\0")[2])
            cells.append(rf"\multicolumn{{{end - start}}}{{c}}{{{text}}}")
            if end - start > 1 and text:
                rules.append(rf"\cmidrule(lr){{{start + skip + 1}-{end + skip}}}")
        lines.append(" & ".join(cells) + r" \\" + ("\n" + " ".join(rules) if rules else ""))
    return lines


def _cell(number: Number | None, layout: Layout) -> str:
    if number is None:
        return "--"
    text, behind = number.text(layout.digits, std=layout.std)
    marked = (
        _MARKS[number.mark] % f"${text.replace('−', '-')}$"
        if text.startswith("−")
        else _MARKS[number.mark] % text
    )
    small = rf"{{\scriptsize {escape(behind)}}}" if behind else ""
    return marked + small


def preview(names: Sequence[str]) -> str:
    """Return a document that shows the tables of these files."""
    inputs = "\n".join(rf"\input{{{name}}}" + "\n\\clearpage" for name in names)
    return (
        "\\documentclass{article}\n\\usepackage[a4paper,margin=1.8cm]{geometry}\n\\usepackage{booktabs,array}\n"
        f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
