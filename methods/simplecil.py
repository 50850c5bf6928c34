"""SimpleCIL and APER: class means of pretrained features, read out by cosine (Zhou et al., IJCV 2024).

SimpleCIL (``adapt=none``, the default) trains nothing. APER, once called ADAM (``adapt=first``), trains adapters
on the first task and reads out by the features of both networks, the untouched and the trained, side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vcil_bench.method import RunContext
from vcil_bench.nets.heads import cosine_scores, prototypes
from vcil_bench.nets.trunk import Tuning
from vcil_bench.pretrained import SMALL_RECIPE, FirstTaskConfig, FirstTaskMethod
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task


@dataclass(frozen=True, kw_only=True)
class SimpleCILConfig(FirstTaskConfig):
    """SimpleCIL has no hyper-parameter; those of the training are APER's (``adapt=first``)."""


class SimpleCIL(FirstTaskMethod):
    """Cosine to class means of frozen features."""

    name = "simplecil"
    paper = "Zhou et al., Revisiting Class-Incremental Learning with Pre-Trained Models, IJCV 2024"
    readouts = ("ncm",)
    Config = SimpleCILConfig
    recipes: ClassVar = {"synthetic_*": SMALL_RECIPE}

    config: SimpleCILConfig
    prototypes: Tensor

    def __init__(self, config: SimpleCILConfig, context: RunContext) -> None:
        """Make the network, a second and untouched one for APER, and no prototypes."""
        super().__init__(config, context)
        dim = self.network.dim
        if config.adapt == "first":
            tuning = Tuning(kind="none", features=config.features)
            self.untouched = context.backbone.network(tuning).frozen_copy()
            dim *= 2
        self.register_buffer("prototypes", torch.empty(0, dim))

    def grow(self, task: Task) -> None:
        """Make room for the new classes' means."""
        super().grow(task)
        self.prototypes = F.pad(self.prototypes, (0, 0, 0, task.num_new))

    def take_in(self, task: Task, features: Tensor, labels: Tensor) -> None:
        """Set the new classes' means."""
        new = prototypes(features.double(), labels, task.num_seen)[task.num_old :]
        self.prototypes[task.num_old :] = new.to(self.prototypes)

    def features(self, clips: Tensor) -> Tensor:
        """Return the network's features, for APER behind those of the untouched network."""
        features = self.network_features(clips)
        if self.config.adapt == "none":
            return features
        with self.context.autocast():
            untouched = self.untouched(clips)
        return torch.cat([untouched.float().mean(dim=1), features], dim=1)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the cosine of their feature with every class mean."""
        return {"ncm": cosine_scores(self.features(clips), self.prototypes)}

    def memory_use(self) -> MemoryUse:
        """Return the size of the class means."""
        return MemoryUse(statistics_bytes=self.prototypes.nbytes)
