"""Writes the report: paper-style tables, per protocol tables and figures, and one page that holds it all."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vcil_bench.common.errors import UserError, did_you_mean
from vcil_bench.common.files import check_writable, write_atomically
from vcil_bench.record import Record, RecordError, Sound, load_all

from . import curves, figure_cache, latex, page, papers, table_text
from .anonymity import Cover, Telling
from .comparison_table import Table, fill
from .figure_cache import Kept
from .group_figures import Planned, plan
from .kept_parts import KeptParts
from .labels import Labels
from .layout import of_table
from .significance import kept_in
from .table_file import TableSpec
from .tables import frame, groups, markdown, rows

COMPARISONS = ".comparisons.json"
THUMBNAILS = ".thumbnails.json"
RECORDS = ".records.json"  # hashes of those that were checked
OUTCOMES = ".outcomes.json"
KEPT = (COMPARISONS, THUMBNAILS, RECORDS, OUTCOMES)


@dataclass(frozen=True)
class Written:
    """What a report wrote, and what it had to leave out.

    Attributes:
        files: Files written, the page first.
        errors: One error per record that could not be read.
        notes: What could not be drawn, and why.
        records: Number of records read.
        strange: Files below the folder that this report did not write; looked for where it is anonymous.
    """

    files: list[Path]
    errors: list[RecordError]
    notes: list[str]
    records: int
    strange: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Wish:
    """What a report is to hold, beyond the usual.

    Attributes:
        papers: A user's file of tables, shown behind those of papers.
        only: Names or labels of protocols: records of others are passed over.
        figures: Whether figures are drawn.
        thumbnails: Whether the page shows pictures of test videos that are not the embedded clips.
        telling: Whether paths, or all that records hold, are told, or nothing that names people and machines.
    """

    papers: Path | None = None
    only: tuple[str, ...] = ()
    figures: bool = True
    thumbnails: bool = False
    telling: Telling = Telling.NO_PATHS


Moved = Callable[[str, int, int], None]  # told what is done, how many of it, of how many


def write(
    results: Path, out: Path, wish: Wish | None = None, moved: Moved = lambda what, done, total: None
) -> Written:
    """Write the report of all records below ``results`` into ``out``; the same input gives the same bytes.

    ``index.html`` is the page; ``index.md`` the same tables as text; ``papers/`` the papers' tables as Markdown,
    CSV and LaTeX; one folder per protocol its table, curves and figures. Records that cannot be read or drawn
    are left out, named on the page and returned. What took long is kept in hidden files in ``out``.

    Raises:
        UserError: There is nothing to be written there, or something is wrong with what is wished for.
    """
    wish = wish or Wish()
    check_writable(out)
    specs = papers.specs(wish.papers)
    moved("reading records", 0, 1)
    sound = _sound(out / RECORDS)
    written_records, errors = load_all(results, sound)
    cover = Cover(wish.telling, results, written_records)
    if wish.only:
        written_records = _of_protocols(written_records, wish.only)
    records = cover.records(written_records)
    job = _Job(results, wish, specs, moved, cover)
    with kept_in(out / COMPARISONS, forget=not wish.only):
        try:
            written = _draw(job, out, records, errors)
        except UserError:
            raise
        except Exception:
            undrawn = [error for record in records if (error := _undrawable(job, record)) is not None]
            if not undrawn:
                raise  # it is no record's fault alone
            named = {error.path for error in undrawn}
            rest = [record for record in records if record.path not in named]
            written = _draw(job, out, rest, [*errors, *undrawn])
    write_atomically(out / RECORDS, json.dumps(sorted(sound.now), indent=0).encode())
    if wish.telling is not Telling.ANONYMOUS:
        return written
    mine = {*written.files, *(out / name for name in (figure_cache.NAME, *KEPT))}
    strange = sorted(path for path in out.rglob("*") if path.is_file() and path not in mine)
    return dataclasses.replace(written, strange=strange)


def _sound(kept: Path) -> Sound:
    """Return the records that the last report has checked; none where its list is missing or not ours."""
    try:
        before = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    return Sound(frozenset(map(str, before)) if isinstance(before, list) else frozenset())


@dataclass(frozen=True)
class _Job:
    """What is the same for every attempt at a report."""

    results: Path
    wish: Wish
    specs: list[TableSpec]
    moved: Moved
    cover: Cover


def _of_protocols(records: Sequence[Record], only: Sequence[str]) -> list[Record]:
    """Return the records on some protocols.

    Raises:
        UserError: There is none on one of them.
    """
    labels = dict.fromkeys(record.data["protocol"]["label"] for record in records)
    for name in only:
        if name not in labels:
            raise UserError(
                f"--only {name!r}: no records of that protocol{did_you_mean(name, labels)}; there are: "
                f"{', '.join(labels) or 'none'}"
            )
    return [record for record in records if record.data["protocol"]["label"] in only]


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


def _undrawable(job: _Job, record: Record) -> DrawingError | None:
    """Draw the report of one record alone, and say why that cannot be done; None if it can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _draw(job, Path(folder), [record], [])
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the other records are drawn without this one
            return DrawingError(record.path, error)
    return None


def _draw(job: _Job, out: Path, records: list[Record], errors: Sequence[RecordError]) -> Written:
    """Write the report of these records, and name those that are left out."""
    notes: list[str] = []
    made = []
    for number, spec in enumerate(job.specs):
        job.moved("tables of papers", number, len(job.specs))
        made.append(fill(spec, records, Labels()))
    index = ["# Results", ""]
    grouped, kept = groups(records), Kept(out)
    files = _papers(made, out / "papers")
    planned = [plan(group, out / group.label, kept) if job.wish.figures else Planned() for group in grouped]
    kept.draw(partial(job.moved, "figures"))
    for number, (group, figures) in enumerate(zip(grouped, planned, strict=True)):
        job.moved("protocols", number, len(grouped))
        folder = out / group.label
        text = markdown(group)
        drawn = figures.drawn()
        notes += [f"{group.label}: {note}" for note in drawn.notes]
        pictures = "".join(f"\n![{p.caption}]({p.png.relative_to(folder)})\n" for p in drawn.pictures)
        for name, content in (
            ("table.md", f"# {group.title}\n\n{text}{pictures}"),
            ("table.csv", frame(group).to_csv(index=False, float_format="%.6f")),
            ("curves.csv", curves.frame(rows(group)).to_csv(index=False, float_format="%.6f")),
        ):
            write_atomically(folder / name, content.encode())
            files.append(folder / name)
        files += drawn.files
        index += [f"## {group.title}", "", text]
        for picture in (p for p in drawn.pictures if p.row is None):
            index += [f"![{picture.caption}]({picture.png.relative_to(out)})", ""]
    if not records:
        index += [f"No records in {job.cover.text(str(job.results))}.", ""]
    index += ["# Tables of papers", "", *(table_text.markdown(table) for table in made)]
    told = [RecordError(job.cover.text(str(error))) for error in errors]
    if told:
        index += ["# Left out", "", *(f"- {error}" for error in told), ""]
    job.moved("the page", 0, 1)
    thumbnails = page.Thumbnails(job.wish.thumbnails)
    with thumbnails.kept_in(out / THUMBNAILS):
        tables = [page.PaperTable(**table_text.as_plain(table)) for table in made]
        outcomes = KeptParts(out / OUTCOMES)
        html = page.build(
            records, told, grouped, tables, reported=job.specs, thumbnails=thumbnails, kept=outcomes
        )
        outcomes.write(forget=not job.wish.only)
    notes += thumbnails.notes
    # The list holds the names of figures, and those of other reports may tell what an anonymous one does not.
    anonymous = job.wish.telling is Telling.ANONYMOUS
    kept.write(forget=anonymous or (job.wish.figures and not job.wish.only))
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
