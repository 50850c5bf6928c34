"""Rehearsal: a classifier that keeps exemplars, trains on them and reads out by their class means as well.

iCaRL, UCIR, PODNet, TCD and HCE build on it: choosing exemplars, starting new proxies from features, fine-tuning
the head on balanced exemplars, the nearest mean of exemplars.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .classifier import Classifier, ClassifierConfig
from .common.config import ConfigError
from .data.clips import SecondClip, exemplar_indices
from .memory import ExemplarMemory
from .method import RunContext
from .nets.heads import CosineHead, class_means, imprinted_proxies, nearest_mean_scores
from .protocol import MemorySpec
from .record_schema import MemoryUse
from .stream import Task

Ranking = Callable[[Tensor, int], list[int]]


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(ClassifierConfig):
    """vCLIMB's temporal consistency, for methods whose loss has a cross-entropy.

    Attributes:
        tc_clip: Share the cross-entropy with a second clip of every video, at the cost of a second forward and
            backward pass in each step. ``spread``: of the video thinned out to the frames that the memory keeps
            of one, as it was meant, and where no more are there the first clip again. ``released``: of as many
            frames from the video's beginning, and where no more are there, as of every exemplar, a blank clip,
            as the released code has it. If the memory keeps all frames, either is another draw of the video.
            ``off``: none.
        tc_weight: Weight of the second clip in the cross-entropy; the first has the rest.
    """

    tc_clip: Literal["off", "spread", "released"] = "off"
    tc_weight: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        if not 0 <= self.tc_weight <= 1:
            raise ConfigError(f"tc_weight: {self.tc_weight} must be from 0 to 1")
        if self.tc_clip == "off" and self.tc_weight != ConsistencyConfig.tc_weight:
            raise ConfigError(
                f"tc_weight: {self.tc_weight} weighs a second clip, and tc_clip=off has none; take "
                "tc_clip=spread or tc_clip=released, or leave tc_weight out"
            )

    def second_clip(self, budget: MemorySpec) -> SecondClip | None:
        """Return the second clip to ask the loader for.

        Args:
            budget: The exemplars', which says how many frames are kept of a video.

        Raises:
            ConfigError: The memory interpolates: the second clip is one of stored frames, and repeats them.
        """
        if self.tc_clip == "off":
            return None
        if budget.fill == "interpolate":
            raise ConfigError(
                f"tc_clip: {self.tc_clip} takes a second clip of a video's stored frames as they are, which "
                "memory.fill=interpolate would not; take tc_clip=off or memory.fill=repeat"
            )
        kept = -1 if budget.frames == "all" else int(budget.frames)
        return SecondClip(kept, released=self.tc_clip == "released")


class RehearsalClassifier(Classifier):
    """A classifier with exemplars; ``learn`` chooses them and ends in ``update_exemplar_means``.

    Attributes:
        memory: The exemplars.
        exemplar_means: Unit class means of the exemplars' features [K, D], as of the last task learnt; only with
            the readout ``nme``, without which ``learn`` ends in the choice of exemplars.
    """

    readouts: ClassVar[tuple[str, ...]] = ("cnn", "nme")
    uses_memory = True

    exemplar_means: Tensor

    def __init__(self, config: Any, context: RunContext) -> None:
        """Make the network and an empty memory."""
        super().__init__(config, context)
        assert isinstance(context.budget, MemorySpec)  # refused before any work where there is none
        if isinstance(config, ConsistencyConfig):
            config.second_clip(context.budget)  # refuses a memory that it does not go with
        self.memory = ExemplarMemory(context.budget, context.loader.spec)
        if "nme" in self.readouts:
            self.register_buffer("exemplar_means", torch.empty(0, context.backbone.dim))

    def grow(self, task: Task) -> None:
        """Add outputs, room for exemplars, and rows for class means."""
        super().grow(task)
        self.memory.grow(task)
        if "nme" in self.readouts:
            self.exemplar_means = F.pad(self.exemplar_means, (0, 0, 0, task.num_new))

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the head (``cnn``) and by the nearest mean of exemplars (``nme``)."""
        frames = self.model.frame_features(clips)
        scores = {"cnn": self.model.mean_logits(frames)}
        if "nme" in self.readouts:
            assert self.exemplar_means.any(), "class means are all zero: learn must end in update_exemplar_means"
            scores["nme"] = nearest_mean_scores(frames.mean(dim=1), self.exemplar_means)  # iCaRL, Alg. 1
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
