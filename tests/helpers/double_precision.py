"""Float64 for whole runs: two ways of computing one result agree to rounding, on every processor.

A training multiplies rounding: StPR's FSSD is a weight of 1e4 on the difference of two nearly equal features,
a ReLU near zero goes one way or the other. In float32 a comparison of two runs then tests the processor. In
float64 the same factor leaves what is equal by construction equal to about 1e-10, and what is not far from it.

As a script it is the command line in float64, for tests that start processes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest

from vcil_bench.testing.float64 import double_precision as double_precision

RTOL = 1e-8  # of losses: 4e-11 was the largest difference measured, and a wrong computation is off by far more


def check_equal_trainings(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> None:
    """Assert that the steps of two float64 runs have the same counts, and losses equal but for rounding."""
    assert [step["correct"] for step in a] == [step["correct"] for step in b]
    for one, two in zip(a, b, strict=True):
        assert [loss["phase"] for loss in one["losses"]] == [loss["phase"] for loss in two["losses"]]
        for x, y in zip(one["losses"], two["losses"], strict=True):
            expected = {name: value for name, value in x.items() if name != "phase"}
            found = {name: value for name, value in y.items() if name != "phase"}
            assert found == pytest.approx(expected, rel=RTOL)


if __name__ == "__main__":
    from vcil_bench.cli import main

    with double_precision():
        sys.exit(main())
