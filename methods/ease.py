"""EASE: an adapter chain for every task, old prototypes synthesised in new subspaces (Zhou et al., CVPR 2024).

Every task trains adapters of its own, which are frozen then. A video is read out in all their subspaces at once,
so that testing takes one pass per task learnt: 26 on the longest of TCD's protocols. A task of one class has
nothing to tell apart and trains nothing, so that its subspace is the untuned network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.method import RunContext
from vcil_bench.nets.heads import CosineHead, cosine_scores, prototypes
from vcil_bench.nets.trunk import Tuning
from vcil_bench.pretrained import SMALL_RECIPE, PretrainedConfig, PretrainedMethod
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task

if TYPE_CHECKING:
    from vcil_bench.nets.clip import ClipEncoder


@dataclass(frozen=True, kw_only=True)
class EASEConfig(PretrainedConfig):
    """Hyper-parameters; the defaults are the authors' on CIFAR (exps/ease.json).

    A clip is tested in as many passes through the network as there were tasks, one more with ``beta``.

    Attributes:
        epochs: Epochs of each later task.
        alpha: Weight of the subspaces of other tasks, shared among as many as there are before the present one.
        beta: Weight of the untuned network's subspace; 0 leaves it out, as published for all but birds.
        reset: Synthesise all missing prototypes anew after every task, from class means alone, as published;
            without, only those in the newest subspace, and the others stay as they were.
    """

    lr: float = 0.025
    epochs: int = 20
    alpha: float = 0.1
    beta: float = 0.0
    reset: bool = True

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, positive=("epochs",), not_negative=("alpha", "beta"))
        if self.tuning != "adaptformer":
            raise ConfigError(
                f"tuning: {self.tuning} has no adapters beside each MLP, whose subspaces EASE reads together; "
                "only adaptformer has"
            )


class EASE(PretrainedMethod):
    """Prototypes in the subspaces of all tasks' adapters."""

    name = "ease"
    paper = "Zhou et al., EASE, CVPR 2024"
    readouts = ("ncm",)
    needs = frozenset({"adapters"})
    Config = EASEConfig
    recipes: ClassVar = {"synthetic_*": {**SMALL_RECIPE, "epochs": 4}}

    config: EASEConfig
    means: Tensor
    completed: Tensor
    untuned: Tensor

    def __init__(self, config: EASEConfig, context: RunContext) -> None:
        """Start without adapters and prototypes."""
        super().__init__(config, context)
        self.untouched = context.clip.network(Tuning(kind="none", features=config.features))
        dim = self.untouched.dim
        self.networks = nn.ModuleList()
        self.head = CosineHead(dim, 0, kind="cc")
        self.register_buffer("means", torch.empty(0, 0, dim))
        self.register_buffer("completed", torch.empty(0, 0, dim))
        self._sizes: list[int] = []  # of the tasks; a run that goes on replays grow

    def grow(self, task: Task) -> None:
        """Freeze the adapters there are and add new ones, a head for the task, and room for prototypes."""
        config = self.config
        self.networks.requires_grad_(False)
        frames = self.context.loader.spec.frames
        network = self.context.clip.network(config.network_tuning(frames, features=config.features))
        self.networks.append(network)
        self.head = CosineHead(self.untouched.dim, 0, kind="cc")
        self.head.grow(task.num_new)
        for part in (network, self.head):
            part.requires_grad_(task.num_new > 1)
        spaces = len(self.networks) + bool(config.beta)
        room = (0, 0, 0, spaces - self.means.shape[1], 0, task.num_new)
        self.means, self.completed = F.pad(self.means, room), F.pad(self.completed, room)
        self._sizes.append(task.num_new)

    def learn(self, task: Task) -> None:
        """Train the task's adapters on its classes alone, then take their means and complete the old ones'."""
        if task.num_new > 1:
            self._tune(task)
        self._take_in(task)

    def _tune(self, task: Task) -> None:
        """Train the task's adapters by cross-entropy among its classes."""
        config = self.config
        num_epochs = config.epochs_first if task.index == 0 else config.epochs
        trained = [*self.networks[-1].parameters(), *self.head.parameters()]
        for epoch in self.tuning_epochs(task, trained, num_epochs):
            for batch in epoch:
                with self.context.autocast():
                    frames = self.networks[-1](batch.clips)
                logits = self.head(frames.float().mean(dim=1))
                epoch.step({"cross_entropy": F.cross_entropy(logits, batch.labels - task.num_old)})

    def _take_in(self, task: Task) -> None:
        """Set the new classes' means in all subspaces and synthesise what old classes lack."""
        features, labels = self.features_of(task.train)  # [N, J D]
        new = prototypes(features.double(), labels, task.num_seen)[task.num_old :].to(self.means)
        new = new.unflatten(1, (-1, self.untouched.dim))
        self.means[task.num_old :] = new
        self.completed[task.num_old :] = new
        start = self.means if self.config.reset else self.completed
        first = int(bool(self.config.beta))  # the untuned subspace knows all classes
        tuned = complete_prototypes(start[:, first:], self._sizes, self.config.reset)
        self.completed.copy_(torch.cat([self.means[:, :first], tuned], dim=1))

    def features(self, clips: Tensor) -> Tensor:
        """Return the video features in all subspaces side by side [B, J D], the untuned one first."""
        branches = [list(cast("ClipEncoder", network).adapters) for network in self.networks]
        with self.context.autocast():
            each = self.context.clip.encode_each(
                clips, [*([None] if self.config.beta else []), *branches], self.config.features
            )
        return torch.cat([frames.float().mean(dim=1) for frames in each], dim=1)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by weighted cosines in all subspaces."""
        features = self.features(clips).unflatten(1, (-1, self.untouched.dim))
        config = self.config
        scores = reweighted_scores(features, self.completed, self._sizes, config.alpha, config.beta or None)
        return {"ncm": scores}

    def memory_use(self) -> MemoryUse:
        """Return the size of the class means in all subspaces."""
        return MemoryUse(statistics_bytes=self.means.nbytes)


def complete_prototypes(prototypes: Tensor, sizes: Sequence[int], reset: bool = True) -> Tensor:
    """Synthesise the prototypes of old classes in the subspaces of adapters that were trained later.

    What stands for a class of task i in subspace j > i is a mean of the prototypes that later classes have
    there, weighted by how alike the two are in subspace i. Source: EASE models/ease.py, solve_sim_reset and
    solve_similarity.

    Args:
        prototypes: [K, J, D], one subspace a task; what the classes of task i have in subspaces up to i are
            class means.
        sizes: Classes of each of the J tasks.
        reset: Synthesise all, from class means alone; False: only the newest subspace, from the newest task.

    Returns:
        [K, J, D].
    """
    completed = prototypes.clone()
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    last = len(sizes) - 1
    for i in range(last):
        old = slice(ends[i], ends[i + 1])
        for j in range(i + 1 if reset else last, last + 1):
            later = slice(ends[j], None)  # classes of tasks j.., which have means in subspaces i and j
            alike = cosine_scores(prototypes[old, i], prototypes[later, i]).softmax(dim=1)
            completed[old, j] = alike @ prototypes[later, j]
    return completed


def reweighted_scores(
    features: Tensor, prototypes: Tensor, sizes: Sequence[int], alpha: float, beta: float | None = None
) -> Tensor:
    """Score by cosines summed over subspaces, that of a class's own task counting fully.

    Source: EASE utils/inc_net.py and backbone/linears.py, forward_reweight.

    Args:
        features: [B, J, D].
        prototypes: [K, J, D], completed.
        sizes: Classes of each task.
        alpha: Weight that the subspaces of other tasks have together, counted by the tasks before the last.
        beta: Weight of the untuned subspace, which is the first of J then; None where there is none.

    Returns:
        [B, K].
    """
    spaces = prototypes.shape[1] - (beta is not None)
    counts = torch.tensor(sizes, device=prototypes.device)
    task = torch.arange(len(sizes), device=prototypes.device).repeat_interleave(counts)  # [K]
    weights = F.one_hot(task, spaces).to(prototypes)
    if spaces > 1:
        weights = weights + (1 - weights) * alpha / (spaces - 1)
    if beta is not None:
        weights = torch.cat([weights.new_full((len(weights), 1), beta), weights], dim=1)
    x, w = F.normalize(features, dim=-1), F.normalize(prototypes, dim=-1)
    return torch.einsum("bjd,kjd,kj->bk", x, w, weights)
