"""NewMethod: say here in a line what the method does and where it was published.

As it stands it is naive replay: cross-entropy on the new videos and on the exemplars of old classes.

``vcil-bench check`` tests what is promised here. What the harness hands over, with B clips, T frames, S pixels:

    task.index                      the step, 0 for the base task
    task.class_names                the new classes; their labels are task.num_old ... task.num_seen - 1
    task.num_new, num_old, num_seen numbers of classes
    task.train                      the step's training videos (Sample); never exemplars, never test videos
    batch.clips                     [B, T, 3, S, S] uint8 on the device
    batch.labels                    [B] int64
    context.backbone.network(...)   a network to train; network(clips) gives frame features [B, T, D]
    context.autocast()              around forward passes of networks; losses and scores stay outside
    context.budget                  exemplars that the protocol allows, None for none

Started by torchrun, several processes share a batch if ``splits_batches`` is True: ``batch.clips`` is then this
process's part, padded to the same number for all, while ``batch.labels`` holds the whole batch and networks
return the features of the whole batch. So never pair ``batch.clips`` with ``batch.labels`` (mixup, clips of one
class) in such a method; what is computed from features and labels needs no thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vcil_bench.common.config import check_numbers
from vcil_bench.data.loader import Sample
from vcil_bench.memory import ExemplarMemory, herding_order
from vcil_bench.method import MemoryUse, Method, RunContext
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.nets.trunk import Tuning
from vcil_bench.stream import Task
from vcil_bench.training import cosine, sgd


@dataclass(frozen=True, kw_only=True)
class NewMethodConfig:
    """Hyper-parameters; the defaults are the paper's. Where it is silent, say what was taken and why.

    Attributes:
        lr, momentum, weight_decay, batch_size: SGD, cosine decay to zero in every task.
        epochs: Epochs of every task.
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 32
    epochs: int = 30

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_numbers(
            self,
            positive=("lr", "batch_size", "epochs"),
            not_negative=("weight_decay",),
            below_one=("momentum",),
        )


class NewMethod(Method):
    """A network, a linear head on its mean frame feature, and an exemplar memory."""

    name = "new_method"  # on the command line and in tables
    paper = "Authors, Title, Venue Year"
    readouts = ("cnn",)  # names of the score matrices; the first is the headline
    uses_memory = True  # False, without the lines about self.memory, for a method without exemplars
    needs = frozenset[str]()  # of the backbone: "text", "adapters", "maps"
    Config = NewMethodConfig
    recipes: ClassVar = {  # values for protocols whose names match; later ones win
        "synthetic_*": {"epochs": 6, "batch_size": 20},
    }

    config: NewMethodConfig

    def __init__(self, config: NewMethodConfig, context: RunContext) -> None:
        """Make what exists before the first task. All that is kept must be a parameter or a buffer."""
        super().__init__(config, context)
        self.network = context.backbone.network(Tuning())
        self.head = GrowingLinear(self.network.dim)
        assert context.budget is not None  # a protocol without exemplars is refused before: uses_memory
        self.memory = ExemplarMemory(context.budget, context.loader.spec)

    def grow(self, task: Task) -> None:
        """Add what the task's classes need, without its videos: this is replayed when a run is resumed."""
        self.head.grow(task.num_new)
        self.memory.grow(task)

    def learn(self, task: Task) -> None:
        """Do all training of the task, in the method's own order."""
        config = self.config
        optimiser = sgd(
            self.context,
            self.parameters(),  # those that require gradients
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        # memory.samples() are the exemplars of old classes: [] in the first task.
        for epoch in self.train_epochs(
            [*task.train, *self.memory.samples()],
            optimiser,
            cosine(optimiser, config.epochs),
            num_epochs=config.epochs,
            batch_size=config.batch_size,
            phase=f"task {task.index + 1}",  # each loop of a task needs a name of its own
        ):
            # Stopped, a run calls learn again and this loop skips the steps that were done: what one step
            # leaves to the next must be a parameter or a buffer, too.
            for batch in epoch:
                logits = self.logits(batch.clips)  # [B, num_seen]
                epoch.step({"cross_entropy": F.cross_entropy(logits, batch.labels)})
        self.choose_exemplars(task)

    def choose_exemplars(self, task: Task) -> None:
        """Keep, of each new class, the videos whose features come closest to the class mean together.

        ``memory.share(num_seen)`` is how many of a class the budget allows; ``memory.candidates(label)`` are a
        class's videos; ``memory.store(task, {label: places, best first})`` keeps them and cuts old classes.
        """
        self.eval()
        ranking = {}
        for label in range(task.num_old, task.num_seen):
            features = self.video_features(self.memory.candidates(label))  # [N, D]
            ranking[label] = herding_order(features, self.memory.share(task.num_seen))
        self.memory.store(task, ranking)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips [B, T, 3, S, S] against all classes seen [B, num_seen]; change and draw nothing."""
        return {"cnn": self.logits(clips)}

    def memory_use(self) -> MemoryUse:
        """Return what is kept, which is compared with the budget after every task."""
        return self.memory.use()

    def logits(self, clips: Tensor) -> Tensor:
        """Return the logits [B, num_seen] of clips."""
        with self.context.autocast():
            frames = self.network(clips)  # [B, T, D]
        return self.head(frames.float().mean(dim=1))

    @torch.no_grad()
    def video_features(self, samples: Sequence[Sample]) -> Tensor:
        """Return the mean frame features [N, D] of videos, one clip each from their middle frames."""
        features = []
        for batch in self.context.centre_clips(samples):
            with self.context.autocast():
                features.append(self.network(batch.clips).float().mean(dim=1))
        return torch.cat(features)
