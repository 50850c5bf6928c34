"""Odd intervals: counts what is unusual about the parts of videos that a dataset's list names.

They are handled by the rule of those who published the list, not mended; a user should know how many there are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vcil_bench.data.datasets import Listed
from vcil_bench.data.manifest import Video


def odd_intervals(videos: Sequence[Listed]) -> dict[str, dict[str, Any]]:
    """Return counts by split, nothing where whole videos are listed.

    Ends are compared with the length that the list states. How many intervals have too few frames is known only
    of videos whose files were read.
    """
    by_split: dict[str, list[Listed]] = defaultdict(list)
    for video in videos:
        if video.interval is not None:
            by_split[video.split].append(video)
    return {split: _counts(listed) for split, listed in by_split.items()}


def _counts(videos: Sequence[Listed]) -> dict[str, Any]:
    parts = [(v.path, v.interval) for v in videos if v.interval is not None]
    classes: dict[str, set[str]] = defaultdict(set)
    for v in videos:
        classes[v.path].add(v.label)
    return {
        "intervals": len(parts),
        "videos": len(classes),
        "end_after_the_video": sum(part.end > part.duration for _, part in parts),
        "do_not_end_after_they_begin": sum(part.end <= part.start for _, part in parts),
        "repeat_another": len(parts) - len({(*part, v.label) for part, v in zip(parts, videos, strict=True)}),
        "videos_of_several_classes": sum(len(labels) > 1 for labels in classes.values()),
        "too_few_frames": sum(isinstance(v, Video) and v.is_too_short for v in videos),
        "excluded": dict(Counter(v.excluded for v in videos if v.excluded is not None)),
    }


def interval_lines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say the counts in a line a split."""
    for split, counts in found.items():
        odd = [
            (counts["end_after_the_video"], "end after their video"),
            (counts["do_not_end_after_they_begin"], "do not end after they begin"),
            (counts["repeat_another"], "repeat another one"),
            (counts["videos_of_several_classes"], "videos have several classes"),
            (counts["too_few_frames"], "have too few frames and are left out"),
            *((count, f"left out: {why}") for why, count in counts["excluded"].items()),
        ]
        told = [f"{count} {words}" for count, words in odd if count]
        yield "; ".join([f"{split} intervals: {counts['intervals']} of {counts['videos']} videos", *told])
