"""The exemplar budget: what is more than a protocol allows."""

from __future__ import annotations

import pytest

from vcil_bench.protocol import MemorySpec
from vcil_bench.protocol.budget import exceeds_budget
from vcil_bench.record_schema import MemoryUse


@pytest.mark.parametrize(
    ("budget", "videos", "frames", "exceeded"),
    [
        (None, 0, 0, False),
        (None, 1, 4, True),
        (MemorySpec(per_class=2, frames=4), 6, 24, False),
        (MemorySpec(per_class=2, frames=4), 7, 24, True),
        (MemorySpec(per_class=2, frames=4), 6, 25, True),
        (MemorySpec(total=5, frames="all"), 5, 500, False),
        (MemorySpec(total=5, frames="all"), 6, 6, True),
    ],
)
def test_exemplars_are_held_against_the_budget(
    budget: MemorySpec | None, videos: int, frames: int, exceeded: bool
) -> None:
    use = MemoryUse(videos=videos, frames=frames, bytes=0)
    assert exceeds_budget(budget, use, num_seen=3) == exceeded
