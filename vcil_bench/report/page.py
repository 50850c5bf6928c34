"""Writes the report: per protocol a table and curves, and an index over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vcil_bench.record import RecordError, load_all
from vcil_bench.storage import check_writable, write_atomically

from .curves import draw
from .tables import frame, groups, markdown, rows


@dataclass(frozen=True)
class Written:
    """What a report wrote, and what it had to leave out.

    Attributes:
        files: Files written, the index first.
        errors: One error per record that could not be read.
        records: Number of records read.
    """

    files: list[Path]
    errors: list[RecordError]
    records: int


def write(results: Path, out: Path) -> Written:
    """Write the report of all records below ``results`` into ``out``; the same input gives the same bytes.

    Records that cannot be read are left out, named in the index and returned.
    """
    check_writable(out)
    found, errors = load_all(results)
    files: list[Path] = []
    index = ["# Results", ""]
    for group in groups(found):
        folder = out / group.label
        table = folder / "table.md"
        lines = rows(group)
        text = markdown(group)
        pictures: list[Path] = []
        if any(row.complete for row in lines):
            pictures = draw(lines, group.title, folder / "curves")
        heading = f"# {group.title}\n\n"
        picture = "\n![accuracy and forgetting against classes seen](curves.png)\n" if pictures else ""
        write_atomically(table, f"{heading}{text}{picture}".encode())
        csv = folder / "table.csv"
        write_atomically(csv, frame(group).to_csv(index=False, float_format="%.6f").encode())
        files += [table, csv, *pictures]
        index += [f"## {group.title}", "", text]
        index += [f"![]({group.label}/curves.png)", ""] if pictures else []
    if not found:
        index += [f"No records in {results}.", ""]
    if errors:
        index += ["## Left out", "", *(f"- {error}" for error in errors), ""]
    target = out / "index.md"
    write_atomically(target, "\n".join(index).encode())
    return Written([target, *files], errors, len(found))
