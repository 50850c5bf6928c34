"""What a dataset looks like: videos per class, and how long, large and fast they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from vcil_bench.data.manifest import Manifest, Video

QUANTILES = (5, 25, 50, 75, 95)  # percent


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


def lines(found: dict[str, Any]) -> list[str]:
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
    frames = np.array([v.frames for v in videos])
    quantiles = np.percentile(frames, QUANTILES)
    return {
        "videos": len(videos),
        "bytes": sum(v.bytes for v in videos),
        "frames": {
            "min": int(frames.min()),
            "max": int(frames.max()),
            "mean": round(float(frames.mean()), 2),
            "quantiles": {str(q): float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        },
        "fps": _counted("unknown" if v.fps is None else f"{v.fps:.4g}" for v in videos),
        "sizes": _counted(f"{v.width}x{v.height}" for v in videos),
        "codecs": _counted(v.codec for v in videos),
    }


def _counted(values: Any) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
