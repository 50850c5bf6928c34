"""Records with predictions of runs that never were: random ones, their counts made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from made_up_records import record_data

from vcil_bench import record as records


def write_run(
    results: Path,
    method: str,
    seed: int,
    *,
    skill: float,
    sizes: Sequence[int] = (3, 2, 1),
    per_class: int = 4,
    readouts: Sequence[str] = ("cnn",),
    names: Sequence[str] | None = None,
    stored: bool = True,
    about: Mapping[str, Any] | None = None,
    **changes: Mapping[str, Any] | str,
) -> Path:
    """Write a complete record and its predictions; a share of them is right, which falls with a task's age.

    Args:
        results: Folder.
        method: Name of a method.
        seed: Seed of run and class order.
        skill: Share that is right of a task just learnt.
        sizes: Classes per task.
        per_class: Test videos of each class; the same ones under every class order.
        readouts: Names of readouts.
        names: Names of the videos, class by class in the dataset's order; None makes some up.
        stored: Whether predictions lie beside the record.
        about: What to change in what the record says of the method.
        changes: Sections of the record to change, as ``record_data`` takes them.

    Returns:
        The record's file.
    """
    classes = sum(sizes)
    rng = np.random.default_rng([seed, int(1000 * skill), len(method)])
    order = [int(c) for c in np.random.default_rng(seed).permutation(classes)]
    names = names or [f"class_{c}/clip_{i}.avi" for c in range(classes) for i in range(per_class)]
    labels = np.repeat(np.arange(classes), per_class).astype(np.int16)
    tasks = np.repeat(np.arange(len(sizes)), np.array(sizes) * per_class).astype(np.int16)
    videos = [names[order[label] * per_class + i % per_class] for i, label in enumerate(labels)]
    arrays: dict[str, Any] = {"labels": labels, "task": tasks, "videos": np.array(videos)}
    steps: list[dict[str, list[int]]] = []
    for step, learnt in enumerate(np.cumsum(sizes)):
        seen = int(learnt) * per_class
        counts = {}
        for readout in readouts:
            right = rng.random(seen) < skill * 0.8 ** (step - tasks[:seen])
            top = np.full((seen, 5), -1, dtype=np.int16)
            top[:, 0] = np.where(right, labels[:seen], rng.integers(0, learnt, seen))
            arrays[f"top5/{step}/{readout}"] = top
            hits = tasks[:seen][top[:, 0] == labels[:seen]]
            counts[readout] = np.bincount(hits, minlength=step + 1).tolist()
        steps.append(counts)
    data: Any = record_data(
        method=method,
        seed=seed,
        correct=[counts[readouts[0]] for counts in steps],
        totals=[size * per_class for size in sizes],
        **changes,  # type: ignore[arg-type]
    )
    data |= {
        "class_order": order,
        "class_names": [f"class {c}" for c in range(classes)],
        "classes_per_task": list(sizes),
    }
    data["method"] |= {"readouts": list(readouts), **(about or {})}
    for number, (step, counts) in enumerate(zip(data["steps"], steps, strict=True)):
        step |= {"correct": counts, "classes_seen": sum(sizes[: number + 1])}
    path = records.record_path(results, data["protocol"]["label"], method, data["variant"], seed)
    if stored:
        npz = records.predictions_path(path)
        data["predictions"] = {"file": npz.name, "sha256": records.save_predictions(npz, arrays)}
    data["run_id"] = f"{data['protocol']['label']}/{method}/{data['variant']}-s{seed}"
    records.save(path, data)
    return path
