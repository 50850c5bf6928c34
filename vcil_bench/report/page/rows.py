"""Rows on the page: arranges runs that differ in nothing but the seed, and the protocols they stand under."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcil_bench.record import Record
from vcil_bench.report.curves import accuracy_curve, forgetting_curve
from vcil_bench.report.tables import Group, Row

from .leaderboard import heads_of


def kind_of(group: Group) -> str:
    """Return what a group's numbers are made from; groups of different kinds are never shown as one."""
    data = group.records[0].data
    synthetic = data["data"]["kind"] == "synthetic"
    random = data["weights"]["source"] == "random"
    if synthetic:
        return "synthetic, random weights" if random else "synthetic"
    return "random weights" if random else "real"


def section_of(group: Group, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a protocol's part of the page, with its rows."""
    protocol = group.records[0].data["protocol"]
    return {
        "label": group.label,
        "title": group.title,
        "protocol": protocol["name"],
        "version": protocol["version"],
        "fingerprint": protocol["fingerprint"],
        "kind": kind_of(group),
        "metrics": group.metrics,
        "rows": lines,
        **heads_of(group),
    }


def row_of(group: Group, row: Row, legend: str, runs: list[int]) -> dict[str, Any]:
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
        "feature_frames": max(use.get("feature_frames", 0) for use in uses),
        "bytes": max(use["bytes"] for use in uses),
        "statistics_bytes": max(use.get("statistics_bytes", 0) for use in uses),
    }
