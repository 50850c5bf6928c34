"""The comparison tables of papers, regenerated: our runs beside the published numbers, cell by cell.

Published numbers come from ``published.csv`` alone, with their source; ours from records alone. A cell is of
ours only if the run is the one the paper's row describes: the protocol as it is (no derived one), real data and
weights, the method's defaults but for what the row changes. Runs on different backbones, precisions or budgets
stand in lines of their own, and are ranked only against runs whose weights saw the same data.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from tabulate import tabulate

from vcil_bench.common.config import build
from vcil_bench.identity import changed_since, fingerprint_now
from vcil_bench.metrics import METRICS, STEP_METRICS
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.options import RESULT_NEUTRAL
from vcil_bench.protocol import load
from vcil_bench.record import Record

from .ranking import EXPLANATION, Candidate, rank
from .significance import Comparison
from .systems import PAGE, missing
from .tables import covers_seeds, notes_of, origin_of

if TYPE_CHECKING:
    import pandas as pd

BWF = "backward_forgetting"
# Options that do not make another experiment, and those that have lines of their own; a run that sets any other
# one is a variant, not the paper's row.
FREE_OPTIONS = RESULT_NEUTRAL | {"backbone", "precision", "store"}

Value = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """A row as ``papers.yaml`` gives it; see its head."""

    label: str
    published: str | None = None
    exemplars: str = ""
    method: str | None = None
    readouts: list[str] = field(default_factory=list)
    config: dict[str, Value] = field(default_factory=dict)
    overrides: dict[str, Value] = field(default_factory=dict)
    provides: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """A table as ``papers.yaml`` gives it; see its head."""

    id: str
    title: str
    sources: list[str]
    tables: list[str]
    note: str
    metric: str
    published_metric: str
    protocols: list[str]
    rows: list[RowSpec]
    metrics: dict[str, str] = field(default_factory=dict)
    readouts: dict[str, str] = field(default_factory=dict)
    bwf: bool = False
    steps: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        protocol: Name of the protocol.
        metric: Our metric.
        published_metric: The metric's name in ``published.csv``.
        readout: Our readout; None takes the method's headline.
        published_readout: The readout's name there; None takes any.
        step: The step after which the metric is taken, from 0; None for a metric of the whole run.
    """

    protocol: str
    metric: str
    published_metric: str
    readout: str | None
    published_readout: str | None
    step: int | None = None

    @property
    def title(self) -> str:
        """A heading."""
        parts = [self.protocol, self.published_readout or "", "BWF" if self.metric == BWF else ""]
        if self.step is not None:
            parts.append(f"{STEP_METRICS[self.metric].title} after task {self.step}")
        return " ".join(part for part in parts if part)

    @property
    def formula(self) -> str:
        """The metric in words."""
        metric = METRICS[self.metric] if self.step is None else STEP_METRICS[self.metric]
        return f"{metric.title}: {metric.formula}."

    def value(self, record: Record, readout: str) -> float:
        """Return our number of a finished record, a fraction."""
        if self.step is None:
            return record.metric(self.metric, readout)
        return float(record.step_metric(self.metric, readout)[self.step])


@dataclass
class Cell:
    """One cell.

    Attributes:
        values: Our metric per finished seed, in percent.
        possible: Whether there is a method of ours, with this readout.
        seeds: Seeds the protocol asks for.
        published: The published number.
        source: Where it was published.
        comparable: Whether ours and the published one start from the same kind of weights.
        mark: ``best`` or ``second`` among like, of complete cells.
        versus: The paired comparison with the best of its like, None for that one itself.
        records: The finished records behind ``values``.
    """

    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    possible: bool = True
    seeds: int = 0
    published: float | None = None
    source: str = ""
    comparable: bool = False
    mark: str = ""
    versus: Comparison | None = None
    records: list[Record] = field(default_factory=list)
    readout: str = ""

    @property
    def run(self) -> bool:
        """Whether there is a number of ours."""
        return len(self.values) > 0

    @property
    def complete(self) -> bool:
        """Whether all seeds the protocol asks for are there."""
        return self.run and covers_seeds(self.records)

    @property
    def stale(self) -> bool:
        """Whether code or protocol have changed since."""
        return any(changed_since(r) for r in self.records)

    @property
    def mean(self) -> float:
        """Our mean."""
        return float(self.values.mean())

    @property
    def deviation(self) -> float | None:
        """The sample deviation over class orders, None for a single one."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the published number, where they compare."""
        if not self.run or self.published is None or not self.comparable:
            return None
        return self.mean - self.published

    @property
    def ours(self) -> str:
        """Our number as text: ``mean ± deviation`` and, where seeds are missing, ``(n/N)``."""
        if not self.run:
            return "not run" if self.possible else "–"
        spread = f" ± {self.deviation:.2f}" if self.deviation is not None else ""
        return f"{self.mean:.2f}{spread}" + ("" if self.complete else f" ({len(self.values)}/{self.seeds})")


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        label: The row's label in the paper.
        backbone: Of our runs, with precision if it is not fp32; a dash where nothing was run.
        exemplars: The budget of our runs.
        pretraining: Data our weights were trained on.
        cells: One per column.
        notes: Shown beside the line (LaTeX: below the table), such as stale runs.
    """

    label: str
    backbone: str
    exemplars: str
    pretraining: str
    cells: list[Cell]
    notes: str


@dataclass(frozen=True)
class Table:
    """A finished table."""

    spec: TableSpec
    columns: list[Column]
    lines: list[Line]

    @property
    def caption(self) -> str:
        """The note, the formula of every metric of ours, and why methods of the paper are not here."""
        formulas = " ".join(dict.fromkeys(column.formula for column in self.columns))
        reasons = missing(row.published for row in self.spec.rows if row.published and row.method is None)
        absent = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
        note = f"{self.spec.note} Not implemented here: {absent}; see {PAGE}." if absent else self.spec.note
        return (
            f"{note} {formulas} Percent; ours is the mean ± sample standard deviation over the "
            "protocol's seeds, which set initialisation, shuffling and, where the protocol draws one, the class "
            "order; (n/N) where seeds are missing."
        )


@functools.cache
def specs() -> list[TableSpec]:
    """Return the tables of ``papers.yaml``."""
    text = (resources.files("vcil_bench.report") / "papers.yaml").read_text(encoding="utf-8")
    return [build(TableSpec, raw, f"papers.yaml: {raw.get('id')}") for raw in yaml.safe_load(text)]


@functools.cache
def published() -> pd.DataFrame:
    """Return the published numbers, one per line, with source, trust and where they stand."""
    import pandas as pd

    with (resources.files("vcil_bench.report") / "published.csv").open(encoding="utf-8") as file:
        numbers = pd.read_csv(file, dtype=str, keep_default_na=False)
    return numbers.assign(value=numbers["value"].astype(float))


@functools.cache
def _published_by_cell() -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Return the published numbers of a protocol, method and metric, in the file's order."""
    by_cell = defaultdict(list)
    for number in published().to_dict("records"):
        by_cell[number["protocol"], number["method"], number["metric"]].append(number)
    return dict(by_cell)


def tables(records: Sequence[Record]) -> list[Table]:
    """Regenerate every table from records and published numbers."""
    usable = [r for r in records if r.data["weights"]["source"] != "random"]
    return [_table(spec, usable) for spec in specs()]


def columns_of(spec: TableSpec) -> list[Column]:
    """Return a table's columns."""
    columns = []
    for protocol in spec.protocols:
        metric = spec.metrics.get(protocol, spec.metric)
        for theirs, ours in spec.readouts.items() or [(None, None)]:
            columns.append(Column(protocol, metric, spec.published_metric, ours, theirs))
        if spec.bwf:
            columns.append(Column(protocol, BWF, "BWF", None, None))
        for step_metric, theirs in spec.steps.items():
            for step in range(len(load(protocol).spec.tasks.sizes)):
                columns.append(Column(protocol, step_metric, f"{theirs} {step}", None, None, step))
    return columns


def _table(spec: TableSpec, records: Sequence[Record]) -> Table:
    columns = columns_of(spec)
    lines: list[Line] = []
    for row in spec.rows:
        alike: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for record in records:
            if _belongs(record, row, spec):
                alike[_likeness(record)].append(record)
        if not alike or (row.published is not None and not any(kind == "real" for kind, *_ in alike)):
            alike["real",] = []  # what was published never stands in a line of runs on rendered clips
        for key in sorted(alike):
            shown = row if key[0] == "real" else dataclasses.replace(row, published=None)
            cells = [_cell(spec, shown, column, alike[key]) for column in columns]
            lines.append(Line(row.label, *_description(alike[key]), cells, notes_of(alike[key])))
    for i, column in enumerate(columns):
        if column.step is not None:  # a curve is not ranked point by point
            continue
        cells = [line.cells[i] for line in lines]
        candidates = [Candidate(c.records, c.readout, c.complete and not c.stale) for c in cells]
        rank(candidates, column.metric)
        for cell, candidate in zip(cells, candidates, strict=True):
            cell.mark, cell.versus = candidate.mark, candidate.versus
    return Table(spec, columns, lines)


def _belongs(record: Record, row: RowSpec, spec: TableSpec) -> bool:
    """Tell whether a record is a run of a row: that method, that config, on the protocol as it is today."""
    data = record.data
    protocol = data["protocol"]
    if data["method"]["name"] != row.method or protocol["name"] not in spec.protocols:
        return False
    if protocol["overrides"] != row.overrides:
        return False
    backbone = BACKBONES.get(data["weights"]["name"])
    if row.provides is not None and (backbone is None or row.provides not in backbone.provides):
        return False
    if fingerprint_now(protocol["name"], row.overrides) != protocol["fingerprint"]:
        return False
    if data["data"]["kind"] != _kind_of(protocol["name"]):
        return False
    changed = {k: v["value"] for k, v in data["config"].items() if v["origin"] == "command line"}
    options = {k for k, v in data["options"].items() if v["origin"] == "command line"}
    return changed == row.config and options <= FREE_OPTIONS


@functools.cache
def _kind_of(protocol: str) -> str:
    """Return the kind of data that a table's protocol is about: only the embedded ones take rendered clips."""
    return "synthetic" if load(protocol).spec.dataset.name == "synthetic" else "real"


def _likeness(record: Record) -> tuple[str, ...]:
    """Return what separates lines: kind of data, a backbone of one's choice, how it computed, pretraining.

    A method's own backbone and the budget follow from the protocol and stand in one line.
    """
    data = record.data
    return data["data"]["kind"], record.chosen_backbone, _computing(record), data["weights"]["pretraining"]


def _computing(record: Record) -> str:
    """Return precision, kind of frames and origin of a run, empty for fp32 on frames from videos, run here."""
    precision = str(record.data["options"]["precision"]["value"])
    store = record.data["data"]["store"]
    parts = [precision] if precision != "fp32" else []
    if store:
        cap = f", at most {store['max_frames']} a video" if store["max_frames"] else ""
        parts.append(f"JPEG frames of quality {store['quality']}{cap}")
    if origin_of(record):
        parts.append(f"run by {origin_of(record)}")
    return ", ".join(parts)


def _description(members: Sequence[Record]) -> tuple[str, str, str]:
    """Return backbones (and precision), exemplar budgets and pretraining data of a line's runs."""
    if not members:
        return "–", "–", "–"
    backbones = {", ".join(filter(None, (r.data["weights"]["name"], _computing(r)))) for r in members}
    columns = backbones, {_exemplars(r) for r in members}, {r.data["weights"]["pretraining"] for r in members}
    first, second, third = (" / ".join(sorted(values)) for values in columns)
    return first, second, third


def _exemplars(record: Record) -> str:
    data = record.data
    if data["method"]["data_access"] == "cumulative":
        return "all videos"
    budget = data["protocol"]["spec"]["memory"]
    if not data["method"]["uses_memory"] or not budget:
        return "0"
    size = f"{budget['per_class']}/class" if budget["per_class"] else f"{budget['total']} in total"
    filled = ", interpolated" if budget.get("fill") == "interpolate" else ""  # older records do not have it
    return f"{size}, {budget['frames']} frames{filled}"


def _cell(spec: TableSpec, row: RowSpec, column: Column, members: Sequence[Record]) -> Cell:
    readable = column.readout is None or not row.readouts or column.readout in row.readouts
    cell = Cell(possible=row.method is not None and readable)
    mine = [r for r in members if r.data["protocol"]["name"] == column.protocol]
    mine = [r for r in mine if column.readout in (None, *r.data["method"]["readouts"])]
    if mine:
        cell.readout = column.readout or mine[0].data["method"]["readouts"][0]
        cell.records = sorted((r for r in mine if r.complete), key=lambda r: r.data["seed"])
        cell.values = np.array([100 * column.value(r, cell.readout) for r in cell.records])
        cell.seeds = len(mine[0].data["protocol"]["seeds"])
    if row.published is not None:
        theirs = [
            number
            for number in _published_by_cell().get((column.protocol, row.published, column.published_metric), [])
            if number["source"] in spec.sources
            and number["table"] in spec.tables
            and number["exemplars"].endswith(row.exemplars)
            and column.published_readout in (None, number["readout"])
        ]
        if theirs:
            first = theirs[0]
            cell.published = float(first["value"])
            cell.source = f"{first['source']}, {first['table']} ({first['trust']})"
            cell.comparable = bool(mine) and _alike(first["backbone"], mine[0])
    return cell


def _alike(theirs: str, ours: Record) -> bool:
    """Tell whether a run starts from the kind of weights that a published number does."""
    weights = ours.data["weights"]
    if "CLIP" in theirs:
        return (weights["name"], weights["source"]) == ("clip_vit_b16", "openai")
    return "ResNet" in theirs and "ImageNet-1k" in weights["pretraining"]


def frame(table: Table) -> pd.DataFrame:
    """Return a table in long form, one line per cell, for ``.csv``."""
    import pandas as pd

    lines = []
    for line in table.lines:
        for column, cell in zip(table.columns, line.cells, strict=True):
            lines.append(
                {
                    "table": table.spec.id,
                    "row": line.label,
                    "origin": ", ".join(dict.fromkeys(filter(None, map(origin_of, cell.records)))),
                    "backbone": line.backbone,
                    "exemplars": line.exemplars,
                    "pretraining": line.pretraining,
                    "protocol": column.protocol,
                    "readout": cell.readout or column.readout or "",
                    "metric": column.metric,
                    "step": "" if column.step is None else column.step,
                    "ours_mean": cell.mean if cell.run else np.nan,
                    "ours_std": cell.deviation if cell.run and cell.deviation is not None else np.nan,
                    "n": len(cell.values),
                    "seeds": cell.seeds,
                    "published": cell.published if cell.published is not None else np.nan,
                    "difference": cell.difference if cell.difference is not None else np.nan,
                    "source": cell.source,
                    "mark": cell.mark,
                    "behind_best_low": cell.versus.low * 100 if cell.versus else np.nan,
                    "behind_best_high": cell.versus.high * 100 if cell.versus else np.nan,
                    "sign_test_p": cell.versus.sign_p if cell.versus else np.nan,
                    "notes": line.notes,
                }
            )
    return pd.DataFrame(lines)


def texts(cell: Cell) -> dict[str, str]:
    """Return the parts of a cell as text: ours, published and difference."""
    difference = cell.difference
    return {
        "ours": cell.ours,
        "published": "–" if cell.published is None else f"{cell.published:.2f}",
        "difference": "" if difference is None else f"{difference:+.2f}",
    }


def as_plain(table: Table) -> dict[str, Any]:
    """Return headers, rows and marks, for pages and Markdown; for a cell see ``PaperTable``."""
    headers = ["method", "backbone", "exemplars", "pretraining", *(c.title for c in table.columns), "notes"]
    rows, marks = [], []
    for line in table.lines:
        cells = []
        for cell in line.cells:
            t = texts(cell)
            rest = ""
            if cell.published is not None:
                rest = t["published"] + (f" ({t['difference']})" if t["difference"] else "")
            cells.append({"ours": t["ours"], "rest": rest})
        before = (line.label, line.backbone, line.exemplars, line.pretraining)
        rows.append([*map(_alone, before), *cells, _alone(line.notes)])
        marks.append(["", "", "", "", *(cell.mark for cell in line.cells), ""])
    note = "Each cell: ours | published (difference). " + table.caption
    return {
        "id": table.spec.id,
        "title": table.spec.title,
        "note": note,
        "headers": headers,
        "rows": rows,
        "marks": marks,
    }


def _alone(text: str) -> dict[str, str]:
    """Return a cell that is not compared with anything."""
    return {"ours": text, "rest": ""}


def markdown(table: Table) -> str:
    """Return a table as Markdown, best in bold, second best in italics."""
    plain = as_plain(table)
    sign = {"best": "**", "second": "*", "": ""}
    lines = []
    for row, marks in zip(plain["rows"], plain["marks"], strict=True):
        line = []
        for cell, mark in zip(row, marks, strict=True):
            rest = f" / {cell['rest']}" if cell["rest"] else ""
            line.append(f"{sign[mark]}{cell['ours']}{sign[mark]}{rest}".replace("|", "/"))
        lines.append(line)
    text = tabulate(lines, headers=plain["headers"], tablefmt="pipe", disable_numparse=True)
    cells = "Cells: ours / published (difference)."
    return f"## {table.spec.title}\n\n{text}\n\n{table.caption}\n\n{EXPLANATION} {cells}\n"
