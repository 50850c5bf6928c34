"""The page of a row in a real browser: means over class orders, computed again from the files."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import pytest
from reference_pages import SEEDS, cells, changed, files, guesses, number, reference_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
ROW = "#row/synthetic_3x4/stpr/default/text"


def accuracies(method: str = "stpr", readout: str = "text") -> list[list[list[float]]]:
    """Return percent by class order, task learnt and task tested."""
    found = []
    for seed in SEEDS:
        record, _ = files(method, seed)
        totals = record["test_videos"]
        lines = [step["correct"][readout] for step in record["steps"]]
        found.append([[100 * hit / totals[j] for j, hit in enumerate(line)] for line in lines])
    return found


def overall() -> list[list[float]]:
    """Return percent of all test videos of the classes learnt, by class order and task learnt."""
    found = []
    for seed in SEEDS:
        record, _ = files("stpr", seed)
        hits = [step["correct"]["text"] for step in record["steps"]]
        found.append([100 * sum(line) / sum(record["test_videos"][: len(line)]) for line in hits])
    return found


def test_matrix_is_the_mean_of_the_class_orders(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), ROW)
    _, *lines = cells(page, "#part-accuracy table.heat")
    orders, seen = accuracies(), overall()
    for i, line in enumerate(lines):
        every = [values[i] for values in seen]
        assert line[:2] == [f"after task {i + 1}", f"{mean(every):.2f}± {stdev(every):.2f}"]
        for j, text in enumerate(line[2:]):
            if j > i:
                assert text == ""
                continue
            values = [order[i][j] for order in orders]
            average, lowest, highest = re.fullmatch(r"(\d+\.\d)(\d+)–(\d+)", text).groups()  # type: ignore[union-attr]
            assert float(average) == pytest.approx(mean(values), abs=0.051)
            assert [float(lowest), float(highest)] == pytest.approx([min(values), max(values)], abs=0.51)
    told = page.inner_text("#sentence")
    assert f"{mean(map(mean, seen)):.2f} %" in told
    assert f"{mean(values[-1] for values in seen):.2f} %" in told


def test_forgetting_of_every_task(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), ROW)
    _, *lines = cells(page, "#part-forgetting table.heat")
    orders = accuracies()
    assert len(lines) == 4
    for j, line in enumerate(lines):
        learnt = [order[j][j] for order in orders]
        best = [max(order[i][j] for i in range(j, 5)) for order in orders]
        end = [order[4][j] for order in orders]
        falls = [b - a for a, b in zip(learnt, end, strict=True)]
        wanted = [mean(learnt), mean(best), mean(end), mean(falls), *falls]
        assert [number(text) for text in line[1:]] == pytest.approx(wanted, abs=0.051)


def test_seeds_stand_side_by_side_and_lead_to_their_runs(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), ROW)
    head, *lines = cells(page, "#part-orders table")
    assert [line[0] for line in lines] == [*(f"seed {seed}" for seed in SEEDS), "mean ± deviation"]
    final = next(i for i, title in enumerate(head) if title.startswith("Acc (final) "))
    forgetting = next(i for i, title in enumerate(head) if title.startswith("BWF "))
    orders, seen = accuracies(), overall()
    for line, order, values in zip(lines[:-1], orders, seen, strict=True):
        assert number(line[final]) == pytest.approx(values[-1], abs=0.0051)
        fall = mean(order[j][j] - order[4][j] for j in range(4))
        assert number(line[forgetting]) == pytest.approx(fall, abs=0.0051)
    ends = [values[-1] for values in seen]
    assert lines[-1][final] == f"{mean(ends):.2f} ± {stdev(ends):.2f}"
    page.locator("#part-orders").get_by_role("link", name="seed 1993").click()
    page.wait_for_selector("#run-title")
    assert page.url.endswith("#run/synthetic_3x4/stpr/default-s1993")
    page.go_back()
    page.wait_for_selector("#row-title")
    page.wait_for_timeout(200)
    assert page.evaluate("document.activeElement.textContent") == "seed 1993"


def test_old_and_new_classes_are_confused_as_the_predictions_say(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), ROW)
    page.wait_for_selector(".confusion")
    shares: list[list[list[float]]] = [[[], []] for _ in range(4)]
    last = [[[0.0] * 3 for _ in range(5)] for _ in range(5)]
    for order, seed in enumerate(SEEDS):
        record, arrays = files("stpr", seed)
        task_of = [task for task, size in enumerate(record["classes_per_task"]) for _ in range(size)]
        labels = arrays["labels"].tolist()
        for step, best in enumerate(guesses(arrays, "text")):
            pairs = [(task_of[true], task_of[guess]) for true, guess in zip(labels, best, strict=False)]
            if step:
                old = [guess == step for true, guess in pairs if true < step]
                new = [guess < step for true, guess in pairs if true == step]
                shares[step - 1][0].append(100 * mean(old))
                shares[step - 1][1].append(100 * mean(new))
        for task in range(5):
            mine = [guess for true, guess in pairs if true == task]
            for other in range(5):
                last[task][other][order] = 100 * mine.count(other) / len(mine)
    _, *lines = cells(page, "#part-confusion .numbers")
    wanted = [[f"{mean(v):.2f} ± {stdev(v):.2f}" for v in pair] for pair in shares]
    assert [line[1:] for line in lines] == wanted
    _, *lines = cells(page, ".confusion")
    for line, row in zip(lines, last, strict=True):
        assert [number(text) for text in line[1:]] == pytest.approx([mean(v) for v in row], abs=0.51)


def test_costs_are_those_of_the_records(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), ROW)
    head, *lines = cells(page, "#part-cost table")
    for line, seed in zip(lines[1:], SEEDS, strict=True):
        record, _ = files("stpr", seed)
        costs = [step["costs"] for step in record["steps"]]
        seconds = sum(cost["train_s"] for cost in costs)
        assert line[head.index("training")] == f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
        assert line[head.index("parameters")] == f"{costs[-1]['parameters']:,}"
        assert line[head.index("trainable")] == f"{max(cost['trainable'] for cost in costs):,}"


def test_published_numbers_stand_beside_those_measured(visit: Callable[..., Page]) -> None:
    def publish(data: dict[str, Any]) -> None:
        line = {"label": "StPR", "readout": "", "metric": "final_accuracy", "value": 55.5, "source": "a paper"}
        other = line | {"label": "LwF", "source": "another"}
        data["groups"][0]["published"] = [line | {"backbone": "ViT-B/16"}, other | {"backbone": ""}]

    page = visit(changed(reference_page(), publish), ROW)
    ends = [values[-1] for values in overall()]
    _, *lines = cells(page, "#part-published table")
    assert lines == [["a paper", "ViT-B/16", "Acc (final)", "55.50", f"{mean(ends):.2f} ± {stdev(ends):.2f}"]]


def test_another_row_is_chosen_to_compare_with(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), ROW)
    page.get_by_role("combobox", name="Compare with").select_option(label="LwF.MC CNN")
    page.wait_for_selector("#compare-title")
    assert page.url.endswith("#compare/synthetic_3x4/stpr/default/text/synthetic_3x4/lwf/default/cnn")
