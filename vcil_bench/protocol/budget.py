"""Exemplar budget: tells whether exemplars are more than a protocol allows. Imports no torch."""

from __future__ import annotations

from vcil_bench.record_schema import MemoryUse

from .spec import MemorySpec


def exceeds_budget(budget: MemorySpec | None, use: MemoryUse, num_seen: int) -> bool:
    """Tell whether exemplars are more, or have more frames, than a protocol allows after so many classes.

    A memory of features alone is measured by its frames, where the protocol limits them: the frames of one video
    may be of several.
    """
    if budget is not None and isinstance(budget.frames, int) and 0 < use.frames == use.feature_frames:
        return use.frames > budget.frames * allowed_videos(budget, num_seen)
    too_many_frames = (
        budget is not None and isinstance(budget.frames, int) and use.frames > budget.frames * use.videos
    )
    return use.videos > allowed_videos(budget, num_seen) or too_many_frames


def allowed_videos(budget: MemorySpec | None, num_seen: int) -> int:
    """Return how many exemplars a protocol allows after so many classes; 0 without a budget."""
    if budget is None:
        return 0
    return budget.total if budget.total is not None else (budget.per_class or 0) * num_seen
