"""Checkpoints: safetensors files with a method's state, written atomically and checked by their hash.

One lies beside a record after every task; while a task is being learnt, one more per phase of its training
(``resume.py``). Tensors and all that was counted so far sit in one file, so that a run killed at any moment
finds either the state of one moment or of another, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from vcil_bench.common.errors import UserError
from vcil_bench.common.files import StorageError, replacing
from vcil_bench.record_schema import Session, Step

SCHEMA = 4
ADVICE = "--force starts afresh"


class CheckpointError(UserError):
    """A checkpoint that cannot be read or belongs to another run."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``len(steps)`` tasks.

    Attributes:
        identity: What must agree for a run to go on from here, by part.
        steps: The record's step entries so far.
        top: Prediction arrays so far, by ``<step>/<readout>``.
        state: The method's state dict; frozen backbone weights are not in it.
        sessions: The record's sessions so far.
        scaler: State of the loss's scale, empty unless the run is fp16.
    """

    identity: dict[str, str]
    steps: list[Step]
    top: dict[str, NDArray[np.int16]]
    state: dict[str, Tensor]
    sessions: list[Session]
    scaler: dict[str, Any] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    tensors = {f"state/{k}": v for k, v in checkpoint.state.items()}
    tensors |= {f"top/{k}": torch.from_numpy(v) for k, v in checkpoint.top.items()}
    meta = {
        "identity": checkpoint.identity,
        "steps": checkpoint.steps,
        "sessions": checkpoint.sessions,
        "scaler": checkpoint.scaler,
    }
    write(path, tensors, meta)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: The file is damaged or of another schema.
    """
    tensors, meta = read(path, ("identity", "steps", "sessions", "scaler"))
    return Checkpoint(
        meta["identity"],
        meta["steps"],
        {k: v.numpy() for k, v in under("top/", tensors).items()},
        under("state/", tensors),
        meta["sessions"],
        meta["scaler"],
    )


def write(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write named tensors and plain data atomically, with a hash over both.

    Raises:
        StorageError: The file cannot be written (no right, disk full).
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(meta | {"schema": SCHEMA})
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, {"vcil_bench": text, "sha256": _digest(tensors, text)})
        except safetensors.SafetensorError as error:  # how it reports a full disk
            raise StorageError(f"{path}: cannot be written ({error})") from error


def read(path: Path, needed: Sequence[str] = ()) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``write`` wrote, every byte checked.

    Args:
        path: The file.
        needed: Keys that the plain data must have.

    Raises:
        CheckpointError: The file is damaged, of another schema, or another kind of state.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        text = header.get("vcil_bench", "{}")
        meta = json.loads(text)
    except (OSError, safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({error}); {ADVICE}") from error
    schema = meta.get("schema") if isinstance(meta, dict) else None
    if schema != SCHEMA:
        raise CheckpointError(f"{path}: checkpoint schema {schema!r}, this version reads {SCHEMA}; {ADVICE}")
    if header.get("sha256") != _digest(tensors, text):
        raise CheckpointError(f"{path}: damaged checkpoint (its content is not what was written); {ADVICE}")
    absent = [key for key in needed if key not in meta]
    if absent:
        raise CheckpointError(f"{path}: another kind of state, which has no {absent[0]!r}; {ADVICE}")
    return tensors, meta


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    """Return the SHA-256 over plain data, names, types, shapes and bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()
