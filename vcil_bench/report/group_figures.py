"""Which figures a report draws of a table's rows, and where they lie: of all rows, of variants, of each row."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vcil_bench.record import has_predictions

from .curves import curves_figure
from .figure_cache import Asked, Kept
from .figures import accuracy_matrix_figure, confusion_figure, cost_figure, task_forgetting_figure
from .style import ON_PAGES, SUFFIXES
from .tables import Group, Row, rows

NAME_LENGTH = 100  # characters of a file name, beyond which it is cut and gets a hash


@dataclass(frozen=True)
class Picture:
    """A figure on disk.

    Attributes:
        kind: ``curves``, ``task_forgetting``, ``cost``, ``variants``, ``accuracy_matrix`` or ``confusion``.
        caption: What it shows, one sentence.
        svg: The vector file.
        png: The same in pixels.
        pdf: The same for LaTeX; None of figures of a single row, which ``vcil-bench figure`` draws so.
        row: The row it shows, None where it shows several.
    """

    kind: str
    caption: str
    svg: Path
    png: Path
    pdf: Path | None
    row: Row | None = None


@dataclass(frozen=True)
class Drawn:
    """What was written, and what could not be drawn.

    Attributes:
        pictures: Figures of all methods first, then of each method's variants, then of each row.
        notes: One line per figure that is missing or lacks seeds.
    """

    pictures: list[Picture]
    notes: list[str]

    @property
    def files(self) -> list[Path]:
        """All files written."""
        return [file for p in self.pictures for file in (p.svg, p.png, p.pdf) if file is not None]


@dataclass
class Planned:
    """The figures of a group, asked for but not drawn yet."""

    notes: list[str] = field(default_factory=list)
    asked: list[tuple[str, str, Row | None, Asked]] = field(default_factory=list)

    def drawn(self) -> Drawn:
        """Return what was drawn, once ``Kept.draw`` has been called."""
        notes, pictures = list(self.notes), []
        for kind, caption, row, figure in self.asked:
            if figure.files:
                svg, png, *pdf = figure.files
                pictures.append(Picture(kind, caption, svg, png, pdf[0] if pdf else None, row))
            elif row is None:
                notes.append(f"{kind}: its numbers are in no record")
        return Drawn(pictures, notes)


def plan(group: Group, folder: Path, kept: Kept) -> Planned:
    """Ask for every figure of a group; those of variants and of single rows go into folders of their own.

    Figures of several methods show each by its default run alone, where there is one on the same backbone: the
    variants of an ablation would hide the comparison.

    Args:
        group: Records that may share a table.
        folder: Where to write; made where it is missing.
        kept: The report's figures of last time, which are drawn again only where something changed.
    """
    lines = rows(group)
    drawn = [row for row in lines if row.complete]
    planned = Planned([f"{_row_name(row)}: no finished run" for row in lines if not row.complete])
    if not drawn:
        return planned
    plain = plain_rows(drawn)
    default = {(row.method_and_origin, row.backbone) for row in drawn if row.variant == "default"}
    of_variants = dict.fromkeys(
        row.method
        for row in drawn
        if row.variant != "default" and (row.method_and_origin, row.backbone) in default
    )

    def ask(
        kind: str, caption: str, stem: Path, make: partial, shown: list[Row], row: Row | None = None
    ) -> None:
        suffixes = SUFFIXES if row is None else ON_PAGES
        planned.asked.append((kind, caption, row, kept.ask(stem, group.title, shown, make, suffixes)))

    for kind, make, caption in (
        ("curves", curves_figure, "Accuracy over all classes seen, and mean forgetting, after every task."),
        ("task_forgetting", task_forgetting_figure, "Accuracy of every task after each step."),
        (
            "cost",
            cost_figure,
            "Accuracy against exemplars and statistics kept, the most parameters trainable in any task, "
            "training time, and FLOPs of training where they were counted.",
        ),
    ):
        ask(kind, caption, folder / kind, partial(make, plain, group.title), plain)
    for method in of_variants:
        compared = [row for row in drawn if row.method == method]
        stem = folder / "variants" / _file_name([method])
        caption = f"Accuracy and forgetting of {method}'s variants."
        ask("variants", caption, stem, partial(curves_figure, compared, group.title), compared)
    for row, name in zip(drawn, file_names(drawn), strict=True):
        title = _row_name(row)
        caption = f"Accuracy on each task after each step, {title}."
        matrix = partial(accuracy_matrix_figure, row, group.title)
        ask("accuracy_matrix", caption, folder / "accuracy_matrix" / name, matrix, [row], row)
        without = [str(r.data["seed"]) for r in row.complete if not has_predictions(r)]
        if without:
            planned.notes.append(
                f"{title}: no predictions of seed {', '.join(without)}, needed for the confusions"
            )
        if len(without) < len(row.complete):
            caption = f"Which tasks are taken for which, {title}."
            confusion = partial(confusion_figure, row, group.title)
            ask("confusion", caption, folder / "confusion" / name, confusion, [row], row)
    return planned


def plain_rows(drawn: Sequence[Row]) -> list[Row]:
    """Return the default runs of each method, and the others where there is none on the same backbone."""
    default = {(row.method_and_origin, row.backbone) for row in drawn if row.variant == "default"}
    return [
        row for row in drawn if row.variant == "default" or (row.method_and_origin, row.backbone) not in default
    ]


def file_names(rows: Sequence[Row]) -> list[str]:
    """Return a safe file name, without extension, for every row of a group.

    It is ``method--variant--readout``, with the origin of runs from elsewhere behind the method; names that had
    to be changed or cut end in a hash of the true one, so that no two rows share a file.
    """
    keys = [(row.method, *([row.origin] if row.origin else []), row.variant, row.readout) for row in rows]
    same = Counter(keys)
    names = []
    for row, key in zip(rows, keys, strict=True):
        parts = (*key, row.backbone) if same[key] > 1 else key
        names.append(_file_name(parts))
    return names


def _file_name(parts: Sequence[str]) -> str:
    """Join parts by two dashes, so that none may be inside a part or at its ends."""
    clean = [re.sub(r"[^A-Za-z0-9._=+-]+|-{2,}", "_", part).strip("-") for part in parts]
    name = "--".join(clean)
    if clean != list(parts) or len(name) > NAME_LENGTH:
        name = f"{name[:NAME_LENGTH]}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:8]}"
    return name


def _row_name(row: Row) -> str:
    return " ".join((row.method_and_origin, row.variant, row.backbone, row.readout))
