"""Document of the page: writes the HTML file around its data, styles and scripts.

Data go in as packed JSON, text is set by the page's script as text, and a content policy lists the page's own
scripts by hash, so that nothing a record says can run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from vcil_bench import __version__
from vcil_bench.record import Record, RecordError
from vcil_bench.report.kept_parts import KeptParts
from vcil_bench.report.layout import spans
from vcil_bench.report.table_file import TableSpec
from vcil_bench.report.tables import Group

from .content import content_of
from .packed import pack
from .rows import kind_of
from .thumbnails import Thumbnails

# The script's parts, in the order in which they need each other; they share one scope.
SCRIPTS = (
    *("packed", "data", "address", "tools", "colours", "plots", "exports"),
    *("filters", "leaderboard", "protocols", "curves"),
    *("statistics", "outcomes", "heat", "detail", "losses", "settings", "costs", "classes", "videos"),
    *("run", "row", "pairs", "compare", "routes", "start"),
)
STYLES = ("base", "home", "detail", "print")


@dataclass(frozen=True)
class PaperTable:
    """A table laid out as papers do, made elsewhere and shown as it is.

    Attributes:
        id: Name of its place on the page, unique.
        title: Heading.
        note: Shown below the table; may be empty.
        headers: Column headings.
        rows: Cells, one list per row, as long as ``headers``; of each cell the text ``ours``, and in ``rest``
            what it is compared with, or nothing.
        marks: For every cell ``""``, ``"best"`` (shown bold) or ``"second"`` (underlined); ``ours`` alone is
            marked.
        measured: Whether any number was measured here; tables of reported numbers alone are folded away.
        groups: Of each column what it shares with its neighbours, such as a dataset, or nothing; an empty list
            where there is one line of headings.
    """

    id: str
    title: str
    note: str
    headers: list[str]
    rows: list[list[dict[str, str]]]
    marks: list[list[str]]
    measured: bool = True
    groups: list[str] = field(default_factory=list)

    @property
    def heads(self) -> list[tuple[str, int]]:
        """The upper line of headings and how many columns each spans, 0 where it stands for both lines."""
        heads: list[tuple[str, int]] = []
        for title, first, end in spans(self.groups):
            heads += [(title, end - first)] if title else [(header, 0) for header in self.headers[first:end]]
        return heads


def build(
    records: list[Record],
    errors: Sequence[RecordError],
    groups: list[Group],
    extra_tables: list[PaperTable],
    *,
    reported: Sequence[TableSpec] = (),
    thumbnails: Thumbnails | None = None,
    kept: KeptParts | None = None,
) -> str:
    """Return the page; the same input gives the same text.

    Args:
        records: All records read.
        errors: One error per record that could not be read; they are listed.
        groups: The same records, sorted into groups that may share a table.
        extra_tables: Tables as papers have them.
        reported: Tables whose reported numbers stand beside measured ones.
        thumbnails: Makes pictures of test videos; None makes those of the embedded clips.
        kept: Parts that an earlier report has made; takes those that are made.
    """
    plotly, script = _asset("vendor/plotly-basic.min.js"), _script()
    kinds = {kind_of(group) for group in groups}
    counts = Counter(record.data["status"] for record in records)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _asset("page/page.html.j2")
    )
    page = template.render(
        version=__version__,
        # Only scripts with these hashes run, and nothing is loaded or sent.
        policy=f"default-src 'none'; script-src {_hash(script)} {_hash(plotly)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        css=Markup("\n".join(_asset(f"page/{name}.css") for name in STYLES)),
        data=pack(_json(content_of(records, groups, reported, thumbnails, kept))),
        script=Markup(script),
        plotly=pack(plotly.encode()),
        total=len(records),
        counts=[(status, counts[status]) for status in ("complete", "partial", "failed")],
        only_synthetic=bool(kinds) and all("synthetic" in kind for kind in kinds),
        tables=extra_tables,
        errors=[str(error) for error in errors],
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _script() -> str:
    """Return the page's script: its parts in a scope of their own, which may wait for what is unpacked."""
    parts = "\n".join(_asset(f"page/{name}.js") for name in SCRIPTS)
    return f'(async () => {{\n"use strict";\n\n{parts}}})();\n'


def _asset(name: str) -> str:
    return resources.files("vcil_bench.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(value: Any) -> bytes:
    """Return JSON as bytes; half of a surrogate pair, which a record may hold and no file can, becomes ``?``."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")
