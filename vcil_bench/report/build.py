"""Writes the report: paper-style tables, per protocol tables and figures, and one page that holds it all."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vcil_bench.common.errors import UserError
from vcil_bench.common.files import check_writable, write_atomically
from vcil_bench.record import Record, RecordError, load_all

from . import latex, page, papers, table_text
from .comparison_table import Table
from .figure_cache import Kept
from .figures import write_all
from .layout import of_table
from .tables import frame, groups, markdown


@dataclass(frozen=True)
class Written:
    """What a report wrote, and what it had to leave out.

    Attributes:
        files: Files written, the page first.
        errors: One error per record that could not be read.
        notes: What could not be drawn, and why.
        records: Number of records read.
    """

    files: list[Path]
    errors: list[RecordError]
    notes: list[str]
    records: int


def write(results: Path, out: Path) -> Written:
    """Write the report of all records below ``results`` into ``out``; the same input gives the same bytes.

    ``index.html`` is the page; ``index.md`` the same tables as text; ``papers/`` the papers' tables as Markdown,
    CSV and LaTeX; one folder per protocol its table and figures. Records that cannot be read or drawn are left
    out, named on the page and returned.
    """
    check_writable(out)
    records, errors = load_all(results)
    try:
        return _draw(results, out, records, errors)
    except UserError:
        raise
    except Exception:
        undrawn = [error for record in records if (error := _undrawable(results, record)) is not None]
        if not undrawn:
            raise  # it is no record's fault alone
        named = {error.path for error in undrawn}
        return _draw(
            results, out, [record for record in records if record.path not in named], [*errors, *undrawn]
        )


class DrawingError(RecordError):
    """A record that was read, and of which no report can be drawn."""

    def __init__(self, path: Path, cause: Exception) -> None:
        frame = traceback.extract_tb(cause.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        super().__init__(
            f"{path}: cannot be drawn ({type(cause).__name__}: {cause}; {where}); move it away, and tell the "
            "authors of this version, which took it for sound"
        )
        self.path = path


def _undrawable(results: Path, record: Record) -> DrawingError | None:
    """Draw the report of one record alone, and say why that cannot be done; None if it can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _draw(results, Path(folder), [record], [])
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the other records are drawn without this one
            return DrawingError(record.path, error)
    return None


def _draw(results: Path, out: Path, records: list[Record], errors: Sequence[RecordError]) -> Written:
    """Write the report of these records, and name those that are left out."""
    notes: list[str] = []
    made = papers.tables(records)
    index = ["# Results", ""]
    grouped, kept = groups(records), Kept(out)
    files = _papers(made, out / "papers")
    for group in grouped:
        folder = out / group.label
        text = markdown(group)
        drawn = write_all(group, folder, kept)
        notes += [f"{group.label}: {note}" for note in drawn.notes]
        shown = [p for p in drawn.pictures if p.row is None]
        pictures = "".join(f"\n![{p.caption}]({p.png.relative_to(folder)})\n" for p in drawn.pictures)
        write_atomically(folder / "table.md", f"# {group.title}\n\n{text}{pictures}".encode())
        csv = frame(group).to_csv(index=False, float_format="%.6f")
        write_atomically(folder / "table.csv", csv.encode())
        files += [folder / "table.md", folder / "table.csv", *drawn.files]
        index += [f"## {group.title}", "", text]
        for picture in shown:
            index += [f"![{picture.caption}]({picture.png.relative_to(out)})", ""]
    if not records:
        index += [f"No records in {results}.", ""]
    index += ["# Tables of papers", "", *(table_text.markdown(table) for table in made)]
    if errors:
        index += ["# Left out", "", *(f"- {error}" for error in errors), ""]
    html = page.build(records, errors, grouped, [page.PaperTable(**table_text.as_plain(table)) for table in made])
    kept.write()
    heads = [out / "index.html", out / "index.md"]
    write_atomically(heads[0], html.encode())
    write_atomically(heads[1], "\n".join(index).encode())
    return Written([*heads, *files], list(errors), notes, len(records))


def _papers(made: Sequence[Table], folder: Path) -> list[Path]:
    """Write the papers' tables in three forms, and a LaTeX document that shows them."""
    texts: dict[str, str] = {}
    for table in made:
        layout = of_table(table)
        texts[f"{table.spec.id}.md"] = table_text.markdown(table)
        texts[f"{table.spec.id}.csv"] = table_text.frame(table).to_csv(index=False, float_format="%.6f")
        texts[f"{table.spec.id}.tex"] = latex.table(layout)
        texts[f"{table.spec.id}_body.tex"] = latex.body(layout)
    texts["preview.tex"] = latex.preview([table.spec.id for table in made])
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in texts]
