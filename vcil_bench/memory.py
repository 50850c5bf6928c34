"""Exemplar memory: which videos a method keeps, which frames of them, and what that costs.

The memory stores where exemplars lie (their place in the task's list of training videos) and which of their
frames are left; these are buffers, so that a checkpoint holds them. Frames that were not stored are never
decoded again. What is kept is counted in videos, frames and bytes and can never exceed the protocol's budget.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .common.errors import UserError
from .data.clips import exemplar_indices
from .data.loader import Sample
from .protocol import ClipSpec, MemorySpec
from .record_schema import MemoryUse
from .stream import Task


class MemoryBudgetError(UserError):
    """A budget that a method with exemplars cannot work with."""


class ExemplarMemory(nn.Module):
    """Exemplars of every class learnt, best first.

    ``grow`` makes room, ``store`` fills it after the task has been learnt. With a budget in total the share of
    a class shrinks with every task: the classes already stored are cut to their first exemplars when the new
    ones are chosen, so that the old share serves the training of the task (iCaRL, Alg. 2).

    Attributes:
        places: Place of each exemplar in its class's list of training videos [classes, share], -1 for none.
        frames: Frames kept of each [classes, share, frames], ascending, -1 for none; 0 wide if all are kept.
    """

    places: Tensor
    frames: Tensor

    def __init__(self, budget: MemorySpec, clip: ClipSpec) -> None:
        """Make an empty memory.

        Args:
            budget: What the protocol allows.
            clip: The protocol's clip section, for the bytes of a frame.
        """
        super().__init__()
        self.budget = budget
        self.frame_bytes = 3 * clip.size**2
        self._kept_frames = 0 if budget.frames == "all" else int(budget.frames)
        self._videos: dict[int, tuple[Sample, ...]] = {}
        # A resumed run replays grow, which notes all videos of every task, before it loads what was chosen.
        self.register_load_state_dict_post_hook(lambda memory, _: memory._forget())
        self.register_buffer("places", torch.empty(0, 0, dtype=torch.long))
        self.register_buffer("frames", torch.empty(0, 0, self._kept_frames, dtype=torch.long))

    def share(self, num_classes: int) -> int:
        """Return how many videos of each class fit when ``num_classes`` are known."""
        if self.budget.total is None:
            return int(self.budget.per_class or 0)
        return self.budget.total // num_classes

    def grow(self, task: Task) -> None:
        """Make empty rows for the new classes, and note the videos that may fill them."""
        width = self.share(task.num_old if task.num_old else task.num_seen)
        for label in range(task.num_old, task.num_seen):
            self._videos[label] = tuple(s for s in task.train if s.label == label)
        self.places = _resized(self.places, task.num_seen, width)
        self.frames = _resized(self.frames, task.num_seen, width)

    def candidates(self, label: int) -> list[Sample]:
        """Return a new class's training videos as they would be stored, to choose exemplars from."""
        assert (self.places[label] < 0).all(), "its exemplars have been chosen; the other videos are gone"
        return [self._as_stored(sample) for sample in self._videos[label]]

    def random_ranking(self, task: Task) -> dict[int, list[int]]:
        """Choose the new classes' exemplars at random, to be stored when the task has been learnt.

        Draws from torch's generator, so it comes first in ``learn``: there the random state is the same in a run
        that was cut off and goes on in the training.
        """
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        share = self.share(task.num_seen)
        return {
            label: random_order(len(self.candidates(label)), share, rng)
            for label in range(task.num_old, task.num_seen)
        }

    def store(self, task: Task, ranking: dict[int, list[int]]) -> None:
        """Keep the first videos of each new class's ranking, and cut the old classes to the present share.

        Args:
            task: The task just learnt.
            ranking: Per new label, places among ``candidates``, best first.
        """
        share = self.share(task.num_seen)
        places, frames = self.places.cpu(), self.frames.cpu()  # value by value; on a GPU each would be a copy
        places[:, share:] = -1
        frames[:, share:] = -1
        for label, order in ranking.items():
            videos = self._videos[label]
            for i, place in enumerate(order[:share]):
                places[label, i] = place
                kept = self._frames_of(videos[place])
                frames[label, i, : len(kept)] = torch.tensor(kept, dtype=torch.long)
        self.places.copy_(places)
        self.frames.copy_(frames)
        self._forget()

    def _forget(self) -> None:
        """Put every video out of reach that is not stored, of all classes that have been stored."""
        for label, row in enumerate(self.places.tolist()):
            kept = {place for place in row if place >= 0}
            if kept:
                self._videos[label] = tuple(
                    video if i in kept else _forgotten(video) for i, video in enumerate(self._videos[label])
                )

    def samples(self) -> list[Sample]:
        """Return all exemplars, class by class, best first."""
        rows = zip(self.places.tolist(), self.frames.tolist(), strict=True)  # one copy each from a GPU
        return [sample for label, row in enumerate(rows) for sample in self._stored(label, *row)]

    def of_class(self, label: int) -> list[Sample]:
        """Return the exemplars of one class, best first; what was not stored of them is out of reach."""
        return self._stored(label, self.places[label].tolist(), self.frames[label].tolist())

    def _stored(self, label: int, places: list[int], frames: list[list[int]]) -> list[Sample]:
        """Return the exemplars of a class from its rows of the buffers."""
        found = []
        for place, of_place in zip(places, frames, strict=True):
            if place >= 0:
                kept = tuple(f for f in of_place if f >= 0)
                found.append(self._keeping(self._videos[label][place], kept))
        return found

    def use(self) -> MemoryUse:
        """Count what is kept; a frame is taken as 3 bytes a pixel at the protocol's input size."""
        kept = self.samples()
        frames = sum(sample.frames if sample.stored is None else len(sample.stored) for sample in kept)
        return MemoryUse(len(kept), frames, frames * self.frame_bytes)

    def _frames_of(self, sample: Sample) -> list[int]:
        if not self._kept_frames:
            return []
        return sorted(set(exemplar_indices(sample.frames, self._kept_frames).tolist()))

    def _as_stored(self, sample: Sample) -> Sample:
        return self._keeping(sample, tuple(self._frames_of(sample)))

    def _keeping(self, sample: Sample, frames: tuple[int, ...]) -> Sample:
        """Return a video of which some frames are left, or all if none are named."""
        return dataclasses.replace(sample, stored=frames or None, interpolated=self.budget.fill == "interpolate")


def exemplars_of(method: nn.Module) -> list[Sample]:
    """Return what the memories of a method keep at the moment."""
    memories = [module for module in method.modules() if isinstance(module, ExemplarMemory)]
    return [sample for memory in memories for sample in memory.samples()]


def nearest_to_mean_order(features: Tensor, k: int) -> list[int]:
    """Rank videos by the cosine of their feature with the class mean, largest first.

    What TCD's code does under the name of herding: its running target is updated and never used. Source: TCD
    cl_methods/exemplars.py, _construct_exemplar_set.

    Args:
        features: [N, D] video features of one class; rows are normalised here.
        k: How many; all if there are fewer.

    Returns:
        Indices of rows, best first.
    """
    unit = F.normalize(features, dim=1)
    mean = F.normalize(unit.mean(dim=0), dim=0)
    return (unit @ mean).argsort(descending=True, stable=True)[:k].tolist()


def herding_order(features: Tensor, k: int) -> list[int]:
    """Rank videos so that the mean of each first part comes as close to the class mean as it can.

    ``p_i = argmin_x | mu - (x + sum_{j<i} p_j) / i |`` over those left. Source: iCaRL (Rebuffi et al., CVPR
    2017), Alg. 4, as in PyCIL models/base.py, _construct_exemplar_unified.

    Args:
        features: [N, D] video features of one class; rows are normalised here, their mean is not.
        k: How many; all if there are fewer.

    Returns:
        Indices of rows, best first.
    """
    unit = features / (features.norm(dim=1, keepdim=True) + 1e-8)
    mean = unit.mean(dim=0)
    chosen: list[Tensor] = []  # left on the device, so that a GPU is waited for once
    total = torch.zeros_like(mean)
    left = torch.ones(len(unit), dtype=torch.bool, device=unit.device)
    for i in range(1, min(k, len(unit)) + 1):
        distance = torch.linalg.vector_norm(mean - (unit + total) / i, dim=1).masked_fill(~left, torch.inf)
        best = distance.argmin()[None]
        chosen.append(best)
        left = left.index_fill(0, best, False)
        total = total + unit.index_select(0, best)[0]
    return torch.cat(chosen).tolist() if chosen else []


def random_order(count: int, k: int, rng: np.random.Generator) -> list[int]:
    """Choose videos at random.

    Args:
        count: Videos of one class.
        k: How many; all if there are fewer.
        rng: Generator.

    Returns:
        Different numbers below ``count``, in the order drawn.
    """
    return rng.permutation(count)[:k].tolist()


def check_budget(budget: MemorySpec, num_classes: int, method: str) -> None:
    """Refuse a budget that leaves a method with exemplars none for some class.

    Raises:
        MemoryBudgetError: Says what the budget comes to.
    """
    if budget.total is not None and budget.total < num_classes:
        raise MemoryBudgetError(
            f"method {method!r} keeps exemplars of every class, but memory.total = {budget.total} leaves none "
            f"for some of the {num_classes} classes; raise it (--set protocol.memory.total={num_classes}) "
            "or give protocol.memory.per_class"
        )


def _resized(rows: Tensor, classes: int, width: int) -> Tensor:
    """Give a buffer [classes, share, ...] another size; what does not fit goes, what is new is -1."""
    new = rows.new_full((classes, width, *rows.shape[2:]), -1)
    if len(rows):
        new[: len(rows)] = rows[:, :width]
    return new


def _forgotten(sample: Sample) -> Sample:
    """Return a stand-in for a video that was not chosen; it has no path any more."""
    return dataclasses.replace(sample, path="", frames=0)
