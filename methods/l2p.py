"""L2P: a pool of prompts for a frozen network, from which every video takes those whose keys are nearest.

Source: Wang et al., "Learning to Prompt for Continual Learning", CVPR 2022; google-research/l2p @ dd8836e,
JH-LEE-KR/l2p-pytorch @ f7bc994. On videos: ``vcil_bench/prompting.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.method import RunContext
from vcil_bench.nets.prompts import Slots, gather_prompts, prompt_similarity, select_prompts
from vcil_bench.prompting import PromptClassifier, PromptClassifierConfig
from vcil_bench.stream import Task


@dataclass(frozen=True, kw_only=True)
class L2PConfig(PromptClassifierConfig):
    """Hyper-parameters; the defaults are those of the PyTorch code and of LAMDA-PILOT (exps/l2p.json).

    Attributes:
        pool_size: Prompts of the pool, M.
        length: Tokens of a prompt, L.
        top_k: Prompts that a query gets, N.
        pull: Weight of the cosine to the chosen keys. The JAX code has 1.0 with ``length`` 10 and ``top_k`` 4.
        choice: ``sample``: the prompts nearest to a query, as in the paper. ``batch``: those that a batch's
            queries choose most often, for all of it, in training and at test, as released; a clip's scores then
            hang on the clips beside it, hence on the batch of the evaluation and on the number of processes, and
            a table of single clips is no match for it.
        lr: Adam's, constant: 0.03 for a batch of 256, as published, scaled to 16.
        batch_size: Theirs, of images.
        epochs: LAMDA-PILOT's on ImageNet-R; 5 on CIFAR.
        clip_norm: Largest norm of the gradient.
    """

    lr: float = 0.03 * 16 / 256
    clip_norm: float | None = 1.0
    pool_size: int = 10
    length: int = 5
    top_k: int = 5
    pull: float = 0.1
    choice: Literal["sample", "batch"] = "sample"

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, positive=("pool_size", "length", "top_k"), not_negative=("pull",))
        if self.top_k > self.pool_size:
            raise ConfigError(f"top_k: {self.top_k} prompts of a pool of {self.pool_size}; raise pool_size")


class L2P(PromptClassifier):
    """Prompts in front of the tokens, read out at their outputs."""

    name = "l2p"
    paper = "Wang et al., Learning to Prompt for Continual Learning, CVPR 2022"
    Config = L2PConfig
    recipes: ClassVar = {"synthetic_*": {"lr": 0.01, "batch_size": 10, "epochs": 6}}

    config: L2PConfig

    def __init__(self, config: L2PConfig, context: RunContext) -> None:
        """Draw prompts and keys, uniform between -1 and 1 as in the authors' PyTorch code."""
        super().__init__(config, context)
        prompts = torch.empty(config.pool_size, config.length, context.clip.width)
        self.prompts = nn.Parameter(prompts.uniform_(-1, 1))
        self.keys = nn.Parameter(torch.empty(config.pool_size, self.network.dim).uniform_(-1, 1))

    @classmethod
    def mixes_test_clips_with(cls, config: L2PConfig) -> bool:
        """Tell whether prompts are chosen as released, for a whole batch."""
        return config.choice == "batch"

    def slots(self, query: Tensor, task: Task | None) -> tuple[Slots, dict[str, Tensor]]:
        """Take the prompts whose keys are nearest, and pull these keys to the query (Eq. 5)."""
        config = self.config
        chosen = select_prompts(query, self.keys, config.top_k, batchwise=config.choice == "batch")
        slots = Slots(prompts=gather_prompts(self.prompts, chosen), readout="prompts")
        return slots, {"key": -config.pull * prompt_similarity(query, self.keys, chosen)}
