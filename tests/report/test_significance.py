"""Paired comparison: the sign test by hand, the bootstrap against a slow one, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_records import record_data

from vcil_bench import record
from vcil_bench.report import significance

VIDEOS = 12  # of two tasks: classes 0 and 1 (label order 0, 1), then class 2


def _run(folder: Path, method: str, seed: int, hits: np.ndarray) -> record.Record:
    """Write a complete record with predictions; ``hits`` [2, VIDEOS] says what is right after each step."""
    labels = np.repeat([0, 1, 2], 4)
    tasks = np.repeat([0, 0, 1], 4)
    top = {}
    for step, seen in enumerate((8, 12)):
        best = np.where(hits[step, :seen], labels[:seen], (labels[:seen] + 1) % (2 + step))
        top[f"top5/{step}/cnn"] = np.stack([best] + [np.full(seen, -1)] * 4, axis=1).astype(np.int16)
    correct = [[int(hits[0, :8].sum())], [int(hits[1, :8].sum()), int(hits[1, 8:].sum())]]
    path = record.record_path(folder, "made_up", method, "default", seed)
    arrays = {**top, "videos": np.array([f"v{i:02d}" for i in range(VIDEOS)]), "labels": labels, "task": tasks}
    digest = record.save_predictions(record.predictions_path(path), arrays)
    data: Any = record_data(method=method, seed=seed, correct=correct, totals=(8, 4))
    data["class_order"] = [2, 0, 1]
    data["predictions"] = {"file": record.predictions_path(path).name, "sha256": digest}
    record.save(path, data)
    return record.load(path)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[list[record.Record], list[record.Record]]:
    """Two methods on three seeds; the first is right more often."""
    rng = np.random.default_rng(3)
    first, second = [], []
    for seed in (1, 2, 3):
        first.append(_run(tmp_path, "good", seed, rng.random((2, VIDEOS)) < 0.8))
        second.append(_run(tmp_path, "bad", seed, rng.random((2, VIDEOS)) < 0.4))
    return first, second


def test_sign_test_by_hand() -> None:
    assert significance.sign_test(3, 0) == 0.25
    assert significance.sign_test(0, 3) == 0.25
    assert significance.sign_test(2, 1) == 1.0
    assert significance.sign_test(8, 0) == 2 / 256
    assert significance.sign_test(0, 0) == 1.0


def test_the_difference_is_that_of_the_metric(pair: Any) -> None:
    for metric in ("average_incremental_accuracy", "final_task_mean", "backward_forgetting"):
        found = significance.compare(*pair, metric, ("cnn", "cnn"))
        assert found is not None
        gaps = [a.metric(metric, "cnn") - b.metric(metric, "cnn") for a, b in zip(*pair, strict=True)]
        assert found.difference == pytest.approx(np.mean(gaps))
        sign = 1 if metric != "backward_forgetting" else -1
        assert found.wins == sum(sign * g > 0 for g in gaps)
        assert found.losses == sum(sign * g < 0 for g in gaps)
        assert found.low <= found.difference <= found.high


def test_the_interval_is_that_of_a_bootstrap_written_out(pair: Any) -> None:
    """Draw videos within classes, count again, take percentiles: slowly, and with other random numbers."""
    rng = np.random.default_rng(99)
    classes = np.repeat([0, 1, 2], 4)
    right = []
    for side in pair:
        loaded = [np.load(record.predictions_path(r.path)) for r in side]
        right.append(
            [(a["top5/0/cnn"][:, 0] == a["labels"][:8], a["top5/1/cnn"][:, 0] == a["labels"]) for a in loaded]
        )
    drawn = []
    for _ in range(3000):
        rows = np.concatenate([rng.choice(np.flatnonzero(classes == c), 4) for c in range(3)])
        values = []
        for side in right:
            per_seed = [(first[rows[rows < 8]].mean() + second[rows].mean()) / 2 for first, second in side]
            values.append(np.mean(per_seed))
        drawn.append(values[0] - values[1])
    found = significance.compare(*pair, "average_incremental_accuracy", ("cnn", "cnn"))
    assert found is not None
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_a_method_ties_with_itself_and_repeats(pair: Any) -> None:
    same = significance.compare(pair[0], pair[0], "final_accuracy", ("cnn", "cnn"))
    assert same is not None
    assert (same.difference, same.low, same.high, same.wins, same.losses) == (0, 0, 0, 0, 0)
    assert same.tied
    once = significance.compare(*pair, "final_accuracy", ("cnn", "cnn"))
    assert once == significance.compare(*pair, "final_accuracy", ("cnn", "cnn"))


def test_what_does_not_pair_is_not_compared(pair: Any) -> None:
    first, second = pair
    assert significance.compare(first, second[:2], "final_accuracy", ("cnn", "cnn")) is None
    record.predictions_path(second[0].path).unlink()
    assert significance.compare(first, second, "final_accuracy", ("cnn", "cnn")) is None
