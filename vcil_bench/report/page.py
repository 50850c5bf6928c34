"""The interactive report: one HTML file that needs no network and holds every run, not only the means.

Data go in as JSON, text is set by the page's script as text, and a content policy lists the page's own scripts
by hash, so that nothing a record says can run. What many records share (protocols, environments, class names)
is stored once and referred to by number.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment
from markupsafe import Markup
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from vcil_bench import __version__
from vcil_bench.common.config import parse_assignments
from vcil_bench.common.errors import UserError
from vcil_bench.identity import changed_since, in_words
from vcil_bench.metrics import METRICS
from vcil_bench.record import Record, RecordError

from .curves import accuracy_curve, forgetting_curve, legends
from .style import style_of
from .tables import Group, Row, marks, rows

FORGETTING = "backward_forgetting"
LOSS_VALUES = 900  # stored per run; a small plot shows no more, and long runs would fill the page
ORDER = ("real", "random weights", "synthetic")  # of kinds: what says something about methods comes first


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
    """

    id: str
    title: str
    note: str
    headers: list[str]
    rows: list[list[dict[str, str]]]
    marks: list[list[str]]


@dataclass
class _Pool:
    """Values that several runs share, each stored once."""

    values: list[Any] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def add(self, value: Any) -> int:
        """Return the number under which the page finds a value."""
        text = json.dumps(value, sort_keys=True)
        if text not in self.places:
            self.places[text] = len(self.values)
            self.values.append(value)
        return self.places[text]


def build(
    records: list[Record], errors: Sequence[RecordError], groups: list[Group], extra_tables: list[PaperTable]
) -> str:
    """Return the page; the same input gives the same text.

    Args:
        records: All records read.
        errors: One error per record that could not be read; they are listed.
        groups: The same records, sorted into groups that may share a table.
        extra_tables: Tables as papers have them.
    """
    plotly, script = get_plotlyjs(), _asset("page.js")
    kinds = {_kind(group) for group in groups}
    counts = Counter(record.data["status"] for record in records)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _asset("page.html.j2")
    )
    page = template.render(
        version=__version__,
        # Only scripts with these hashes run, and nothing is loaded or sent.
        policy=f"default-src 'none'; script-src {_hash(script)} {_hash(plotly)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        css=Markup(_asset("page.css")),
        data=Markup(_embedded(_data(records, groups))),
        script=Markup(script),
        plotly=Markup(plotly),
        total=len(records),
        counts=[(status, counts[status]) for status in ("complete", "partial", "failed")],
        only_synthetic=bool(kinds) and all("synthetic" in kind for kind in kinds),
        tables=extra_tables,
        errors=[str(error) for error in errors],
    )
    # A record may hold half of a surrogate pair, which no file can.
    return page.encode("utf-8", "replace").decode("utf-8")


def _asset(name: str) -> str:
    return resources.files("vcil_bench.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _embedded(value: Any) -> str:
    """Return JSON that a browser reads whatever its texts hold: ``<`` written out, so that no tag can end it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(records: Sequence[Record], groups: Sequence[Group]) -> dict[str, Any]:
    """Return all that the page's script works on."""
    pool = _Pool()
    names = _names(records)
    numbers = {record.path: number for number, record in enumerate(records)}
    places: dict[Path, tuple[int, int]] = {}
    sections: list[dict[str, Any]] = []
    ordered = sorted(groups, key=lambda group: ORDER.index(_kind(group).partition(",")[0]))
    for group in ordered:
        lines: list[dict[str, Any]] = []
        group_rows = rows(group)
        ranked = marks(group_rows, [group.metrics[0], FORGETTING])
        for row, legend, ranks in zip(group_rows, legends(group_rows), ranked, strict=True):
            runs = sorted([*row.complete, *row.unfinished], key=lambda r: r.data["seed"])
            for record in runs:
                places.setdefault(record.path, (len(sections), len(lines)))
            line = _row(group, row, legend, [numbers[record.path] for record in runs])
            lines.append(line | {"marks": ranks})
        sections.append(_section(group, lines))
    return {
        "metrics": {
            name: {"title": metric.title, "formula": metric.formula, "up": metric.higher_is_better}
            for name, metric in METRICS.items()
        },
        "groups": sections,
        "runs": [
            _run(record, name, places.get(record.path), pool)
            for record, name in zip(records, names, strict=True)
        ],
        "pool": pool.values,
        "styles": _styles({record.data["method"]["name"] for record in records}),
    }


def _styles(methods: Iterable[str]) -> dict[str, list[str]]:
    """Return colour, marker and the marker as a character, by method."""
    styles = {}
    for method in sorted(methods):
        style = style_of(method)
        styles[method] = [style.colour, style.marker, style.glyph]
    return styles


def _names(records: Sequence[Record]) -> list[str]:
    """Return a name per record that nothing else on the page has: its run id, numbered where copies share it."""
    taken: set[str] = set()
    names = []
    for record in records:
        name, number = record.data["run_id"], 1
        while name in taken:
            number += 1
            name = f"{record.data['run_id']}~{number}"
        taken.add(name)
        names.append(name)
    return names


def _kind(group: Group) -> str:
    """Return what a group's numbers are made from; groups of different kinds are never shown as one."""
    data = group.records[0].data
    synthetic = data["data"]["kind"] == "synthetic"
    random = data["weights"]["source"] == "random"
    if synthetic:
        return "synthetic, random weights" if random else "synthetic"
    return "random weights" if random else "real"


def _section(group: Group, lines: list[dict[str, Any]]) -> dict[str, Any]:
    protocol = group.records[0].data["protocol"]
    return {
        "label": group.label,
        "title": group.title,
        "protocol": protocol["name"],
        "version": protocol["version"],
        "fingerprint": protocol["fingerprint"],
        "dataset": protocol["dataset"]["name"],
        "kind": _kind(group),
        "metrics": group.metrics,
        "rows": lines,
    }


def _row(group: Group, row: Row, legend: str, runs: list[int]) -> dict[str, Any]:
    """Return a line of the overview: runs that differ in nothing but the seed."""
    first = (row.complete or row.unfinished)[0].data
    notes = [row.notes] if row.notes else []
    for record in row.unfinished:
        if record.data["reason"]:
            notes.append(f"seed {record.data['seed']} {record.data['status']}: {record.data['reason']}")
    times = [_training_seconds(record) for record in row.complete]
    line: dict[str, Any] = {
        "method": row.method,
        "origin": row.origin,
        "variant": row.variant,
        "backbone": row.backbone,
        "pretraining": first["weights"]["pretraining"],
        "readout": row.readout,
        "legend": legend,
        "seeds": row.seeds,
        "complete": len(row.complete),
        "incomplete": row.incomplete,
        "headline": _spread(row.values(group.metrics[0])),
        "forgetting": _spread(row.values(FORGETTING)),
        "memory": _memory(row.complete),
        "train_s": round(float(np.mean(times)), 3) if times else None,
        "notes": notes,
        "stale": bool(row.stale),
        "runs": runs,
    }
    if row.complete:
        line["curve"] = {
            "seen": np.cumsum(first["classes_per_task"]).tolist(),
            "accuracy": _band([accuracy_curve(record, row.readout) for record in row.complete]),
            "forgetting": _band([forgetting_curve(record, row.readout) for record in row.complete]),
        }
    return line


def _spread(values: NDArray[np.float64]) -> list[float | None] | None:
    """Return mean and sample deviation; None without values, no deviation of a single one."""
    if not len(values):
        return None
    return [
        round(float(values.mean()), 4),
        round(float(values.std(ddof=1)), 4) if len(values) > 1 else None,
    ]


def _band(curves: Sequence[NDArray[np.float64]]) -> dict[str, list[float]]:
    values = np.stack(curves)
    band = {"mean": np.round(values.mean(axis=0), 3).tolist()}
    if len(values) > 1:
        band["std"] = np.round(values.std(axis=0, ddof=1), 3).tolist()
    return band


def _training_seconds(record: Record) -> float:
    return sum(step["costs"]["train_s"] for step in record.data["steps"])


def _memory(records: Iterable[Record]) -> dict[str, int] | None:
    """Return the most that any of the finished runs kept after its last step, None where there are none."""
    uses = [record.data["steps"][-1]["costs"]["memory"] for record in records]
    if not uses:
        return None
    return {
        "videos": max(use["videos"] for use in uses),
        "frames": max(use["frames"] for use in uses),
        "bytes": max(use["bytes"] for use in uses),
        "statistics_bytes": max(use.get("statistics_bytes", 0) for use in uses),
    }


def _run(record: Record, name: str, place: tuple[int, int] | None, pool: _Pool) -> dict[str, Any]:
    """Return all that a run's page shows."""
    data = record.data
    steps = data["steps"]
    changed = changed_since(record)
    run: dict[str, Any] = {
        "id": name,
        "file": record.place,
        "origin": record.origin.note if record.origin is not None else "",
        "place": list(place) if place else None,
        "command": command(record),
        "stale": in_words(changed, most=len(changed)),
        "correct": {
            readout: [step["correct"][readout] for step in steps] for readout in data["method"]["readouts"]
        },
        "seen": [step["classes_seen"] for step in steps],
        "costs": _columns([_flat(step["costs"]) for step in steps]),
        "losses": _losses(steps),
        "sessions": [
            {"started": session["started"], **_environment(session["environment"], pool)}
            for session in data["sessions"]
        ],
        "environment": _environment(data["environment"], pool),
        "values": _values(record),
    }
    for key in ("status", "reason", "started", "finished", "variant", "seed", "run_seed", "predictions"):
        run[key] = data[key]
    for key in (
        *("protocol", "method", "config", "options", "data", "weights"),
        *("class_names", "class_order", "classes_per_task", "test_videos"),
    ):
        run[key] = pool.add(data[key])  # type: ignore[literal-required]
    return run


def _environment(environment: Mapping[str, Any], pool: _Pool) -> dict[str, Any]:
    """Part an environment into the command, which is every run's own, and the rest, which runs share."""
    rest = {key: value for key, value in environment.items() if key != "command"}
    return {"environment": pool.add(rest), "command": environment["command"]}


def _values(record: Record) -> dict[str, dict[str, float]]:
    """Return the protocol's metrics and forgetting of a complete run, in percent, by readout."""
    if not record.complete:
        return {}
    chosen = record.data["protocol"]["metrics"]
    names = dict.fromkeys([chosen["headline"], *chosen["also"], FORGETTING])
    return {
        readout: {name: round(100 * record.metric(name, readout), 4) for name in names}
        for readout in record.data["method"]["readouts"]
    }


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested sections as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat


def _columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turn lines into columns, which name every key once; None where a line lacks it."""
    keys = dict.fromkeys(key for line in lines for key in line)
    return {key: [line.get(key) for line in lines] for key in keys}


def _losses(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the loss terms of all epochs as columns, every n-th epoch of runs with very many."""
    lines = [
        {"step": i, **{key: _short(value) for key, value in line.items()}}
        for i, step in enumerate(steps)
        for line in step["losses"]
    ]
    terms = dict.fromkeys(key for line in lines for key in line if key not in ("step", "phase", "epoch"))
    every = max(1, math.ceil(len(lines) * len(terms) / LOSS_VALUES))
    # An epoch is kept by its place from the end of its step, so that the last one always is.
    ends = Counter(line["step"] for line in lines)
    kept = []
    for line in lines:
        ends[line["step"]] -= 1
        if ends[line["step"]] % every == 0:
            kept.append(line)
    return {"every": every, "terms": list(terms), **_columns(kept)}


def _short(value: Any) -> Any:
    """Return a number with the digits that a plot shows."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def command(record: Record) -> str:
    """Return the command line that makes a record anew, quoted for a shell."""
    data = record.data
    method, protocol = data["method"], data["protocol"]
    words = [
        *("vcil-bench", "run"),
        method["file"] if method["origin"] == "file" else method["name"],
        record.protocol_reference,
        *("--seed", str(data["seed"])),
    ]
    if data["data"]["kind"] != "synthetic":
        words += ["--data", data["data"]["root"]]
    given = {f"protocol.{key}": value for key, value in protocol["overrides"].items()}
    for section in (data["options"], data["config"]):
        given |= {
            key: setting["value"] for key, setting in section.items() if setting["origin"] == "command line"
        }
    if given:
        words += ["--set", *(f"{key}={_assigned(value)}" for key, value in given.items())]
    return shlex.join(str(word) for word in words)


def _assigned(value: Any) -> str:
    """Return a value as ``--set`` reads it back: YAML takes JSON's 1e-05 for a text, for one."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
    for text in (str(value), json.dumps(value, ensure_ascii=False), dumped.removesuffix("\n...\n").strip()):
        try:
            back = parse_assignments([f"key={text}"])["key"]
        except UserError:
            continue
        if type(back) is type(value) and back == value:
            return text
    return json.dumps(value)
