"""Tables from records: one row per method, variant and readout, mean and deviation over class orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate

from vcil_bench.identity import SEED_PARTS, changed_since, differences, in_words, is_code
from vcil_bench.metrics import METRICS
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.record import Record

from .labels import Labels
from .ranking import EXPLANATION, Candidate, rank

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Group:
    """Records that may share a table: the same protocol fingerprint, kind of data and kind of weights.

    Attributes:
        label: Protocol label, the folder's name; ``@`` and a fingerprint where two share a label.
        title: Heading.
        records: All records, whatever their status.
    """

    label: str
    title: str
    records: list[Record]

    @property
    def metrics(self) -> list[str]:
        """Names of the protocol's metrics, the headline first."""
        chosen = self.records[0].data["protocol"]["metrics"]
        return [chosen["headline"], *chosen["also"]]


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed.

    Attributes:
        method: Method name.
        variant: What was changed on the command line.
        backbone: Backbone and, unless they are its own, its weights.
        readout: Name of the readout.
        complete: Finished runs, by seed.
        unfinished: Partial and failed runs.
        seeds: Number of seeds the protocol asks for.
        stale: What has changed since, an empty list if nothing has.
        origin: Name of who made the runs, empty for here.
    """

    method: str
    variant: str
    backbone: str
    readout: str
    complete: list[Record]
    unfinished: list[Record]
    seeds: int
    stale: list[str]
    origin: str = ""

    @property
    def runs(self) -> list[Record]:
        """All runs, finished or not."""
        return [*self.complete, *self.unfinished]

    @property
    def method_and_origin(self) -> str:
        """The method, and who ran it if that was elsewhere."""
        return self.with_origin(self.method)

    def with_origin(self, label: str) -> str:
        """Return what the method is called, and behind it who ran it if that was elsewhere."""
        return f"{label} [{self.origin}]" if self.origin else label

    def named(self, labels: Labels | None = None, *, on_backbone: bool = False) -> str:
        """Return a name for legends.

        Args:
            labels: What methods and readouts are called; None takes their names.
            on_backbone: Whether its backbone tells it from others, in the place of all that was set.
        """
        method = self.with_origin(labels.method(self.method) if labels else self.method)
        several = len(self.runs[0].data["method"]["readouts"]) > 1
        readout = (labels.readout(self.readout) if labels else self.readout) if several else ""
        what = "" if on_backbone or self.variant == "default" else self.variant
        name = " ".join(part for part in (method, what, readout) if part)
        return f"{name} on {self.backbone}" if on_backbone else name

    @property
    def has_chosen_backbone(self) -> bool:
        """Whether it ran on a backbone that the command line named."""
        return any(record.chosen_backbone for record in self.runs)

    @property
    def notes(self) -> str:
        """Notes shown beside a row."""
        notes = [f"{len(self.complete)} of {self.seeds} seeds"] if self.incomplete else []
        rest = notes_of(self.runs)
        return ", ".join([*notes, *([rest] if rest else [])])

    @property
    def incomplete(self) -> bool:
        """Whether seeds are missing, so that the mean is not the protocol's."""
        return not covers_seeds(self.complete)

    def values(self, metric: str) -> np.ndarray:
        """Return the metric of every finished seed, in percent."""
        return np.array([100 * r.metric(metric, self.readout) for r in self.complete])


def covers_seeds(complete: Sequence[Record]) -> bool:
    """Tell whether there is one finished run for each seed that the protocol asks for."""
    seeds = sorted(r.data["seed"] for r in complete)
    return bool(complete) and seeds == sorted(complete[0].data["protocol"]["seeds"])


def notes_of(runs: Sequence[Record]) -> str:
    """Return the notes on runs that share a row: unfinished, stale, unlike, videos left out."""
    complete = [r for r in runs if r.complete]
    notes = []
    for status in ("partial", "failed"):
        number = sum(r.data["status"] == status for r in runs)
        if number:
            notes.append(f"{number} {status}")
    stale = _stale(complete)
    if stale:
        notes.append(f"stale: {in_words(stale)} changed")
    unlike = _unlike(complete)
    if unlike:
        notes.append(f"seeds differ in {in_words(unlike)}")
    missing = {len(r.data["data"]["left_out"]) for r in complete} - {0}
    if missing:
        notes.append(f"{max(missing)} videos left out")
    checks = dict.fromkeys(check for check, _ in warnings_of(complete))
    if checks:
        notes.append(f"warned: {' and '.join(checks)}")
    notes += [run.origin.note for run in runs if run.origin is not None]
    return ", ".join(dict.fromkeys(notes))


def _stale(runs: Sequence[Record]) -> list[str]:
    """Return the parts that have changed since any of some runs was made."""
    return sorted({part for run in runs for part in changed_since(run)})


def _unlike(runs: Sequence[Record]) -> list[str]:
    """Return the parts in which runs on the same protocol differ, though they should in nothing but the seed."""
    first: dict[str, Record] = {}
    for run in runs:
        first.setdefault(run.data["protocol"]["label"], run)
    parts = {
        "code" if is_code(part) else part
        for run in runs
        for part in differences(
            first[run.data["protocol"]["label"]].data["identity"], run.data["identity"], ignoring=SEED_PARTS
        )
    }
    return sorted(parts)


def warnings_of(runs: Sequence[Record]) -> list[tuple[str, str]]:
    """Return what verification warned of, each check and sentence once."""
    warnings = [
        (finding["check"], finding["text"])
        for record in runs
        for finding in record.data["data"]["verified"]
        if finding["level"] in ("warning", "error")
    ]
    return list(dict.fromkeys(warnings))


def groups(records: Sequence[Record]) -> list[Group]:
    """Sort records into groups that may share a table; synthetic, random-weight and real ones never do."""
    sorted_out: dict[tuple[str, str, str, bool], list[Record]] = defaultdict(list)
    for record in records:
        data = record.data
        random = data["weights"]["source"] == "random"
        key = (
            data["protocol"]["label"],
            data["protocol"]["fingerprint"],
            data["data"]["kind"],
            random,
        )
        sorted_out[key].append(record)
    prints: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, set[str]] = defaultdict(set)
    for label, fingerprint, kind, _ in sorted_out:
        prints[label].add(fingerprint)
        kinds[label].add(kind)
    result = []
    for (label, fingerprint, kind, random), members in sorted(sorted_out.items()):
        name = f"{label}@{fingerprint[:8]}" if len(prints[label]) > 1 else label
        protocol = members[0].data["protocol"]
        title = f"{name}: {protocol['title']}" if protocol["title"] else name
        if protocol["overrides"]:
            changed = ", ".join(f"{k}={v}" for k, v in protocol["overrides"].items())
            title += f" [derived: {changed}]"
        if kind != "real" and len(kinds[label]) > 1:
            name += f"+{kind}"
        if kind != "real":
            title += f" [{kind} data]"
        if random:
            name += "+random-weights"
            title += " [random weights: no statement about any method]"
        result.append(Group(name, title, members))
    return result


def rows(group: Group) -> list[Row]:
    """Return the group's rows, sorted by method, variant and readout; runs from elsewhere have their own."""
    runs: dict[tuple[str, str, str, str], list[Record]] = defaultdict(list)
    for record in group.records:
        data = record.data
        weights = data["weights"]
        entry = BACKBONES.get(weights["name"])
        own_weights = entry is not None and weights["source"] == entry.own_source
        backbone = weights["name"] if own_weights else f"{weights['name']} ({Path(weights['source']).name})"
        runs[data["method"]["name"], data["variant"], backbone, origin_of(record)].append(record)
    result = []
    for (method, variant, backbone, origin), members in sorted(runs.items()):
        members = sorted(members, key=lambda r: r.data["seed"])
        complete = [r for r in members if r.complete]
        stale = _stale(complete)
        seeds = len(members[0].data["protocol"]["seeds"])
        unfinished = [r for r in members if not r.complete]
        for readout in members[0].data["method"]["readouts"]:
            result.append(Row(method, variant, backbone, readout, complete, unfinished, seeds, stale, origin))
    return result


def origin_of(record: Record) -> str:
    """Return the name of who made a record, empty for here."""
    return record.origin.name if record.origin is not None else ""


def frame(group: Group) -> pd.DataFrame:
    """Return the group's table: per metric a mean and a sample deviation over seeds, in percent."""
    import pandas as pd  # late: a run prints its table without it

    lines = []
    for row in rows(group):
        line: dict[str, object] = {
            "method": row.method,
            "origin": row.origin,
            "variant": row.variant,
            "backbone": row.backbone,
            "readout": row.readout,
            "n": len(row.complete),
            "seeds": row.seeds,
        }
        for metric in group.metrics:
            values = row.values(metric)
            line[f"{metric}_mean"] = values.mean() if len(values) else np.nan
            line[f"{metric}_std"] = values.std(ddof=1) if len(values) > 1 else np.nan
        line["notes"] = row.notes
        lines.append(line)
    return pd.DataFrame(lines)


def markdown(group: Group) -> str:
    """Return the table as Markdown, two decimals, with the formula of every metric under it."""
    lines = rows(group)
    signs = {"best": "**", "second": "*", "": ""}
    marked = marks(lines, group.metrics)
    table = []
    for row, mark in zip(lines, marked, strict=True):
        lacking = " (*)" if row.incomplete else ""
        cells = [
            f"{signs[m]}{cell_text(row.values(metric))}{signs[m]}{lacking}"
            for metric, m in zip(group.metrics, mark, strict=True)
        ]
        table.append(
            [
                row.method_and_origin,
                row.variant,
                row.backbone,
                row.readout,
                f"{len(row.complete)}/{row.seeds}",
                *cells,
                row.notes,
            ]
        )
    titles = [METRICS[m].title + (" ↑" if METRICS[m].higher_is_better else " ↓") for m in group.metrics]
    header = ["method", "variant", "backbone", "readout", "n", *titles, "notes"]
    table = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in table]
    text = tabulate(table, headers=header, tablefmt="pipe", disable_numparse=True)
    formulas = [f"{METRICS[m].title}: {METRICS[m].formula}." for m in group.metrics]
    warned = [" ".join(f"Warning, {check}: {text}.".split()) for check, text in warnings_of(group.records)]
    ranked = f" {EXPLANATION}" if any(any(mark) for mark in marked) else ""
    return (
        text + "\n\nPercent; mean ± sample standard deviation over seeds. n: finished runs of those the "
        f"protocol asks for; (*) marks rows where they are not all there.{ranked}\n"
        + "\n".join(f"- {line}" for line in [*formulas, *warned])
        + "\n"
    )


def marks(lines: Sequence[Row], metrics: Sequence[str]) -> list[list[str]]:
    """Return per row and metric ``best``, ``second`` or nothing."""
    columns = [[candidate.mark for candidate in standings(lines, metric)] for metric in metrics]
    return [list(row) for row in zip(*columns, strict=True)]


def standings(lines: Sequence[Row], metric: str) -> list[Candidate]:
    """Return how each row stands among its like by a metric."""
    column = [Candidate(row.complete, row.readout, not row.incomplete and not row.stale) for row in lines]
    rank(column, metric)
    return column


def cell_text(values: np.ndarray) -> str:
    """Return a metric over seeds as text: ``mean ± deviation``, two decimals; a dash without any."""
    if not len(values):
        return "–"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"
