"""A whole run of our TCD against one of the authors' code: every step, from first weights to predictions.

Recorded from bellos1203/TCD@3dc3638 in float64 on one thread: ResNet-18 with shift, seven classes in three
tasks, 25 steps. Another recording of the same format can be replayed by naming its file in the environment
variable VCIL_BENCH_TCD_TRAJECTORY: sizes, seeds and options are read from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from golden_files import FOLDER
from tcd_replay import Recording, Replay

pytestmark = pytest.mark.usefixtures("float64")

NAME = "tcd_trajectory"
EMBEDDED = FOLDER / f"{NAME}.npz"


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording(Path(os.environ.get("VCIL_BENCH_TCD_TRAJECTORY") or EMBEDDED))


def test_the_first_step_is_the_authors(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = Replay(recording, tmp_path, monkeypatch)
    replay.run(upto=1)
    assert replay.step == 1


@pytest.mark.slow
def test_the_run_is_the_authors(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Replay(recording, tmp_path, monkeypatch).run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"lambda_2": 0.02}, "loss decorrelation of step 0"),
        ({"head_lr": 5.1}, r"optimiser of head\.weight in step 0"),
        ({"authors_code": False}, r"optimiser of head\.weight in step 6"),
    ],
)
def test_another_run_is_told_apart(
    changes: dict[str, Any], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=where):
        Replay(Recording(EMBEDDED), tmp_path, monkeypatch, **changes).run()
