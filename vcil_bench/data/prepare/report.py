"""Report of a prepared dataset: what is wrong or doubtful about its videos, and how many and how long they are.

Videos that cannot be used are named and left out. Short, doubled and leaking ones are named and kept: the
published numbers of a benchmark contain them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vcil_bench.data.datasets import ADAPTERS
from vcil_bench.data.manifest import MISSING, Manifest, Video

from .odd_intervals import interval_lines, odd_intervals

SHORT = 3  # frames; TCD drops videos of fewer from its training lists
QUANTILES = (5, 25, 50, 75, 95)  # percent


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return counts, problem videos and leaks between train and test, as plain data for a report."""
    counts = Counter((v.split, v.problem is None) for v in manifest.videos)
    used = [v for v in manifest.videos if v.split in ("train", "test")]
    doubles = _doubles(used)
    published = ADAPTERS[manifest.dataset].published.get(manifest.split)
    intervals = odd_intervals(manifest.videos)
    return {
        "dataset": manifest.dataset,
        "split": manifest.split,
        "root": str(manifest.root),
        "sha256": manifest.sha256,
        "classes": len(manifest.class_names()),
        # None where no counts were published for the split
        "lists": published.verdict([(v.label, v.split) for v in manifest.videos]) if published else None,
        "counts": {
            split: {"usable": counts[split, True], "left_out": counts[split, False]}
            for split in ("train", "test", "unused")
        },
        **({"intervals": intervals} if intervals else {}),
        "missing": sum(v.problem == MISSING for v in used),
        "left_out": [{"id": v.id, "problem": v.problem} for v in manifest.left_out()],
        "short": [
            {"id": v.id, "split": v.split, "frames": len(v.span)}
            for v in used
            if v.problem is None and len(v.span) < SHORT
        ],
        "duplicates": [
            {
                "ids": [v.id for v in same],
                "labels": sorted({v.label for v in same}),
                "splits": sorted({v.split for v in same}),
            }
            for same in doubles
        ],
        "test_videos_sharing_a_group_with_train": _sharing_a_group(used),
        "identical_files_in_train_and_test": sorted(
            [v.id for v in same] for same in doubles if len({v.split for v in same}) == 2
        ),
    }


def summary_lines(found: dict[str, Any], limit: int) -> Iterator[str]:
    """Format the summary, at most ``limit`` videos of a kind."""
    if found["lists"] is not None:
        yield found["lists"]
    for part, count in found["counts"].items():
        yield f"{part}: {count['usable']} usable, {count['left_out']} left out"
    yield from interval_lines(found.get("intervals", {}))
    if found["missing"]:
        yield f"missing: {found['missing']} of those left out"
    left_out = sorted(found["left_out"], key=lambda v: v["problem"] == MISSING)  # the damaged ones first
    yield from _some([f"left out: {v['id']}: {v['problem']}" for v in left_out], limit)
    yield from _some([f"short: {v['id']}: {v['frames']} frames ({v['split']})" for v in found["short"]], limit)
    yield from _some(list(_doubled(found["duplicates"])), limit)
    shared = found["test_videos_sharing_a_group_with_train"]
    known = "not checked, the list has no groups" if shared is None else shared
    yield f"test videos that share a group with a training video: {known}"
    both = found["identical_files_in_train_and_test"]
    yield from _some([f"the same file in train and test: {_names(ids)}" for ids in both], limit)


def _doubled(duplicates: list[dict[str, Any]]) -> Iterator[str]:
    for same in duplicates:
        differ = f", though their classes differ ({_names(same['labels'])})" if len(same["labels"]) > 1 else ""
        if differ or len(same["splits"]) == 1:  # those in train and test get a line of their own
            yield f"the same file: {_names(same['ids'])}{differ}"


def _names(names: list[str]) -> str:
    """Return names in a line that can be read, however many there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _some(text: list[str], limit: int) -> list[str]:
    more = [f"... and {len(text) - limit} more, all in the report"] if len(text) > limit else []
    return text[:limit] + more


def _sharing_a_group(videos: list[Video]) -> int | None:
    """Count the test videos whose group is in train; None where no video has a group to say so by."""
    if not any(v.group for v in videos):
        return None
    train = {(v.label, v.group) for v in videos if v.split == "train" and v.group}
    return sum(v.split == "test" and (v.label, v.group) in train for v in videos)


def _doubles(videos: list[Video]) -> list[list[Video]]:
    """Return the sets of videos whose files have the same content; a file with several intervals counts once."""
    first: dict[str, Video] = {}
    doubles: dict[str, list[Video]] = {}
    files = {(v.path, v.split): v for v in reversed(videos) if v.interval is not None}
    for v in videos:
        if files.get((v.path, v.split), v) is not v:
            continue
        if v.facts.sha256 and (other := first.setdefault(v.facts.sha256, v)) is not v:
            doubles.setdefault(v.facts.sha256, [other]).append(v)
    return list(doubles.values())


def statistics(manifest: Manifest) -> dict[str, Any]:
    """Return counts per class and split, and distributions over the usable videos of each split."""
    per_class: dict[str, dict[str, int]] = {}
    for v in manifest.videos:
        counts = per_class.setdefault(v.label, {"train": 0, "test": 0, "unused": 0})
        counts[v.split] += v.problem is None
    return {
        "dataset": manifest.dataset,
        "split": manifest.split,
        "sha256": manifest.sha256,
        "splits": {part: _distributions(manifest.usable(part)) for part in ("train", "test")},
        "usable_per_class": dict(sorted(per_class.items())),
    }


def statistics_lines(found: dict[str, Any]) -> list[str]:
    """Say the most telling of ``statistics`` in a line a split."""
    text = []
    for part, values in found["splits"].items():
        if not values["videos"]:
            continue
        per_class = [counts[part] for counts in found["usable_per_class"].values() if sum(counts.values())]
        frames, sizes = values["frames"], values["sizes"]
        fps = ", ".join(f"{rate} fps" for rate in list(values["fps"])[:2])
        more = ", ..." if len(values["fps"]) > 2 else ""
        text.append(
            f"{part}: {min(per_class)} to {max(per_class)} videos a class; "
            f"{frames['min']} to {frames['max']} frames, median {frames['quantiles']['50']:g}; "
            f"{next(iter(sizes))}{f' and {len(sizes) - 1} other sizes' if len(sizes) > 1 else ''}; {fps}{more}; "
            f"{_size(values['bytes'])}"
        )
    return text


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _distributions(videos: Sequence[Video]) -> dict[str, Any]:
    if not videos:
        return {"videos": 0}
    frames = np.array([len(v.span) for v in videos])
    quantiles = np.percentile(frames, QUANTILES)
    return {
        "videos": len(videos),
        "bytes": sum({v.path: v.facts.bytes for v in videos}.values()),  # parts share their file
        "frames": {
            "min": int(frames.min()),
            "max": int(frames.max()),
            "mean": round(float(frames.mean()), 2),
            "quantiles": {str(q): float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        },
        "fps": _counted("unknown" if v.facts.fps is None else f"{v.facts.fps:.4g}" for v in videos),
        "sizes": _counted(f"{v.facts.width}x{v.facts.height}" for v in videos),
        "codecs": _counted(v.facts.codec for v in videos),
    }


def _counted(values: Any) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
