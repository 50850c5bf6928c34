"""A comparison table filled: what was measured here beside what papers report, cell by cell.

Reported numbers come from ``published.csv`` or the table's file, with their source; measured ones from records
alone. A cell is measured only if the run is the one the row describes: the protocol as it is (no derived one),
real data and weights, the method's defaults but for what the row changes. Runs on different backbones,
precisions or budgets stand in lines of their own, and are ranked only against runs whose weights saw the same
data.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vcil_bench.identity import changed_since, fingerprint_now
from vcil_bench.metrics import METRICS, STEP_METRICS
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.options import RESULT_NEUTRAL
from vcil_bench.record import Record

from .labels import Labels
from .published import number_of
from .ranking import Candidate, rank
from .significance import Comparison
from .systems import PAGE, missing
from .table_file import RowSpec, TableSpec, protocol_of
from .tables import covers_seeds, notes_of, origin_of

BWF = "backward_forgetting"
# Options that do not make another experiment, and those that have lines of their own; a run that sets any other
# one is a variant, not the paper's row.
FREE_OPTIONS = RESULT_NEUTRAL | {"backbone", "precision", "store"}


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
        """A heading made of names, and the column's key in a row's ``reported``."""
        return " ".join(part for part in (self.protocol, self.leaf) if part)

    @property
    def leaf(self) -> str:
        """What tells the column from others of its protocol: readout, forgetting, or a step."""
        parts = [self.published_readout or "", "BWF" if self.metric == BWF else ""]
        if self.step is not None:
            parts.append(f"{STEP_METRICS[self.metric].title} after task {self.step}")
        return " ".join(part for part in parts if part)

    @property
    def formula(self) -> str:
        """The metric in words."""
        metric = METRICS[self.metric] if self.step is None else STEP_METRICS[self.metric]
        return f"{metric.title}: {metric.formula}."

    def value(self, record: Record, readout: str) -> float:
        """Return the number of a finished record, a fraction."""
        if self.step is None:
            return record.metric(self.metric, readout)
        return float(record.step_metric(self.metric, readout)[self.step])


@dataclass
class Cell:
    """One cell.

    Attributes:
        values: The metric per finished seed, in percent.
        possible: Whether there is a method here, with this readout.
        seeds: Seeds the protocol asks for.
        published: The reported number.
        source: Where it was published.
        comparable: Whether the measured and the reported one start from the same kind of weights.
        mark: ``best`` or ``second`` among like, of complete cells.
        versus: The paired comparison with the best of its like, None for that one itself.
        records: The finished records behind ``values``.
        readout: Their readout.
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
        """Whether there is a measured number."""
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
        """The measured mean."""
        return float(self.values.mean())

    @property
    def deviation(self) -> float | None:
        """The sample deviation over class orders, None for a single one."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """The measured minus the reported number, where they compare."""
        if not self.run or self.published is None or not self.comparable:
            return None
        return self.mean - self.published

    @property
    def measured(self) -> str:
        """The measured number as text: ``mean ± deviation`` and, where seeds are missing, ``(n/N)``."""
        if not self.run:
            return "not run" if self.possible else "–"
        spread = f" ± {self.deviation:.2f}" if self.deviation is not None else ""
        return f"{self.mean:.2f}{spread}" + ("" if self.complete else f" ({len(self.values)}/{self.seeds})")


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        label: The row's label.
        backbone: Of the runs, with precision if it is not fp32; a dash where nothing was run.
        exemplars: The budget of the runs.
        pretraining: Data their weights were trained on.
        cells: One per column.
        notes: Shown beside the line (LaTeX: below the table), such as stale runs.
        added: Whether no row of the table's file is about it.
    """

    label: str
    backbone: str
    exemplars: str
    pretraining: str
    cells: list[Cell]
    notes: str
    added: bool = False


@dataclass(frozen=True)
class Table:
    """A finished table."""

    spec: TableSpec
    columns: list[Column]
    lines: list[Line]

    @property
    def measured(self) -> bool:
        """Whether any cell holds a measured number."""
        return any(cell.run for line in self.lines for cell in line.cells)

    @property
    def caption(self) -> str:
        """The note, the formula of every metric, and why methods of the paper are not here."""
        formulas = " ".join(dict.fromkeys(column.formula for column in self.columns))
        reasons = missing(row.published for row in self.spec.rows if row.published and row.method is None)
        absent = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
        note = f"{self.spec.note} Not implemented here: {absent}; see {PAGE}." if absent else self.spec.note
        return (
            f"{note} {formulas} Percent; what was measured here is the mean ± sample standard deviation over "
            "the protocol's seeds, which set initialisation, shuffling and, where the protocol draws one, the "
            "class order; (n/N) where seeds are missing."
        ).strip()


def fill(spec: TableSpec, records: Sequence[Record], labels: Labels) -> Table:
    """Fill a table from records and reported numbers.

    Args:
        spec: The table.
        records: Any records; those with random weights are passed over.
        labels: What methods that the table does not name are called.
    """
    records = [r for r in records if r.data["weights"]["source"] != "random"]
    columns = columns_of(spec)
    added = _further_rows(spec, records, labels) if spec.comparison else []
    lines: list[Line] = []
    for row in (*spec.rows, *added):
        alike: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for record in records:
            if _belongs(record, row, spec):
                alike[_likeness(record)].append(record)
        if not alike or (_is_reported(row) and not any(kind == "real" for kind, *_ in alike)):
            alike["real",] = []  # what was published never stands in a line of runs on rendered clips
        for key in sorted(alike):
            shown = row if key[0] == "real" else dataclasses.replace(row, published=None, reported={})
            cells = [_cell(spec, shown, column, alike[key]) for column in columns]
            about, notes = describe(alike[key]), notes_of(alike[key])
            lines.append(Line(row.label, *about, cells, notes, added=any(row is other for other in added)))
    for i, column in enumerate(columns):
        if column.step is not None:  # a curve is not ranked point by point
            continue
        cells = [line.cells[i] for line in lines]
        candidates = [Candidate(c.records, c.readout, c.complete and not c.stale) for c in cells]
        rank(candidates, column.metric)
        for cell, candidate in zip(cells, candidates, strict=True):
            cell.mark, cell.versus = candidate.mark, candidate.versus
    return Table(spec, columns, lines)


def columns_of(spec: TableSpec) -> list[Column]:
    """Return a table's columns."""
    columns = []
    for reference in spec.protocols:
        metric = spec.metrics.get(reference, spec.metric)
        protocol = protocol_of(reference).name
        for theirs, ours in spec.readouts.items() or [(None, None)]:
            columns.append(Column(protocol, metric, spec.published_metric, ours, theirs))
        if spec.bwf:
            columns.append(Column(protocol, BWF, "BWF", None, None))
        for step_metric, theirs in spec.steps.items():
            for step in range(len(protocol_of(reference).spec.tasks.sizes)):
                columns.append(Column(protocol, step_metric, f"{theirs} {step}", None, None, step))
    return columns


def _further_rows(spec: TableSpec, records: Sequence[Record], labels: Labels) -> list[RowSpec]:
    """Return a row for every method that has runs on the table's protocols and none of its rows.

    A method that was run as it is has one row; one that was only ever run with something set, one for each.
    """
    configs: dict[str, list[dict[str, bool | int | float | str]]] = defaultdict(list)
    for record in records:
        config = _changed(record)
        name = record.data["method"]["name"]
        row = RowSpec(label="", method=name, config=config)
        is_new = config not in configs[name] and not any(
            r.method == name and r.config == config for r in spec.rows
        )
        if is_new and _belongs(record, row, spec):
            configs[name].append(config)
    rows = []
    for name, several in sorted(configs.items()):
        named = any(row.method == name for row in spec.rows)  # then these are variants of a row that is there
        chosen = [config for config in several if not config] or ([] if named else several)
        for config in sorted(chosen, key=str):
            changed = ", ".join(f"{key}={value}" for key, value in config.items())
            label = labels.method(name) + (f" ({changed})" if changed else "")
            rows.append(RowSpec(label=label, method=name, config=config))
    return rows


def _is_reported(row: RowSpec) -> bool:
    return row.published is not None or bool(row.reported)


def _changed(record: Record) -> dict[str, bool | int | float | str]:
    """Return the keys of a run's config that its command line set."""
    return {k: v["value"] for k, v in sorted(record.data["config"].items()) if v["origin"] == "command line"}


def _belongs(record: Record, row: RowSpec, spec: TableSpec) -> bool:
    """Tell whether a record is a run of a row: that method, that config, on the protocol as it is today."""
    data = record.data
    if data["method"]["name"] != row.method:
        return False
    protocol, reference = data["protocol"], record.as_written.protocol_reference
    if reference not in spec.protocols:
        return False
    if protocol["overrides"] != row.overrides:
        return False
    backbone = BACKBONES.get(data["weights"]["name"])
    if row.provides is not None and (backbone is None or row.provides not in backbone.provides):
        return False
    if fingerprint_now(reference, row.overrides) != protocol["fingerprint"]:
        return False
    if data["data"]["kind"] != kind_of(reference):
        return False
    options = {k for k, v in data["options"].items() if v["origin"] == "command line"}
    return _changed(record) == row.config and options <= FREE_OPTIONS


@functools.cache
def kind_of(protocol: str) -> str:
    """Return the kind of data that a protocol is about: only the embedded ones take rendered clips."""
    return "synthetic" if protocol_of(protocol).spec.dataset.name == "synthetic" else "real"


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


def describe(members: Sequence[Record]) -> tuple[str, str, str]:
    """Return backbones (and precision), exemplar budgets and pretraining data of a line's runs."""
    if not members:
        return "–", "–", "–"
    backbones = {", ".join(filter(None, (r.data["weights"]["name"], _computing(r)))) for r in members}
    columns = backbones, {exemplars_of(r) for r in members}, {r.data["weights"]["pretraining"] for r in members}
    first, second, third = (" / ".join(sorted(values)) for values in columns)
    return first, second, third


def exemplars_of(record: Record) -> str:
    """Return the budget of exemplars that a run was given; of one that keeps features, what it kept."""
    data = record.data
    if data["method"]["data_access"] == "cumulative":
        return "all videos"
    if data["steps"]:
        kept = data["steps"][-1]["costs"]["memory"]
        if features := kept.get("feature_frames"):  # older records do not have it
            return f"features of {features} frames of {kept['videos']} videos"
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
    theirs = number_of(
        spec, row, column.title, column.protocol, column.published_metric, column.published_readout
    )
    if theirs is not None:
        cell.published, cell.source = theirs.value, theirs.source
        cell.comparable = bool(mine) and _alike(theirs.backbone, mine[0])
    return cell


def _alike(theirs: str, ours: Record) -> bool:
    """Tell whether a run starts from the kind of weights that a published number does."""
    weights = ours.data["weights"]
    if "CLIP" in theirs:
        return (weights["name"], weights["source"]) == ("clip_vit_b16", "openai")
    return "ResNet" in theirs and "ImageNet-1k" in weights["pretraining"]
