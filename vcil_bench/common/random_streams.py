"""Named random streams: every draw comes from a generator keyed by what it is for, never from a global one.

A key such as ``(run_seed, "clip", epoch, video id)`` gives the same draws whatever ran before, in whichever
process, so a resumed run and one with other worker counts see the same clips.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

Key = int | str


def stream_seed(*key: Key) -> int:
    """Return a 63-bit seed from a key; keys that differ in any part give unrelated seeds."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_stream(*key: Key) -> np.random.Generator:
    """Return a numpy generator for a key."""
    return np.random.default_rng(stream_seed(*key))


def seed_modules(*key: Key) -> None:
    """Seed the global generators: torch's, which layers draw from, and those a library may use beside it."""
    seed = stream_seed(*key)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
