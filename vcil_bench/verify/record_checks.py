"""Checking of records: recomputes what a record made elsewhere says, and tells what cannot be recomputed.

Counts come from the stored predictions, class order and fingerprint from the protocol, labels from the dataset's
list or from what other records hold, hashes from the sections they were made of. A record cannot show how it was
trained: that is said, too. Imports neither torch nor a method.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from vcil_bench import protocol as protocols
from vcil_bench.common.config import build
from vcil_bench.common.errors import UserError
from vcil_bench.identity import PARTS, changed_since, differences, in_words, is_code, parts_of
from vcil_bench.options import RESULT_NEUTRAL
from vcil_bench.protocol import MemorySpec, Protocol, order_sha256
from vcil_bench.protocol.budget import allowed_videos, exceeds_budget
from vcil_bench.record import (
    SUPERSEDED,
    TOP,
    Predictions,
    Record,
    RecordError,
    check_predictions,
    has_predictions,
    predictions_path,
    read,
    read_predictions,
    variant_name,
)
from vcil_bench.record_schema import MemoryUse

Outcome = Literal["ok", "failed", "unchecked"]
Labels = Mapping[str, str]  # class name of each test video
HASHED = re.compile(r"-[0-9a-f]{8}$")  # how the name of a variant ends that was cut or cleaned


@dataclass(frozen=True)
class Check:
    """What one check of one record came to.

    Attributes:
        record: The record's file.
        check: Its name, one of ``NAMES``.
        outcome: ``ok``, ``failed``, or ``unchecked`` where something it needs is not here.
        text: What was compared, in a sentence.
    """

    record: str
    check: str
    outcome: Outcome
    text: str


# Every check, and what it compares.
NAMES = {
    "form": "schema; tasks, steps and counts that fit each other",
    "complete": "all tasks were run",
    "name": "run id, variant and file name follow from the settings",
    "counts": "counts are those of the stored predictions",
    "predictions": "test videos once each, top-5 labels that exist and differ",
    "labels": "test videos have the classes that the dataset gives them",
    "protocol": "the protocol is the one of that name, by its fingerprint",
    "class order": "classes, tasks and seed are the protocol's",
    "budget": "exemplars are within the protocol's budget after every task",
    "identity": "hashes of settings are those of the settings that the record tells",
    "code": "the code is the code here",
    "seeds": "each seed of the protocol once",
    "training": "how it was trained",
}


@dataclass(frozen=True)
class Here:
    """What is here to hold records against.

    Attributes:
        records: Other records, known to be good.
        protocol: A protocol file, for records on a protocol that is not built in.
        labels: Class name of each test video by the dataset's own list; None where there is none.
    """

    records: Sequence[Record] = ()
    protocol: Path | None = None
    labels: Labels | None = None


def record_files(place: Path) -> list[Path]:
    """Return the records that a path means: itself, or all below a folder but superseded ones.

    Raises:
        UserError: There are none.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"no record and no folder {str(place)!r}")
    files = [p for p in sorted(place.rglob("*.json")) if SUPERSEDED not in p.relative_to(place).parts]
    if not files:
        raise UserError(f"no records (.json) below {str(place)!r}")
    return files


def check_records(files: Sequence[Path], here: Here) -> list[Check]:
    """Check records, each for itself and against the others.

    Args:
        files: The records.
        here: What they are held against.

    Returns:
        The checks of every record in the order of ``NAMES``; of one that has no form, that alone.
    """
    made: list[Check] = []
    sound: list[Record] = []
    for path in files:
        try:
            sound.append(read(path))
        except RecordError as error:
            made.append(Check(str(path), "form", "failed", str(error)))
    stored = {record.path: _stored(record) for record in sound}
    readable = {path: found for path, found in stored.items() if isinstance(found, Predictions)}
    tally = _tally(sound, readable, here.records)
    for record in sound:
        protocol = _protocol(record, here.protocol)
        for check, outcome, text in (
            ("form", "ok", f"schema {record.data['schema']}, {len(record.data['steps'])} steps"),
            _complete(record),
            _name(record),
            *_counts(record, stored[record.path]),
            _labels(record, readable.get(record.path), here.labels, tally[_data_of(record)]),
            _fingerprint(record, protocol),
            _order(record, protocol),
            _budget(record, protocol),
            _identity(record),
            _code(record),
            _seeds(record, sound),
            (
                "training",
                "unchecked",
                "a record cannot show what was trained on, nor that test videos were not: that, settings said "
                "to be defaults, losses and costs are the word of who ran it",
            ),
        ):
            made.append(Check(str(record.path), check, outcome, text))
    return made


_Found = tuple[str, Outcome, str]


def _complete(record: Record) -> _Found:
    data = record.data
    done = f"{len(data['steps'])} of {len(data['test_videos'])} tasks"
    if record.complete:
        return "complete", "ok", done
    return "complete", "failed", f"{data['status']}, {done}: only finished runs are averaged"


def _name(record: Record) -> _Found:
    data = record.data
    label = data["protocol"]["name"]
    if data["protocol"]["overrides"]:
        label += f"~{data['protocol']['fingerprint'][:8]}"
    name = f"{data['variant']}-s{data['seed']}"
    given = {
        key: setting["value"]
        for section in (data["options"], data["config"])
        for key, setting in section.items()
        if setting["origin"] == "command line" and key not in RESULT_NEUTRAL
    }
    wrong = []
    if data["protocol"]["label"] != label:
        wrong.append(f"label {data['protocol']['label']!r} for {label!r}")
    if data["run_id"] != f"{label}/{data['method']['name']}/{name}":
        wrong.append(f"run id {data['run_id']!r}")
    if record.path.stem != name:
        wrong.append(f"file {record.path.name!r} for {name}.json")
    if data["predictions"] is not None and data["predictions"]["file"] != f"{name}.npz":
        wrong.append(f"predictions {data['predictions']['file']!r} for {name}.npz")
    if not _fits(data["variant"], given):
        wrong.append(f"variant {data['variant']!r} for what was set: {', '.join(sorted(given)) or 'nothing'}")
    if wrong:
        return "name", "failed", "; ".join(wrong)
    return "name", "ok", data["run_id"]


def _fits(variant: str, given: Mapping[str, Any]) -> bool:
    """Tell whether a variant is named after these settings; values may have been written in another way."""
    if not given:
        return variant == "default"
    if variant == variant_name(given):
        return True
    if HASHED.search(variant):  # cut: only what it begins with is known
        return variant.startswith(f"{min(given)}=")
    return all(f"+{key}=" in f"+{variant}" for key in given) and variant.count("=") >= len(given)


def _stored(record: Record) -> Predictions | _Found:
    """Return a record's predictions, or why they cannot be read."""
    if record.data["predictions"] is None:
        return "counts", "failed", "the record names no predictions, so its counts cannot be recomputed"
    if not has_predictions(record):
        path = predictions_path(record.path)
        return "counts", "failed", f"{path}: not there, so the counts cannot be recomputed; send it along"
    try:
        return read_predictions(record)
    except RecordError as error:
        return "counts", "failed", str(error)


def _counts(record: Record, stored: Predictions | _Found) -> list[_Found]:
    """Recompute the counts, and look at what the predictions hold."""
    if not isinstance(stored, Predictions):
        return [stored, ("predictions", "unchecked", "they cannot be read")]
    number = sum(
        len(step["correct"]) * len(next(iter(step["correct"].values()))) for step in record.data["steps"]
    )
    try:
        check_predictions(record)
        counts: _Found = ("counts", "ok", f"{number} counts recomputed from {len(stored.videos)} test videos")
    except RecordError as error:
        counts = ("counts", "failed", str(error))
    wrong = _odd_predictions(record, stored)
    if wrong:
        return [counts, ("predictions", "failed", wrong)]
    return [counts, ("predictions", "ok", f"{len(stored.videos)} videos, each once; {TOP} best labels")]


def _odd_predictions(record: Record, stored: Predictions) -> str:
    """Return what no run writes: a video twice, a label twice among the best, fewer than there are."""
    twice = [name for name, times in Counter(stored.videos.tolist()).items() if times > 1]
    if twice:
        return f"test video {twice[0]!r} is there {len(twice) + 1} times"
    with np.load(predictions_path(record.path), allow_pickle=False) as arrays:
        for step in record.data["steps"]:
            for readout in record.data["method"]["readouts"]:
                best = np.sort(np.asarray(arrays[f"top5/{step['step']}/{readout}"]), axis=1)
                filled = min(TOP, step["classes_seen"])
                if (best[:, TOP - filled] < 0).any() or (best[:, : TOP - filled] != -1).any():
                    return f"step {step['step']}, readout {readout!r}: other than {filled} best labels"
                if (np.diff(best[:, TOP - filled :], axis=1) == 0).any():
                    return f"step {step['step']}, readout {readout!r}: a label twice among the best of a video"
    return ""


def _classes(record: Record, stored: Predictions) -> dict[str, str]:
    """Return the class name of each test video as a record has it."""
    order, names = record.data["class_order"], record.data["class_names"]
    return {
        str(video): names[order[label]]
        for video, label in zip(stored.videos.tolist(), stored.labels.tolist(), strict=True)
    }


_Votes = dict[str, Counter[str]]  # per test video, how many records give it which class


def _tally(
    sound: Sequence[Record], readable: Mapping[Path, Predictions], known: Sequence[Record]
) -> dict[tuple[str, str], _Votes]:
    """Count, for each set of data, the classes that records give to its test videos."""
    tally: dict[tuple[str, str], _Votes] = defaultdict(lambda: defaultdict(Counter))
    about = {_data_of(record) for record in sound}
    checked = {path.resolve() for path in readable}
    pairs = [(record, readable[record.path]) for record in sound if record.path in readable]
    pairs += [
        (record, read_predictions(record))
        for record in known
        if _data_of(record) in about and record.path.resolve() not in checked and has_predictions(record)
    ]
    for record, stored in pairs:
        votes = tally[_data_of(record)]
        for video, name in _classes(record, stored).items():
            votes[video][name] += 1
    return tally


def _others(votes: _Votes, classes: Labels) -> dict[str, str]:
    """Return the class that most other records give to each test video of a record that has voted, too.

    Where as many agree with it as with another class, nothing is decided.
    """
    usual = {}
    for video, name in classes.items():
        ((first, number), *rest) = (votes[video] - Counter([name])).most_common(2) or [("", 0)]
        if number and not (rest and rest[0][1] == number and rest[0][0] == name):
            usual[video] = first
    return usual


def _data_of(record: Record) -> tuple[str, str]:
    return record.data["data"]["dataset"], record.data["data"]["manifest_sha256"]


def _labels(record: Record, stored: Predictions | None, listed: Labels | None, votes: _Votes) -> _Found:
    """Hold labels against their tasks, the dataset's list, other records and the folders of the videos."""
    if stored is None:
        return "labels", "unchecked", "the predictions cannot be read"
    ends = np.cumsum(record.data["classes_per_task"])
    strange = stored.labels[
        (stored.labels >= ends[stored.tasks])
        | (stored.labels < ends[stored.tasks] - np.asarray(record.data["classes_per_task"])[stored.tasks])
    ]
    if len(strange):
        return "labels", "failed", f"{len(strange)} test videos have a label of another task than theirs"
    classes = _classes(record, stored)
    if listed is not None:
        wrong = [video for video, name in classes.items() if listed.get(video) != name]
        if wrong:
            given = listed.get(wrong[0])
            text = f"{wrong[0]!r} is of class {classes[wrong[0]]!r}, the dataset's list has {given!r}"
            return "labels", "failed", _more(text, wrong)
        return "labels", "ok", f"{len(classes)} as the dataset's list has them"
    usual = _others(votes, classes)
    wrong = [video for video, name in usual.items() if name != classes[video]]
    if wrong:
        other = usual[wrong[0]]
        text = f"{wrong[0]!r} is of class {classes[wrong[0]]!r}, in other records of these data of {other!r}"
        return "labels", "failed", _more(text, wrong)
    wrong, folders = _odd_folders(classes)
    if wrong:
        text = f"{wrong[0]!r} is of class {classes[wrong[0]]!r}, the other videos of its folder are not"
        return "labels", "failed", _more(text, wrong)
    if len(usual) == len(classes):
        return "labels", "ok", f"{len(usual)} as in other records of the same data"
    if folders:
        return "labels", "ok", f"{len(classes)} as the folders of the videos are named"
    return "labels", "unchecked", "no list of the dataset here (--data ROOT), and no other record of these data"


def _odd_folders(classes: Labels) -> tuple[list[str], bool]:
    """Return videos that are not of their folder's class, and whether each class has a folder of its own."""
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    for video, name in classes.items():
        inside[PurePosixPath(video).parent.as_posix()][name] += 1
    usual = {folder: names.most_common(1)[0][0] for folder, names in inside.items()}
    if len(set(usual.values())) < len(set(classes.values())) or len(usual) != len(set(usual.values())):
        return [], False
    wrong = [v for v, name in classes.items() if usual[PurePosixPath(v).parent.as_posix()] != name]
    return wrong, True


def _more(text: str, wrong: Sequence[str]) -> str:
    return text if len(wrong) == 1 else f"{text} (and {len(wrong) - 1} more)"


def _protocol(record: Record, given: Path | None) -> Protocol | str:
    """Return a record's protocol as it is here, or why it is not."""
    said = record.data["protocol"]
    if said["origin"].startswith("protocols/"):
        reference: str | Path = said["name"]
    elif given is not None:
        reference = given
    else:
        return f"{said['name']!r} is not built in; give its file with --protocol FILE.yaml"
    try:
        loaded = protocols.load(reference, said["overrides"])
        loaded.order(loaded.spec.seeds[0])  # lists may have to be imported first
    except UserError as error:
        return str(error)
    return loaded


def _fingerprint(record: Record, protocol: Protocol | str) -> _Found:
    if isinstance(protocol, str):
        return "protocol", "unchecked", protocol
    said = record.data["protocol"]
    if said["fingerprint"] != protocol.fingerprint:
        text = (
            f"{said['name']} version {said['version']} with fingerprint {said['fingerprint'][:16]}; here it is "
            f"version {protocol.spec.version} with {protocol.fingerprint[:16]}"
        )
        return "protocol", "failed", text
    here = _plain(asdict(protocol.spec))
    told = dict(said["spec"])
    for key in ("title", "source", "notes"):  # what may change without the fingerprint
        here.pop(key)
        told.pop(key, None)
    memory = told.get("memory")
    if isinstance(memory, dict):
        told["memory"] = {"fill": MemorySpec.fill} | memory  # older records do not have it
    wrong = sorted(key for key in here.keys() | told.keys() if here.get(key) != told.get(key))
    for key in ("version", "seeds", "metrics", "dataset", "name"):
        if said[key] != here[key] and key not in wrong:  # type: ignore[literal-required]
            wrong.append(key)
    if wrong:
        return "protocol", "failed", f"the fingerprint is right, but the record tells another {', '.join(wrong)}"
    return "protocol", "ok", f"{protocol.label}, fingerprint {protocol.fingerprint[:16]}"


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value))


def _order(record: Record, protocol: Protocol | str) -> _Found:
    data = record.data
    if isinstance(protocol, str):
        return "class order", "unchecked", "the protocol is not here"
    if data["seed"] not in protocol.spec.seeds:
        seeds = ", ".join(map(str, protocol.spec.seeds))
        return "class order", "failed", f"seed {data['seed']} is none of the protocol's: {seeds}"
    order = protocol.order(data["seed"])
    if data["class_order"] != order:
        text = f"not that of seed {data['seed']}: SHA-256 {order_sha256(data['class_order'])[:16]} for "
        return "class order", "failed", text + order_sha256(order)[:16]
    if data["classes_per_task"] != protocol.spec.tasks.sizes:
        return "class order", "failed", "tasks of other sizes than the protocol's"
    if protocol.has_class_names and data["class_names"] != protocol.class_names:
        return "class order", "failed", "other class names than the protocol's"
    named = "" if protocol.has_class_names else "; class names come from the data and were not compared"
    return "class order", "ok", f"seed {data['seed']}, SHA-256 {order_sha256(order)[:16]}{named}"


def _budget(record: Record, protocol: Protocol | str) -> _Found:
    if isinstance(protocol, Protocol):
        budget = protocol.spec.memory
    else:
        said = record.data["protocol"]["spec"]["memory"]
        try:
            budget = None if said is None else build(MemorySpec, said, "memory")
        except UserError as error:
            return "budget", "failed", str(error)
    most = 0
    for step in record.data["steps"]:
        use = MemoryUse(**step["costs"]["memory"])
        most = max(most, use.videos)
        if exceeds_budget(budget, use, step["classes_seen"]):
            allowed = allowed_videos(budget, step["classes_seen"])
            kept = f"{use.videos} videos with {use.frames} frames"
            text = f"after task {step['step'] + 1} {kept}, {allowed} videos are allowed"
            return "budget", "failed", text
    if most and not record.data["method"]["uses_memory"]:
        return "budget", "failed", f"{most} exemplars of a method that is said to keep none"
    return "budget", "ok", f"at most {most} exemplars"


def _identity(record: Record) -> _Found:
    said = record.data["identity"]
    made = parts_of(record.data, {})
    wrong = differences({k: v for k, v in said.items() if k in PARTS}, made)
    if wrong:
        return "identity", "failed", f"the hash of {in_words(wrong)} is not of what the record tells"
    return "identity", "ok", f"{len(made)} parts"


def _code(record: Record) -> _Found:
    data = record.data
    modules = [part for part in data["identity"] if is_code(part)]
    dirty = "; it was run with changes that no commit holds" if data["environment"]["dirty"] else ""
    if not modules:
        return "code", "unchecked", f"the record tells of no code{dirty}"
    if data["method"]["origin"] != "built-in":
        return "code", "unchecked", f"the method came from a {_source(record)}, which is not here{dirty}"
    changed = [part for part in changed_since(record) if is_code(part)]
    if changed:
        return "code", "unchecked", f"other than here: {in_words(changed)}{dirty}"
    return "code", "ok", f"{len(modules)} modules as here{dirty}"


def _source(record: Record) -> str:
    return "file" if record.data["method"]["origin"] == "file" else "package"


def _seeds(record: Record, sound: Iterable[Record]) -> _Found:
    """Look at the seeds of the row that a record belongs to."""
    beside = [other for other in sound if _row(other) == _row(record)]
    seeds = Counter(other.data["seed"] for other in beside)
    if seeds[record.data["seed"]] > 1:
        return "seeds", "failed", f"seed {record.data['seed']} is there {seeds[record.data['seed']]} times"
    missing = [seed for seed in record.data["protocol"]["seeds"] if seed not in seeds]
    if missing:
        text = f"seed {', '.join(map(str, missing))} is not among these records: the row would be incomplete"
        return "seeds", "unchecked", text
    return "seeds", "ok", f"{len(seeds)} of {len(seeds)}"


def _row(record: Record) -> tuple[str, ...]:
    data = record.data
    return data["protocol"]["fingerprint"], data["method"]["name"], data["variant"]


def failed(checks: Iterable[Check]) -> Iterator[Check]:
    """Yield the checks that failed."""
    return (check for check in checks if check.outcome == "failed")
