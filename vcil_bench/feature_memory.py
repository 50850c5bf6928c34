"""Feature memory: frozen features of a few frames of some videos of every class, kept in place of the videos.

What ``ExemplarMemory`` is for videos, for methods that rehearse with features of a network that never changes;
the videos are out of reach once their task is learnt. What is kept is counted in videos, frames and bytes and
never exceeds the protocol's budget: where that limits the frames of a video, frames are what is counted, so that
of videos with few frames kept there may be more than of whole ones; where it does not (``frames: all``), videos.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .memory import MemoryBudgetError, random_order
from .protocol import MemorySpec
from .record_schema import MemoryUse
from .stream import Task


@dataclass(frozen=True)
class FeatureRows:
    """What a feature memory holds, video by video.

    Attributes:
        features: [N, k, D] of the frames kept.
        positions: [N, k] int64, where in their clip of T frames these stand, ascending.
        labels: [N] int64.
    """

    features: Tensor
    positions: Tensor
    labels: Tensor


class FeatureMemory(nn.Module):
    """Features of k frames of some videos of every class learnt.

    ``grow`` makes room, ``choose`` and ``store`` fill it when the task has been learnt. With a budget in total
    the share of a class shrinks with every task: old classes keep the first of their videos.

    Attributes:
        features: [classes, share, k, D]; zeros where there is no video.
        positions: [classes, share, k], -1 where there is no video.
    """

    features: Tensor
    positions: Tensor

    def __init__(self, budget: MemorySpec, *, dim: int, frames: int, per_class: int) -> None:
        """Make an empty memory.

        Args:
            budget: What the protocol allows.
            dim: Feature size D.
            frames: Frames k kept of a video.
            per_class: Videos wanted of each class; fewer are kept where the budget says so.
        """
        super().__init__()
        self.budget = budget
        self.frames = frames
        self.per_class = per_class
        self.register_buffer("features", torch.zeros(0, 0, frames, dim))
        self.register_buffer("positions", torch.zeros(0, 0, frames, dtype=torch.long))

    def share(self, num_classes: int) -> int:
        """Return how many videos of each class are kept when ``num_classes`` are known.

        Raises:
            MemoryBudgetError: The budget has no room for one.
        """
        budget = self.budget
        allowed, each = (budget.frames, self.frames) if isinstance(budget.frames, int) else (1, 1)
        if budget.total is not None:
            share = budget.total * allowed // (each * num_classes)
        else:
            share = (budget.per_class or 0) * allowed // each
        if share < 1:
            enough = -(-each // allowed)
            raise MemoryBudgetError(
                f"the protocol's memory has no room for {self.frames} frames of a video for each of "
                f"{num_classes} classes; keep fewer frames of a video, or allow more (--set "
                f"protocol.memory.total=null protocol.memory.per_class={enough})"
            )
        return min(self.per_class, share)

    def grow(self, task: Task) -> None:
        """Make empty rows for the new classes."""
        width = self.share(task.num_old or task.num_seen)
        self.features = _resized(self.features, task.num_seen, width, 0.0)
        self.positions = _resized(self.positions, task.num_seen, width, -1)

    def choose(self, task: Task, rng: np.random.Generator) -> dict[int, list[int]]:
        """Choose videos of each new class at random.

        Args:
            task: The task just learnt.
            rng: Generator.

        Returns:
            Per new label, places in ``task.train``.
        """
        share = self.share(task.num_seen)
        chosen = {}
        for label in range(task.num_old, task.num_seen):
            places = [i for i, sample in enumerate(task.train) if sample.label == label]
            chosen[label] = [places[i] for i in random_order(len(places), share, rng)]
        return chosen

    def store(self, task: Task, label: int, features: Tensor, positions: Tensor) -> None:
        """Keep the videos of a new class, and cut all classes to the present share.

        Args:
            task: The task just learnt.
            label: The class.
            features: [n, k, D], n no more than the share.
            positions: [n, k] int64, of their frames in the clips.
        """
        share = self.share(task.num_seen)
        assert len(features) <= share
        self.features[label] = 0
        self.positions[label] = -1
        self.features[label, : len(features)] = features.to(self.features)
        self.positions[label, : len(features)] = positions.to(self.positions)
        self.features[:, share:] = 0
        self.positions[:, share:] = -1

    def rows(self) -> FeatureRows:
        """Return what is kept, class by class."""
        kept = self._kept()
        labels = torch.arange(len(kept), device=kept.device)[:, None].expand_as(kept)
        return FeatureRows(self.features[kept], self.positions[kept], labels[kept])

    def use(self) -> MemoryUse:
        """Count what is kept; the bytes are those of the features."""
        videos = int(self._kept().sum())
        frames = videos * self.frames
        size = self.features.shape[-1] * self.features.element_size()
        return MemoryUse(videos, frames, frames * size, feature_frames=frames)

    def _kept(self) -> Tensor:
        """Return where there is a video [classes, share]."""
        return self.positions[:, :, 0] >= 0


def _resized(rows: Tensor, classes: int, width: int, value: float) -> Tensor:
    """Give a buffer [classes, share, ...] another size; what does not fit goes, what is new has a value."""
    new = rows.new_full((classes, width, *rows.shape[2:]), value)
    if len(rows):
        new[: len(rows), : rows.shape[1]] = rows[:, :width]
    return new
