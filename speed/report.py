"""How long a report takes: of 700 made-up records, the first time, again, and after one of them changed.

20 methods on 12 protocols with their true tasks and class orders, 10 test videos a class, three seeds;
predictions drawn at random, a share right that falls with the age of a task. Nothing is trained.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Row, hand_over, seconds

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from made_up_records import record_data

from vcil_bench import record as records
from vcil_bench.protocol import Protocol, load
from vcil_bench.registry import methods_folder

PROTOCOLS = (
    *("tcd_ucf101_10x5", "tcd_ucf101_5x10", "tcd_ucf101_2x25", "tcd_hmdb51_5x5", "tcd_hmdb51_1x25"),
    *("tcd_ssv2_10x9", "tcd_ssv2_5x18", "vclimb_ucf101_10", "vclimb_ucf101_20", "kinetics400_40x10_seeded"),
    *("synthetic_3x4", "synthetic_6x4"),
)
METHODS = sorted(path.stem for path in methods_folder().glob("[!_]*.py"))[:20]
SEEDS = 3
VIDEOS = 10  # of a class
FIRST_GOAL_S, AGAIN_GOAL_S = 90, 15


def make(results: Path) -> int:
    """Write the records and their predictions; returns how many."""
    rng = np.random.default_rng(0)
    number = 0
    for name in PROTOCOLS:
        protocol = load(name)
        for place, method in enumerate(METHODS):
            for seed in [*protocol.spec.seeds, 7, 8][:SEEDS]:
                _write(results, protocol, method, seed, 0.2 + 0.7 * place / len(METHODS), rng)
                number += 1
    return number


def _write(
    results: Path, protocol: Protocol, method: str, seed: int, skill: float, rng: np.random.Generator
) -> None:
    spec = protocol.spec
    sizes = spec.tasks.sizes
    ends = np.cumsum(sizes)
    labels = np.repeat(np.arange(ends[-1]), VIDEOS).astype(np.int16)
    tasks = np.repeat(np.arange(len(sizes)), np.array(sizes) * VIDEOS).astype(np.int16)
    readouts = ["cnn", "nme"] if method in ("icarl", "ucir", "podnet", "tcd", "hce") else ["cnn"]
    order = protocol.order(spec.seeds[0]) if seed not in spec.seeds else protocol.order(seed)
    arrays: dict[str, Any] = {
        "labels": labels,
        "task": tasks,
        # The same videos under every class order, so that runs are paired.
        "videos": np.array([f"class_{order[c]:03}/v{i % VIDEOS:02}.avi" for i, c in enumerate(labels)]),
    }
    steps: list[dict[str, list[int]]] = []
    for step, end in enumerate(ends):
        counts = {}
        for readout in readouts:
            seen = end * VIDEOS
            right = rng.random(seen) < skill * 0.93 ** (step - tasks[:seen])
            best = np.where(right, labels[:seen], rng.integers(0, end, seen)).astype(np.int16)
            top = np.full((seen, 5), -1, dtype=np.int16)
            top[:, 0] = best
            arrays[f"top5/{step}/{readout}"] = top
            counts[readout] = np.bincount(tasks[:seen][best == labels[:seen]], minlength=step + 1).tolist()
        steps.append(counts)
    metrics = {"headline": spec.metrics.headline, "also": list(spec.metrics.also)}
    data: Any = record_data(
        method=method,
        seed=seed,
        correct=[counts["cnn"] for counts in steps],
        totals=[size * VIDEOS for size in sizes],
        protocol={
            **{"name": spec.name, "label": protocol.label, "fingerprint": protocol.fingerprint},
            **{"origin": f"protocols/{spec.name}.yaml", "metrics": metrics, "title": spec.title},
            "seeds": [*spec.seeds, 7, 8][:SEEDS],
        },
        data={"kind": "synthetic" if spec.dataset.name == "synthetic" else "real"},
        weights={"name": "tsm_resnet34", "source": "timm resnet34.tv_in1k", "pretraining": "ImageNet-1k"},
        class_order=order,
    )
    data["method"]["readouts"] = readouts
    data["class_names"] = list(protocol.class_names)
    data["classes_per_task"] = list(sizes)
    for step, counts, end in zip(data["steps"], steps, ends, strict=True):
        step["correct"], step["classes_seen"] = counts, int(end)
    path = records.record_path(results, protocol.label, method, "default", seed)
    npz = records.predictions_path(path)
    data["predictions"] = {"file": npz.name, "sha256": records.save_predictions(npz, arrays)}
    records.save(path, data)


def main() -> None:
    """Make the records, report three times, and hand the figures over."""
    with tempfile.TemporaryDirectory() as folder:
        results, out = Path(folder, "results"), Path(folder, "reports")
        number = make(results)

        def report(*more: str) -> float:
            command = [
                sys.executable,
                "-m",
                "vcil_bench",
                "report",
                "--results",
                str(results),
                "--out",
                str(out),
            ]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            return seconds(
                lambda: subprocess.run(
                    [*command, *more], env=environment, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr
                )
            )

        first, again = report(), report()
        path = records.record_path(results, load(PROTOCOLS[0]).label, METHODS[0], "default", 1000)
        data = json.loads(path.read_text(encoding="utf-8"))
        data["steps"][0]["costs"]["train_s"] += 1
        path.write_text(json.dumps(data), encoding="utf-8")
        changed = report()
        page = (out / "index.html").stat().st_size / 1e6
        files = sum(1 for file in out.rglob("*") if file.is_file())
    what = f"a report of {number} records"
    how = f"{len(METHODS)} methods, {len(PROTOCOLS)} protocols, {files} files, a page of {page:.1f} MB"
    hand_over(
        [
            Row(f"{what}, first", f"{first:.0f} s", f"at most {FIRST_GOAL_S} s", first <= FIRST_GOAL_S, how),
            Row(
                f"{what}, again",
                f"{again:.0f} s",
                f"at most {AGAIN_GOAL_S} s",
                again <= AGAIN_GOAL_S,
                "nothing changed",
            ),
            Row(f"{what}, again", f"{changed:.0f} s", note="one record changed"),
        ]
    )


if __name__ == "__main__":
    main()
