"""Verification: what can be known of a protocol's numbers before, or without, training anything.

Class orders against their hashes, counts against the lists, and what training and testing share: videos, files,
groups, pretraining. Lists alone are enough for most of it. A finding says a fact about the numbers; only what
makes a run impossible or the lists contradict themselves is an error, since a published split may well leak and
still be the one that papers use.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vcil_bench.common.errors import UserError
from vcil_bench.data.datasets import ADAPTERS, Listed
from vcil_bench.data.manifest import Manifest
from vcil_bench.data.prepare.odd_intervals import interval_lines, odd_intervals
from vcil_bench.data.prepare.report import summary
from vcil_bench.nets.backbones import BACKBONES, backbone
from vcil_bench.nets.weights import WeightsInfo
from vcil_bench.protocol import Protocol, ProtocolError, order_sha256

from .pretraining_overlap import Verdict, fitting, overlap, stated

Level = Literal["ok", "note", "warning", "error"]

# What a group is, by dataset, and whether its name means the same in every class.
GROUPS = {
    "ucf101": ("source video (gXX in the file names)", False),
    "hmdb51": ("source film (as file names tell it)", True),
    "kinetics400": ("YouTube video", True),
    "activitynet": ("YouTube video", True),
    "folder": ("group of the CSV", True),
}
# Splits whose test videos are the set that the dataset's publishers gave for validation.
VALIDATION_AS_TEST = {
    ("ssv2", "official"),
    ("kinetics400", "official"),
    *(("activitynet", f"vclimb_{tasks}_{kind}") for tasks in (10, 20) for kind in ("trimmed", "untrimmed")),
}
OF_VERDICT: dict[Verdict, Level] = {"known": "warning", "not known": "note", "excluded": "ok"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how grave it is, what it concerns, and what was found, in a sentence."""

    level: Level
    check: str
    text: str


def findings(
    protocol: Protocol, manifest: Manifest, weights: WeightsInfo, seeds: Iterable[int] | None = None
) -> list[Finding]:
    """Return all that can be said of a protocol, its videos and a backbone's weights.

    Args:
        protocol: The protocol.
        manifest: The videos of its split.
        weights: What is known of the weights.
        seeds: The class orders of interest; None for all of the protocol.
    """
    seeds = list(protocol.spec.seeds if seeds is None else seeds)
    usable = [*manifest.usable("train"), *manifest.usable("test")]
    return [
        *of_protocol(protocol, seeds),
        *of_lists(protocol, manifest.videos),
        *per_task(protocol, usable, seeds),
        *_of_intervals(manifest.videos),
        *_of_files(manifest),
        of_weights(protocol, weights),
    ]


def verify(
    protocol: Protocol,
    weights: Sequence[WeightsInfo],
    listed: Sequence[Listed] | None = None,
    files: Manifest | str = "",
) -> list[Finding]:
    """Look at all that is there: the protocol always, its lists and files where there are some.

    Args:
        protocol: The protocol.
        weights: Weights to be judged against the dataset.
        listed: The videos of its split's lists; None where there are no data to look at.
        files: What reading the files has told, or why they were not read.
    """
    seeds = protocol.spec.seeds
    result = of_protocol(protocol, seeds)
    judged = [of_weights(protocol, info) for info in weights]
    if listed is None:
        text = "not looked at: without --data there are no lists of videos, and no files"
        return [*result, Finding("note", "videos", text), *judged]
    result += of_lists(protocol, listed)
    if isinstance(files, str):
        result += [*per_task(protocol, listed, seeds), *_of_intervals(listed)]
        return [*result, Finding("note", "files", files), *judged]
    usable = [*files.usable("train"), *files.usable("test")]
    result += [*per_task(protocol, usable, seeds), *_of_intervals(files.videos)]
    return [*result, *_of_files(files), *judged]


def of_protocol(protocol: Protocol, seeds: Sequence[int]) -> list[Finding]:
    """Check class orders against their stored hashes, and say what the test set is."""
    spec = protocol.spec
    result = [Finding("ok", "tasks", f"{len(spec.tasks.sizes)} tasks of {_sizes(spec.tasks.sizes)} classes")]
    listed = spec.classes.order.kind != "numpy_shuffle"
    for seed in seeds[:1] if listed else seeds:  # a listed order is every seed's
        try:
            computed = order_sha256(protocol.order(seed))
        except UserError as error:
            result.append(Finding("error", "class order", str(error)))
            continue
        who = "all seeds" if listed else f"seed {seed}"
        if {seed, "all"} & set(spec.classes.order_sha256):  # one that differs is refused by the protocol itself
            result.append(Finding("ok", "class order", f"{who}: SHA-256 {computed[:16]}, as stored"))
        else:
            text = f"{who}: SHA-256 {computed[:16]}, and none is stored to compare it with"
            result.append(Finding("note", "class order", text))
    if (spec.dataset.name, str(spec.dataset.split)) in VALIDATION_AS_TEST:
        text = (
            f"the test videos are the official validation set of {spec.dataset.name}: nothing may be selected "
            "on it, neither epochs nor settings"
        )
        result.append(Finding("note", "test set", text))
    return result


def of_lists(protocol: Protocol, videos: Sequence[Listed]) -> list[Finding]:
    """Check counts, and what the training and the test list share."""
    train, test = ([v for v in videos if v.split == part] for part in ("train", "test"))
    text = f"{len(train)} training and {len(test)} test videos listed"
    result = [Finding("ok", "lists", text) if train and test else Finding("error", "lists", text)]
    source = ADAPTERS.get(protocol.spec.dataset.name)
    published = source and source.published.get(str(protocol.spec.dataset.split))
    if published:
        listed = [(v.label, v.split) for v in videos]
        level: Level = "warning" if published.differences(listed) else "ok"
        result.append(Finding(level, "published lists", published.verdict(listed)))
    twice = sorted(name for name, times in Counter(v.id for v in videos).items() if times > 1)
    both = {v.id for v in train} & {v.id for v in test}
    if both:
        text = f"{len(both)} videos are listed for training and for testing{_first(sorted(both))}"
        result.append(Finding("error", "shared videos", text))
    else:
        result.append(Finding("ok", "shared videos", "no video is listed for training and for testing"))
    if set(twice) - both:
        result.append(Finding("warning", "lists", f"listed more than once{_first(sorted(set(twice) - both))}"))
    return [*result, *_groups(protocol.spec.dataset.name, train, test)]


def per_task(protocol: Protocol, videos: Sequence[Listed], seeds: Sequence[int]) -> list[Finding]:
    """Count training and test videos per task; say which classes differ from the protocol's or lack videos."""
    used = [v for v in videos if v.split in ("train", "test") and v.excluded is None]
    counts = Counter((v.split, v.label) for v in used)
    labels = sorted({label for _, label in counts})
    try:
        names = protocol.class_names if protocol.has_class_names else labels
        orders = {seed: protocol.tasks(seed) for seed in seeds}
    except ProtocolError:
        return []  # the class order's own finding says why
    strange, absent = sorted(set(labels) - set(names)), sorted(set(names) - set(labels))
    if strange or absent or len(names) != protocol.spec.classes.num:
        which = _first([*strange, *absent])
        text = f"{len(labels)} classes in the data, {protocol.spec.classes.num} in the protocol{which}"
        return [Finding("error", "classes", text)]
    result = []
    for part, word in (("train", "training"), ("test", "test")):
        empty = [name for name in names if not counts[part, name]]
        if empty:
            result.append(Finding("error", "classes", f"{len(empty)} without a {word} video{_first(empty)}"))
    for seed, tasks in orders.items():
        sums = {part: [sum(counts[part, names[i]] for i in ids) for ids in tasks] for part in ("train", "test")}
        parts = ", ".join(f"{part} {_sum(numbers)}" for part, numbers in sums.items())
        result.append(Finding("ok", "videos per task", f"seed {seed}: {parts}"))
    return result


def of_weights(protocol: Protocol, weights: WeightsInfo) -> Finding:
    """Say whether the weights may have seen the test videos."""
    verdict, text = overlap(weights, protocol.spec.dataset.name)
    return Finding(OF_VERDICT[verdict], "pretraining", f"overlap {verdict}: {text}")


def chosen_weights(protocol: Protocol, given: Mapping[str, Any]) -> list[WeightsInfo]:
    """Return the weights that a user asks about, by default the own ones of every backbone that fits.

    Args:
        protocol: The protocol, whose frame size decides what fits.
        given: ``backbone`` and ``weights``, as ``--set`` gives them; both may be left out.

    Raises:
        UserError: Another key, weights without a backbone, or a backbone that is unknown.
    """
    strange = [key for key in given if key not in ("backbone", "weights")]
    if strange:
        raise UserError(
            f"--set {strange[0]}: verify takes backbone, weights and keys that begin with 'protocol.'; "
            "leave it out"
        )
    if "backbone" not in given:
        if "weights" in given:
            raise UserError(
                f"--set weights={given['weights']}: whose? Add --set backbone=NAME ({', '.join(BACKBONES)})"
            )
        return fitting(protocol.spec.clip.size)
    weights = given.get("weights")
    return [stated(backbone(str(given["backbone"])).name, None if weights is None else str(weights))]


def as_plain(entries: Iterable[Finding]) -> list[dict[str, str]]:
    """Return findings as JSON will hold them."""
    return [dataclasses.asdict(entry) for entry in entries]


def _groups(dataset: str, train: Sequence[Listed], test: Sequence[Listed]) -> list[Finding]:
    """Count the test videos whose group has training videos, of their class and of others.

    The count within a class is that of ``data.prepare.report.summary``: UCF101 numbers its groups anew in every
    class.
    """
    what, everywhere = GROUPS.get(dataset, ("group", False))
    if not any(v.group for v in (*train, *test)):
        return [Finding("note", "shared groups", "not known: the lists say nothing about groups of videos")]
    labels: dict[str, set[str]] = defaultdict(set)
    for v in train:
        labels[v.group].add(v.label)
    grouped = [v for v in test if v.group]
    same = sum(v.label in labels.get(v.group, ()) for v in grouped)
    text = f"{same} of {len(test)} test videos share a {what} with a training video of their class"
    result = [Finding("warning" if same else "ok", "shared groups", text)]
    other = sum(v.label not in labels.get(v.group, {v.label}) for v in grouped)
    if everywhere and other:
        text = f"{other} of {len(test)} test videos share a {what} with training videos of other classes only"
        result.append(Finding("note", "shared groups", text))
    return result


def _of_intervals(videos: Sequence[Listed]) -> list[Finding]:
    """Say what is odd about the parts of videos that are listed."""
    return [Finding("note", "intervals", line) for line in interval_lines(odd_intervals(videos))]


def _of_files(manifest: Manifest) -> list[Finding]:
    """Say which files cannot be used, and which are the same in training and testing."""
    used = [v for v in manifest.videos if v.split in ("train", "test") and v.excluded is None]
    problems = {v.path: v.facts.problem for v in used}  # several parts may be of one file
    broken = [path for path, problem in problems.items() if problem is not None]
    text = f"{len(problems) - len(broken)} of {len(problems)} can be decoded in full"
    if broken:
        text += f"; left out: {len(broken)}{_first(broken)}"
    result = [Finding("note" if broken else "ok", "files", text)]
    same = summary(manifest)["identical_files_in_train_and_test"]
    if same:
        text = f"{len(same)} files are the same in training and testing{_first(['='.join(ids) for ids in same])}"
        return [*result, Finding("warning", "identical files", text)]
    return [*result, Finding("ok", "identical files", "no file is the same in training and testing")]


def _first(names: Sequence[str]) -> str:
    """Return the first three names in brackets, or nothing where there are none."""
    more = ", ..." if len(names) > 3 else ""
    return f" ({', '.join(names[:3])}{more})" if names else ""


def _sizes(sizes: Sequence[int]) -> str:
    """Return task sizes with runs of equal ones taken together: ``51 + 5x10``."""
    runs: list[list[int]] = []
    for size in sizes:
        if runs and runs[-1][1] == size:
            runs[-1][0] += 1
        else:
            runs.append([1, size])
    return " + ".join(str(size) if times == 1 else f"{times}x{size}" for times, size in runs)


def _sum(numbers: Sequence[int]) -> str:
    return f"{sum(numbers)} = {' + '.join(map(str, numbers))}"
