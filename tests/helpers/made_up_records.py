"""Records of runs that never were, for tests of what reads records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from vcil_bench.identity import parts_of
from vcil_bench.record import RecordData


def record_data(
    *,
    method: str = "alpha",
    seed: int = 1,
    correct: Sequence[Sequence[int]] = ((4,), (2, 1)),
    totals: Sequence[int] = (4, 2),
    status: str = "complete",
    **changes: dict[str, Any] | str,
) -> RecordData:
    """Make up the record of a run on real data: a task of two classes and others of one, protocol seeds 1 to 3.

    Args:
        method: Name of a method.
        seed: Seed of class order and run.
        correct: Correct predictions per step and task, of the readout ``cnn``.
        totals: Test videos per task.
        status: ``complete``, ``partial`` or ``failed``.
        changes: Sections to change, key by key; text replaces the whole. The identity follows from the rest and
            names no code, so that the record is never stale, but for what is changed in it.
    """
    metrics = {"headline": "average_incremental_accuracy", "also": ["final_accuracy", "backward_forgetting"]}
    dataset = {"name": "folder", "split": 1, "label_map": None}
    environment = {
        "vcil_bench": "0.1.0",
        "git": None,
        "dirty": None,
        "python": "3.12",
        "torch": "2",
        "open_clip": "3",
        "timm": "1",
        "av": "18",
        "cuda": None,
        "device": "a processor",
        "device_type": "cpu",
        "threads": 1,
        "processes": 1,
        "precision": "fp32",
        "determinism": "seeded",
        "platform": "Linux",
        "command": f"vcil-bench run {method} made_up --seed {seed}",
    }
    costs = {
        "train_s": 2.0,
        "eval_s": 1.0,
        "data_wait_s": 0.5,
        "peak_device_mb": None,
        "parameters": 30,
        "trainable": 20,
        "state_bytes": 80,
        "memory": {"videos": 0, "frames": 0, "bytes": 0, "statistics_bytes": 0, "feature_frames": 0},
        "train_flops": 4_000_000,
        "test_clip_flops": 20_000,
    }
    data: dict[str, Any] = {
        "schema": 1,
        "run_id": f"made_up/{method}/default-s{seed}",
        "status": status,
        "reason": None,
        "started": "2025-01-01T00:00:00Z",
        "finished": "2025-01-01T01:00:00Z",
        "protocol": {
            "name": "made_up",
            "label": "made_up",
            "version": 1,
            "title": "a title",
            "fingerprint": "f" * 64,
            "origin": "protocols/made_up.yaml",
            "overrides": {},
            "dataset": dataset,
            "metrics": metrics,
            "seeds": [1, 2, 3],
            "spec": {"memory": None},
        },
        "method": {
            "name": method,
            "paper": "none",
            "readouts": ["cnn"],
            "data_access": "task",
            "uses_memory": False,
            "origin": "file",
            "file": f"/nowhere/{method}.py",
            "distribution": None,
            "version": None,
        },
        "variant": "default",
        "seed": seed,
        "run_seed": seed,
        "config": {"lr": {"value": 0.1, "origin": "default"}},
        "options": {
            "backbone": {"value": None, "origin": "default"},
            "precision": {"value": "fp32", "origin": "default"},
        },
        "class_order": [2, 0, 1, *range(3, len(totals) + 1)],
        "class_names": list("abcdefgh")[: len(totals) + 1],
        "classes_per_task": [2, *[1] * (len(totals) - 1)],
        "test_videos": list(totals),
        "steps": [
            {"step": i, "classes_seen": 2 + i, "correct": {"cnn": list(row)}, "costs": dict(costs), "losses": []}
            for i, row in enumerate(correct)
        ],
        "predictions": None,
        "sessions": [{"started": "2025-01-01T00:00:00Z", "environment": environment}],
        "data": {
            "kind": "real",
            "dataset": "folder",
            "split": "1",
            "root": "/nowhere",
            "manifest_sha256": "1" * 64,
            "train_videos": 9,
            "test_videos": sum(totals),
            "left_out": [],
            "decoder": "pyav",
            "store": None,
            "test_videos_sharing_a_group_with_train": None,
            "identical_files_in_train_and_test": [],
            "verified": [],
        },
        "weights": {"name": "clip_tiny", "source": "embedded", "sha256": "2" * 64, "pretraining": "pictures"},
        "environment": dict(environment),
    }
    named = changes.pop("identity", {})
    for key, change in changes.items():
        data[key] = data[key] | change if isinstance(change, dict) else change
    data["identity"] = parts_of(data, {}) | named
    return cast("RecordData", data)
