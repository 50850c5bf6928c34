"""Pages made of records that never were, for tests of the interactive report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up_records import record_data

from vcil_bench import protocol as protocols
from vcil_bench.record import Record, RecordError
from vcil_bench.report.page import PaperTable, build
from vcil_bench.report.table_file import TableSpec
from vcil_bench.report.tables import groups

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">\u2028&<!--<script>{{7*7}}"
NAMES = (
    "tcd_ucf101_2x25",
    "tcd_ucf101_5x10",
    "tcd_ucf101_10x5",
    "vclimb_ucf101_10",
    "vclimb_ucf101_20",
    "kinetics400_40x10_seeded",
    "synthetic_3x4",
    "tcd_ssv2_5x18",
)


def site(
    *data: Any,
    errors: tuple[str, ...] = (),
    tables: tuple[PaperTable, ...] = (),
    reported: Sequence[TableSpec] = (),
) -> str:
    """Build the page of some made-up records."""
    records = [Record(Path(f"results/{i}.json"), one) for i, one in enumerate(data)]
    told = [RecordError(text) for text in errors]
    return build(records, told, groups(records), list(tables), reported=reported)


def fabricate(methods: int = 21, seeds: int = 3) -> list[Any]:
    """Make up records as large as real ones: every step's counts, costs and fifty epochs of losses."""
    made = []
    rng = np.random.default_rng(0)
    for name in NAMES:
        loaded = protocols.load(name)
        spec = json.loads(json.dumps(loaded.expanded()))
        del spec["classes"]["orders"]
        sizes = loaded.spec.tasks.sizes
        totals = [38 * size for size in sizes]
        classes = (
            loaded.class_names if loaded.has_class_names else [str(i) for i in range(loaded.spec.classes.num)]
        )
        for number in range(methods):
            for seed in range(seeds):
                status = ("complete", "complete", "complete", "partial", "failed")[(number + 3 * seed) % 5]
                done = len(sizes) if status == "complete" else 2
                steps = [_step(rng, i, sizes, totals, number) for i in range(done)]
                command_line = f"vcil-bench run m{number} {name} --seed {seed} --results /somewhere"
                environment = {f"library_{i}": f"1.{i}.0+some.build" for i in range(20)} | {
                    "command": command_line
                }
                data = record_data(
                    method=f"method_{number:02}",
                    seed=seed,
                    status=status,
                    reason="out of memory" if status == "failed" else "",
                    protocol={
                        "name": name,
                        "label": name,
                        "fingerprint": loaded.fingerprint,
                        "title": loaded.spec.title,
                        "seeds": list(range(seeds)),
                        "spec": spec,
                    },
                    data={"kind": "synthetic" if name.startswith("synthetic") else "real"},
                    config={f"setting_{i}": {"value": i / 7, "origin": "default"} for i in range(30)},
                    environment=environment,
                )
                data |= {
                    "run_id": f"{name}/method_{number:02}/default-s{seed}",
                    "class_order": loaded.order(loaded.spec.seeds[0]),
                    "class_names": classes,
                    "classes_per_task": sizes,
                    "test_videos": totals,
                    "steps": steps,
                    "sessions": [{"started": "2025-01-01T00:00:00Z", "environment": environment}] * 2,
                }
                made.append(data)
    return made


def _step(rng: np.random.Generator, i: int, sizes: list[int], totals: list[int], number: int) -> dict[str, Any]:
    hit = (0.3 + 0.6 * number / 21) * (1 - 0.02 * i)
    seen = sum(sizes[: i + 1])
    return {
        "step": i,
        "classes_seen": seen,
        "correct": {"cnn": [int(rng.binomial(n, hit)) for n in totals[: i + 1]]},
        "costs": {
            **{key: float(rng.random()) * 1000 for key in ("train_s", "eval_s", "data_wait_s")},
            "peak_device_mb": 12345.6,
            "parameters": 24_000_000 + seen,
            "trainable": 24_000_000,
            "state_bytes": 96_000_000,
            "memory": {"videos": 5 * seen, "frames": 40 * seen, "bytes": 6_021_120 * seen},
        },
        "losses": [
            {
                "phase": f"task {i + 1}",
                "epoch": e + 1,
                "cross_entropy": float(rng.random()),
                "kd": float(rng.random()),
            }
            for e in range(50)
        ],
    }


def until(page: Page, condition: str) -> None:
    """Wait for a condition; playwright's own way evaluates text in the page, which its policy forbids."""
    for _ in range(50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never came true: {condition}")


def some() -> list[Any]:
    """Three methods whose order by name, accuracy and forgetting differ, one of them on synthetic data, too."""
    counts = {"alpha": [[2], [2, 2]], "beta": [[4], [2, 1]], "gamma": [[1], [2, 0]]}
    made = [record_data(method=name, seed=s, correct=c) for name, c in counts.items() for s in (1, 2, 3)]
    made += [record_data(method="delta", status="failed", reason="out of memory", correct=[])]
    return [*made, record_data(method="alpha", data={"kind": "synthetic"})]


@cache
def papers_page() -> str:
    """Return the page of ``papers``."""
    return site(*papers())


def papers() -> list[Any]:
    """Make up methods of two kinds of pretraining and a bound on protocols of two datasets.

    There are two readouts, gaps and a variant; counts follow from method, readout, protocol and seed.
    """
    made = []
    methods = {
        "alpha": ("pictures", 3),
        "beta": ("pictures", 8),
        "gamma": ("captions", 5),
        "joint": ("pictures", 10),
    }
    places = ["tcd_ucf101_10x5", "tcd_ucf101_5x10", "tcd_hmdb51_5x5"]
    for at, place in enumerate(places):
        for number, (method, (pretraining, good)) in enumerate(methods.items()):
            if method == "gamma" and place == "tcd_ucf101_5x10":
                continue
            variants = ["default", "moe=False"] if method == "alpha" and not at else ["default"]
            for variant in variants:
                for seed in (1, 2, 3)[: 2 if (method, place) == ("beta", "tcd_hmdb51_5x5") else 3]:
                    less = at + (variant != "default")
                    data = record_data(
                        method=method,
                        seed=seed,
                        totals=(20, 20),
                        correct=[[good + seed + 4 - less], [good + 3 * number - less, good + seed]],
                        protocol={
                            "name": place,
                            "label": place,
                            "fingerprint": protocols.load(place).fingerprint,
                        },
                        weights={"pretraining": pretraining},
                        variant=variant,
                    )
                    data["run_id"] = f"{place}/{method}/{variant}-s{seed}"
                    if method == "joint":
                        data["method"]["data_access"] = "cumulative"
                    if method == "beta":
                        data["method"]["readouts"] = ["cnn", "nme"]
                        for step in data["steps"]:
                            step["correct"]["nme"] = [n + 3 for n in step["correct"]["cnn"]]
                    made.append(data)
    return made
