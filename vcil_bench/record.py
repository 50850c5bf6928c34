"""Records: the evidence behind a number, one JSON file per run, from which every metric is derived.

A record stores integer counts, never rounded percentages. It is rewritten atomically after every task
(``partial``) and last when the run is ``complete``; predictions lie beside it in an ``.npz``. Only complete
records count. This module imports neither torch nor any method.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .metrics import METRICS, accuracy_matrix
from .storage import write_atomically

SCHEMA = 1
SUPERSEDED = "superseded"


class RecordError(UserError):
    """A record file that is damaged, of another schema, or inconsistent."""


class RecordData(TypedDict):
    """The JSON of a record, schema 1."""

    schema: int
    run_id: str  # <protocol label>/<method>/<variant>-s<seed>
    status: str  # complete | partial | failed
    reason: str | None  # why it failed
    started: str  # UTC, ISO 8601, of the first session
    finished: str | None
    protocol: dict[str, Any]  # name, label, version, fingerprint, overrides, dataset, metrics, spec
    method: dict[str, Any]  # name, paper, readouts, origin, file, sha256, bases, distribution, version
    variant: str  # what the command line changed, "default" if nothing
    seed: int  # of the class order
    run_seed: int  # of initialisation, shuffling and frame sampling
    config: dict[str, dict[str, Any]]  # key -> value, origin (default | recipe ... | command line)
    options: dict[str, dict[str, Any]]  # the same for run options
    class_order: list[int]
    class_names: list[str]  # in id order
    classes_per_task: list[int]
    test_videos: list[int]  # per task
    steps: list[dict[str, Any]]  # step, classes_seen, correct {readout: [per task]}, costs, losses
    predictions: dict[str, str] | None  # file, sha256
    data: dict[str, Any]  # kind, dataset, split, root, manifest_sha256, counts, left_out, decoder, verified
    weights: dict[str, Any]  # name, source, sha256, pretraining
    sessions: list[dict[str, Any]]  # started and environment of each process, one per resumption
    environment: dict[str, Any]  # of the last session: git, python, torch, device, threads, command ...


# What a record's data section says of videos that training and testing share (``data.manifest.summary``).
LEAKS = ("test_videos_sharing_a_group_with_train", "identical_files_in_train_and_test")
LARGEST_ARRAY = 2**28  # bytes; the names of 200,000 test videos take a quarter of it
REFERENCE = "reference"  # folder of the records that come with the harness
# What readers of a record rely on, section by section.
SECTIONS = {
    "protocol": (
        *("name", "label", "version", "title", "fingerprint", "origin", "overrides", "dataset"),
        *("metrics", "seeds"),
    ),
    "method": (
        *("name", "paper", "readouts", "origin", "file", "sha256", "bases"),
        *("data_access", "uses_memory"),
    ),
    "data": ("kind", "dataset", "manifest_sha256", "left_out"),
    "weights": ("name", "source", "sha256", "pretraining"),
}


@dataclass(frozen=True)
class Record:
    """A record read from disk."""

    path: Path
    data: RecordData

    @property
    def complete(self) -> bool:
        """Whether the run went through all its tasks."""
        return self.data["status"] == "complete"

    def matrix(self, readout: str) -> NDArray[np.float64]:
        """Return the accuracy matrix [S, S] of a complete record, fractions."""
        correct = [step["correct"][readout] for step in self.data["steps"]]
        return accuracy_matrix(correct, self.data["test_videos"])

    def metric(self, name: str, readout: str) -> float:
        """Compute a metric of a complete record from its counts, as a fraction."""
        return METRICS[name].compute(
            self.matrix(readout),
            np.asarray(self.data["test_videos"], dtype=np.float64),
            np.asarray(self.data["classes_per_task"], dtype=np.float64),
        )


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def variant_name(overrides: Mapping[str, Any]) -> str:
    """Name a variant after what the command line changed; long names end in a hash."""
    if not overrides:
        return "default"
    text = "+".join(f"{key}={value}" for key, value in sorted(overrides.items()))
    clean = re.sub(r"[^A-Za-z0-9._=+-]+", "_", text)
    plain = not any(sign in str(value) for value in overrides.values() for sign in "+=")
    if clean == text and plain and len(clean) <= 80:
        return clean
    return f"{clean[:70]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def record_path(results: Path, protocol_label: str, method: str, variant: str, seed: int) -> Path:
    """Return ``results/<protocol>/<method>/<variant>-s<seed>.json``."""
    return results / protocol_label / method / f"{variant}-s{seed}.json"


def predictions_path(record: Path) -> Path:
    """Return where a record's predictions lie."""
    return record.with_suffix(".npz")


def checkpoint_path(record: Path) -> Path:
    """Return where the checkpoint of an unfinished run lies."""
    return record.with_suffix(".ckpt.safetensors")


def save(path: Path, data: RecordData) -> None:
    """Write a record atomically."""
    write_atomically(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def save_predictions(path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write prediction arrays as a compressed npz and return its SHA-256."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(sorted(arrays.items())))  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def load(path: Path) -> Record:
    """Read and check a record.

    Raises:
        RecordError: Names the file and what is wrong with it.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"{path}: corrupt record ({error}); move it away or run again with --force") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise RecordError(f"{path}: record schema {schema!r}, this version reads schema {SCHEMA}")
    missing = [key for key in RecordData.__annotations__ if key not in data]
    if missing:
        raise RecordError(f"{path}: corrupt record (no {missing[0]!r}); move it away or run again with --force")
    try:
        _check(data)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        advice = "move it away or run again with --force"
        raise RecordError(f"{path}: inconsistent record ({error}); {advice}") from error
    try:
        _check_predictions(path, data)
    except (KeyError, TypeError, IndexError, ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordError(
            f"{predictions_path(path)}: damaged predictions ({error}); run again with --force"
        ) from error
    return Record(path, data)


def load_all(results: Path) -> tuple[list[Record], list[RecordError]]:
    """Read every record below a results folder, sorted by path; superseded ones are passed over.

    Records in its folder ``reference``, which come with the harness, count where there is none of the same run.

    Returns:
        The records and, for each file that could not be read, its error.
    """
    records, errors = [], []
    own = {path.relative_to(results): path for path in results.glob("*/*/*.json")}
    shipped = {path.relative_to(results / REFERENCE): path for path in (results / REFERENCE).glob("*/*/*.json")}
    for path in sorted((shipped | own).values()):
        try:
            found = load(path)
            _check_place(found)
            records.append(found)
        except RecordError as error:
            errors.append(error)
    return records, errors


def _check_place(found: Record) -> None:
    """Refuse a record that lies elsewhere than its run wrote it: a copy would count as another run.

    Raises:
        RecordError: Says where it belongs.
    """
    data = found.data
    own = record_path(Path(), data["protocol"]["label"], data["method"]["name"], data["variant"], data["seed"])
    if found.path.parts[-3:] != own.parts:
        raise RecordError(f"{found.path}: a record of {own}; a copy elsewhere is not read, move it there")


def supersede(path: Path) -> Path:
    """Move a record and its predictions into ``superseded/<time>/`` beside it, their names kept."""
    number = 1
    while (folder := path.parent / SUPERSEDED / f"{now().replace(':', '')}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    target = folder / path.name
    if predictions_path(path).exists():
        predictions_path(path).replace(predictions_path(target))
    path.replace(target)
    return target


def _check(data: RecordData) -> None:
    """Check the counts against each other, so that a damaged record cannot become a number."""
    if data["status"] not in ("complete", "partial", "failed"):
        raise ValueError(f"status {data['status']!r}")
    totals, steps = data["test_videos"], data["steps"]
    if len(data["classes_per_task"]) != len(totals) or sum(data["classes_per_task"]) != len(data["class_order"]):
        raise ValueError("tasks and class order do not agree")
    if data["status"] == "complete" and len(steps) != len(totals):
        raise ValueError(f"{len(steps)} steps of {len(totals)} in a complete record")
    for i, step in enumerate(steps):
        for readout in data["method"]["readouts"]:
            counts = step["correct"][readout]
            if len(counts) != i + 1 or not all(
                isinstance(c, int) and 0 <= c <= n for c, n in zip(counts, totals, strict=False)
            ):
                raise ValueError(f"counts of step {i}, readout {readout!r}")
    if not all(isinstance(n, int) and n >= 1 for n in totals):
        raise ValueError(f"test videos {totals}")
    for section, keys in SECTIONS.items():
        for key in keys:
            data[section][key]  # type: ignore[literal-required]
    for where, value, kind in _typed(data):
        if not isinstance(value, kind):
            raise ValueError(f"{where} {value!r}")
    if sorted(data["class_order"]) != list(range(len(data["class_order"]))):
        raise ValueError("the class order holds a class twice or lacks one")
    if not data["method"]["readouts"] or not data["protocol"]["seeds"]:
        raise ValueError("no readout, or no seed")
    json.dumps(data, ensure_ascii=False).encode("utf-8")  # half a character could not be written again
    metrics = data["protocol"]["metrics"]
    for metric in (metrics["headline"], *metrics["also"]):
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}")


def _typed(data: RecordData) -> list[tuple[str, Any, type]]:
    """Return what reports index or iterate, with the type it must have."""
    found: list[tuple[str, Any, type]] = [
        ("seed", data["seed"], int),
        ("protocol.seeds", data["protocol"]["seeds"], list),
        ("protocol.overrides", data["protocol"]["overrides"], dict),
        ("method.bases", data["method"]["bases"], dict),
        ("method.readouts", data["method"]["readouts"], list),
        ("data.left_out", data["data"]["left_out"], list),
        ("config", data["config"], dict),
        ("options", data["options"], dict),
        ("environment", data["environment"], dict),
        ("sessions", data["sessions"], list),
        ("predictions", data["predictions"], (dict, type(None))),  # type: ignore[list-item]
    ]
    found += [(f"protocol.seeds[{i}]", seed, int) for i, seed in enumerate(data["protocol"]["seeds"] or ())]
    found += [
        (f"{name}.{key}", value, dict) for name in ("config", "options") for key, value in data[name].items()
    ]
    verified = data["data"].get("verified", [])  # left out by older records
    found += [("data.verified", verified, list)]
    found += [
        (f"data.verified[{i}].{key}", one[key], str)
        for i, one in enumerate(verified)
        for key in ("level", "check", "text")
    ]
    found += [(f"costs of step {i}", step.get("costs"), dict) for i, step in enumerate(data["steps"])]
    return found


def _check_predictions(path: Path, data: RecordData) -> None:
    """Check the counts against the predictions they were made from, where these lie beside the record.

    Raises:
        RecordError: The predictions are not those the record was written with, or give other counts.
    """
    stored, source = data["predictions"], predictions_path(path)
    if stored is None or not source.is_file():
        return
    content = source.read_bytes()
    if hashlib.sha256(content).hexdigest() != stored["sha256"]:
        raise RecordError(
            f"{source}: not the predictions that {path.name} was written with; run again with --force"
        )
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        largest = max((member.file_size for member in members.infolist()), default=0)
    if largest > LARGEST_ARRAY:
        raise ValueError(f"an array of {largest} bytes, more than any run predicts")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        labels, tasks = arrays["labels"], arrays["task"]
        for i, step in enumerate(data["steps"]):
            for readout in data["method"]["readouts"]:
                best = arrays[f"top5/{i}/{readout}"][:, 0]
                seen = len(best)
                hits = tasks[:seen][best == labels[:seen]]
                if np.bincount(hits, minlength=i + 1).tolist() != step["correct"][readout]:
                    raise RecordError(
                        f"{path}: its counts of step {i}, readout {readout!r}, are not those of its "
                        "predictions; it was changed by hand, run again with --force"
                    )
