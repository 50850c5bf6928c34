"""S-iPrompts: prompts and a head for each task, chosen at test by the nearest of the tasks' k-means centres.

Source: Wang et al., "S-Prompts Learning with Pre-trained Transformers: An Occam's Razor for Domain Incremental
Learning", NeurIPS 2022; iamwangyabin/S-Prompts @ a26e822. On videos: ``vcil_bench/prompting.py``. Made for
domains that share their classes; in class-incremental learning a task's head scores its own classes alone. The
variant with learned text (S-liPrompts) is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcil_bench.common.config import check_numbers
from vcil_bench.method import MemoryUse, RunContext
from vcil_bench.nets.prompts import Slots
from vcil_bench.prompting import PromptConfig, PromptMethod
from vcil_bench.stream import Task
from vcil_bench.training import cosine, evaluating, sgd


@dataclass(frozen=True, kw_only=True)
class SPromptsConfig(PromptConfig):
    """Hyper-parameters; the defaults are the authors' on DomainNet (configs/domainnet_slip.json).

    In a task of one class the cross-entropy among its classes is zero, and prompts and head train by the decay
    alone; accuracy is then that of the chosen task.

    Attributes:
        length: Prompts of a task.
        centres: k-means centres of a task.
        distance: From a query to a centre: ``l1`` as released, or ``l2``, in which the centres are found.
        momentum, weight_decay_first, weight_decay: SGD, the decay of the first task and of later ones.
        lr: SGD's, falling to zero by a cosine in every task.
        batch_size: Theirs, of images; ``--set micro_batch=`` where that many clips do not fit.
        epochs: On DomainNet; 20 on CORe50.
    """

    lr: float = 0.01
    batch_size: int = 128
    epochs: int = 30
    length: int = 10
    centres: int = 5
    distance: Literal["l1", "l2"] = "l1"
    momentum: float = 0.9
    weight_decay_first: float = 5e-4
    weight_decay: float = 2e-4

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self,
            positive=("length", "centres"),
            not_negative=("weight_decay_first", "weight_decay"),
            below_one=("momentum",),
        )


class SPrompts(PromptMethod):
    """A set of prompts and a linear head per task, read out at the class token.

    Scores are probabilities among the classes of the chosen task, 0 for all others: they can be averaged over
    views and frames that choose different tasks, which logits beside minus infinity cannot.

    Attributes:
        centres: [tasks, k, D].
    """

    name = "sprompts"
    paper = "Wang et al., S-Prompts Learning with Pre-trained Transformers, NeurIPS 2022 (S-iPrompts)"
    Config = SPromptsConfig
    recipes: ClassVar = {"synthetic_*": {"batch_size": 10, "epochs": 6}}

    config: SPromptsConfig
    centres: Tensor

    def __init__(self, config: SPromptsConfig, context: RunContext) -> None:
        """Make lists of what each task adds, and no centres."""
        super().__init__(config, context)
        self.prompts = nn.ParameterList()  # per task [1, L, width]
        self.heads = nn.ModuleList()
        self.register_buffer("centres", torch.empty(0, config.centres, self.network.dim))

    def grow(self, task: Task) -> None:
        """Add prompts, a head and room for centres; those before stay as they are."""
        self.requires_grad_(False)
        width, device = self.context.clip.width, self.centres.device
        prompts = torch.empty(1, self.config.length, width).uniform_(-(width**-0.5), width**-0.5)
        self.prompts.append(nn.Parameter(prompts.to(device)))
        self.heads.append(nn.Linear(self.network.dim, task.num_new).to(device))
        self.centres = torch.cat([self.centres, self.centres.new_zeros(1, *self.centres.shape[1:])])

    def learn(self, task: Task) -> None:
        """Train the task's prompts and head on its videos, then find its centres."""
        config = self.config
        optimiser = sgd(
            self.context,
            self.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay_first if task.index == 0 else config.weight_decay,
        )
        for epoch in self.train_epochs(
            task.train,
            optimiser,
            cosine(optimiser, config.epochs),
            num_epochs=config.epochs,
            batch_size=config.batch_size,
            phase=f"task {task.index + 1}",
        ):
            for batch in epoch:
                frames = self.frames(batch.clips, Slots(prompts=self.prompts[-1]))
                logits = self.heads[-1](frames.mean(dim=1))
                epoch.step({"cross_entropy": F.cross_entropy(logits, batch.labels - task.num_old)})
        self._find_centres(task)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the head of the task whose centre is nearest."""
        chosen = self.choose_tasks(self.query(clips))
        slots = Slots(prompts=torch.cat(list(self.prompts))[chosen])
        frames = self.frames(clips, slots)
        scores = [F.softmax(head(frames), dim=-1) for head in self.heads]  # [B, T, classes of the task] each
        chosen = chosen.view(len(clips), -1, 1)  # one a clip or one a frame
        scores = [each * (chosen == task) for task, each in enumerate(scores)]
        return {"cnn": torch.cat(scores, dim=2).mean(dim=1)}

    def choose_tasks(self, query: Tensor) -> Tensor:
        """Return the task [rows] that each query [rows, D] belongs to."""
        norm = 1 if self.config.distance == "l1" else 2
        return task_distances(query, list(self.centres), norm).argmin(dim=1)

    def memory_use(self) -> MemoryUse:
        """Return the size of the centres."""
        return MemoryUse(statistics_bytes=self.centres.nbytes)

    def _find_centres(self, task: Task) -> None:
        """Cluster the task's queries; centres that its videos are too few for repeat others."""
        with evaluating(self):
            queries = torch.cat([self.query(batch.clips) for batch in self.context.centre_clips(task.train)])
        centres = task_centres(queries, self.config.centres)
        order = torch.arange(self.config.centres, device=centres.device) % len(centres)
        self.centres[task.index] = centres[order]


def task_centres(features: Tensor, k: int = 5, seed: int = 0) -> Tensor:
    """Return the k-means centres [k, D] of a task's features [N, D], which are made unit first.

    The centres are not. Source: S-Prompts methods/sprompt.py, clustering.

    Args:
        features: [N, D].
        k: Centres; fewer come back where fewer features differ.
        seed: Of the start.
    """
    from sklearn.cluster import KMeans

    rows = F.normalize(features.double(), dim=1).cpu()
    k = min(k, len(rows.unique(dim=0)))
    centres = KMeans(k, n_init=10, random_state=seed).fit(rows.numpy()).cluster_centers_
    return torch.from_numpy(centres).to(features)


def task_distances(features: Tensor, centres: Sequence[Tensor], norm: float = 1) -> Tensor:
    """Return how far features, made unit first, are from the nearest centre of each task.

    Source: S-Prompts methods/sprompt.py, _eval_cnn.

    Args:
        features: [N, D].
        centres: Per task, [k, D].
        norm: 1 as released, 2 for the Euclidean distance.

    Returns:
        [N, tasks].
    """
    unit = F.normalize(features, dim=1)
    # From 26 rows on cdist would take products of matrices, and a clip's task hang on the size of its batch.
    mode = "donot_use_mm_for_euclid_dist"
    away = [torch.cdist(unit, each, p=norm, compute_mode=mode).amin(dim=1) for each in centres]
    return torch.stack(away, dim=1)
