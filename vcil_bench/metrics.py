"""Every metric, named and defined once, as a pure function of the accuracy matrix.

R is [S, S]: ``R[i, j]`` is the accuracy on the test videos of task j after learning step i, both from 0 with
the base task first. Only the lower triangle (j <= i) is read, so any filler may stand above it. ``totals``
[S] counts the test videos of each task. Results carry R's unit (fractions here, percent in the papers). R may be
a stack of matrices [..., S, S]; results then are stacks, too.

"Forgetting" means at least four things in the literature; the docstrings say whose is whose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def _matrix(R: ArrayLike) -> FloatArray:
    R = np.asarray(R, dtype=np.float64)
    if R.ndim < 2 or R.shape[-2] != R.shape[-1] or R.shape[-1] == 0:
        raise ValueError(f"the accuracy matrix must be square and not empty, its shape is {R.shape}")
    return R


def _mean(values: FloatArray) -> Any:
    """Return the mean over the last axis, as a plain number where nothing else is left."""
    return _plain(values.mean(axis=-1))


def _plain(values: Any) -> Any:
    return float(values) if np.ndim(values) == 0 else values


def _weights(values: ArrayLike, steps: int, what: str) -> FloatArray:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (steps,) or not (values > 0).all():
        raise ValueError(f"{what} must be {steps} positive numbers, one per task, not {values}")
    return values


def step_accuracy(R: ArrayLike, totals: ArrayLike) -> FloatArray:
    """Accuracy over all test videos seen so far, after every step.

    ``A_i = sum_{j<=i} n_j R[i,j] / sum_{j<=i} n_j``. Source: TCD cl_utils._compute_avg_total.

    Returns:
        [..., S], in R's unit.
    """
    R = _matrix(R)
    n = _weights(totals, R.shape[-1], "totals")
    steps = [R[..., i, : i + 1] @ n[: i + 1] / n[: i + 1].sum() for i in range(R.shape[-1])]
    return np.stack(steps, axis=-1)


def average_incremental_accuracy(R: ArrayLike, totals: ArrayLike) -> Any:
    """Mean of ``step_accuracy`` over all steps, the base step included.

    The convention of the papers on TCD's protocol; TCD's own code writes the step accuracies only.
    """
    return _mean(step_accuracy(R, totals))


def final_accuracy(R: ArrayLike, totals: ArrayLike) -> Any:
    """Accuracy over all test videos after the last step (``step_accuracy[-1]``)."""
    return _plain(step_accuracy(R, totals)[..., -1])


def final_task_mean(R: ArrayLike) -> Any:
    """Mean over tasks of the accuracy after the last step, every task counted alike.

    ``(1/S) sum_j R[S,j]``. Source: vCLIMB's metric page (its "Acc"); vCLIMB's code weighs tasks by their
    number of classes instead, which differs only where tasks differ in size.
    """
    return _mean(_matrix(R)[..., -1, :])


def backward_forgetting(R: ArrayLike, weights: ArrayLike | None = None) -> Any:
    """Accuracy right after a task was learnt minus its final accuracy, averaged over all but the last task.

    ``BWF = sum_{j<S} w_j (R[j,j] - R[S,j]) / sum_{j<S} w_j``; negative where old tasks improved. Source:
    vCLIMB's metric page for equal weights; its code (iCaRL_conLoss.final_validate) takes the classes per task.

    Args:
        R: Accuracy matrix [S, S].
        weights: [S] weight per task (the last one is not used); None weighs tasks alike.

    Returns:
        In R's unit; 0.0 for a single task, which has nothing to forget yet (as vCLIMB's code gives).
    """
    R = _matrix(R)
    steps = R.shape[-1]
    w = np.ones(steps) if weights is None else _weights(weights, steps, "weights")
    if steps == 1:
        return _plain(np.zeros(R.shape[:-2]))
    drop = np.diagonal(R, axis1=-2, axis2=-1)[..., :-1] - R[..., -1, :-1]
    return _plain(drop @ w[:-1] / w[:-1].sum())


def tcd_forgetting(R: ArrayLike, totals: ArrayLike) -> Any:
    """Video-weighted drop from one step to the next, averaged over steps; not the drop since first learnt.

    ``mean_{i<S} [ sum_{j<=i} n_j (R[i,j] - R[i+1,j]) / sum_{j<=i} n_j ]``. Source: TCD
    cl_utils._compute_fgt. 0.0 for a single task.
    """
    R = _matrix(R)
    n = _weights(totals, R.shape[-1], "totals")
    drops = [
        (R[..., i, : i + 1] - R[..., i + 1, : i + 1]) @ n[: i + 1] / n[: i + 1].sum()
        for i in range(R.shape[-1] - 1)
    ]
    return _mean(np.stack(drops, axis=-1)) if drops else _plain(np.zeros(R.shape[:-2]))


def max_forgetting(R: ArrayLike) -> Any:
    """Best accuracy a task ever had minus its final accuracy, averaged over all but the last task.

    The best is taken over all steps, the last included, so no term is negative. Source: PyCIL and ESSENTIAL's
    engine. 0.0 for a single task.
    """
    R = _matrix(R)
    drops = [R[..., j:, j].max(axis=-1) - R[..., -1, j] for j in range(R.shape[-1] - 1)]
    return _mean(np.stack(drops, axis=-1)) if drops else _plain(np.zeros(R.shape[:-2]))


def forgetting_rate(R: ArrayLike) -> FloatArray:
    """Drop of the base task's accuracy since it was learnt, after every step: ``R[0,0] - R[i,0]``.

    Source: SFCL (AAAI 2026), Table 3.
    """
    R = _matrix(R)
    return R[..., :1, 0] - R[..., :, 0]


def performance_drop(R: ArrayLike, totals: ArrayLike) -> Any:
    """First minus last of ``step_accuracy``. Source: SFCL (AAAI 2026)."""
    steps = step_accuracy(R, totals)
    return _plain(steps[..., 0] - steps[..., -1])


@dataclass(frozen=True)
class Metric:
    """How a report names a metric and computes it from matrices, the test videos and the classes per task."""

    title: str
    formula: str
    higher_is_better: bool
    compute: Callable[[FloatArray, FloatArray, FloatArray], Any]


METRICS: dict[str, Metric] = {
    "average_incremental_accuracy": Metric(
        "Acc (avg. incremental)",
        "mean over steps, base included, of the accuracy over all test videos seen",
        True,
        lambda R, totals, classes: average_incremental_accuracy(R, totals),
    ),
    "final_accuracy": Metric(
        "Acc (final)",
        "accuracy over all test videos after the last step",
        True,
        lambda R, totals, classes: final_accuracy(R, totals),
    ),
    "final_task_mean": Metric(
        "Acc (final, task mean)",
        "mean over tasks of the accuracy after the last step",
        True,
        lambda R, totals, classes: final_task_mean(R),
    ),
    "backward_forgetting": Metric(
        "BWF",
        "mean over old tasks of (accuracy when learnt - final accuracy)",
        False,
        lambda R, totals, classes: backward_forgetting(R),
    ),
    "backward_forgetting_by_class": Metric(
        "BWF (class-weighted)",
        "BWF with tasks weighted by their number of classes (vCLIMB's code)",
        False,
        lambda R, totals, classes: backward_forgetting(R, classes),
    ),
    "tcd_forgetting": Metric(
        "Forgetting (TCD)",
        "mean over steps of the video-weighted drop to the next step",
        False,
        lambda R, totals, classes: tcd_forgetting(R, totals),
    ),
    "max_forgetting": Metric(
        "Forgetting (max)",
        "mean over old tasks of (best accuracy ever - final accuracy)",
        False,
        lambda R, totals, classes: max_forgetting(R),
    ),
}


@dataclass(frozen=True)
class StepMetric:
    """How a report names and computes a metric that has a value after every step."""

    title: str
    formula: str
    compute: Callable[[FloatArray, FloatArray], FloatArray]


STEP_METRICS: dict[str, StepMetric] = {
    "step_accuracy": StepMetric("top-1", "accuracy over all test videos seen after a step", step_accuracy),
    "forgetting_rate": StepMetric(
        "forgetting rate",
        "accuracy of the base task when learnt - after a step",
        lambda R, totals: forgetting_rate(R),
    ),
}


def accuracy_matrix(correct: list[list[int]], totals: ArrayLike) -> FloatArray:
    """Turn stored counts into R: ``correct[i][j]`` of task j's ``totals[j]`` test videos after step i.

    Returns:
        [S, S] fractions; NaN above the diagonal, where nothing was tested.
    """
    n = np.asarray(totals, dtype=np.float64)
    R = np.full((len(correct), len(correct)), np.nan)
    for i, row in enumerate(correct):
        R[i, : i + 1] = np.asarray(row, dtype=np.float64) / n[: i + 1]
    return R
