"""Records: the evidence behind a number, one JSON file per run, from which every metric is derived.

A record stores integer counts, never rounded percentages. It is rewritten atomically after every task
(``partial``) and last when the run is ``complete``; predictions lie beside it in an ``.npz``. Only complete
records count. This module imports neither torch nor any method.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import re
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from . import metrics, record_schema
from . import origin as origins
from .common import config
from .common.config import LARGEST_NUMBER
from .common.errors import UserError
from .common.files import code_sha256, file_sha256, write_atomically
from .metrics import METRICS, STEP_METRICS, accuracy_matrix
from .origin import Origin
from .record_schema import RecordData

SCHEMA = 1
SUPERSEDED = "superseded"


class RecordError(UserError):
    """A record file that is damaged, of another schema, or inconsistent."""


TOP = 5  # best labels stored of every prediction
LARGEST_ARRAY = 2**28  # bytes; the names of 200,000 test videos take a quarter of it
REFERENCE = "reference"  # folder of the records that come with the harness
DEEPEST = 32  # levels of nested values; what walks through them need not fear for its stack
ADVICE = "move it away or run again with --force"


@dataclass
class Sound:
    """Records that were found to be sound, as hashes of their files, their predictions and the code that checks.

    Attributes:
        before: Those of the last time.
        now: Those of this time.
    """

    before: Collection[str] = ()
    now: set[str] = field(default_factory=set)

    def name(self, record: bytes, predictions: Path) -> str:
        """Return the hash of a record's file and of the predictions beside it."""
        stored = file_sha256(predictions) if predictions.is_file() else ""
        return hashlib.sha256(f"{_code()} {stored} ".encode() + record).hexdigest()


@dataclass(frozen=True)
class Record:
    """A record read from disk.

    Attributes:
        path: Its file.
        data: What it says, or what a report is to show of that.
        origin: Where it was made, None for here.
        written: All that the file says, where ``data`` is less; None where ``data`` is all.
    """

    path: Path
    data: RecordData
    origin: Origin | None = None
    written: RecordData | None = None

    @property
    def complete(self) -> bool:
        """Whether the run went through all its tasks."""
        return self.data["status"] == "complete"

    @property
    def as_written(self) -> Record:
        """The record as its file has it."""
        return self if self.written is None else Record(self.path, self.written, self.origin)

    @property
    def place(self) -> str:
        """Where it lies below a results folder, which tells nothing of the machine."""
        data = self.data
        place = record_path(
            Path(), data["protocol"]["label"], data["method"]["name"], data["variant"], data["seed"]
        )
        if self.origin is not None:
            place = Path(origins.ELSEWHERE, self.origin.name) / place
        elif REFERENCE in self.path.parts[-4:-3]:
            place = REFERENCE / place
        return place.as_posix()

    @property
    def protocol_reference(self) -> str:
        """Name under which the protocol is found again; the path of one that is not built in."""
        protocol = self.data["protocol"]
        return protocol["name"] if protocol["origin"].startswith("protocols/") else protocol["origin"]

    @property
    def chosen_backbone(self) -> str:
        """The backbone that the command line named, empty where the method took its own."""
        chosen = self.data["options"]["backbone"]["origin"] == "command line"
        return self.data["weights"]["name"] if chosen else ""

    def matrix(self, readout: str) -> NDArray[np.float64]:
        """Return the accuracy matrix [S, S] of a complete record, fractions; it cannot be written to."""
        if readout not in self._matrices:
            correct = [step["correct"][readout] for step in self.data["steps"]]
            self._matrices[readout] = accuracy_matrix(correct, self.data["test_videos"])
            self._matrices[readout].setflags(write=False)
        return self._matrices[readout]

    @cached_property
    def _matrices(self) -> dict[str, NDArray[np.float64]]:
        """Matrices that were asked for: a report asks for each dozens of times."""
        return {}

    @cached_property
    def _metrics(self) -> dict[tuple[str, str], float]:
        """Metrics that were asked for, likewise."""
        return {}

    def metric(self, name: str, readout: str) -> float:
        """Compute a metric of a complete record from its counts, as a fraction."""
        if (name, readout) not in self._metrics:
            self._metrics[name, readout] = METRICS[name].compute(
                self.matrix(readout),
                np.asarray(self.data["test_videos"], dtype=np.float64),
                np.asarray(self.data["classes_per_task"], dtype=np.float64),
            )
        return self._metrics[name, readout]

    def outcome(self, readout: str) -> str:
        """Return a hash of what was learnt in which order and recognised, by which comparisons are kept."""
        if readout not in self._outcomes:
            data = self.data
            parts = [
                *(data["seed"], data["predictions"], data["class_order"], data["classes_per_task"]),
                *(data["test_videos"], [step["correct"][readout] for step in data["steps"]]),
            ]
            self._outcomes[readout] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self._outcomes[readout]

    @cached_property
    def _outcomes(self) -> dict[str, str]:
        """Hashes that were asked for, likewise."""
        return {}

    def step_metric(self, name: str, readout: str) -> NDArray[np.float64]:
        """Compute a metric that has a value after every step, of a complete record, as fractions [S]."""
        totals = np.asarray(self.data["test_videos"], dtype=np.float64)
        return STEP_METRICS[name].compute(self.matrix(readout), totals)


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# Keys that a variant's name says first, since a long one is cut: what kind of network was trained.
SAID_FIRST = ("tuning", "dist_start")


def variant_name(overrides: Mapping[str, Any]) -> str:
    """Name a variant after what the command line changed; long names end in a hash."""
    if not overrides:
        return "default"
    keys = sorted(overrides, key=lambda key: (key not in SAID_FIRST, key))
    text = "+".join(f"{key}={overrides[key]}" for key in keys)
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


def load(path: Path, origin: Origin | None = None, sound: Sound | None = None) -> Record:
    """Read and check a record, its counts against its predictions where these are there.

    Args:
        path: Its file.
        origin: Where it was made, None for here.
        sound: Records that need no check, since nothing of them has changed; takes those that passed one.

    Raises:
        RecordError: Names the file and what is wrong with it.
    """
    if sound is None:
        return _checked(path, origin)
    try:
        content = path.read_bytes()
        name = sound.name(content, predictions_path(path))
    except OSError as error:
        raise RecordError(f"{path}: corrupt record ({error}); {ADVICE}") from error
    known = name in sound.before
    record = Record(path, json.loads(content), origin) if known else _checked(path, origin)
    sound.now.add(name)
    return record


def _checked(path: Path, origin: Origin | None) -> Record:
    record = read(path, origin)
    if has_predictions(record):
        check_predictions(record)
    return record


def read(path: Path, origin: Origin | None = None) -> Record:
    """Read a record and check its form, but not its predictions.

    Raises:
        RecordError: Names the file and what is wrong with it.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_key_once)
    except (OSError, ValueError, RecursionError) as error:  # a ValueError, too, are numbers of 5000 digits
        raise RecordError(f"{path}: corrupt record ({error}); {ADVICE}") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise RecordError(f"{path}: record schema {schema!r}, this version reads schema {SCHEMA}")
    try:
        _check_values(data, "$")
        msgspec.convert(data, RecordData)
        _check(data)
    except (msgspec.ValidationError, ValueError) as error:
        raise RecordError(f"{path}: inconsistent record ({error}); {ADVICE}") from error
    return Record(path, data, origin)


def load_all(results: Path, sound: Sound | None = None) -> tuple[list[Record], list[RecordError]]:
    """Read every record below a results folder, sorted by path; superseded ones are passed over.

    Records in its folder ``reference``, which come with the harness, count where there is none of the same run
    on the same protocol: one of an earlier version of the protocol hides nothing. Those below ``elsewhere/NAME``
    were made by others and carry their origin.

    Args:
        results: The folder.
        sound: Records that need no check, see ``load``.

    Returns:
        The records and, for each file that could not be read, its error.
    """
    shipped, errors = _load_below(results / REFERENCE, sound)
    made_here, others = _load_below(results, sound)
    ran = {(place, record.data["protocol"]["fingerprint"]) for place, record in made_here.items()}
    kept = [r for place, r in shipped.items() if (place, r.data["protocol"]["fingerprint"]) not in ran]
    sent, more = _load_elsewhere(results / origins.ELSEWHERE, sound)
    everything = [*kept, *made_here.values(), *sent]
    return sorted(everything, key=lambda record: record.path), [*errors, *others, *more]


def _load_elsewhere(folder: Path, sound: Sound | None) -> tuple[list[Record], list[RecordError]]:
    """Read the records that others made, each sender's below a folder of its own."""
    records: list[Record] = []
    errors: list[RecordError] = []
    for place in sorted(path for path in folder.glob("*") if path.is_dir()):
        try:
            origin = origins.read(place)
        except UserError as error:
            errors.append(RecordError(str(error)))
            continue
        some, others = _load_below(place, sound, origin)
        records += some.values()
        errors += others
    return records, errors


def _load_below(
    folder: Path, sound: Sound | None, origin: Origin | None = None
) -> tuple[dict[Path, Record], list[RecordError]]:
    """Read the records of a folder by their places in it, and the errors of those that cannot be read."""
    records, errors = {}, []
    for path in sorted(folder.glob("*/*/*.json")):
        try:
            record = load(path, origin, sound)
            _check_place(record)
            records[path.relative_to(folder)] = record
        except RecordError as error:
            errors.append(error)
    return records, errors


def _check_place(record: Record) -> None:
    """Refuse a record that lies elsewhere than its run wrote it: a copy would count as another run.

    Raises:
        RecordError: Says where it belongs.
    """
    data = record.data
    place = record_path(Path(), data["protocol"]["label"], data["method"]["name"], data["variant"], data["seed"])
    if record.path.parts[-3:] != place.parts:
        raise RecordError(f"{record.path}: a record of {place}; a copy elsewhere is not read, move it there")


def supersede(path: Path) -> Path:
    """Move a record and its predictions into ``superseded/<time>/`` beside it, their names kept."""
    for number in itertools.count(1):
        folder = path.parent / SUPERSEDED / f"{now().replace(':', '')}-{number}"
        with contextlib.suppress(FileExistsError):  # of another seed that is moved aside at this moment, too
            folder.mkdir(parents=True)
            break
    target = folder / path.name
    if predictions_path(path).exists():
        predictions_path(path).replace(predictions_path(target))
    path.replace(target)
    return target


@cache
def _code() -> str:
    """Return a hash of what checks records: these modules and the versions of the libraries."""
    files = (__file__, *(str(part.__file__) for part in (record_schema, metrics, config)))
    return code_sha256(files, np.__version__, msgspec.__version__)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a mapping of a file's keys and values, none of which may silently replace another."""
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        twice = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return mapping


def _check_values(value: Any, where: str, depth: int = 0) -> None:
    """Refuse what JSON of Python's can hold and no reader can use, wherever it stands.

    Raises:
        ValueError: Names the place.
    """
    if depth > DEEPEST:
        raise ValueError(f"{where}: nested more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(key, where, depth)
            _check_values(inner, f"{where}.{key}", depth + 1)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _check_values(inner, f"{where}[{i}]", depth + 1)
    elif isinstance(value, str):
        value.encode()  # half a character could not be written again
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is no finite number")
    elif isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
        raise ValueError(f"{where}: {str(value)[:24]}... is no whole number below 2^53")


def _check(data: RecordData) -> None:
    """Check the counts against each other, so that a damaged record cannot become a number.

    Raises:
        ValueError: Names what does not agree.
    """
    totals, steps, sizes = data["test_videos"], data["steps"], data["classes_per_task"]
    order, names, readouts = data["class_order"], data["class_names"], data["method"]["readouts"]
    if len(sizes) != len(totals) or sum(sizes) != len(order):
        raise ValueError("tasks and class order do not agree")
    if sorted(order) != list(range(len(order))):
        raise ValueError("the class order holds a class twice or lacks one")
    if len(names) != len(order):
        raise ValueError(f"{len(names)} class names of {len(order)} classes")
    if len(steps) > len(totals) or (data["status"] == "complete" and len(steps) != len(totals)):
        raise ValueError(f"{len(steps)} steps of {len(totals)} in a {data['status']} record")
    if len(set(readouts)) != len(readouts):
        raise ValueError(f"a readout is there twice: {readouts}")
    for i, step in enumerate(steps):
        if (step["step"], step["classes_seen"]) != (i, sum(sizes[: i + 1])):
            raise ValueError(f"step {i} says it is step {step['step']} with {step['classes_seen']} classes seen")
        for readout in readouts:
            counts = step["correct"].get(readout, [])
            if len(counts) != i + 1 or any(c > n for c, n in zip(counts, totals, strict=False)):
                raise ValueError(f"counts of step {i}, readout {readout!r}: {counts}")
    for option in ("backbone", "precision"):  # which tables read
        if option not in data["options"]:
            raise ValueError(f"the run option {option!r} is not there")
    metrics = data["protocol"]["metrics"]
    for metric in (metrics["headline"], *metrics["also"]):
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}")


@dataclass(frozen=True)
class Predictions:
    """Stored predictions of a run, of V test videos in the order of the tasks.

    Attributes:
        videos: Names [V].
        labels: Labels [V]; they count classes in the order in which they are learnt.
        tasks: Task of each video [V].
        best: Per readout and step, the label that each video tested so far was taken for.
    """

    videos: NDArray[np.str_]
    labels: NDArray[np.int64]
    tasks: NDArray[np.int64]
    best: dict[str, list[NDArray[np.int64]]]


def has_predictions(record: Record) -> bool:
    """Tell whether the predictions of a run lie beside its record."""
    return record.data["predictions"] is not None and predictions_path(record.path).is_file()


def read_predictions(record: Record) -> Predictions:
    """Read the predictions beside a record.

    Raises:
        RecordError: They are damaged, or not those the record was written with.
    """
    path, stored = predictions_path(record.path), record.data["predictions"]
    assert stored is not None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != stored["sha256"]:
        raise RecordError(
            f"{path}: not the predictions that {record.path.name} was written with; run again with --force"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            largest = max((member.file_size for member in members.infolist()), default=0)
        if largest > LARGEST_ARRAY:
            raise ValueError(f"an array of {largest} bytes, more than any run predicts")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return _arrays(record.data, arrays)
    except _UNREADABLE as error:
        raise RecordError(f"{path}: damaged predictions ({error}); run again with --force") from error


# What zipfile, zlib and numpy raise on bytes that are no npz of theirs.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)


def _arrays(data: RecordData, arrays: Mapping[str, NDArray[Any]]) -> Predictions:
    """Check an npz's arrays against a record's tasks.

    Raises:
        ValueError: Names the array that does not fit.
    """
    totals, ends = data["test_videos"], np.cumsum(data["classes_per_task"])
    labels = _whole(arrays, "labels", (sum(totals),), int(ends[-1]))
    tasks = _whole(arrays, "task", (sum(totals),), len(totals))
    videos = np.asarray(arrays["videos"])
    if videos.shape != labels.shape or videos.dtype.kind != "U":
        raise ValueError("'videos' are not the names of the test videos")
    if not np.array_equal(tasks, np.repeat(np.arange(len(totals)), totals)):
        raise ValueError("other test videos than the record's")
    best = {
        readout: [
            _whole(arrays, f"top5/{i}/{readout}", (sum(totals[: i + 1]), TOP), int(ends[i]), lowest=-1)[:, 0]
            for i in range(len(data["steps"]))
        ]
        for readout in data["method"]["readouts"]
    }
    if any((guesses < 0).any() for steps in best.values() for guesses in steps):
        raise ValueError("a video that was taken for no class")
    return Predictions(videos, labels, tasks, best)


def _whole(
    arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], end: int, lowest: int = 0
) -> NDArray[np.int64]:
    """Return an array of whole numbers of this shape, none below ``lowest``, none ``end`` or above."""
    values = np.asarray(arrays[name])
    if values.dtype.kind not in "iu" or values.shape != shape:
        raise ValueError(f"{name!r} holds {values.dtype} of shape {values.shape}, not whole numbers of {shape}")
    if values.min() < lowest or values.max() >= end:
        raise ValueError(f"{name!r} holds numbers outside {lowest}..{end - 1}")
    return values.astype(np.int64)


def check_predictions(record: Record) -> None:
    """Check the counts against the predictions they were made from.

    Raises:
        RecordError: The predictions are not those the record was written with, or give other counts.
    """
    stored = read_predictions(record)
    for i, step in enumerate(record.data["steps"]):
        for readout, steps in stored.best.items():
            seen = len(steps[i])
            hits = stored.tasks[:seen][steps[i] == stored.labels[:seen]]
            if np.bincount(hits, minlength=i + 1).tolist() != step["correct"][readout]:
                raise RecordError(
                    f"{record.path}: its counts of step {i}, readout {readout!r}, are not those of its "
                    "predictions; it was changed by hand, run again with --force"
                )
