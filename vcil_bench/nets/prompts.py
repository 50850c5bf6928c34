"""Prompts and prefixes of a frozen transformer: which of a pool a query chooses, and how they enter the network.

Prompts are tokens beside those of an image, prefixes are keys and values of a block's attention; both are
learned while the network's own weights stay as they are. ``Slots`` says which of them a pass takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PromptReadout = Literal["class", "prompts"]


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What enters a frozen transformer beside the tokens of a frame; gradients reach it.

    The first axis of each tensor is 1 (the same for all), B (one for every video, the same for its frames) or
    B*T (one for every frame, video after video). Under ``torchrun``, B counts the videos of the whole batch, as
    everything does that is computed from a network's features.

    Attributes:
        prompts: Tokens [1, B or B*T, L, width] in front of the class token, before the first norm and without
            positions.
        readout: What becomes the frame feature: the output at the class token, or the mean of the outputs at
            the prompts, which then must be there.
        prefixes: Of blocks, by their number from 0: keys and values [1, B or B*T, 2, L, width] in front of the
            tokens' own, the heads side by side.
    """

    prompts: Tensor | None = None
    readout: PromptReadout = "class"
    prefixes: Mapping[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what could not be read out."""
        assert self.readout == "class" or self.prompts is not None, "there are no prompts to read out"

    @property
    def length(self) -> int:
        """Number of prompts."""
        return 0 if self.prompts is None else self.prompts.shape[1]

    @property
    def trains(self) -> bool:
        """Whether a backward pass would reach any of them."""
        return any(t.requires_grad for t in (self.prompts, *self.prefixes.values()) if t is not None)

    def each(self, change: Callable[[Tensor], Tensor]) -> Slots:
        """Return the same slots with every tensor changed."""
        return replace(
            self,
            prompts=None if self.prompts is None else change(self.prompts),
            prefixes={block: change(prefix) for block, prefix in self.prefixes.items()},
        )


def select_prompts(
    query: Tensor, keys: Tensor, top_k: int, *, batchwise: bool = False, task: int | None = None
) -> Tensor:
    """Choose prompts whose keys are nearest to a query by the cosine.

    Source: Wang et al. 2022 (L2P), Sec. 4.2; google-research/l2p models/prompt.py.

    Args:
        query: [B, D].
        keys: [P, D].
        top_k: Prompts to choose, k.
        batchwise: Everybody gets the k prompts that are chosen most often in the batch, as released; of prompts
            chosen equally often the first.
        task: Everybody gets this task's own prompts, number ``task * k`` and those after it; the query is not
            asked.

    Returns:
        Indices [B, k], best first.
    """
    if task is not None:
        own = torch.arange(task * top_k, (task + 1) * top_k, device=query.device)
        return own.expand(len(query), top_k)
    nearest = _cosines(query, keys).topk(top_k, dim=1).indices
    if not batchwise:
        return nearest
    counts = F.one_hot(nearest, len(keys)).sum(dim=(0, 1))
    return counts.sort(descending=True, stable=True).indices[:top_k].expand(len(query), top_k)


def prompt_similarity(query: Tensor, keys: Tensor, indices: Tensor) -> Tensor:
    """Return how near chosen keys are to their queries, which training increases: a scalar.

    ``1/B`` times the sum over samples and their chosen prompts of the cosine. Source: L2P, Eq. 5.

    Args:
        query: [B, D].
        keys: [P, D].
        indices: Chosen prompts [B, k].
    """
    return _cosines(query, keys).gather(1, indices).sum() / len(query)


def gather_prompts(pool: Tensor, indices: Tensor) -> Tensor:
    """Return chosen prompts one after the other: pool [P, L, width], indices [B, k] -> [B, k L, width]."""
    return pool[indices].flatten(1, 2)


def put_in_front(prompts: Tensor, tokens: Tensor) -> Tensor:
    """Join prompts [N, L, width] and tokens [N, n, width] to [N, L + n, width] in the tokens' precision."""
    return torch.cat([prompts.to(tokens.dtype), tokens], dim=1)


def prepend_prompts(tokens: Tensor, pool: Tensor, indices: Tensor) -> Tensor:
    """Put chosen prompts in front of tokens.

    Args:
        tokens: [B, N, width].
        pool: [P, L, width].
        indices: Chosen prompts [B, k], the first in front.

    Returns:
        [B, k L + N, width].
    """
    return put_in_front(gather_prompts(pool, indices), tokens)


def gather_prefixes(pool: Tensor, indices: Tensor, released: bool = False) -> Tensor:
    """Return chosen keys and values for every block.

    Source: Wang et al. 2022 (DualPrompt), Eq. 4; google-research/l2p models/prompt.py.

    Args:
        pool: [layers, 2, P, L, heads, width / heads]; 2: keys and values.
        indices: Chosen prompts [B, k].
        released: As the PyTorch port and LAMDA-PILOT have it: the axis of the batch and that of keys and values
            are renamed instead of exchanged, so that samples get one another's, and keys as values.

    Returns:
        [layers, B, 2, k L, heads, width / heads].
    """
    chosen = pool[:, :, indices]  # [layers, 2, B, k, L, heads, width / heads]
    if not released:
        return chosen.transpose(1, 2).flatten(3, 4)
    layers, pair, batch = chosen.shape[:3]
    return chosen.flatten(3, 4).reshape(layers, batch, pair, -1, *chosen.shape[5:])


def _cosines(query: Tensor, keys: Tensor) -> Tensor:
    """Return the cosines [B, P]; the floor of a length is that of the authors' code."""
    return F.normalize(query, dim=-1, eps=1e-6) @ F.normalize(keys, dim=-1, eps=1e-6).T
