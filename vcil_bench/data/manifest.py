"""Manifests: what a dataset's folder really holds, file by file, before anything is trained on it.

``prepare`` joins the dataset's official list with facts read from every file (true frame count, size, hash)
and writes one JSON line per video. A video that is missing, empty, damaged or not a video keeps its line, with
the problem named; it is left out of runs and counted, and never becomes a black clip. Facts of files that did
not change are reused, so preparing again costs one ``stat`` a file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vcil_bench.common.errors import UserError
from vcil_bench.common.files import cache_dir, check_writable, locked, write_changed

from .datasets import Adapter, Listed
from .datasets.tree import Tree
from .prepare.journal import DECODER, SCHEMA, Facts, Journal, read_facts, unchanged
from .prepare.read_facts import hung, read_all, refuse_while_starting
from .prepare.report import summary as summary
from .prepare.statistics import statistics

PREPARING_S = 24 * 3600.0  # for another process to read the same files; what takes longer hangs
LIMIT_S = 60.0  # the longest videos of these datasets decode in a few seconds
Progress = Callable[[int, int], None]


class DataError(UserError):
    """Videos that are missing or unusable in a number that makes a result meaningless."""


@dataclass(frozen=True, slots=True)
class Video:
    """One line of a manifest: a video as ``Listed``, with its ``Facts``."""

    id: str
    path: str
    label: str
    split: str
    group: str
    frames: int
    claimed: int | None
    width: int
    height: int
    fps: float | None
    codec: str
    bytes: int
    mtime_ns: int
    sha256: str
    problem: str | None


@dataclass(frozen=True)
class Manifest:
    """All videos of one split of a dataset under one root."""

    dataset: str
    kind: str
    split: str
    root: Path
    videos: tuple[Video, ...]

    @cached_property
    def sha256(self) -> str:
        """Hash over what a result depends on: ids, labels, splits, frame counts and file hashes, not paths."""
        digest = hashlib.sha256()
        for v in self.videos:
            line = [v.id, v.label, v.split, v.frames, v.sha256, v.problem is None]
            digest.update(json.dumps(line).encode() + b"\n")
        return digest.hexdigest()

    def usable(self, split: str) -> list[Video]:
        """Return the videos of ``train`` or ``test`` that can be decoded in full."""
        return [v for v in self.videos if v.split == split and v.problem is None]

    def left_out(self) -> list[Video]:
        """Return the videos of train and test that cannot be used."""
        return [v for v in self.videos if v.split in ("train", "test") and v.problem is not None]

    def class_names(self) -> list[str]:
        """Return the sorted class names of the train and test videos."""
        return sorted({v.label for v in self.videos if v.split in ("train", "test")})

    def check_complete(self, max_missing: float) -> None:
        """Refuse a dataset of which more than the share ``max_missing`` of train or test cannot be used.

        Raises:
            DataError: Names the share, the first such video and the ways out.
        """
        for split in ("train", "test"):
            listed = [v for v in self.videos if v.split == split]
            bad = [(v.id, v.problem) for v in listed if v.problem is not None]
            _refuse_gaps(self.dataset, self.root, split, len(listed), bad, max_missing)


def check_present(adapter: Adapter, root: Path, listed: Sequence[Listed], max_missing: float) -> None:
    """Refuse a dataset of which too many listed files are not even there, without opening any.

    Raises:
        DataError: As ``Manifest.check_complete``.
    """
    tree = Tree(root)
    for part in ("train", "test"):
        wanted = [v for v in listed if v.split == part]
        gone = [(v.id, "missing") for v in wanted if not tree.has(v.path)]
        _refuse_gaps(adapter.name, root, part, len(wanted), gone, max_missing)


def _refuse_gaps(
    dataset: str,
    root: Path,
    split: str,
    listed: int,
    bad: Sequence[tuple[str, str | None]],
    max_missing: float,
) -> None:
    """Refuse a split that is empty or of which more than the share ``max_missing`` is unusable."""
    if not listed:
        raise DataError(f"{root}: {dataset} lists no {split} videos")
    if len(bad) > max_missing * listed:
        name, problem = bad[0]
        raise DataError(
            f"{root}: {len(bad)} of {listed} {split} videos of {dataset} cannot be used (first: {name}: "
            f"{problem}); see 'vcil-bench prepare {dataset} {root}' for all of them, or accept it with "
            f"--set max_missing={math.ceil(100 * len(bad) / listed) / 100}"
        )


def manifest_path(dataset: str, root: Path, split: str) -> Path:
    """Return where the manifest of a root is kept: in the user's cache, since datasets are often read-only."""
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    return cache_dir() / "manifests" / f"{dataset}-{key}" / f"split-{split}.jsonl"


def prepare(
    adapter: Adapter,
    root: Path,
    split: str,
    progress: Progress | None = None,
    *,
    listed: Sequence[Listed] | None = None,
    workers: int | None = None,
    limit_s: float = LIMIT_S,
) -> Manifest:
    """List a dataset's split, read every file's facts and store the manifest, its report and its statistics.

    Args:
        adapter: The dataset.
        root: Its folder.
        split: One of its splits.
        progress: Called as ``progress(done, total)`` after each video.
        listed: What the split's lists name, where they were read already.
        workers: Processes that decode; None for one per core.
        limit_s: Seconds after which the decoder of a video is killed.

    Raises:
        DatasetError: The root is missing or does not hold this dataset.
        UnguardedScript: Called from a script without ``if __name__ == "__main__"``.
        StorageError: The user's cache cannot be written.
    """
    refuse_while_starting()
    if listed is None:
        listed = adapter.list_videos(root, split)
    target = manifest_path(adapter.name, root, split)
    check_writable(target.parent)
    # Runs that start together wait here for the first of them, and then find its facts.
    journal = target.with_name("facts.jsonl")
    with locked(journal, wait_s=PREPARING_S):
        found = _facts(root, listed, journal, progress, workers, limit_s)
    videos = tuple(_joined(entry, facts) for entry, facts in zip(listed, found, strict=True))
    manifest = Manifest(adapter.name, adapter.kind, split, root, videos)
    save(manifest, target)
    for name, content in (("report", summary(manifest)), ("statistics", statistics(manifest))):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_changed(target.with_suffix(f".{name}.json"), text.splitlines(keepends=True))
    return manifest


def save(manifest: Manifest, path: Path) -> None:
    """Write a manifest as JSON lines, a header first, unless it stands there already.

    Raises:
        StorageError: The file cannot be written.
    """
    write_changed(path, _Lines(manifest))


@dataclass(frozen=True)
class _Lines:
    """The lines of a manifest's file, made one at a time since there may be a hundred megabytes of them."""

    manifest: Manifest

    def __iter__(self) -> Iterator[str]:
        header = {
            "schema": SCHEMA,
            "decoder": DECODER,
            "dataset": self.manifest.dataset,
            "kind": self.manifest.kind,
            "split": self.manifest.split,
            "root": str(self.manifest.root),
        }
        yield json.dumps(header, ensure_ascii=False) + "\n"
        for video in self.manifest.videos:
            line = {name: getattr(video, name) for name in Video.__slots__}
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _joined(entry: Listed, facts: Facts) -> Video:
    return Video(
        entry.id,
        entry.path,
        entry.label,
        entry.split,
        entry.group,
        facts.frames,
        facts.claimed,
        facts.width,
        facts.height,
        facts.fps,
        facts.codec,
        facts.bytes,
        facts.mtime_ns,
        facts.sha256,
        facts.problem,
    )


def _facts(
    root: Path,
    listed: Sequence[Listed],
    journal_path: Path,
    progress: Progress | None,
    workers: int | None,
    limit_s: float,
) -> list[Facts]:
    """Return the facts of every listed video, those of unchanged files from the journal."""
    found: dict[str, Facts] = {}
    changed: list[str] = []
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(listed))

    with Journal(journal_path) as journal:
        for entry, state in zip(listed, _states(root, listed), strict=True):
            old = journal.known.get(entry.path)
            if isinstance(state, str):
                found[entry.path] = Facts(problem=state)
            elif old is not None and unchanged(old, state) and _settled(old, limit_s):
                found[entry.path] = old
            else:
                changed.append(entry.path)
                continue
            count()
        base = f"{root}{os.sep}"
        for path, facts in read_all(
            [base + path for path in changed], read_facts, workers=workers, limit_s=limit_s
        ):
            journal.add(path.removeprefix(base), facts)
            found[path.removeprefix(base)] = facts
            count()
    return [found[entry.path] for entry in listed]


def _settled(facts: Facts, limit_s: float) -> bool:
    """Tell whether reading an unchanged file again could bring nothing new.

    A problem may have been the disk's, unless all of the file could be hashed. A decoder that hung would hang
    for as long again; another limit is another try.
    """
    return facts.problem is None or bool(facts.sha256) or facts.problem == hung(limit_s)


def _states(root: Path, listed: Sequence[Listed]) -> Iterator[os.stat_result | str]:
    """Yield the state of every file in order, or why there is none.

    Threads, a thousand files each at a time: on a network disk every ``stat`` is a round trip.
    """

    def states(entries: Sequence[Listed]) -> list[os.stat_result | str]:
        return [_state(f"{root}{os.sep}{entry.path}") for entry in entries]

    chunks = [listed[start : start + 1000] for start in range(0, len(listed), 1000)]
    with ThreadPoolExecutor(max_workers=16) as pool:
        for chunk in pool.map(states, chunks):
            yield from chunk


def _state(path: str) -> os.stat_result | str:
    try:
        return os.stat(path)  # noqa: PTH116 - a Path for each of 240,000 files takes longer than the call
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        return str(error.strerror)
