"""CODA-Prompt: prefixes put together from components, weighted by how much a query attends to each.

Source: Smith et al., "CODA-Prompt: COntinual Decomposed Attention-based Prompting for Rehearsal-Free Continual
Learning", CVPR 2023; GT-RIPL/CODA-Prompt @ 6417d4f. On videos: ``vcil_bench/prompting.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.method import RunContext
from vcil_bench.nets.prompts import Slots
from vcil_bench.prompting import PromptClassifier, PromptClassifierConfig
from vcil_bench.stream import Task


@dataclass(frozen=True, kw_only=True)
class CodaPromptConfig(PromptClassifierConfig):
    """Hyper-parameters; the defaults are the authors' (experiments/cifar-100.sh, ``learners/prompt.py``).

    Attributes:
        components_per_task: Components that a task adds in each block. The authors give the number of all
            tasks together, 100 for ten.
        components: That number of all tasks together, M, in place of ``components_per_task``; None for none. The
            authors' code rounds a task's share down (78 of 100 in 26 tasks); here the tasks must divide it.
        length: Rows of a component, an even number: the first half of what is put together are keys, the second
            values.
        blocks: The first blocks, which have prefixes, as far as the network has so many.
        orthogonality: Weight of the components', keys' and attentions' distance from orthogonal. 0.1 in the
            paper; the released scripts have 0.0 and say that it can be.
        lr: Adam's, falling by a cosine to 1.6 % of it.
        batch_size: Theirs, of images; ``--set micro_batch=`` where that many clips do not fit.
        epochs: On CIFAR; 50 on ImageNet-R.
        clip_norm: Largest norm of the gradient; the authors do not clip.
    """

    batch_size: int = 128
    epochs: int = 20
    components_per_task: int = 10
    components: int | None = None
    length: int = 8
    blocks: int = 5
    orthogonality: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self, positive=("components_per_task", "length", "blocks"), not_negative=("orthogonality",)
        )
        if self.components is not None and self.components < 1:
            raise ConfigError(f"components: {self.components} must be above 0, or null for none")
        if self.length % 2:
            raise ConfigError(
                f"length: {self.length} rows do not halve into keys and values; take an even number"
            )

    def share(self, num_tasks: int | None, dim: int) -> int:
        """Return how many components a task adds.

        Args:
            num_tasks: Tasks of the run, None where that is not known.
            dim: Size of a query.

        Raises:
            ConfigError: The tasks do not divide the number of all, or have more than can be orthogonal.
        """
        share = self.components_per_task
        if self.components is not None:
            if num_tasks is None or self.components % num_tasks:
                raise ConfigError(
                    f"components: {self.components} do not divide over {num_tasks or 'an unknown number of'} "
                    "tasks; give a multiple of them, or components_per_task"
                )
            share = self.components // num_tasks
        if share * (num_tasks or 1) > dim:
            raise ConfigError(
                f"{share} components in each of {num_tasks or 1} tasks are more than the {dim} that can be "
                "orthogonal to one another; give fewer in components_per_task or components"
            )
        return share


class CodaPrompt(PromptClassifier):
    """Weighted components as prefixes, read out at the class token."""

    name = "coda_prompt"
    paper = "Smith et al., CODA-Prompt: Continual Decomposed Attention-based Prompting, CVPR 2023"
    Config = CodaPromptConfig
    recipes: ClassVar = {"synthetic_*": {"lr": 0.01, "batch_size": 10, "epochs": 6}}

    config: CodaPromptConfig

    def __init__(self, config: CodaPromptConfig, context: RunContext) -> None:
        """Make lists of what each task adds, per block."""
        super().__init__(config, context)
        self._share = config.share(context.num_tasks, self.network.dim)
        self._blocks = min(config.blocks, context.clip.num_blocks)
        self.keys = nn.ParameterList()  # per task [blocks, M/T, D]
        self.attentions = nn.ParameterList()  # the same
        self.components = nn.ParameterList()  # [blocks, M/T, L, width]

    def grow(self, task: Task) -> None:
        """Add components orthogonal to all before them, which stay as they are."""
        super().grow(task)
        shape = (self.config.length, self.context.clip.width)
        dim = (self.network.dim,)
        for rows, size in ((self.keys, dim), (self.attentions, dim), (self.components, shape)):
            for old in rows:
                old.requires_grad_(False)
            draws = torch.randn(self._blocks, self._share, *size).flatten(2).to(self.head.weight.device)
            before = torch.cat([old.detach().flatten(2) for old in rows] or [draws[:, :0]], dim=1)
            new = torch.stack([gram_schmidt(*pair) for pair in zip(before, draws, strict=True)])
            rows.append(nn.Parameter(new.unflatten(2, size)))

    def slots(self, query: Tensor, task: Task | None) -> tuple[Slots, dict[str, Tensor]]:
        """Put each block's prefix together from all components so far (Eq. 2 to 5)."""
        prefixes, apart = {}, []
        all_rows = (torch.cat(list(rows), dim=1) for rows in (self.keys, self.attentions, self.components))
        for block, rows in enumerate(zip(*all_rows, strict=True)):
            composed = compose(query, *rows)  # [B, L, width]
            prefixes[block] = composed.unflatten(1, (2, -1))
            apart += [orthogonality(each.flatten(1)) for each in rows]
        losses = {}
        if task is not None and self.config.orthogonality:
            losses["orthogonality"] = self.config.orthogonality * torch.stack(apart).sum()
        return Slots(prefixes=prefixes), losses

    def schedule(self, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the authors' cosine, which ends a hundredth before its end (utils/schedulers.py)."""
        last = max(1, self.config.epochs - 1)
        return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: cos(99 * pi * epoch / (200 * last)))


def compose(query: Tensor, keys: Tensor, attentions: Tensor, components: Tensor) -> Tensor:
    """Return the components' sum, each weighted by the cosine of the attended query and its key.

    Source: CODA-Prompt, Eq. 2 to 5; models/zoo.py, CodaPrompt.forward.

    Args:
        query: [B, D].
        keys: [M, D].
        attentions: [M, D], multiplied with the query entry by entry.
        components: [M, L, width].

    Returns:
        [B, L, width]; the first half of the rows are keys, the second values.
    """
    attended = F.normalize(query[:, None] * attentions, dim=-1)  # [B, M, D]
    weights = (attended * F.normalize(keys, dim=-1)).sum(dim=-1)
    return torch.einsum("bm,mlw->blw", weights, components)


def orthogonality(rows: Tensor) -> Tensor:
    """Return how far rows [M, D] are from orthonormal: the mean of ``(R R^T - 1)^2`` over its entries."""
    return (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).square().mean()


def gram_schmidt(old: Tensor, draws: Tensor) -> Tensor:
    """Return new rows of unit length orthogonal to those before, by the classical Gram-Schmidt process.

    Every coefficient is taken of the draw itself, and old rows are taken as they are: they need not be
    orthogonal to one another. Source: CODA-Prompt models/zoo.py, gram_schmidt.

    Args:
        old: Rows so far [m, D].
        draws: What the new rows start from [n, D].

    Returns:
        [n, D].
    """
    rows = list(old)
    for draw in draws:
        before = torch.stack(rows) if rows else draw[None][:0]
        shares = (before @ draw) / before.square().sum(dim=1)
        rows.append(draw - shares @ before)
    return F.normalize(torch.stack(rows[len(old) :]), dim=1)
