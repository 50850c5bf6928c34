"""What must agree for a saved state to be gone on with, part by part, so that a refusal names what changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .common.files import file_sha256
from .options import RESULT_NEUTRAL
from .record_schema import RecordData

if TYPE_CHECKING:
    from .run.plan import Plan

# Sources on which numbers depend beside the method's own.
NUMERIC_SOURCES = (
    *("data/*.py", "data/video/*.py", "data/store/*.py", "nets/**/*.py", "training/*.py", "run/evaluation.py"),
    *("losses.py", "method.py", "stream.py", "common/random_streams.py", "memory.py"),
    *("classifier.py", "rehearsal.py"),
)


def identity(record: RecordData, plan: Plan) -> dict[str, str]:
    """Return a hash per part of what a run's numbers depend on, by the name a user knows it under."""
    keys = ("protocol", "method", "config", "class_order", "run_seed", "weights")
    parts: dict[str, Any] = {key: record[key] for key in keys}  # type: ignore[literal-required]
    parts["data"] = [record["data"]["manifest_sha256"], record["data"]["store"]]
    parts["options"] = {k: v["value"] for k, v in record["options"].items() if k not in RESULT_NEUTRAL}
    parts["kind of device"] = plan.device.type
    parts["torch version"] = torch.__version__
    package = Path(__file__).parent
    parts["code of the harness"] = [
        file_sha256(path) for pattern in NUMERIC_SOURCES for path in sorted(package.glob(pattern))
    ]
    return {
        name: hashlib.sha256(json.dumps(p, sort_keys=True).encode()).hexdigest() for name, p in parts.items()
    }
