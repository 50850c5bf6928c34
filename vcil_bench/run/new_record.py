"""Record of a run that begins: says what is run, on which data, with which code, weights and options."""

from __future__ import annotations

import dataclasses
from typing import cast

from vcil_bench import record as records
from vcil_bench.data.manifest import Manifest
from vcil_bench.data.prepare.report import summary
from vcil_bench.data.store.frame_store import FrameStore
from vcil_bench.data.video import resolve_decoder
from vcil_bench.identity import parts_of
from vcil_bench.nets.weights import WeightsInfo
from vcil_bench.record_schema import RecordData
from vcil_bench.stream import TaskStream
from vcil_bench.verify.checks import as_plain, findings

from .environment import environment
from .plan import Plan, plain_values


def new_record(
    plan: Plan,
    seed: int,
    run_seed: int,
    manifest: Manifest,
    stream: TaskStream,
    weights: WeightsInfo,
    store: FrameStore | None,
    processes: int,
) -> RecordData:
    """Return the record of a run of which nothing is done, its identity included.

    Args:
        plan: What is run.
        seed: Of the class order.
        run_seed: Of all other draws.
        manifest: The data.
        stream: The tasks over it.
        weights: That the networks start from.
        store: The frames are read from here; None where videos are decoded.
        processes: Number of processes that work on it.
    """
    protocol, entry = plan.protocol, plan.entry
    method = plan.method
    spec = protocol.spec
    started, here = records.now(), environment(plan.device, plan.options, processes)
    counts = summary(manifest)
    made = {
        "schema": records.SCHEMA,
        "run_id": f"{protocol.label}/{method.name}/{plan.variant}-s{seed}",
        "status": "partial",
        "reason": None,
        "started": started,
        "finished": None,
        "protocol": {
            "name": protocol.name,
            "label": protocol.label,
            "version": spec.version,
            "title": spec.title,
            "fingerprint": protocol.fingerprint,
            "origin": protocol.origin,
            "overrides": protocol.overrides,
            "dataset": dataclasses.asdict(spec.dataset),
            "metrics": dataclasses.asdict(spec.metrics),
            "seeds": spec.seeds,
            "spec": dataclasses.asdict(spec),
        },
        "method": {
            "name": method.name,
            "paper": method.paper,
            "readouts": list(method.readouts),
            "data_access": method.data_access,
            "uses_memory": method.uses_memory,
            "origin": entry.origin,
            "file": str(entry.file.name if entry.origin == "built-in" else entry.file),  # type: ignore[union-attr]
            "distribution": entry.distribution,
            "version": entry.version,
        },
        "variant": plan.variant,
        "seed": seed,
        "run_seed": run_seed,
        "config": {
            k: {"value": v, "origin": plan.config_origins[k]} for k, v in plain_values(plan.config).items()
        },
        "options": {
            k: {"value": v, "origin": plan.option_origins[k]} for k, v in plain_values(plan.options).items()
        },
        "class_order": stream.order,
        "class_names": stream.class_names,
        "classes_per_task": spec.tasks.sizes,
        "test_videos": [len(stream.test(i)) for i in range(len(stream))],
        "steps": [],
        "predictions": None,
        "data": {
            "kind": manifest.kind,
            "dataset": manifest.dataset,
            "split": manifest.split,
            "root": str(manifest.root),
            "manifest_sha256": manifest.sha256,
            "train_videos": len(manifest.usable("train")),
            "test_videos": len(manifest.usable("test")),
            "left_out": [{"id": v.id, "split": v.split, "problem": v.problem} for v in manifest.left_out()],
            "decoder": resolve_decoder(plan.options.decoder),
            "store": store.describe() if store is not None else None,
            # Part of the evidence: numbers of a split that shares scenes mean something else.
            "test_videos_sharing_a_group_with_train": counts["test_videos_sharing_a_group_with_train"],
            "identical_files_in_train_and_test": counts["identical_files_in_train_and_test"],
            "verified": as_plain(findings(protocol, manifest, weights, [seed])),
        },
        "weights": dataclasses.asdict(weights),
        "sessions": [{"started": started, "environment": here}],
        "environment": here,
    }
    record = cast("RecordData", made)
    record["identity"] = parts_of(record, plan.code)
    return record
