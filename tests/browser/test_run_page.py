"""The page of a run in a real browser: every number counted again from its files by plain loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from reference_pages import cells, changed, files, guesses, number, reference_page

from vcil_bench.report.page.packed import pack

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
RUN = "#run/synthetic_3x4/stpr/default-s1000"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def heat_map(seed: int = 1000) -> list[list[str]]:
    """Make the classes' table from the files: name, task, percents, change, what it is taken for."""
    record, arrays = files("stpr", seed)
    labels, steps = arrays["labels"].tolist(), guesses(arrays, "text")
    names = [record["class_names"][c] for c in record["class_order"]]
    lines, label = [], 0
    for task, size in enumerate(record["classes_per_task"]):
        for _ in range(size):
            shares: list[str] = []
            hits = []
            total = labels.count(label)
            for step, best in enumerate(steps):
                if step < task:
                    shares.append("")
                    continue
                right = 0
                for guess, true in zip(best, labels, strict=False):
                    right += guess == label == true
                hits.append(right)
                shares.append(str(int(100 * right / total + 0.5)))
            wrong = Counter(g for g, true in zip(steps[-1], labels, strict=True) if true == label != g)
            taken = sorted(wrong.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
            change = 100 * (hits[-1] - hits[0]) / total
            sign = "+" if change > 0 else "\N{MINUS SIGN}" if change < 0 else ""
            told = ", ".join(f"{names[other]} {count}" for other, count in taken)
            lines.append([names[label], str(task + 1), *shares, f"{sign}{abs(change):.0f}", told])
            label += 1
    return lines


def test_classes_are_counted_from_the_predictions(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), RUN)
    page.wait_for_selector(".classes")
    head, *lines = cells(page, ".classes")
    assert head == [
        *("class", "task", "after 1", "after 2", "after 3", "after 4", "after 5"),
        *("change", "taken for, at the end (videos)"),
    ]
    assert lines == heat_map()
    assert page.locator(".classes tr.border").count() == 4  # a line above every task but the first


def test_classes_are_sorted_chosen_and_found_again(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), RUN)
    page.wait_for_selector(".classes")
    page.get_by_role("combobox", name="Order").focus()
    page.keyboard.press("ArrowDown")  # by key alone: fell most first
    _, *lines = cells(page, ".classes")
    falls = [number(line[-2]) for line in lines]
    assert falls == sorted(falls)
    assert sorted(lines) == sorted(heat_map())
    assert page.locator(".classes tr.border").count() == 0
    page.get_by_role("combobox", name="Class").select_option(lines[0][0])
    assert page.inner_text("#one-class h3") == lines[0][0]
    record, arrays = files("stpr", 1000)
    names = [record["class_names"][c] for c in record["class_order"]]
    labels, steps = arrays["labels"].tolist(), guesses(arrays, "text")
    label, task = names.index(lines[0][0]), int(lines[0][1]) - 1
    _, *shown = cells(page, "#one-class table")
    assert len(shown) == 5 - task
    for line, best in zip(shown, steps[task:], strict=True):
        wrong = Counter(names[g] for g, true in zip(best, labels, strict=False) if true == label != g)
        told = dict(part.rsplit(" ", 1) for part in line[2].split(", ")) if wrong else {}
        assert {name: int(count) for name, count in told.items()} == wrong
        right = sum(g == label == true for g, true in zip(best, labels, strict=False))
        assert line[1] == f"{right}/{labels.count(label)}"
    page.reload()
    page.wait_for_selector("#one-class")
    assert page.inner_text("#one-class h3") == lines[0][0]
    assert cells(page, ".classes")[1:] == lines


def lost(seed: int = 1000) -> tuple[list[list[str]], list[list[str]]]:
    """Count videos learnt and lost from the files: a line a task, and the videos of the first task."""
    record, arrays = files("stpr", seed)
    labels, steps = arrays["labels"].tolist(), guesses(arrays, "text")
    task_of = [task for task, size in enumerate(record["classes_per_task"]) for _ in range(size)]
    names = [record["class_names"][c] for c in record["class_order"]]
    summary, first = [], []
    for task in range(4):
        learnt = gone = gained = total = 0
        for video, label in enumerate(labels):
            if task_of[label] != task:
                continue
            right = [best[video] == label for best in steps[task:]]
            total += 1
            learnt += right[0]
            gone += right[0] and not right[-1]
            gained += right[-1] and not right[0]
            if task == 0 and right[0] and not right[-1]:
                until = max(i for i, yes in enumerate(right) if yes) + 1
                guess = names[steps[-1][video]]
                first.append([str(arrays["videos"][video]), names[label], f"task {until}", guess])
        summary.append([str(n) for n in (task + 1, total, learnt, gone, gained)])
    return summary, first


def test_videos_learnt_and_lost(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), RUN)
    page.wait_for_selector(".fates")
    summary, first = lost()
    assert cells(page, ".fates")[1:] == summary
    page.locator(".fate summary").first.press("Enter")
    page.wait_for_selector(".lost")
    assert [line[-4:] for line in cells(page, ".lost")[1:]] == first


def test_pictures_stand_beside_videos_that_have_one(visit: Callable[..., Page]) -> None:
    _, first = lost()

    def give(data: dict[str, Any]) -> None:
        data["thumbnails"] = {first[0][0]: PIXEL}

    page = visit(changed(reference_page(), give), RUN)
    page.locator(".fate summary").first.click()
    page.wait_for_selector(".lost")
    assert page.locator(".lost img").count() == 1
    assert page.locator(".lost img").get_attribute("src") == PIXEL


def test_larger_runs_have_their_classes_all_the_same(visit: Callable[..., Page]) -> None:
    def by_class(data: dict[str, Any]) -> None:
        """Store the run as a larger one is: counts per class, and the commonest confusions."""
        (run,) = [run for run in data["runs"] if run["id"] == RUN.removeprefix("#run/")]
        record, arrays = files("stpr", 1000)
        labels, steps = arrays["labels"], guesses(arrays, "text")
        sizes = np.cumsum(record["classes_per_task"])
        counts = [
            sum(int(g == label == true) for g, true in zip(best, labels, strict=False))
            for best, seen in zip(steps, sizes, strict=True)
            for label in range(seen)
        ]
        taken = {}
        for label in range(24):
            wrong = Counter(g for g, true in zip(steps[-1], labels, strict=True) if true == label != g)
            taken[str(label)] = [list(p) for p in sorted(wrong.items(), key=lambda p: (-p[1], p[0]))[:3]]
        totals = [int((labels == label).sum()) for label in range(24)]
        data["pool"].append(totals)
        place = len(data["pool"]) - 1
        kept = {
            "kind": "classes",
            "data": pack(np.array(counts).astype("<u2").tobytes()),
            "taken": taken,
            "totals": place,
        }
        run["outcomes"], run["videos"] = {"text": kept}, None

    page = visit(changed(reference_page(), by_class), f"{RUN}?class=0")
    page.wait_for_selector(".classes")
    assert cells(page, ".classes")[1:] == heat_map()
    assert page.locator("#one-class").count() == 1
    assert page.locator(".fates").count() == 0


def test_what_came_out_stands_first_and_settings_that_differ_before_the_rest(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), RUN)
    page.wait_for_selector(".classes")
    record, _ = files("stpr", 1000)
    totals = record["test_videos"]
    hits = [step["correct"]["text"] for step in record["steps"]]
    overall = [100 * sum(line) / sum(totals[: len(line)]) for line in hits]
    falls = [(hits[-1][j] - hits[j][j]) / totals[j] for j in range(4)]
    worst = falls.index(min(falls))
    ends = (100 * hits[worst][worst] / totals[worst], 100 * hits[-1][worst] / totals[worst])
    told = page.inner_text("#sentence")
    for value in (
        f"{sum(overall) / 5:.2f} %",
        f"{overall[-1]:.2f} %",
        f"task {worst + 1} ",
        *(f"{e:.1f}" for e in ends),
    ):
        assert value in told
    counts = [line[3:] for line in cells(page, "#part-accuracy table.heat")[1:]]
    assert counts == [
        [f"{line[j]}/{totals[j]}" if j < len(line) else "" for j in range(len(totals))] for line in hits
    ]
    changes = {
        *(key for key, s in record["config"].items() if s["origin"] != "default"),
        *(f"option {key}" for key, s in record["options"].items() if s["origin"] != "default"),
    }
    assert {line[0] for line in cells(page, "#part-settings table")[1:]} == changes
    assert page.locator("#part-record details[open]").count() == 0
    parts = page.locator(".contents a").all_inner_texts()
    assert parts[:3] == ["Accuracy, task by task", "Settings that differ from the default", "Classes"]
    headings = page.locator(".parts h2").all_inner_texts()
    assert headings == parts
    assert "step" not in page.inner_text("#detail").replace(record["protocol"]["title"], "")


def test_parts_are_reached_from_their_list(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), RUN)
    page.wait_for_selector(".fates")
    page.get_by_role("link", name="Cost", exact=True).press("Enter")
    assert page.evaluate("document.activeElement.id") == "part-cost-title"
    assert page.url.endswith("?at=cost")
    page.reload()
    page.wait_for_selector(".fates")
    page.wait_for_timeout(100)
    assert page.evaluate("document.activeElement.id") == "part-cost-title"


def test_a_classifier_is_chosen(visit: Callable[..., Page]) -> None:
    page = visit(reference_page(), "#run/synthetic_3x4/icarl/default-s1000")
    record, _ = files("icarl", 1000)
    for readout in ("cnn", "nme", "cnn"):
        page.get_by_role("combobox", name="Classifier").select_option(readout)
        page.wait_for_selector(".classes")
        shown = [line[3] for line in cells(page, "#part-accuracy table.heat")[1:]]
        assert shown == [f"{s['correct'][readout][0]}/{record['test_videos'][0]}" for s in record["steps"]]
    page.reload()
    page.wait_for_selector(".classes")
    assert page.get_by_role("combobox", name="Classifier").input_value() == "cnn"
