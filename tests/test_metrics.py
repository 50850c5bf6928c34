from __future__ import annotations

import numpy as np
import pytest
from golden_files import golden

from vcil_bench.metrics import (
    METRICS,
    accuracy_matrix,
    average_incremental_accuracy,
    backward_forgetting,
    final_accuracy,
    final_task_mean,
    forgetting_rate,
    max_forgetting,
    performance_drop,
    step_accuracy,
    tcd_forgetting,
)

NAN = np.nan

# Three tasks. Task 0 gets better before it is forgotten, so that "when learnt" and "best" differ.
R = np.array(
    [
        [0.5, NAN, NAN],
        [0.8, 1.0, NAN],
        [0.2, 0.4, 0.9],
    ]
)
TOTALS = np.array([10, 30, 60])
CLASSES = np.array([3, 1, 2])
WORKED = {
    # steps: 0.5; (10*0.8 + 30*1.0) / 40 = 0.95; (10*0.2 + 30*0.4 + 60*0.9) / 100 = 0.68
    "average_incremental_accuracy": 0.71,  # (0.5 + 0.95 + 0.68) / 3
    "final_accuracy": 0.68,
    "final_task_mean": 0.5,  # (0.2 + 0.4 + 0.9) / 3
    "backward_forgetting": 0.45,  # ((0.5 - 0.2) + (1.0 - 0.4)) / 2
    "backward_forgetting_by_class": 0.375,  # (3 * 0.3 + 1 * 0.6) / 4
    # first step 0.5 - 0.8 = -0.3; second (10*(0.8 - 0.2) + 30*(1.0 - 0.4)) / 40 = 0.6
    "tcd_forgetting": 0.15,
    "max_forgetting": 0.6,  # ((0.8 - 0.2) + (1.0 - 0.4)) / 2
}


def close(actual: object, expected: object) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


def test_functions_on_a_matrix_worked_by_hand() -> None:
    close(step_accuracy(R, TOTALS), [0.5, 0.95, 0.68])
    close(average_incremental_accuracy(R, TOTALS), WORKED["average_incremental_accuracy"])
    close(final_accuracy(R, TOTALS), WORKED["final_accuracy"])
    close(final_task_mean(R), WORKED["final_task_mean"])
    close(backward_forgetting(R), WORKED["backward_forgetting"])
    close(backward_forgetting(R, CLASSES), WORKED["backward_forgetting_by_class"])
    close(tcd_forgetting(R, TOTALS), WORKED["tcd_forgetting"])
    close(max_forgetting(R), WORKED["max_forgetting"])


def test_every_metric_of_the_table_is_worked_by_hand() -> None:
    assert METRICS.keys() == WORKED.keys()


@pytest.mark.parametrize("filler", [NAN, -200.0, 1.0])
@pytest.mark.parametrize("name", METRICS)
def test_metric_computes_its_function_and_reads_no_upper_triangle(name: str, filler: float) -> None:
    matrix = np.where(np.isnan(R), filler, R)
    value = METRICS[name].compute(matrix, TOTALS, CLASSES)
    assert isinstance(value, float)
    close(value, WORKED[name])


@pytest.mark.parametrize("name", METRICS)
def test_direction_fits_the_name(name: str) -> None:
    assert METRICS[name].higher_is_better == ("forgetting" not in name)


@pytest.mark.parametrize("steps", [6, 11, 26])
def test_tcd_metrics_equal_the_authors(steps: int) -> None:
    data = {key.removeprefix(f"n{steps}_"): value for key, value in golden("tcd_09").items()}
    matrix, totals = data["acc_matrix"], data["num_videos"]
    assert matrix.shape == (steps, steps)
    assert (matrix[np.triu_indices(steps, 1)] == -200).all()
    close(step_accuracy(matrix, totals), data["step_accuracy"])
    close(tcd_forgetting(matrix, totals), data["tcd_forgetting"].item())
    close(average_incremental_accuracy(matrix, totals), data["own_avg_incremental_accuracy"])
    close(final_accuracy(matrix, totals), data["step_accuracy"][-1])
    close(backward_forgetting(matrix), data["own_bwf_task_mean"])
    close(final_task_mean(matrix), data["own_final_task_mean"])


@pytest.mark.parametrize("steps", [5, 10])
def test_vclimb_metrics_equal_the_authors(steps: int) -> None:
    data = {key.removeprefix(f"n{steps}_"): value for key, value in golden("vclimb_16").items()}
    matrix, classes = data["acc_matrix"], data["classes_per_task"]
    assert len(set(classes)) > 1  # else weighted and unweighted means cannot be told apart
    tolerance = {"rtol": 0, "atol": 1e-4}  # the authors' percentages are float32
    expected = {
        "code_final_bwf": backward_forgetting(matrix, classes),
        "code_final_acc": final_accuracy(matrix, classes),
        "paper_final_acc_task_equal": final_task_mean(matrix),
        "paper_final_bwf_task_equal": backward_forgetting(matrix),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(value, data[key], **tolerance, err_msg=key)
    np.testing.assert_allclose(step_accuracy(matrix, classes), data["code_acc_per_step"], **tolerance)
    per_step = [backward_forgetting(matrix[:i, :i], classes[:i]) for i in range(1, steps + 1)]
    np.testing.assert_allclose(per_step, data["code_bwf_per_step"], **tolerance)


def test_vclimb_matrix_follows_from_the_counts() -> None:
    data = golden("vclimb_16")
    totals = data["n10_num_videos"]
    correct = [row[: i + 1].tolist() for i, row in enumerate(data["n10_num_correct"])]
    matrix = accuracy_matrix(correct, totals)
    lower = np.tril_indices(10)
    np.testing.assert_allclose(100 * matrix[lower], data["n10_acc_matrix"][lower], rtol=0, atol=1e-4)


def test_forgetting_of_a_single_task_is_zero_and_accuracy_its_own() -> None:
    single, totals = [[0.4]], [7]
    close(step_accuracy(single, totals), [0.4])
    for value in (average_incremental_accuracy(single, totals), final_accuracy(single, totals)):
        close(value, 0.4)
    close(final_task_mean(single), 0.4)
    for value in (backward_forgetting(single), tcd_forgetting(single, totals), max_forgetting(single)):
        assert value == 0.0


def test_forgetting_is_negative_where_old_tasks_improve_but_never_the_drop_from_the_best() -> None:
    improving = [[0.5, NAN], [0.7, 0.9]]
    close(backward_forgetting(improving), -0.2)
    close(tcd_forgetting(improving, [1, 1]), -0.2)
    close(max_forgetting(improving), 0.0)


def test_26_tasks_of_101_classes_keep_their_classes_apart() -> None:
    classes = np.array([51, *[2] * 25])
    # Task j always scores (j + 1) / 26, but the base task loses one point of a hundred every step.
    matrix = np.tile((np.arange(26) + 1) / 26, (26, 1))
    matrix[:, 0] = 1 - np.arange(26) / 100
    # Only the base task (51 of 99 counted classes) drops, by 0.25 in all.
    close(backward_forgetting(matrix, classes), 0.25 * 51 / 99)
    close(backward_forgetting(matrix), 0.25 / 25)
    close(max_forgetting(matrix), 0.25 / 25)
    close(tcd_forgetting(matrix, classes), np.mean([0.01 * 51 / (51 + 2 * i) for i in range(25)]))


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_a_stack_of_matrices_gives_what_each_of_them_gives(tasks: int) -> None:
    rng = np.random.default_rng(tasks)
    stack = rng.random((4, tasks, tasks))
    totals, classes = rng.integers(1, 9, tasks).astype(float), rng.integers(1, 9, tasks).astype(float)
    for metric in METRICS.values():
        found = metric.compute(stack, totals, classes)
        assert found.shape == (4,)
        np.testing.assert_allclose(found, [metric.compute(each, totals, classes) for each in stack], rtol=1e-12)
        assert isinstance(metric.compute(stack[0], totals, classes), float)
    np.testing.assert_allclose(step_accuracy(stack, totals), [step_accuracy(each, totals) for each in stack])
    np.testing.assert_allclose(forgetting_rate(stack), [forgetting_rate(each) for each in stack])


def test_last_weight_of_backward_forgetting_is_not_used() -> None:
    assert backward_forgetting(R, [3, 1, 2]) == backward_forgetting(R, [3, 1, 5000])


@pytest.mark.parametrize(
    "matrix", [[], [0.5], [[0.5, 0.4]], np.zeros((0, 0)), np.zeros((2, 2, 3))], ids=lambda m: str(np.shape(m))
)
def test_matrix_of_a_wrong_shape_is_refused(matrix: object) -> None:
    for function in (final_task_mean, backward_forgetting, max_forgetting):
        with pytest.raises(ValueError, match="square"):
            function(matrix)
    with pytest.raises(ValueError, match="square"):
        step_accuracy(matrix, [1])


@pytest.mark.parametrize("totals", [[1, 2], [1, 2, 3, 4], [1, 2, 0], [1, 2, -3], [1, 2, NAN], 3])
def test_totals_that_do_not_fit_are_refused(totals: object) -> None:
    for function in (step_accuracy, average_incremental_accuracy, final_accuracy, tcd_forgetting):
        with pytest.raises(ValueError, match="totals must be 3 positive numbers"):
            function(R, totals)
    with pytest.raises(ValueError, match="weights must be 3 positive numbers"):
        backward_forgetting(R, totals)


def test_accuracy_matrix_divides_counts_and_leaves_the_future_empty() -> None:
    matrix = accuracy_matrix([[3], [1, 8], [0, 4, 5]], [4, 8, 5])
    np.testing.assert_array_equal(matrix, [[0.75, NAN, NAN], [0.25, 1.0, NAN], [0.0, 0.5, 1.0]])


def test_accuracy_matrix_refuses_rows_of_a_wrong_length() -> None:
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        accuracy_matrix([[3], [1, 8, 2]], [4, 8])


def test_the_drop_of_the_base_task_and_of_all_seen() -> None:
    close(forgetting_rate(R), [0.0, 0.5 - 0.8, 0.5 - 0.2])
    close(performance_drop(R, TOTALS), 0.5 - 0.68)


def test_metrics_of_sfcl_equal_a_second_computation() -> None:
    data = golden("sfcl_01")
    R, totals = data["accuracy"], data["num_videos"]
    close(forgetting_rate(R), data["forgetting_rate"])
    close(performance_drop(R, totals), data["performance_drop"])
    close(average_incremental_accuracy(R, totals), data["average_incremental_accuracy"])
