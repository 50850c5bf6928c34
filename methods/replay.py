"""Naive replay: fine-tuning on the new task's videos mixed with exemplars that were chosen at random.

vCLIMB's baseline of that name, without distillation, balancing or nearest mean: what exemplars alone are worth
on a protocol. Its recipe there is vCLIMB's own (main.py; no file gives its epochs and batches, which are taken
from vCLIMB's iCaRL). Elsewhere it is trained as fine-tuning and joint training are, so that the three differ in
the videos they may see and in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vcil_bench.classifier import LINEAR_STD, VCLIMB_RECIPE, ClassifierConfig
from vcil_bench.memory import ExemplarMemory
from vcil_bench.method import RunContext
from vcil_bench.protocol import MemorySpec
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task

from .finetune import Finetune, FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class ReplayConfig(FinetuneConfig):
    """Fine-tuning's hyper-parameters; an epoch is a pass over the task's videos and all exemplars."""


class Replay(Finetune):
    """Cross-entropy over all classes seen, on the new task's videos and all exemplars alike."""

    name = "replay"
    paper = "naive replay, as in Villa et al., vCLIMB, CVPR 2022"
    uses_memory = True
    Config = ReplayConfig
    recipes: ClassVar = {
        "vclimb_*": {
            "schedule": "constant",
            "clip_norm": ClassifierConfig.clip_norm,
            "drop_last": True,
            "head_std": LINEAR_STD,
            **{key: VCLIMB_RECIPE[key] for key in ("weight_decay", "batch_size", "dropout", "partial_bn")},
        },
    }

    def __init__(self, config: ReplayConfig, context: RunContext) -> None:
        """Make fine-tuning's network and an empty memory."""
        super().__init__(config, context)
        assert isinstance(context.budget, MemorySpec)  # refused before any work where there is none
        self.memory = ExemplarMemory(context.budget, context.loader.spec)

    def grow(self, task: Task) -> None:
        """Add the new classes' outputs and room for their exemplars."""
        super().grow(task)
        self.memory.grow(task)

    def learn(self, task: Task) -> None:
        """Train everything on the task's videos and the exemplars, then keep some of the videos."""
        ranking = self.memory.random_ranking(task)  # drawn first
        self.train_on([*task.train, *self.memory.samples()], task)
        self.memory.store(task, ranking)

    def memory_use(self) -> MemoryUse:
        """Return what the memory keeps."""
        return self.memory.use()
