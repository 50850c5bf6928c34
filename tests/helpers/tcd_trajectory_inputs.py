"""What a recorded run of TCD started from: its videos, first weights, and every random draw, by key.

All draws come from numpy's legacy generator (frozen by NEP 19), seeded by ``crc32`` of what the draw is for. The
authors' code was run on the same.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

Case = dict[str, Any]


def stream(case: Case, *parts: object) -> np.random.RandomState:
    """Return the generator of a key."""
    return np.random.RandomState(zlib.crc32("|".join(map(str, (case["seed"], *parts))).encode()))


def videos(case: Case) -> dict[str, dict[str, Any]]:
    """Return split, class id and number of frames by a video's name."""
    found = {}
    for split in ("train", "test"):
        for c in range(case["classes"]):
            for n in range(case[split]):
                name = f"{split}_c{c}_v{n}"
                rs = stream(case, "length", name)
                length = int(rs.randint(3, 9)) if n % 4 == 3 else int(rs.randint(9, 25))
                found[name] = {"split": split, "class_id": c, "frames": length}
    return found


def pixels(case: Case, name: str, facts: dict[str, Any]) -> np.ndarray:
    """Return a video, uint8 [F, H, W, 3]: a class's coarse pattern that moves, and the video's own noise."""
    h, w = case["height"], case["width"]
    grid = stream(case, "class", facts["class_id"]).randint(0, 256, size=(5, 6, 3))
    rows, columns = np.arange(h) * 5 // h, np.arange(w) * 6 // w
    base = grid[rows][:, columns]
    rs = stream(case, "video", name)
    speed = int(rs.randint(1, 4))
    clip = np.stack([np.roll(base, f * speed, axis=1) for f in range(facts["frames"])])
    clip = clip + rs.randint(-60, 61, size=(1, h, w, 3)) + rs.randint(-20, 21, size=clip.shape)
    return clip.clip(0, 255).astype(np.uint8)


def first_weights(case: Case, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return float64 weights of a ResNet by torchvision's names, drawn in the names' sorted order."""
    rs = stream(case, "weights")
    found = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        if len(shape) == 4:
            value = rs.standard_normal(shape) * np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        elif name.endswith(("running_mean", "bias")):
            value = 0.1 * rs.standard_normal(shape)
        elif name.endswith("running_var"):
            value = 0.5 + rs.rand(*shape)
        else:  # a norm's weight; those that end a residual branch are smaller
            small = "bn2" in name if case["arch"] != "resnet50" else "bn3" in name
            value = (0.5 + rs.rand(*shape)) * (case["gain"] if small else 1.0)
        found[name] = value
    return found


def first_proxies(case: Case, rows: int, dim: int) -> np.ndarray:
    """Return the base task's proxies [rows, dim]."""
    return stream(case, "proxies").standard_normal((rows, dim)) / np.sqrt(dim)


def order_of(case: Case, names: list[str], task: int, kind: str, epoch: int) -> list[int]:
    """Return positions in ``names`` in the order of an epoch: a permutation of the sorted names."""
    places = sorted(range(len(names)), key=lambda i: names[i])
    return [places[i] for i in stream(case, "order", task, kind, epoch).permutation(len(names))]


def clip_draws(
    case: Case, task: int, kind: str, epoch: int, name: str
) -> tuple[np.random.RandomState, tuple[int, int, bool]]:
    """Return the generator of a training clip's frames, and (left, top, mirror) of its crop."""
    rs = stream(case, "crop", task, kind, epoch, name)
    left = int(rs.randint(case["width"] - case["size"] + 1))
    top = int(rs.randint(case["height"] - case["size"] + 1))
    return stream(case, "frames", task, kind, epoch, name), (left, top, bool(rs.rand() < 0.5))


def dropout_keep(case: Case, task: int, kind: str, epoch: int, batch: int, count: int, p: float) -> np.ndarray:
    """Return which of ``count`` features (frame by frame) a step keeps."""
    return stream(case, "dropout", task, kind, epoch, batch).rand(count) >= p
