"""RanPAC: ridge regression on randomly expanded pretrained features (McDonnell et al., NeurIPS 2023).

Nothing is trained (``adapt=none``, the default), or the network on the first task (``adapt=first``). Its sums
over samples do not depend on the order of the tasks; the ridge does, which every task chooses anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.method import RunContext
from vcil_bench.nets.ridge import choose_ridge, random_features, solve_ridge
from vcil_bench.pretrained import SMALL_RECIPE, FirstTaskConfig, FirstTaskMethod
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task

RIDGES = tuple(10.0**power for power in range(-8, 9))  # RanPAC.py, optimise_ridge_parameter


@dataclass(frozen=True, kw_only=True)
class RanPACConfig(FirstTaskConfig):
    """Hyper-parameters; the defaults are the authors' (args/*.csv).

    Attributes:
        expansion: Size M of the random expansion, which costs M x M numbers; 0 leaves it out.
        ridge: None chooses among powers of ten by the last fifth of each task's shuffled videos, as published;
            a number holds it, and makes the result independent of the order of the tasks. Where there is nothing
            to choose by, in a task of one class or of fewer than five videos, we keep the ridge of the task
            before; the first task's is chosen whatever it holds.
    """

    expansion: int = 10_000
    ridge: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, not_negative=("expansion",))
        if self.ridge is not None and self.ridge <= 0:
            raise ConfigError(f"ridge: {self.ridge} must be above 0, or null to choose it per task")


class RanPAC(FirstTaskMethod):
    """Ridge regression on random features."""

    name = "ranpac"
    paper = "McDonnell et al., RanPAC, NeurIPS 2023"
    readouts = ("ridge",)
    Config = RanPACConfig
    recipes: ClassVar = {"synthetic_*": {**SMALL_RECIPE, "expansion": 1000}}

    config: RanPACConfig
    projection: Tensor
    gram: Tensor
    cross: Tensor
    weight: Tensor
    ridge: Tensor

    def __init__(self, config: RanPACConfig, context: RunContext) -> None:
        """Make the network, draw the projection, and start without samples."""
        super().__init__(config, context)
        dim, size = self.network.dim, config.expansion or self.network.dim
        # Drawn before the first task, not after it as in the authors' code: the same normal numbers.
        self.register_buffer("projection", torch.randn(config.expansion, dim))
        self.register_buffer("gram", torch.zeros(size, size, dtype=torch.float64))
        self.register_buffer("cross", torch.zeros(size, 0, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(0, size))
        self.register_buffer("ridge", torch.zeros((), dtype=torch.float64))

    def grow(self, task: Task) -> None:
        """Add the new classes' columns; no sample so far is theirs."""
        super().grow(task)
        self.cross = F.pad(self.cross, (0, task.num_new))
        self.weight = F.pad(self.weight, (0, 0, 0, task.num_new))

    def take_in(self, task: Task, features: Tensor, labels: Tensor) -> None:
        """Add the task's samples to the sums and solve."""
        expanded = self._expanded(features).double()
        targets = F.one_hot(labels, task.num_seen).double()
        self.gram += expanded.T @ expanded
        self.cross += expanded.T @ targets
        if self.config.ridge is not None:
            self.ridge.fill_(self.config.ridge)
        elif task.index == 0 or (task.num_new > 1 and len(labels) >= 5):
            self.ridge.fill_(choose_ridge(expanded, targets, RIDGES))
        self.weight.copy_(solve_ridge(self.gram, self.cross, float(self.ridge)))

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the linear prediction."""
        return {"ridge": F.linear(self._expanded(self.features(clips)), self.weight)}

    def memory_use(self) -> MemoryUse:
        """Return the size of the sums."""
        return MemoryUse(statistics_bytes=self.gram.nbytes + self.cross.nbytes)

    def _expanded(self, features: Tensor) -> Tensor:
        return random_features(features, self.projection) if self.config.expansion else features
