"""Runs on the page: arranges all that the page of one run shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vcil_bench.identity import changed_since, in_words, is_code
from vcil_bench.metrics import METRICS
from vcil_bench.record import Record

from .command import command
from .leaderboard import FORGETTING, points
from .pool import Pool

LOSS_VALUES = 480  # stored per run; a small plot shows no more, and long runs would fill the page


def run_of(record: Record, name: str, place: tuple[int, int] | None, pool: Pool) -> dict[str, Any]:
    """Return all that a run's page shows."""
    data = record.data
    steps = data["steps"]
    changed = changed_since(record)
    run: dict[str, Any] = {
        "id": name,
        "file": record.place,
        "origin": record.origin.note if record.origin is not None else "",
        "place": list(place) if place else None,
        "group": place[0] if place else None,
        "row": place[1] if place else None,
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
        "code": pool.add({name: digest for name, digest in data["identity"].items() if is_code(name)}),
    }
    for key in ("status", "reason", "started", "finished", "variant", "seed", "run_seed", "predictions"):
        run[key] = data[key]
    for key in (
        *("protocol", "method", "config", "options", "data", "weights"),
        *("class_names", "class_order", "classes_per_task", "test_videos"),
    ):
        run[key] = pool.add(data[key])  # type: ignore[literal-required]
    return run


def _environment(environment: Mapping[str, Any], pool: Pool) -> dict[str, Any]:
    """Part an environment into the command, which is every run's own, and the rest, which runs share."""
    rest = {key: value for key, value in environment.items() if key != "command"}
    return {"environment": pool.add(rest), "command": environment["command"]}


def _values(record: Record) -> dict[str, dict[str, float]]:
    """Return every metric of a complete run in percent, by readout; those of its protocol first."""
    if not record.complete:
        return {}
    chosen = record.data["protocol"]["metrics"]
    names = dict.fromkeys([chosen["headline"], *chosen["also"], FORGETTING, *METRICS])
    return {
        readout: {name: points(record.metric(name, readout)) for name in names}
        for readout in record.data["method"]["readouts"]
    }


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested sections as one, keys joined by dots; numbers with six digits."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = _short(value, 6)
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


def _short(value: Any, digits: int = 4) -> Any:
    """Return a number with the digits that a plot or a table shows."""
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
