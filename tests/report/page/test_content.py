"""The page's numbers: each is made again from records and predictions by plain loops, and compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_up_records import record_data
from packed_page import content
from predicted_records import write_run

from vcil_bench.record import Record, load_all
from vcil_bench.report import page
from vcil_bench.report.page.leaderboard import row_ids
from vcil_bench.report.pairwise import compare_rows
from vcil_bench.report.table_file import built_in
from vcil_bench.report.tables import groups, rows

SEEDS = (1, 2, 3)
PACKAGE = Path(page.__file__).parents[1]


def content_of(folder: Path, **more: Any) -> dict[str, Any]:
    """Build the page of a results folder and read its data as a browser would."""
    records, errors = load_all(folder)
    assert not errors
    html = page.build(records, [], groups(records), [], **more)
    return content(html)


@dataclass
class Run:
    """A record's file and its predictions, read without the package."""

    data: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> Run:
        npz = path.with_suffix(".npz")
        arrays = dict(np.load(npz)) if npz.is_file() else {}
        return cls(json.loads(path.read_text(encoding="utf-8")), arrays)

    def matrix(self, readout: str) -> list[list[float]]:
        """Percent of each task's videos after each step."""
        totals = self.data["test_videos"]
        return [
            [100 * c / n for c, n in zip(step["correct"][readout], totals, strict=False)]
            for step in self.data["steps"]
        ]


def metric(name: str, matrix: Sequence[Sequence[float]], totals: Sequence[int], sizes: Sequence[int]) -> float:
    """Return a metric as its formula on the page says it."""
    last = len(matrix) - 1
    steps = [sum(a * n for a, n in zip(row, totals, strict=False)) / sum(totals[: len(row)]) for row in matrix]
    drops = [matrix[j][j] - matrix[last][j] for j in range(last)]
    if name == "average_incremental_accuracy":
        return sum(steps) / len(steps)
    if name == "final_accuracy":
        return steps[-1]
    if name == "final_task_mean":
        return sum(matrix[last]) / len(matrix[last])
    if name == "backward_forgetting":
        return sum(drops) / last
    if name == "backward_forgetting_by_class":
        return sum(d * s for d, s in zip(drops, sizes, strict=False)) / sum(sizes[:-1])
    if name == "max_forgetting":
        best = [max(matrix[i][j] for i in range(j, last + 1)) for j in range(last)]
        return sum(b - matrix[last][j] for j, b in enumerate(best)) / last
    assert name == "tcd_forgetting"
    lost = [
        sum(n * (matrix[i][j] - matrix[i + 1][j]) for j, n in enumerate(totals[: i + 1])) / sum(totals[: i + 1])
        for i in range(last)
    ]
    return sum(lost) / len(lost)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    return (sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1)) ** 0.5


ROWS: dict[str, dict[str, Any]] = {
    "best": {"skill": 0.95},
    "near": {"skill": 0.94},
    "far": {"skill": 0.3, "readouts": ("nme", "cnn")},
    "bound": {"skill": 1.0, "about": {"data_access": "cumulative"}},
    "other": {"skill": 0.6, "weights": {"pretraining": "films"}},
    "still": {"skill": 0.2},  # learns nothing
    "short": {"skill": 0.99},  # lacks a seed
    "bare": {"skill": 0.5, "stored": False},  # lacks predictions
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of eight methods: a clear best, one not told from it, a bound, one of other weights, and so on."""
    results = tmp_path_factory.mktemp("results")
    for method, given in ROWS.items():
        for seed in SEEDS[: 2 if method == "short" else 3]:
            path = write_run(results, method, seed, **given)
            data = json.loads(path.read_text(encoding="utf-8"))
            for step in data["steps"]:
                if method == "still":
                    step["costs"]["trainable"] = 0
                else:
                    step["costs"]["memory"] |= {"videos": seed, "frames": 2 * seed, "bytes": 9 * seed}
                step["costs"]["train_s"] = 1.5 * seed
            data["environment"]["git"] = f"{seed}" * 40
            data["data"]["verified"] = (
                [] if method == "far" else [{"level": "warning", "check": "files", "text": "x"}]
            )
            path.write_text(json.dumps(data), encoding="utf-8")
    return results


@pytest.fixture(scope="module")
def stored(folder: Path) -> dict[str, Any]:
    """The page's data."""
    return content_of(folder)


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[tuple[str, int], Run]:
    """All runs, by method and seed."""
    files = sorted(folder.glob("*/*/*.json"))
    return {(run.data["method"]["name"], run.data["seed"]): run for run in map(Run.read, files)}


def of_row(row: Mapping[str, Any], runs: Mapping[tuple[str, int], Run]) -> list[Run]:
    return [run for (method, _), run in sorted(runs.items()) if method == row["method"]]


def values(row: Mapping[str, Any], name: str, runs: Mapping[tuple[str, int], Run]) -> list[float]:
    return [
        metric(name, run.matrix(row["readout"]), run.data["test_videos"], run.data["classes_per_task"])
        for run in of_row(row, runs)
    ]


def test_values_are_those_of_the_counts(stored: dict[str, Any], runs: dict[tuple[str, int], Run]) -> None:
    (group,) = stored["groups"]
    assert set(group["all_metrics"]) == set(stored["metrics"])
    assert group["all_metrics"][0] == "average_incremental_accuracy"
    assert len(group["rows"]) == len(ROWS) + 1  # one has two readouts
    for row in group["rows"]:
        for name in group["all_metrics"]:
            several = values(row, name, runs)
            assert row["values"][name] == pytest.approx([mean(several), deviation(several)], abs=6e-5)
    for run in stored["runs"]:
        mine = runs[stored["pool"][run["method"]]["name"], run["seed"]]
        for readout, told in run["values"].items():
            for name, value in told.items():
                matrix, data = mine.matrix(readout), mine.data
                made = metric(name, matrix, data["test_videos"], data["classes_per_task"])
                assert value == pytest.approx(made, abs=6e-5)


@pytest.mark.parametrize(
    "names",
    [
        ["average_incremental_accuracy", "backward_forgetting"],
        pytest.param(
            [
                *("final_accuracy", "final_task_mean"),
                *("backward_forgetting_by_class", "tcd_forgetting", "max_forgetting"),
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["headline and forgetting", "the rest"],
)
def test_ranks_are_among_like_by_intervals(
    stored: dict[str, Any], runs: dict[tuple[str, int], Run], names: list[str]
) -> None:
    (group,) = stored["groups"]
    lines = group["rows"]
    assert {row["method"] for row in lines if row["bound"]} == {"bound"}
    assert {row["method"] for row in lines if not row["trains"]} == {"still"}
    assert {row["like"] for row in lines} == {"pictures", "films"}
    tied = 0
    for name in names:
        up = stored["metrics"][name]["up"]
        ranked = [
            row
            for row in lines
            if row["like"] == "pictures"
            and row["method"] not in ("bound", "short")
            and (up or row["method"] != "still")
        ]
        best = (max if up else min)(ranked, key=lambda row: mean(values(row, name, runs)))
        behind = []
        for row in lines:
            told = row["behind"][name]
            if row not in ranked or row is best:
                assert told is None
                assert row["ranks"][name] == ("best" if row is best else "")
                continue
            gap = mean(values(best, name, runs)) - mean(values(row, name, runs))
            assert told["diff"] == pytest.approx(gap, abs=1e-4)
            if row["method"] == "bare":
                assert told["low"] is told["high"] is None
                behind.append((gap, row))
                continue
            low, high = interval(best, row, name, runs)
            assert (told["low"], told["high"]) == pytest.approx((low, high), abs=1e-4)
            if low <= 1e-9 and high >= -1e-9:
                assert row["ranks"][name] == "best"
                tied += 1
            else:
                behind.append((gap, row))
        shared = len(behind) < len(ranked) - 1
        second = min((abs(gap) for gap, _ in behind), default=0)
        for gap, row in behind:
            assert row["ranks"][name] == ("second" if not shared and abs(gap) == second else "")
    assert tied


def interval(
    first: Mapping[str, Any], second: Mapping[str, Any], name: str, runs: Mapping[tuple[str, int], Run]
) -> tuple[float, float]:
    """Return the 95 % interval of first minus second by a slow bootstrap over the same draws."""
    sides = []
    for row in (first, second):
        draws = [drawn(run, row["readout"], name) for run in of_row(row, runs)]
        sides.append([mean([values[i] for values in draws]) for i in range(len(draws[0]))])
    gaps = sorted(a - b for a, b in zip(*sides, strict=True))
    ends = []
    for share in (0.025, 0.975):
        place = share * (len(gaps) - 1)
        low = int(place)
        ends.append(gaps[low] + (place - low) * (gaps[min(low + 1, len(gaps) - 1)] - gaps[low]))
    return ends[0], ends[1]


_DRAWN: dict[tuple[str, int, str], list[list[list[float]]]] = {}


def drawn(run: Run, readout: str, name: str) -> list[float]:
    """Return a metric of a run under a thousand draws of its test videos, each class's own number of them."""
    key = run.data["method"]["name"], run.data["seed"], readout
    if key not in _DRAWN:
        classes = [run.data["class_order"][label] for label in run.arrays["labels"]]
        names = run.arrays["videos"].tolist()
        rng = np.random.default_rng(0)
        weights: list[dict[str, int]] = []
        for _ in range(10):
            some: list[dict[str, int]] = [{} for _ in range(100)]
            for c in sorted(set(classes)):
                mine = sorted(video for video, other in zip(names, classes, strict=True) if other == c)
                counts = rng.multinomial(len(mine), [1 / len(mine)] * len(mine), size=100)
                for draw, line in zip(some, counts.tolist(), strict=True):
                    draw |= dict(zip(mine, line, strict=True))
            weights += some
        tasks, totals = run.arrays["task"].tolist(), run.data["test_videos"]
        steps = [
            [
                [
                    v
                    for v, guess, label, k in zip(names, top[:, 0], run.arrays["labels"], tasks, strict=False)
                    if guess == label and k == task
                ]
                for task in range(step + 1)
            ]
            for step in range(len(totals))
            for top in [run.arrays[f"top5/{step}/{readout}"]]
        ]
        _DRAWN[key] = [
            [
                [100 * sum(draw[v] for v in right) / n for right, n in zip(step, totals, strict=False)]
                for step in steps
            ]
            for draw in weights
        ]
    data = run.data
    return [metric(name, m, data["test_videos"], data["classes_per_task"]) for m in _DRAWN[key]]


def test_pairs_have_the_intervals_of_compare(stored: dict[str, Any], folder: Path) -> None:
    (group,) = stored["groups"]
    records, _ = load_all(folder)
    (table,) = groups(records)
    lines = rows(table)
    bare = next(number for number, row in enumerate(lines) if row.method == "bare")
    assert set(group["pairs"]) == {"average_incremental_accuracy", "backward_forgetting"}
    for name, told in group["pairs"].items():
        expected = {}
        for b in range(len(lines)):
            for a in range(b):
                (found,) = compare_rows(table, lines[a], lines[b], [name]).metrics
                if bare not in (a, b):
                    expected[f"{a},{b}"] = pytest.approx([found.low, found.high], abs=6e-4)
                else:
                    assert found.low is None
        assert told == expected


@pytest.mark.slow
def test_pairs_are_a_slow_bootstraps(stored: dict[str, Any], runs: dict[tuple[str, int], Run]) -> None:
    (group,) = stored["groups"]
    numbers = [n for n, row in enumerate(group["rows"]) if row["method"] in ("best", "far", "bound")]
    for name, told in group["pairs"].items():
        for b in numbers:
            for a in (n for n in numbers if n < b):
                ends = interval(group["rows"][a], group["rows"][b], name, runs)
                assert told[f"{a},{b}"] == pytest.approx(ends, abs=1e-3)


def test_curves_costs_and_memory_are_means_and_most(
    stored: dict[str, Any], runs: dict[tuple[str, int], Run]
) -> None:
    for row in stored["groups"][0]["rows"]:
        mine = of_row(row, runs)
        assert row["curve"]["seen"] == [3, 5, 6]
        for step in range(3):
            accuracies, drops = [], []
            for run in mine:
                matrix, totals = run.matrix(row["readout"]), run.data["test_videos"]
                correct = run.data["steps"][step]["correct"][row["readout"]]
                accuracies.append(100 * sum(correct) / sum(totals[: step + 1]))
                old = [matrix[j][j] - matrix[step][j] for j in range(step)]
                drops.append(mean(old) if old else 0.0)
            for name, several in (("accuracy", accuracies), ("forgetting", drops)):
                curve = row["curve"][name]
                assert curve["mean"][step] == pytest.approx(mean(several), abs=6e-4)
                assert curve["std"][step] == pytest.approx(deviation(several), abs=6e-4)
        assert row["train_s"] == pytest.approx(mean([4.5 * run.data["seed"] for run in mine]))
        most = max(run.data["seed"] for run in mine) if row["method"] != "still" else 0
        kept = {"videos": most, "frames": 2 * most, "bytes": 9 * most, "statistics_bytes": 0}
        assert row["memory"] == kept | {"feature_frames": 0}


def test_what_stands_under_the_title(stored: dict[str, Any], folder: Path) -> None:
    assert stored["about"] == {
        "records": 23,
        "complete": 23,
        "protocols": 1,
        "methods": 8,
        "seeds": "2 to 3 class orders each",
        "commits": ["1111111", "2222222", "3333333"],
        "verify": {"warnings": 1, "unchecked": 3},
        "known_protocols": len(list((PACKAGE.parents[0].parent / "protocols").glob("*.yaml"))),
    }


def test_rows_and_runs_name_each_other(stored: dict[str, Any]) -> None:
    lines = stored["groups"][0]["rows"]
    assert len({row["id"] for row in lines}) == len(lines)
    assert lines[0]["id"] == "made_up/bare/default/cnn"
    for number, run in enumerate(stored["runs"]):
        assert number in stored["groups"][run["group"]]["rows"][run["row"]]["runs"]
    assert {row["exemplars"] for row in lines} == {"none", "all videos"}
    assert [stored["readouts"][row["readout"]]["label"] for row in lines] == [
        {"cnn": "CNN", "nme": "NME"}[row["readout"]] for row in lines
    ]


def test_addresses_are_unique_and_encoded(tmp_path: Path) -> None:
    made = [
        record_data(method="a b/c", seed=1),
        record_data(method="a b/c", seed=1, weights={"source": "/x/one.pt"}),
    ]
    records = [Record(tmp_path / f"{i}.json", data) for i, data in enumerate(made)]
    (group,) = groups(records)
    assert row_ids(group, rows(group)) == ["made_up/a%20b%2Fc/default/cnn", "made_up/a%20b%2Fc/default/cnn~2"]


def test_labels_of_protocols_and_methods(tmp_path: Path) -> None:
    for label, kind in (("tcd_ucf101_10x5", "real"), ("tcd_ucf101_10x5~eeee", "real"), ("mine", "synthetic")):
        protocol = {"name": label.partition("~")[0], "label": label, "fingerprint": label.ljust(64, "e")}
        protocol |= {"dataset": {"name": "ucf101", "split": 1, "label_map": None}}  # type: ignore[dict-item]
        write_run(tmp_path, "tcd", 1, skill=0.5, protocol=protocol, data={"kind": kind})
    stored = content_of(tmp_path)
    heads = {group["label"]: (group["dataset"], group["short"]) for group in stored["groups"]}
    assert heads["tcd_ucf101_10x5"] == ("UCF101", "10x5")
    assert heads["tcd_ucf101_10x5~eeee"] == ("UCF101", "tcd_ucf101_10x5~eeee")
    assert heads["mine"] == ("UCF101", "mine")
    assert stored["methods"] == {"tcd": {"label": "TCD"}}
    assert stored["groups"][0]["rows"][0]["label"] == "TCD"


def test_reported_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    for name in ("tcd_hmdb51_5x5", "synthetic_3x4"):
        protocol = {"name": name, "label": name, "fingerprint": name.ljust(64, "e")}
        kind = {"kind": "synthetic" if name.startswith("synthetic") else "real"}
        write_run(tmp_path, "tcd", 1, skill=0.5, protocol=protocol, data=kind)
    stored = content_of(tmp_path, reported=built_in())
    real, made = stored["groups"]
    assert made["published"] == []
    file = csv.DictReader((PACKAGE / "published.csv").read_text(encoding="utf-8").splitlines())
    theirs = [line for line in file if line["protocol"] == "tcd_hmdb51_5x5"]
    papers = yaml.safe_load((PACKAGE / "papers.yaml").read_text(encoding="utf-8"))
    (hce,) = [table for table in papers if table["id"] == "hce_tcd"]
    labels = {row["published"]: row["label"] for row in hce["rows"]}
    number = 0
    for line in theirs:
        if line["source"] not in hce["sources"] or line["table"] not in hce["tables"] or line["metric"] != "Acc":
            continue
        if line["method"] not in labels:
            continue
        number += 1
        assert {
            "label": labels[line["method"]],
            "readout": line["readout"],
            "metric": "average_incremental_accuracy",
            "value": float(line["value"]),
            "source": f"{line['source']}, {line['table']} ({line['trust']})",
            "backbone": line["backbone"],
        } in real["published"]
    assert number > 10
    known = {float(line["value"]) for line in theirs}
    assert all(entry["value"] in known for entry in real["published"])
    assert len({json.dumps(entry) for entry in real["published"]}) == len(real["published"])


def test_a_plugins_record_appears(tmp_path: Path) -> None:
    for seed in SEEDS:
        write_run(tmp_path, "mine", seed, skill=0.9, about={"origin": "file", "file": "/somewhere/mine.py"})
        write_run(tmp_path, "tcd", seed, skill=0.5)
    (group,) = content_of(tmp_path)["groups"]
    assert [row["label"] for row in group["rows"]] == ["mine", "TCD"]
    assert [row["ranks"]["final_accuracy"] for row in group["rows"]] == ["best", ""]
    assert set(group["pairs"]["average_incremental_accuracy"]) == {"0,1"}


def test_the_same_records_give_the_same_bytes(folder: Path) -> None:
    records, _ = load_all(folder)
    pages = [page.build(several, [], groups(several), []) for several in (records, list(records))]
    assert pages[0].encode() == pages[1].encode()
