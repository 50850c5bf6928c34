"""A method that keeps the contract and costs nothing: a linear head on mean colours, exemplars by herding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vcil_bench.memory import ExemplarMemory
from vcil_bench.method import MemoryUse, Method
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.stream import Task
from vcil_bench.training import sgd


@dataclass(frozen=True, kw_only=True)
class Config:
    """epochs, batch_size: of SGD."""

    epochs: int = 2
    batch_size: int = 4


class Right(Method):
    """Every part may be replaced by a wrong one."""

    paper = "a test"
    readouts = ("cnn",)
    uses_memory = True
    Config = Config

    def __init__(self, config: Config, context: Any) -> None:
        super().__init__(config, context)
        self.head = GrowingLinear(3)
        self.dropout = nn.Dropout(0.2)
        self.memory = ExemplarMemory(context.budget, context.loader.spec)

    def grow(self, task: Task) -> None:
        self.head.grow(task.num_new)
        self.memory.grow(task)

    def learn(self, task: Task) -> None:
        optimiser = sgd(self.context, self.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0)
        for epoch in self.train_epochs(
            [*task.train, *self.memory.samples()],
            optimiser,
            num_epochs=self.config.epochs,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1}",
        ):
            for batch in epoch:
                epoch.step({"loss": self.loss(batch.clips, batch.labels)})
        kept = range(self.memory.share(task.num_seen))
        new = range(task.num_old, task.num_seen)
        self.memory.store(task, {label: list(kept[: len(self.memory.candidates(label))]) for label in new})

    def loss(self, clips: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(clips), labels)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        return {"cnn": self.logits(clips)}

    def memory_use(self) -> MemoryUse:
        return self.memory.use()

    def features(self, clips: Tensor) -> Tensor:
        """Return the mean colours [B, 3] of clips."""
        return clips.float().mean(dim=(1, 3, 4)) / 255

    def logits(self, clips: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(clips)))
