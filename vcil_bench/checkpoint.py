"""Checkpoints: one safetensors file per run with the method's state and all that was counted so far.

Tensors and results sit in one file, written atomically, so that a run killed at any moment finds either the
state after one task or after the next, never a mixture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import save as serialise

from .errors import UserError
from .storage import write_atomically

SCHEMA = 1


class CheckpointError(UserError):
    """A checkpoint that cannot be read or belongs to another run."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``len(steps)`` tasks.

    Attributes:
        identity: Hash of everything that must agree for a run to go on from here.
        steps: The record's step entries so far.
        top: Prediction arrays so far, by ``<step>/<readout>``.
        state: The method's state dict; frozen backbone weights are not in it.
        sessions: The record's sessions so far.
    """

    identity: str
    steps: list[dict[str, Any]]
    top: dict[str, NDArray[np.int16]]
    state: dict[str, torch.Tensor]
    sessions: list[dict[str, Any]]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    tensors = {f"state/{k}": v.detach().cpu().contiguous() for k, v in checkpoint.state.items()}
    tensors |= {f"top/{k}": torch.from_numpy(v) for k, v in checkpoint.top.items()}
    meta = {
        "schema": SCHEMA,
        "identity": checkpoint.identity,
        "steps": checkpoint.steps,
        "sessions": checkpoint.sessions,
    }
    write_atomically(path, serialise(tensors, metadata={"vcil_bench": json.dumps(meta)}))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: The file is damaged or of another schema.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("vcil_bench", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: damaged checkpoint ({error}); FORCE=1 (--force) starts afresh"
        ) from error
    if meta.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path}: checkpoint schema {meta.get('schema')!r}, this version reads {SCHEMA}; "
            "FORCE=1 (--force) starts afresh"
        )
    return Checkpoint(
        meta["identity"],
        meta["steps"],
        {k.removeprefix("top/"): v.numpy() for k, v in tensors.items() if k.startswith("top/")},
        {k.removeprefix("state/"): v for k, v in tensors.items() if k.startswith("state/")},
        meta["sessions"],
    )
