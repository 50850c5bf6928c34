"""Comparison of two rows or runs: how far apart, whether chance would do it, on which tasks, by which settings.

Everything is paired: the same class orders, and the same test videos where both runs have their predictions.
Numbers are percent and percentage points; a difference is the first minus the second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcil_bench.common.errors import UserError, did_you_mean
from vcil_bench.identity import differences, is_code
from vcil_bench.metrics import METRICS
from vcil_bench.record import Record, has_predictions, load, read_predictions
from vcil_bench.record_schema import MemoryUse

from .significance import compare, sign_test, wins_and_losses
from .tables import Group, Row, groups, rows


class ComparisonError(UserError):
    """Two rows that are not there, not clear, or that must not be compared."""


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        method: Its name.
        variant: What was changed on the command line.
        readout: The readout.
        backbone: Backbone and, unless they are its own, its weights.
        pretraining: Data its weights were trained on.
        origin: Who ran it, empty for here.
        notes: What a table says beside it, such as stale.
    """

    method: str
    variant: str
    readout: str
    backbone: str
    pretraining: str
    origin: str
    notes: str

    @property
    def name(self) -> str:
        """A heading."""
        variant = "" if self.variant == "default" else self.variant
        origin = f"[{self.origin}]" if self.origin else ""
        return " ".join(part for part in (self.method, origin, variant, self.readout) if part)


@dataclass(frozen=True)
class MetricDifference:
    """A metric of both, over the class orders that both have.

    Attributes:
        metric: Its name.
        higher_is_better: Whether a larger one is better.
        first: Mean of the first over class orders.
        second: Of the second.
        difference: Mean difference.
        low: Lower end of the 95 % interval over test videos; None where the videos cannot be paired.
        high: Upper end.
        wins: Class orders on which the first is better.
        losses: Class orders on which the second is better.
        ties: Class orders on which they are equal.
        sign_p: Two-sided p of the sign test over class orders.
        best_p: The lowest p that so many class orders can give.
    """

    metric: str
    higher_is_better: bool
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    wins: int
    losses: int
    ties: int
    sign_p: float
    best_p: float


@dataclass(frozen=True)
class TaskDifference:
    """Accuracy on one task, mean over class orders.

    Attributes:
        task: Its number, from 1.
        first_learnt: Accuracy of the first just after learning it.
        second_learnt: Of the second.
        first_final: Accuracy of the first after the last task.
        second_final: Of the second.
        learnt: Difference just after learning it.
        final: Difference after the last task.
    """

    task: int
    first_learnt: float
    second_learnt: float
    first_final: float
    second_final: float
    learnt: float
    final: float


@dataclass(frozen=True)
class McNemar:
    """Test videos by who recognises them after the last task, for one class order.

    Attributes:
        seed: Of the class order.
        both: Videos that both recognise.
        only_first: The first alone.
        only_second: The second alone.
        neither: No one.
        p: Two-sided p of the exact test: whether the first alone and the second alone are equally many.
    """

    seed: int
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


@dataclass(frozen=True)
class Setting:
    """A setting in which the two differ; several values where runs of one side differ in it.

    Attributes:
        key: Its name, the section first.
        first: Values of the first, None where it has no such key.
        second: Of the second.
    """

    key: str
    first: list[Any]
    second: list[Any]


@dataclass(frozen=True)
class Pair:
    """Two rows compared.

    Attributes:
        protocol: Label of the protocol.
        title: Its heading in tables.
        first: The first row.
        second: The second.
        seeds: Class orders that both have, on which everything here is computed.
        left_out: Class orders that one of them has alone.
        metrics: One entry a metric, the headline first.
        tasks: One entry a task.
        matrix: Difference of the accuracies on each task (columns) after each step (rows) [S, S]; None above
            the diagonal.
        mcnemar: One entry a class order; empty where the videos cannot be paired.
        settings: In what they differ.
    """

    protocol: str
    title: str
    first: Side
    second: Side
    seeds: list[int]
    left_out: list[int]
    metrics: list[MetricDifference]
    tasks: list[TaskDifference]
    matrix: list[list[float | None]]
    mcnemar: list[McNemar]
    settings: list[Setting]


def find_pair(
    records: Sequence[Record],
    first: str,
    second: str,
    *,
    protocol: str | None = None,
    readouts: tuple[str | None, str | None] = (None, None),
) -> tuple[Group, Row, Row]:
    """Return the two rows that a user names, and the table that they share.

    Args:
        records: All records of a results folder.
        first: ``METHOD``, ``METHOD:VARIANT``, either with ``@ORIGIN`` behind it, or a record's path.
        second: The same.
        protocol: Label or name of the protocol; None where there is but one that both were run on.
        readouts: Of either; None takes the method's first.

    Raises:
        ComparisonError: They share no protocol or several, or a name means no row or several.
        RecordError: A path leads to no record.
    """
    sides = [_Wanted.of(text, readout) for text, readout in zip((first, second), readouts, strict=True)]
    given = [side.record for side in sides if side.record is not None]
    # What a path names counts once, also where it lies among the results.
    paths = {record.path.resolve() for record in given}
    everything = [*(record for record in records if record.path.resolve() not in paths), *given]
    shared, ran = [], [set[str](), set[str]()]
    for group in groups(everything):
        lines = rows(group)
        matching = [[row for row in lines if side.is_about(row)] for side in sides]
        for names, several in zip(ran, matching, strict=True):
            names |= {group.label} if several else set()
        if all(matching) and protocol in (None, group.label, group.records[0].data["protocol"]["name"]):
            shared.append((group, matching))
    if len(shared) != 1:
        raise _not_one(sides, ran, [group.label for group, _ in shared], protocol)
    ((group, matching),) = shared
    chosen = [side.choose(several) for side, several in zip(sides, matching, strict=True)]
    return group, chosen[0], chosen[1]


@dataclass(frozen=True)
class _Wanted:
    """What a user names: a row of the results, or a record."""

    text: str
    method: str
    variant: str
    origin: str
    readout: str | None
    record: Record | None

    @classmethod
    def of(cls, text: str, readout: str | None) -> _Wanted:
        if text.endswith(".json"):
            record = load(Path(text))
            return cls(text, "", "", "", readout, record)
        name, _, origin = text.partition("@")
        method, _, variant = name.partition(":")
        return cls(text, method, variant, origin, readout, None)

    def is_about(self, row: Row) -> bool:
        """Tell whether a row may be meant; several readouts and, without a variant's name, variants may."""
        if self.record is not None:
            return any(record is self.record for record in row.complete)
        return (
            bool(row.complete)
            and row.method == self.method
            and (not self.variant or row.variant == self.variant)
            and (not self.origin or row.origin == self.origin)
        )

    def choose(self, several: Sequence[Row]) -> Row:
        """Return the row that is meant.

        Raises:
            ComparisonError: There is no such readout, or several rows would do.
        """
        names = list(dict.fromkeys(row.readout for row in several))
        readout = names[0] if self.readout is None else self.readout
        if readout not in names:
            hint = did_you_mean(readout, names)
            raise ComparisonError(f"{self.text} has no readout {readout!r}{hint}; it has: {', '.join(names)}")
        left = [row for row in several if row.readout == readout]
        if self.record is not None:
            (row,) = left
            (seed,) = (record for record in row.complete if record is self.record)
            return Row(
                *(
                    row.method,
                    row.variant,
                    row.backbone,
                    row.readout,
                    [seed],
                    [],
                    row.seeds,
                    row.stale,
                    row.origin,
                )
            )
        for preferred in (lambda row: row.variant == "default", lambda row: not row.origin):
            if any(map(preferred, left)):
                left = [row for row in left if preferred(row)]
        if len(left) > 1:
            known = ", ".join(
                f"{row.method}:{row.variant}{f'@{row.origin}' if row.origin else ''} on {row.backbone}"
                for row in left
            )
            raise ComparisonError(f"{self.text} means several rows: {known}; name one, or give a record's path")
        return left[0]


def _not_one(
    sides: Sequence[_Wanted], ran: Sequence[set[str]], shared: Sequence[str], protocol: str | None
) -> ComparisonError:
    """Say why two rows are not compared: on no protocol, or on several."""
    if shared:
        return ComparisonError(
            f"{sides[0].text} and {sides[1].text} were both run on {', '.join(shared)}; choose with --protocol"
        )
    told = "; ".join(
        f"{side.text}: {', '.join(sorted(names)) or 'no finished run'}"
        for side, names in zip(sides, ran, strict=True)
    )
    where = f" {protocol!r}" if protocol else ""
    return ComparisonError(
        f"no protocol{where} that both were run on ({told}); only runs on the same version of a protocol, kind "
        "of data and kind of weights are compared"
    )


def compare_rows(group: Group, first: Row, second: Row, metrics: Sequence[str] | None = None) -> Pair:
    """Compare two rows of a group over the class orders that both have.

    Args:
        group: The table that they share.
        first: A row with finished runs.
        second: Another, or the same method with another readout.
        metrics: Names of metrics; None takes the protocol's.

    Raises:
        ComparisonError: They share no class order, or there is no such metric.
    """
    names = list(metrics or group.metrics)
    for name in names:
        if name not in METRICS:
            raise ComparisonError(
                f"unknown metric {name!r}{did_you_mean(name, METRICS)}; known: {', '.join(METRICS)}"
            )
    by_seed = [{record.data["seed"]: record for record in row.complete} for row in (first, second)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not seeds:
        has = [", ".join(map(str, sorted(several))) for several in by_seed]
        raise ComparisonError(
            f"no class order that both were run on: {first.named()} has seed {has[0]}, {second.named()} {has[1]}"
        )
    runs = [[several[seed] for seed in seeds] for several in by_seed]
    readouts = first.readout, second.readout
    matrices = [100 * _mean_matrix(side, readout) for side, readout in zip(runs, readouts, strict=True)]
    return Pair(
        group.label,
        group.title,
        _side(first),
        _side(second),
        seeds,
        sorted(by_seed[0].keys() ^ by_seed[1].keys()),
        [_metric(runs[0], runs[1], name, readouts) for name in names],
        list(_tasks(*matrices)),
        _lower(matrices[0] - matrices[1]),
        list(_mcnemar(runs[0], runs[1], readouts)),
        settings_that_differ(runs[0], runs[1]),
    )


def _side(row: Row) -> Side:
    pretraining = row.complete[0].data["weights"]["pretraining"]
    return Side(row.method, row.variant, row.readout, row.backbone, pretraining, row.origin, row.notes)


def _mean_matrix(runs: Sequence[Record], readout: str) -> NDArray[np.float64]:
    return np.asarray(np.mean([run.matrix(readout) for run in runs], axis=0))


def _metric(
    first: Sequence[Record], second: Sequence[Record], name: str, readouts: tuple[str, str]
) -> MetricDifference:
    values = [
        100 * np.array([run.metric(name, readout) for run in side])
        for side, readout in zip((first, second), readouts, strict=True)
    ]
    gaps = values[0] - values[1]
    wins, losses = wins_and_losses(gaps, name)
    paired = compare(first, second, name, readouts)
    return MetricDifference(
        name,
        METRICS[name].higher_is_better,
        float(values[0].mean()),
        float(values[1].mean()),
        float(gaps.mean()),
        None if paired is None else 100 * paired.low,
        None if paired is None else 100 * paired.high,
        wins,
        losses,
        len(gaps) - wins - losses,
        sign_test(wins, losses),
        sign_test(len(gaps), 0),
    )


def _tasks(first: NDArray[np.float64], second: NDArray[np.float64]) -> Iterator[TaskDifference]:
    for j in range(len(first)):
        values = (float(first[j, j]), float(second[j, j]), float(first[-1, j]), float(second[-1, j]))
        yield TaskDifference(j + 1, *values, values[0] - values[1], values[2] - values[3])


def _lower(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    return [[float(value) if j <= i else None for j, value in enumerate(row)] for i, row in enumerate(matrix)]


def _mcnemar(first: Sequence[Record], second: Sequence[Record], readouts: tuple[str, str]) -> Iterator[McNemar]:
    """Count videos by who recognises them; nothing for class orders whose test videos cannot be paired."""
    for a, b in zip(first, second, strict=True):
        hits = [_recognised(run, readout) for run, readout in zip((a, b), readouts, strict=True)]
        if hits[0] is None or hits[1] is None or hits[0].keys() != hits[1].keys():
            continue
        pairs = [(hits[0][video], hits[1][video]) for video in hits[0]]
        alone = pairs.count((True, False)), pairs.count((False, True))
        yield McNemar(
            a.data["seed"], pairs.count((True, True)), *alone, pairs.count((False, False)), sign_test(*alone)
        )


def _recognised(record: Record, readout: str) -> dict[str, bool] | None:
    """Return whether each test video is recognised after the last task; None without predictions."""
    if not has_predictions(record):
        return None
    stored = read_predictions(record)
    hit = stored.best[readout][-1] == stored.labels
    return dict(zip(stored.videos.tolist(), hit.tolist(), strict=True))


def settings_that_differ(first: Sequence[Record], second: Sequence[Record]) -> list[Setting]:
    """Return the settings in which two rows differ, with the values of either; the command is none."""
    told = [[_settings(run) for run in side] for side in (first, second)]
    keys = dict.fromkeys(key for side in told for run in side for key in run)
    result = []
    for key in keys:
        values = [_distinct(run.get(key) for run in side) for side in told]
        if values[0] != values[1]:
            result.append(Setting(key, *values))
    changed = differences(_code(first[0]), _code(second[0]))
    shared = [name for name in changed if name in _code(first[0]) and name in _code(second[0])]
    if shared:
        result.append(
            Setting(
                "code",
                [f"{name} {_code(first[0])[name]}" for name in shared],
                [f"{name} {_code(second[0])[name]}" for name in shared],
            )
        )
    return result


def _settings(record: Record) -> dict[str, Any]:
    data = record.data
    costs = data["steps"][-1]["costs"]
    flat: dict[str, Any] = {
        "method": data["method"]["name"],
        "exemplars.declared": data["method"]["uses_memory"],
        "data_access": data["method"]["data_access"],
    }
    flat |= {f"config.{key}": setting["value"] for key, setting in data["config"].items()}
    flat |= {f"options.{key}": setting["value"] for key, setting in data["options"].items()}
    flat |= {f"weights.{key}": value for key, value in data["weights"].items()}
    # What earlier versions did not count was nothing.
    flat |= {f"memory.{key}": value for key, value in asdict(MemoryUse(**costs["memory"])).items()}
    flat |= {key: costs[key] for key in ("parameters", "trainable")}
    flat |= {f"data.{key}": data["data"][key] for key in ("manifest_sha256", "decoder", "store")}
    flat["run_seed"] = "the class order's" if data["run_seed"] == data["seed"] else data["run_seed"]
    environment: Mapping[str, Any] = data["environment"]
    return flat | {f"environment.{key}": value for key, value in environment.items() if key != "command"}


def _distinct(values: Iterator[Any]) -> list[Any]:
    """Return different values, sorted by how JSON writes them."""
    return [json.loads(text) for text in sorted({json.dumps(value, sort_keys=True) for value in values})]


def _code(record: Record) -> dict[str, str]:
    return {name: digest for name, digest in record.data["identity"].items() if is_code(name)}


def markdown(pair: Pair) -> str:
    """Return a comparison as Markdown."""
    from tabulate import tabulate

    def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
        safe = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
        return tabulate(safe, headers=header, tablefmt="pipe", disable_numparse=True)

    names = [pair.first.name, pair.second.name]
    if names[0] == names[1]:
        names = [f"{names[0]} (first)", f"{names[1]} (second)"]
    orders = f"{len(pair.seeds)} class order{'s' if len(pair.seeds) > 1 else ''}"
    parts = [
        f"# {names[0]} against {names[1]}",
        f"{pair.title}; {orders}: seed {', '.join(map(str, pair.seeds))}.",
    ]
    if pair.left_out:
        parts.append(f"Left out, since one of the two lacks them: seed {', '.join(map(str, pair.left_out))}.")
    for name, side in zip(names, (pair.first, pair.second), strict=True):
        parts.append(
            f"- {name}: {side.backbone}, {side.pretraining}" + (f"; {side.notes}" if side.notes else "")
        )
    if pair.first.pretraining != pair.second.pretraining:
        parts.append("The weights of the two saw different data: tables do not rank them against each other.")
    lines = [
        [
            f"{METRICS[m.metric].title} {'↑' if m.higher_is_better else '↓'}",
            f"{m.first:.2f}",
            f"{m.second:.2f}",
            f"{m.difference:+.2f}",
            "–" if m.low is None or m.high is None else f"{m.low:+.2f} to {m.high:+.2f}",
            f"{m.wins}-{m.losses}" + (f"-{m.ties}" if m.ties else ""),
            f"{m.sign_p:.3g}",
        ]
        for m in pair.metrics
    ]
    header = [
        "metric",
        *names,
        "difference",
        "95 % interval",
        "won-lost" + "-tied" * any(m.ties for m in pair.metrics),
        "p",
    ]
    parts += ["## Metrics", table(header, lines)]
    parts.append(
        "Percent; difference of the first minus the second. Interval: paired bootstrap over test videos, for "
        f"these class orders. p: sign test over class orders; with {len(pair.seeds)} of them it is never below "
        f"{pair.metrics[0].best_p:.3g}."
    )
    if pair.metrics[0].low is None:
        parts.append("No interval: predictions are missing, or the test videos are not the same.")
    parts += [
        "## Tasks",
        table(
            [
                "task",
                *(f"{name}, learnt" for name in names),
                "difference",
                *(f"{n}, final" for n in names),
                "difference",
            ],
            [
                [
                    str(t.task),
                    *(f"{v:.2f}" for v in (t.first_learnt, t.second_learnt)),
                    f"{t.learnt:+.2f}",
                    *(f"{v:.2f}" for v in (t.first_final, t.second_final)),
                    f"{t.final:+.2f}",
                ]
                for t in pair.tasks
            ],
        ),
        "Accuracy on the videos of a task, just after learning it and after the last task.",
    ]
    if pair.mcnemar:
        parts += [
            "## Videos",
            table(
                ["seed", "both right", f"only {names[0]}", f"only {names[1]}", "neither", "p"],
                [
                    [*map(str, (m.seed, m.both, m.only_first, m.only_second, m.neither)), f"{m.p:.3g}"]
                    for m in pair.mcnemar
                ],
            ),
            "Test videos after the last task. p: exact McNemar test of one class order.",
        ]
    if pair.settings:
        parts += [
            "## Settings that differ",
            table(["setting", *names], [[s.key, _values(s.first), _values(s.second)] for s in pair.settings]),
        ]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def _values(values: Sequence[Any]) -> str:
    return ", ".join("–" if v is None else _shown(v) for v in values)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:16]}..." if re.fullmatch(r"[0-9a-f]{64}", text) else text
