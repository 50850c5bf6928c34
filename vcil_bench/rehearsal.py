"""Rehearsal: a classifier that keeps exemplars, trains on them and reads out by their class means as well.

iCaRL, UCIR, PODNet, TCD and HCE build on it: choosing exemplars, starting new proxies from features, fine-tuning
the head on balanced exemplars, the nearest mean of exemplars.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .classifier import Classifier
from .data.clips import exemplar_indices
from .memory import ExemplarMemory
from .method import RunContext
from .nets.heads import CosineHead, class_means, imprinted_proxies, nearest_mean_scores
from .protocol import MemorySpec
from .record_schema import MemoryUse
from .stream import Task

Ranking = Callable[[Tensor, int], list[int]]


class RehearsalClassifier(Classifier):
    """A classifier with exemplars; ``learn`` chooses them and ends in ``update_exemplar_means``.

    Attributes:
        memory: The exemplars.
        exemplar_means: Unit class means of the exemplars' features [K, D], as of the last task learnt.
    """

    readouts: ClassVar[tuple[str, ...]] = ("cnn", "nme")
    uses_memory = True

    exemplar_means: Tensor

    def __init__(self, config: Any, context: RunContext) -> None:
        """Make the network and an empty memory."""
        super().__init__(config, context)
        assert isinstance(context.budget, MemorySpec)  # refused before any work where there is none
        self.memory = ExemplarMemory(context.budget, context.loader.spec)
        self.register_buffer("exemplar_means", torch.empty(0, context.backbone.dim))

    def grow(self, task: Task) -> None:
        """Add outputs, room for exemplars, and rows for class means."""
        super().grow(task)
        self.memory.grow(task)
        self.exemplar_means = F.pad(self.exemplar_means, (0, 0, 0, task.num_new))

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the head (``cnn``) and by the nearest mean of exemplars (``nme``)."""
        assert self.exemplar_means.any(), "class means are all zero: learn must end in update_exemplar_means"
        frames = self.model.frame_features(clips)
        scores = {
            "cnn": self.model.mean_logits(frames),
            "nme": nearest_mean_scores(frames.mean(dim=1), self.exemplar_means),  # iCaRL, Alg. 1
        }
        return {name: scores[name] for name in self.readouts}

    def memory_use(self) -> MemoryUse:
        """Return what the memory keeps."""
        return self.memory.use()

    def choose_exemplars(self, task: Task, rank: Ranking) -> None:
        """Choose the new classes' exemplars by their features under the present model, cut the old to the share.

        Args:
            task: The task just learnt.
            rank: ``nearest_to_mean_order`` or ``herding_order``.
        """
        new_labels = range(task.num_old, task.num_seen)
        candidates = [sample for label in new_labels for sample in self.memory.candidates(label)]
        features, labels = self.video_features(candidates)
        share = self.memory.share(task.num_seen)
        self.memory.store(task, {label: rank(features[labels == label], share) for label in new_labels})

    def imprint(self, head: CosineHead, task: Task) -> None:
        """Start the new classes' proxies of the cosine head from their features under the old model.

        Frames are those of TCD's validation rule, as in its init_cosine_classifier.
        """
        length = self.context.loader.spec.frames
        samples = [
            dataclasses.replace(s, stored=tuple(sorted(set(exemplar_indices(s.frames, length).tolist()))))
            for s in task.train
        ]
        head.weight.data = imprinted_proxies(
            *self.video_features(samples),
            range(task.num_old, task.num_seen),
            head.old_weight,
            kind=head.kind,
            proxies=head.proxies,
        )

    def update_exemplar_means(self) -> None:
        """Compute the class means of all exemplars under the present model (iCaRL, Alg. 1)."""
        features, labels = self.video_features(self.memory.samples())
        self.exemplar_means.copy_(class_means(features, labels, len(self.exemplar_means)))

    def tune_head(
        self,
        task: Task,
        optimiser: torch.optim.Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        num_epochs: int,
    ) -> None:
        """Train the head alone on the exemplars, as many of each class: class-balanced fine-tuning.

        Args:
            task: The task just learnt; its exemplars have been chosen.
            optimiser: Of the head's parameters; its rate stays as it is.
            loss: Of logits [B, K] and labels [B].
            num_epochs: Passes over the exemplars.
        """
        for epoch in self.train_epochs(
            self.memory.samples(),
            optimiser,
            num_epochs=num_epochs,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1} balanced",
            drop_last=self.config.drop_last,
        ):
            for batch in epoch:
                with torch.no_grad():
                    frames = self.model.frame_features(batch.clips)
                value = loss(self.model.mean_logits(self.model.dropout(frames)), batch.labels)
                epoch.step({"balanced": value}, clip_norm=self.config.clip_norm)
