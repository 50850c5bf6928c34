"""Manifest of a dataset's split: its videos, which of them can be used, and refusal of data that will not do.

A video that is missing, empty, damaged or not a video keeps its line, with the problem named; it is left out of
runs and counted, and never becomes a black clip.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vcil_bench.common.errors import UserError
from vcil_bench.common.files import cache_dir

from .activitynet import interval_frames
from .datasets import Adapter, Listed
from .datasets.tree import Tree
from .video.facts import Facts

MISSING = "missing"  # the problem of a video whose file is not there


class DataError(UserError):
    """Videos that are missing or unusable in a number that makes a result meaningless."""


@dataclass(frozen=True, slots=True)
class Video(Listed):
    """A listed video or a part of one, with the facts of its file."""

    facts: Facts

    @property
    def span(self) -> range:
        """The frames of its file that it consists of, 0-based."""
        if self.interval is None:
            return range(self.facts.frames)
        fps = self.interval.fps or self.facts.fps
        if fps is None:
            return range(0)
        return interval_frames(self.interval.start, self.interval.end, fps, self.facts.frames)

    @property
    def problem(self) -> str | None:
        """Why it is left out of runs; None where it is not."""
        if self.excluded is not None or self.facts.problem is not None:
            return self.excluded or self.facts.problem
        part = self.interval
        if part is None:
            return None
        if part.fps is None and self.facts.fps is None:
            return "the frame rate of its file is not known, so its seconds tell no frames"
        if self.is_too_short:
            return f"{part.start:g} to {part.end:g} s have {len(self.span)} frames, fewer than {part.min_frames}"
        return None

    @property
    def is_too_short(self) -> bool:
        """Whether a sound file has too few frames in the interval."""
        return (
            self.interval is not None
            and self.facts.problem is None
            and len(self.span) < self.interval.min_frames
        )


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
        """Hash over what a result depends on: ids, labels, splits, frames and file hashes, not paths."""
        digest = hashlib.sha256()
        for v in self.videos:
            line = [v.id, v.label, v.split, v.facts.frames, v.facts.sha256, v.problem is None]
            if v.interval is not None:
                line += [v.span.start, v.span.stop]
            digest.update(json.dumps(line).encode() + b"\n")
        return digest.hexdigest()

    def usable(self, split: str) -> list[Video]:
        """Return the videos of ``train`` or ``test`` that runs use."""
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
            listed = [v for v in self.videos if v.split == split and v.excluded is None]
            bad = [(v.id, v.problem) for v in listed if v.problem is not None]
            _refuse_gaps(self.dataset, self.root, split, len(listed), bad, max_missing)


def check_present(adapter: Adapter, root: Path, listed: Sequence[Listed], max_missing: float) -> None:
    """Refuse a dataset of which too many listed files are not even there, without opening any.

    Raises:
        DataError: As ``Manifest.check_complete``.
    """
    tree = Tree(root)
    for part in ("train", "test"):
        wanted = [v for v in listed if v.split == part and v.excluded is None]
        gone = [(v.id, MISSING) for v in wanted if not tree.has(v.path)]
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
