"""The vCLIMB authors' class orders and video lists, imported from the files that they publish.

The lists come without a licence, so they are not distributed here; a user downloads them and they are kept as
JSON in the user's cache. A file is known by its git blob id, which is checked before any of it is read.

Source: ojedaf/vCLIMB_Benchmark @ 05c14f4a, ``data/``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcil_bench import protocol
from vcil_bench.common.errors import UserError
from vcil_bench.data.activitynet import Instance, NoVideoLeft, read_instance, untrimmed_instances
from vcil_bench.protocol import imported_lists

from .plain_pickle import PlainPickleError, load

URL = "https://github.com/ojedaf/vCLIMB_Benchmark/raw/main/data/"
MAX_BYTES = 256 * 2**20  # ample: the largest file lists some 300,000 short names


@dataclass(frozen=True)
class Form:
    """What the files of a dataset hold.

    Attributes:
        parts: Their lists, and what each is here.
        read: Gives what an item of the lists says; None where it cannot be one.
        check: Raises ``_ShapeError`` where a split can have no sample of a class, given the split's name and,
            by class, what the items of a part say; None where every item is a sample.
    """

    parts: Mapping[str, str]
    read: Callable[[Any], Any]
    check: Callable[[str, Mapping[str, list[Any]]], None] | None = None


def _named(pattern: str) -> Callable[[Any], re.Match[str] | None]:
    """Return a reader of names; group 1 of a match is what train and test must not share."""
    return lambda item: re.fullmatch(pattern, item) if isinstance(item, str) else None


def _check_instances(split: str, classes: Mapping[str, list[Instance]]) -> None:
    """Refuse a class that has no instance with a length or, in an untrimmed split, no video of its own."""
    for label, instances in classes.items():
        if all(instance.end <= instance.start for instance in instances):
            raise _ShapeError(f"class {label!r} has no instance that ends after it begins")
    if split.endswith("_untrimmed"):
        rows = [(label, instance) for label, instances in classes.items() for instance in instances]
        try:
            untrimmed_instances([label for label, _ in rows], [instance for _, instance in rows])
        except NoVideoLeft as error:
            raise _ShapeError(str(error)) from error


_WITH_TEST = {"train": "train", "val": "unused", "test": "test"}  # vCLIMB's results are those on test
FORMS = {
    "ucf101": Form(_WITH_TEST, _named(r"v_\w+_(g\d+)_c\d+")),
    "kinetics400": Form(
        _WITH_TEST, _named(r"(?:.*/)?([A-Za-z0-9_-]{11})(?:_(\d+)_(\d+))?(?:\.(?:mp4|mkv|webm))?")
    ),
    # There is no other list to test on.
    "activitynet": Form({"train": "train", "val": "test"}, read_instance, _check_instances),
}


class VclimbError(UserError):
    """A file that is not one of the authors' lists."""


@dataclass(frozen=True)
class Source:
    """One of the authors' files.

    Attributes:
        dataset: The dataset.
        protocols: The protocols that need it, by the dataset's split that it gives; the first says which tasks
            and classes are expected.
        file: Name in the authors' repository.
        git_blob: ``sha1("blob <size>" + NUL + content)``.
        videos: Number of items in each part, where it is known.
        in_base_task: Classes known to be in task 0, in their order, where the whole order is not known.
    """

    dataset: str
    protocols: Mapping[str, str]
    file: str
    git_blob: str
    videos: tuple[int, ...] | None = None
    in_base_task: tuple[str, ...] = ()


_K400_BASE_OF_20 = (  # printed in data/Kinetics.ipynb of jong980812/ESSENTIAL @ 56b64ca
    "exercising arm",
    "headbanging",
    "front raises",
    "golf chipping",
    "archery",
    "tango dancing",
    "massaging back",
    "cutting pineapple",
    "writing",
    "ironing",
    "surfing crowd",
    "hockey stop",
    "extinguishing fire",
    "playing chess",
    "cutting watermelon",
    "blowing leaves",
    "bowling",
    "laughing",
    "shredding paper",
    "shooting basketball",
)
SOURCES = (
    Source(
        "ucf101",
        {"vclimb_10": "vclimb_ucf101_10"},
        "UCF101_data.pkl",
        "e78263025417d4504c2ca775aba39b5570179478",
        videos=(9280, 1314, 2726),
    ),
    Source(
        "ucf101",
        {"vclimb_20": "vclimb_ucf101_20"},
        "UCF101_data_20tasks.pkl",
        "f3fe6f6129e9cd64037556e6b659473c2f0e4835",
        videos=(9280, 1314, 2726),
    ),
    Source(
        "kinetics400",
        {"vclimb_10": "vclimb_kinetics400_10"},
        "Kinetics400_data_tasks_10.pkl",
        "b0391d965c4e72131c349250d450cb3f467f6465",
        in_base_task=("shuffling cards",),
    ),
    Source(
        "kinetics400",
        {"vclimb_20": "vclimb_kinetics400_20"},
        "Kinetics400_data_tasks_20.pkl",
        "3d8f2652d73546e53e08c4d3071d0c5925477f2b",
        in_base_task=_K400_BASE_OF_20,
    ),
    Source(
        "activitynet",
        {
            "vclimb_10_trimmed": "vclimb_activitynet_10_trimmed",
            "vclimb_10_untrimmed": "vclimb_activitynet_10_untrimmed",
        },
        "ActivityNet_data_10tasks.pkl",
        "fff5823962b3ee604bfd47c689b5d7ade822847d",
        videos=(15410, 7654),
    ),
    Source(
        "activitynet",
        {
            "vclimb_20_trimmed": "vclimb_activitynet_20_trimmed",
            "vclimb_20_untrimmed": "vclimb_activitynet_20_untrimmed",
        },
        "ActivityNet_data_20tasks.pkl",
        "44e00968c14eec027d3410ee6677907c6595ac6d",
        videos=(15410, 7654),
    ),
)


@dataclass(frozen=True)
class Imported:
    """What an import brought: the protocols it serves, the number of items by part, and where it was written."""

    source: Source
    classes: int
    tasks: int
    videos: dict[str, int]
    folder: Path


def import_pickle(path: Path) -> Imported:
    """Check one of the authors' files and store its lists as JSON in the user's cache.

    Raises:
        VclimbError: The file cannot be read, or it is not one of the authors'.
    """
    try:
        if path.exists() and not path.is_file():  # a device, say, has no end
            raise VclimbError(f"{path}: is not a file; {_where()}")
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise VclimbError(f"{path}: cannot be read ({error.strerror}); {_where()}") from error
    if size > MAX_BYTES:
        raise VclimbError(f"{path}: {size} bytes are more than any of the authors' files has; {_where()}")
    blob = git_blob(content)
    source = next((s for s in SOURCES if s.git_blob == blob), None)
    if source is None:
        named = next((s for s in SOURCES if s.file == path.name), None)
        wanted = f"not {named.git_blob}, that of the authors' file" if named else "none of the authors' files'"
        raise VclimbError(f"{path}: its git blob id is {blob}, {wanted}; {_where(named)}")
    try:
        tasks, videos = _checked(load(content), source)
    except (PlainPickleError, _ShapeError) as error:
        raise VclimbError(f"{path}: {error}; {_where(source)}") from error
    folder = imported_lists.write(source.file, source.git_blob, tasks, videos)
    counts = {part: sum(map(len, classes.values())) for part, classes in videos.items()}
    return Imported(source, sum(map(len, tasks)), len(tasks), counts, folder)


def git_blob(content: bytes) -> str:
    """Return the id under which git stores a file, as ``git hash-object`` prints it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def imported_splits(dataset: str) -> list[str]:
    """Return the names of the splits of a dataset whose lists were imported."""
    return [
        split
        for source in SOURCES
        if source.dataset == dataset and imported_lists.is_imported(source.file, source.git_blob)
        for split in source.protocols
    ]


def imported_videos(dataset: str, split: str) -> Iterator[tuple[str, Any, str]]:
    """Yield class, item (as the dataset's ``FORMS`` reads it) and part of every video of an imported split.

    The authors' validation videos are ``unused``: nothing here is chosen by them, and what vCLIMB's page
    reports is the accuracy on its test videos. Only ActivityNet has none and is tested on the others.
    """
    source = _find(dataset, split)
    assert source is not None
    videos = imported_lists.read_videos(source.file, source.git_blob)
    form = FORMS[dataset]
    for part, name in form.parts.items():
        for label, items in videos[part].items():
            for item in items:
                read = form.read(item)
                assert read is not None  # checked when it was imported
                yield label, read, name


def way_out(dataset: str, split: str, official: str | None = None) -> str:
    """Return what to do about a split that is not there, "" where it is none of the authors'.

    Args:
        dataset: The dataset.
        split: Its split.
        official: The split to take instead, where there is an official one.
    """
    source = _find(dataset, split)
    if source is None:
        return ""
    instead = f", or take the official one with --set protocol.dataset.split={official} (a derived protocol)"
    return (
        f"; that split is the vCLIMB authors' own and not distributed here: get {URL}{source.file} and import "
        f"it with 'vcil-bench prepare vclimb --pickle {source.file}', or let 'vcil-bench fetch vclimb FOLDER' "
        f"do both{instead if official else ''}"
    )


def ways_out(dataset: str) -> str:
    """Return which splits of a dataset can be imported, and how."""
    sources = [source for source in SOURCES if source.dataset == dataset]
    splits = "; ".join(f"{', '.join(source.protocols)} from {source.file}" for source in sources)
    return (
        f"its splits are the vCLIMB authors' and come by importing their lists ({splits}): get the file from "
        f"{URL} and import it with 'vcil-bench prepare vclimb --pickle FILE', or let 'vcil-bench fetch vclimb "
        "FOLDER' do both"
    )


class _ShapeError(Exception):
    """What is wrong with the content of a file."""


def _checked(content: Any, source: Source) -> tuple[list[list[str]], dict[str, dict[str, list[Any]]]]:
    """Return the tasks and the videos by part and class, once they are what the protocol expects.

    The content is ``{part: [{class: [item, ...]}, ...]}`` with a mapping per task, in label order.
    """
    form = FORMS[source.dataset]
    parts = list(form.parts)
    if not isinstance(content, dict) or content.keys() != form.parts.keys():
        raise _ShapeError(f"its lists are not named {', '.join(parts)}")
    for part, tasks in content.items():
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise _ShapeError(f"its {part} is not a list of tasks")
        for number, task in enumerate(tasks):
            for label, items in task.items():
                if not isinstance(label, str) or not isinstance(items, list):
                    raise _ShapeError(f"{part}, task {number}: {label!r} is not a class with a list of videos")
                strange = [item for item in items if form.read(item) is None]
                if strange:
                    raise _ShapeError(
                        f"{part}, task {number}, class {label!r}: cannot tell which video {strange[0]!r} is"
                    )
    order = [list(task) for task in content["train"]]
    _check_classes(order, source)
    for part in parts:
        if [set(task) for task in content[part]] != [set(task) for task in order]:
            raise _ShapeError(f"the classes of its {part} tasks are not those of its train tasks")
    videos = {part: {label: items for task in content[part] for label, items in task.items()} for part in parts}
    counts = tuple(sum(map(len, classes.values())) for classes in videos.values())
    if source.videos is not None and counts != source.videos:
        raise _ShapeError(f"it lists {counts} videos for {tuple(parts)}, not {source.videos}")
    for part, name in form.parts.items():
        if name != "unused":
            _check_samples(part, videos[part], source)
    return order, videos


def _check_samples(part: str, classes: Mapping[str, list[Any]], source: Source) -> None:
    """Refuse a part in which a class has nothing to learn or to test, since no run could use it."""
    empty = next((label for label, items in classes.items() if not items), None)
    if empty is not None:
        raise _ShapeError(f"{part}: class {empty!r} has no videos")
    form = FORMS[source.dataset]
    if form.check is not None:
        read = {label: [form.read(item) for item in items] for label, items in classes.items()}
        for split in source.protocols:
            try:
                form.check(split, read)
            except _ShapeError as error:
                raise _ShapeError(f"{part}: {error}") from error


def _check_classes(order: list[list[str]], source: Source) -> None:
    """Refuse other classes, tasks or, where it is known, another order than the protocol's."""
    name = next(iter(source.protocols.values()))
    expected = protocol.load(name)
    sizes = [len(task) for task in order]
    if sizes != expected.spec.tasks.sizes:
        raise _ShapeError(f"its tasks have {sizes} classes, not {expected.spec.tasks.sizes}")
    labels = [label for task in order for label in task]
    wrong = set(labels) ^ set(expected.class_names)
    if wrong or len(set(labels)) != len(labels):
        raise _ShapeError(
            "its classes are not those of the dataset, each once" + (f": {min(wrong)!r}" if wrong else "")
        )
    if expected.spec.classes.order.kind == "listed":
        known = [expected.class_names[i] for i in expected.order(expected.spec.seeds[0])]
        if labels != known:
            raise _ShapeError(f"its class order is not that of {name}")
    for label in source.in_base_task:
        if label not in order[0]:
            raise _ShapeError(f"{label!r} is not in its first task")
    if [label for label in order[0] if label in source.in_base_task] != list(source.in_base_task):
        raise _ShapeError(
            f"the classes of its first task are not in the authors' order: {', '.join(source.in_base_task)}"
        )


def _find(dataset: str, split: str) -> Source | None:
    return next((s for s in SOURCES if s.dataset == dataset and split in s.protocols), None)


def _where(source: Source | None = None) -> str:
    files = source.file if source else ", ".join(s.file for s in SOURCES)
    return f"download {files} from {URL}"
