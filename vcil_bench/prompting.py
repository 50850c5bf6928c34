"""Prompts on a frozen CLIP: what asks for them, the passes with them, and the training that L2P's line shares.

L2P, DualPrompt, CODA-Prompt and S-Prompts ask a frozen network which prompts a video gets, and run it a second
time with these. They were published for images; on videos every frame is an image of its own, and a video's
features are the mean of its frames'.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .common.config import ConfigError, check_numbers
from .losses import task_cross_entropy
from .method import Method, RunContext
from .nets.heads import GrowingLinear
from .nets.prompts import Slots
from .nets.trunk import FrameFeatures
from .pretrained import needs_of_features
from .stream import Task
from .training import adam


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """What prompt methods share.

    Attributes:
        query: What asks for prompts. ``video``: the mean over frames of the frozen network's features, so that
            all frames of a clip get the same prompts; ``frame``: every frame for itself. No paper says how image
            methods are to ask for a video. Ours is one query a video, since the label is the video's: a clip
            whose frames ask apart takes prompts of several tasks.
        features: What stands for a frame, as query and under the head: the class token in CLIP's ``joint``
            space, or ``unprojected``. The authors' image networks have no joint space; ours is what the other
            CLIP methods here work on.
        lr: Learning rate.
        batch_size: Videos per step.
        epochs: Epochs of every task. Published are schedules of images, 5 to 50 epochs of thousands of images.
    """

    query: Literal["video", "frame"] = "video"
    features: FrameFeatures = "joint"
    lr: float = 1e-3
    batch_size: int = 16
    epochs: int = 10

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_numbers(self, positive=("lr", "batch_size", "epochs"))


class PromptMethod(Method):
    """A method that trains slots of a frozen CLIP, chosen by features of the same CLIP without any.

    Attributes:
        network: The frozen CLIP, which has no parameters of its own.
    """

    readouts = ("cnn",)
    needs = frozenset({"slots"})
    splits_batches = True

    config: PromptConfig

    def __init__(self, config: Any, context: RunContext) -> None:
        """Make the passes; subclasses make what exists before the first task."""
        super().__init__(config, context)
        self.network = context.clip.encoder(features=config.features)

    @classmethod
    def needs_with(cls, config: Any) -> frozenset[str]:
        """Ask for a projection where features before it are wanted."""
        return cls.needs | needs_of_features(config.features)

    @torch.no_grad()
    def query(self, clips: Tensor) -> Tensor:
        """Return what asks for prompts: frozen features [B, D], or [B*T, D] with a query a frame."""
        frames = self.frames(clips, None)
        return frames.mean(dim=1) if self.config.query == "video" else frames.flatten(0, 1)

    def frames(self, clips: Tensor, slots: Slots | None) -> Tensor:
        """Return the float32 frame features [B, T, D] of clips with slots."""
        with self.context.autocast():
            frames: Tensor = self.network(clips, slots)
        return frames.float()


@dataclass(frozen=True, kw_only=True)
class PromptClassifierConfig(PromptConfig):
    """The same under one linear head for all classes.

    In a task of one class the cross-entropy among the new classes is zero, and nothing trains by it: the scores
    of such classes are as they were drawn. Protocols of one class a task are none for these methods.

    Attributes:
        clip_norm: Largest norm of the gradient; None for any.
    """

    clip_norm: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm: {self.clip_norm} must be above 0, or null for none")


class PromptClassifier(PromptMethod):
    """Slots and one linear head, trained by the cross-entropy among the new classes.

    Old classes' outputs take no part in the loss, so that their weights stay as they are; in a task of one class
    it is zero. Source: L2P, Sec. 5; JH-LEE-KR/l2p-pytorch engine.py; CODA-Prompt learners/prompt.py.

    Attributes:
        head: Of video features.
    """

    config: PromptClassifierConfig

    def __init__(self, config: Any, context: RunContext) -> None:
        """Make a head without classes."""
        super().__init__(config, context)
        self.head = GrowingLinear(self.network.dim)

    def grow(self, task: Task) -> None:
        """Add the new classes' outputs."""
        self.head.grow(task.num_new)

    @abstractmethod
    def slots(self, query: Tensor, task: Task | None) -> tuple[Slots, dict[str, Tensor]]:
        """Choose what the network gets beside the clips.

        Args:
            query: [rows, D], one a video or one a frame.
            task: The task in training; None at test, where no task is known.

        Returns:
            The slots, and loss terms beside the cross-entropy.
        """

    def schedule(self, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler | None:
        """Return the schedule of the rate; None leaves it as it is."""
        return None

    def learn(self, task: Task) -> None:
        """Train the slots and the head on the task's videos."""
        config = self.config
        classes = range(task.num_old, task.num_seen)
        optimiser = adam(self.context, self.parameters(), lr=config.lr)
        for epoch in self.train_epochs(
            task.train,
            optimiser,
            self.schedule(optimiser),
            num_epochs=config.epochs,
            batch_size=config.batch_size,
            phase=f"task {task.index + 1}",
        ):
            for batch in epoch:
                slots, losses = self.slots(self.query(batch.clips), task)
                logits = self.head(self.frames(batch.clips, slots).mean(dim=1))
                losses = {"cross_entropy": task_cross_entropy(logits, batch.labels, classes), **losses}
                epoch.step(losses, clip_norm=config.clip_norm)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the head, with the slots that they ask for."""
        slots, _ = self.slots(self.query(clips), None)
        return {"cnn": self.head(self.frames(clips, slots).mean(dim=1))}
