"""Manifests: what a dataset's folder really holds, file by file, before anything is trained on it.

``prepare`` joins the dataset's official list with facts read from every file (true frame count, size, hash)
and writes one JSON line per video. A video that is missing, empty, damaged or not a video keeps its line, with
the problem named; it is left out of runs and counted, and never becomes a black clip. Facts of files that did
not change are reused, so preparing again costs one ``stat`` a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from vcil_bench.errors import UserError
from vcil_bench.storage import cache_dir, file_sha256, write_atomically

from .datasets import Adapter, Listed
from .video import VideoError, probe

SCHEMA = 1
DECODER = f"av {av.__version__}"  # another version may count other frames
Progress = Callable[[int, int], None]


class DataError(UserError):
    """Videos that are missing or unusable in a number that makes a result meaningless."""


@dataclass(frozen=True)
class Video:
    """One line of a manifest.

    Attributes:
        id: Name of the video within its dataset, as the official list writes it.
        path: File, relative to the dataset's root.
        label: Class name as the dataset writes it.
        split: ``train``, ``test`` or ``unused``.
        group: What must not be shared by train and test (source video, scene); "" where unknown.
        frames: Frames that a forward decode yields; 0 where there are none.
        bytes: File size.
        mtime_ns: Modification time, to tell an unchanged file.
        sha256: Hash of the file's bytes; "" where it is missing or cannot be decoded at all.
        problem: Why the video is left out, or None.
    """

    id: str
    path: str
    label: str
    split: str
    group: str
    frames: int
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

    @property
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


def check_present(adapter: Adapter, root: Path, split: str, max_missing: float) -> None:
    """Refuse a dataset of which too many files are not even there, without opening any.

    Raises:
        DatasetError: The root does not hold this dataset.
        DataError: As ``Manifest.check_complete``.
    """
    listed = adapter.list_videos(root, split)
    for part in ("train", "test"):
        wanted = [v for v in listed if v.split == part]
        gone = [(v.id, "missing") for v in wanted if not (root / v.path).is_file()]
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


def prepare(adapter: Adapter, root: Path, split: str, progress: Progress | None = None) -> Manifest:
    """List a dataset's split, read every file's facts and store the manifest and its report.

    Raises:
        DatasetError: The root is missing or does not hold this dataset.
    """
    listed = adapter.list_videos(root, split)
    target = manifest_path(adapter.name, root, split)
    known = _known_facts(target.parent)
    done = 0
    videos: list[Video] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for video in pool.map(lambda entry: _examine(root, entry, known), listed):
            videos.append(video)
            done += 1
            if progress is not None:
                progress(done, len(listed))
    manifest = Manifest(adapter.name, adapter.kind, split, root, tuple(videos))
    save(manifest, target)
    report = json.dumps(summary(manifest), indent=2, ensure_ascii=False) + "\n"
    write_atomically(target.with_suffix(".report.json"), report.encode())
    return manifest


def save(manifest: Manifest, path: Path) -> None:
    """Write a manifest as JSON lines, a header first."""
    header = {
        "schema": SCHEMA,
        "decoder": DECODER,
        "dataset": manifest.dataset,
        "kind": manifest.kind,
        "split": manifest.split,
        "root": str(manifest.root),
    }
    lines = [header, *(dataclasses.asdict(v) for v in manifest.videos)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_atomically(path, text.encode())


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return counts, problem videos and leaks between train and test, as plain data for a report."""
    counts = Counter((v.split, v.problem is None) for v in manifest.videos)
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    contents: dict[str, set[str]] = defaultdict(set)
    names: dict[str, list[str]] = defaultdict(list)
    for v in manifest.videos:
        if v.split not in ("train", "test"):
            continue
        if v.group:
            groups[v.label, v.group].add(v.split)
        if v.sha256:
            contents[v.sha256].add(v.split)
            names[v.sha256].append(v.id)
    shared = {key for key, splits in groups.items() if len(splits) == 2}
    return {
        "dataset": manifest.dataset,
        "split": manifest.split,
        "root": str(manifest.root),
        "sha256": manifest.sha256,
        "classes": len(manifest.class_names()),
        "counts": {
            split: {"usable": counts[split, True], "left_out": counts[split, False]}
            for split in ("train", "test", "unused")
        },
        "left_out": [{"id": v.id, "problem": v.problem} for v in manifest.left_out()],
        # None where no video has a group, so that nothing can be said
        "test_videos_sharing_a_group_with_train": sum(
            v.split == "test" and (v.label, v.group) in shared for v in manifest.videos
        )
        if groups
        else None,
        "identical_files_in_train_and_test": sorted(
            names[sha] for sha, splits in contents.items() if len(splits) == 2
        ),
    }


def _known_facts(folder: Path) -> dict[str, Video]:
    """Return the facts of all manifests of this root, by path, whatever the split.

    A manifest that is damaged, of another schema or decoder only means that its files are read again.
    """
    known: dict[str, Video] = {}
    for path in sorted(folder.glob("split-*.jsonl")):
        try:
            header, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            if (header["schema"], header["decoder"]) == (SCHEMA, DECODER):
                known |= {line["path"]: Video(**line) for line in lines}
        except (ValueError, KeyError, TypeError):
            continue
    return known


def _examine(root: Path, entry: Listed, known: dict[str, Video]) -> Video:
    """Read one file's facts, or reuse those of an unchanged file."""
    path = root / entry.path
    frames, size, mtime, sha, problem = 0, 0, 0, "", None
    try:
        stat = path.stat()
    except OSError as error:
        problem = "missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
    else:
        size, mtime = stat.st_size, stat.st_mtime_ns
        old = known.get(entry.path)
        unchanged = old is not None and (old.bytes, old.mtime_ns) == (size, mtime)
        if old is not None and unchanged and old.problem is None:  # a problem may have been the disk's
            frames, sha = old.frames, old.sha256
        else:
            try:
                facts = probe(path)
                frames, problem = facts.frames, facts.problem
                sha = file_sha256(path)
            except (VideoError, OSError) as error:
                problem = str(error)
    return Video(
        entry.id,
        entry.path,
        entry.label,
        entry.split,
        entry.group,
        frames,
        size,
        mtime,
        sha,
        problem,
    )
