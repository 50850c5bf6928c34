"""Durations in words: units follow the size, and none is shown that says nothing."""

from __future__ import annotations

import pytest

from vcil_bench.common.durations import in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3569, "59 min"),
        (3570, "1 h"),
        (3600 + 20 * 60, "1 h 20 min"),
        (86399, "24 h"),
        (86400, "1 d"),
        (2 * 86400 + 5 * 3600, "2 d 5 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
