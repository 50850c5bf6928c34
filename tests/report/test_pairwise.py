"""Comparison of two rows: every number computed again from the files, by other means; which rows are meant."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from functools import cache
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_records import record_data

from vcil_bench import record as records
from vcil_bench.cli import main
from vcil_bench.report.pairwise import ComparisonError, compare_rows, find_pair, markdown
from vcil_bench.report.significance import sign_test
from vcil_bench.verify.imported_records import take_in

REFERENCE = Path(__file__).parents[2] / "results/reference"
SEEDS = (1000, 1993, 2021)
BY_HAND = {
    "average_incremental_accuracy": lambda hits, totals: np.mean(
        [sum(row) / sum(totals[: i + 1]) for i, row in enumerate(hits)]
    ),
    "final_accuracy": lambda hits, totals: sum(hits[-1]) / sum(totals),
    "backward_forgetting": lambda hits, totals: np.mean(
        [(hits[j][j] - hits[-1][j]) / totals[j] for j in range(len(totals) - 1)]
    ),
}


def files(method: str, variant: str = "default") -> list[tuple[Any, Any]]:
    """Read JSON and arrays of a row, without any code of the package."""
    folder = REFERENCE / "synthetic_3x4" / method
    return [
        (
            json.loads((folder / f"{variant}-s{seed}.json").read_text()),
            dict(np.load(folder / f"{variant}-s{seed}.npz")),
        )
        for seed in SEEDS
    ]


@cache
def pair(first: str, second: str, readouts: tuple[str | None, str | None] = (None, None)) -> Any:
    loaded = [
        records.load(path)
        for name in {first.partition(":")[0], second.partition(":")[0]}
        for path in sorted((REFERENCE / "synthetic_3x4" / name).glob("*.json"))
    ]
    return compare_rows(*find_pair(loaded, first, second, readouts=readouts))


@pytest.mark.parametrize(
    ("first", "second", "readouts"), [("stpr", "lwf", ("text", "cnn")), ("icarl", "icarl", ("nme", "cnn"))]
)
def test_every_number_is_that_of_the_files(first: str, second: str, readouts: tuple[str, str]) -> None:
    found = pair(first, second, readouts)
    assert found.seeds == list(SEEDS)
    assert found.left_out == []
    sides = list(zip(files(first), files(second), strict=True))
    by_metric = {m.metric: m for m in found.metrics}
    for name, formula in BY_HAND.items():
        told = by_metric[name]
        values = np.array(
            [
                [
                    100 * formula([s["correct"][r] for s in data["steps"]], data["test_videos"])
                    for (data, _), r in zip(both, readouts, strict=True)
                ]
                for both in sides
            ]
        )
        gaps = values[:, 0] - values[:, 1]
        assert (told.first, told.second) == pytest.approx(tuple(values.mean(axis=0)))
        assert told.difference == pytest.approx(gaps.mean())
        sign = -1 if name == "backward_forgetting" else 1
        assert told.wins == sum(sign * gap > 0 for gap in gaps)
        assert told.losses == sum(sign * gap < 0 for gap in gaps)
        assert told.ties == sum(gap == 0 for gap in gaps)
        assert told.best_p == 0.25
        assert told.sign_p == {3: 0.25, 2: 1.0}[max(told.wins, told.losses)]
        assert told.low < told.difference < told.high
    for j, task in enumerate(found.tasks):
        for when, step in (("learnt", j), ("final", -1)):
            shares = [
                np.mean([100 * d["steps"][step]["correct"][r][j] / d["test_videos"][j] for d, _ in side])
                for side, r in zip(zip(*sides, strict=True), readouts, strict=True)
            ]
            assert getattr(task, f"first_{when}") == pytest.approx(shares[0])
            assert getattr(task, f"second_{when}") == pytest.approx(shares[1])
            assert getattr(task, when) == pytest.approx(shares[0] - shares[1])
        assert found.matrix[-1][j] == pytest.approx(task.final)
        assert found.matrix[j][j] == pytest.approx(task.learnt)
    assert found.matrix[0][1:] == [None] * 4
    for told, both in zip(found.mcnemar, sides, strict=True):
        right = [
            {v for v, best, k in zip(a["videos"], a[f"top5/4/{r}"][:, 0], a["labels"], strict=True) if best == k}
            for (_, a), r in zip(both, readouts, strict=True)
        ]
        alone = len(right[0] - right[1]), len(right[1] - right[0])
        assert (told.only_first, told.only_second, told.both) == (*alone, len(right[0] & right[1]))
        assert told.both + told.only_first + told.only_second + told.neither == 240
        tail = sum(Fraction(comb(sum(alone), k), 2 ** sum(alone)) for k in range(min(alone) + 1))
        assert told.p == pytest.approx(float(min(Fraction(1), 2 * tail)))


def test_the_interval_is_that_of_another_bootstrap() -> None:
    found = pair("stpr", "lwf", ("text", "cnn"))
    sides = [files("stpr"), files("lwf")]
    rng = np.random.default_rng(7)
    names = sorted(sides[0][0][1]["videos"].tolist())
    classes = np.array([name.split("/")[-2] for name in names])
    hits = [
        [dict(zip(a["videos"], a[f"top5/4/{r}"][:, 0] == a["labels"], strict=True)) for _, a in side]
        for side, r in zip(sides, ("text", "cnn"), strict=True)
    ]
    gaps = np.array([np.mean([a[n] for a in hits[0]]) - np.mean([b[n] for b in hits[1]]) for n in names])
    drawn = []
    for _ in range(2000):
        rows = np.concatenate([rng.choice(np.flatnonzero(classes == c), 10) for c in np.unique(classes)])
        drawn.append(100 * gaps[rows].mean())
    (told,) = [m for m in found.metrics if m.metric == "final_accuracy"]
    assert (told.low, told.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.6)


def test_settings_that_differ_are_told_and_no_others() -> None:
    found = {s.key: (s.first, s.second) for s in pair("stpr", "stpr:fssd=False").settings}
    assert found["config.fssd"] == ([True], [False])
    assert set(found) <= {"config.fssd", "trainable", "parameters", "code"} | {
        key for key in found if key.startswith("environment.")
    }
    assert {s.key for s in pair("icarl", "icarl", ("nme", "cnn")).settings} == set()


def test_the_sign_test_of_many_videos_is_quick_and_exact() -> None:
    assert sign_test(30_000, 30_000) == 1.0
    assert 0 <= sign_test(40_000, 20_000) < 1e-300
    assert sign_test(60, 40) == pytest.approx(0.056887933640980784)  # exact: 2 * P(Binomial(100, 1/2) <= 40)


class TestWhichRows:
    """What a user may name, and what is refused."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Results: alpha on three class orders, beta on two, gamma on another protocol."""
        for method, seeds, changes in (
            ("alpha", (1, 2, 3), {}),
            ("beta", (2, 3), {}),
            ("gamma", (1,), {"protocol": {"label": "other", "name": "other", "fingerprint": "e" * 64}}),
        ):
            for seed in seeds:
                data = record_data(method=method, seed=seed, correct=((4,), (seed % 3, 1)), **changes)
                records.save(
                    records.record_path(tmp_path / "r", data["protocol"]["label"], method, "default", seed), data
                )
        return tmp_path / "r"

    def load(self, folder: Path) -> list[records.Record]:
        loaded, errors = records.load_all(folder)
        assert not errors
        return loaded

    def test_orders_that_one_lacks_are_left_out(self, folder: Path) -> None:
        found = compare_rows(*find_pair(self.load(folder), "alpha", "beta"))
        assert (found.seeds, found.left_out) == ([2, 3], [1])
        assert [m.low for m in found.metrics] == [None] * 3  # no predictions
        assert found.mcnemar == []
        assert "alpha" in markdown(found)

    def test_what_shares_no_protocol_is_refused(self, folder: Path) -> None:
        for first, second in (("alpha", "gamma"), ("alpha", "nobody"), ("alpha:lr=2", "beta")):
            with pytest.raises(ComparisonError):
                find_pair(self.load(folder), first, second)
        for arguments in ({"protocol": "other"}, {"readouts": ("cnn", "nme")}):
            with pytest.raises(ComparisonError):
                find_pair(self.load(folder), "alpha", "beta", **arguments)  # type: ignore[arg-type]

    def test_a_path_means_its_run(self, folder: Path) -> None:
        path = records.record_path(folder, "made_up", "alpha", "default", 2)
        found = compare_rows(*find_pair(self.load(folder), str(path), "beta"))
        assert (found.seeds, found.left_out) == ([2], [3])
        assert found.metrics[0].best_p == 1.0
        other = records.record_path(folder, "made_up", "beta", "default", 3)
        with pytest.raises(ComparisonError):  # other class orders
            compare_rows(*find_pair(self.load(folder), str(path), str(other)))

    def test_a_row_from_elsewhere_is_named_by_its_origin(self, tmp_path: Path) -> None:
        shutil.copytree(REFERENCE / "synthetic_3x4/lwf", tmp_path / "r/synthetic_3x4/lwf")
        sent = sorted((REFERENCE / "synthetic_3x4/lwf").glob("*.json"))
        take_in(sent, [], tmp_path / "r", name="lab", who="w", source="")
        loaded = self.load(tmp_path / "r")
        _, ours, theirs = find_pair(loaded, "lwf", "lwf@lab")
        assert (ours.origin, theirs.origin) == ("", "lab")
        found = compare_rows(*find_pair(loaded, "lwf", "lwf@lab"))
        assert {m.difference for m in found.metrics} == {0.0}
        assert found.second.origin == "lab"


def test_the_command_prints_markdown_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("stpr", "lwf"):
        shutil.copytree(REFERENCE / "synthetic_3x4" / method, tmp_path / "synthetic_3x4" / method)
    arguments = ["compare", "stpr", "lwf", "--results", str(tmp_path)]
    assert main([*arguments, "--format", "json", "--metric", "final_task_mean"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [m["metric"] for m in told["metrics"]] == ["final_task_mean"]
    assert told["first"]["method"] == "stpr"
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("# stpr text against lwf cnn")
    assert main([*arguments, "--metric", "nothing"]) == 2
    assert main([*arguments, "--readout", "a,b,c"]) == 2
    assert main(["compare", "stpr", str(tmp_path / "nothing.json"), "--results", str(tmp_path)]) == 2
