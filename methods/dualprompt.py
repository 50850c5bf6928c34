"""DualPrompt: prefixes in a frozen network's attention, general ones for all tasks and expert ones for each.

Source: Wang et al., "DualPrompt: Complementary Prompting for Rehearsal-free Continual Learning", ECCV 2022;
google-research/l2p @ dd8836e, JH-LEE-KR/dualprompt-pytorch @ 7eb457d. On videos: ``vcil_bench/prompting.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.method import RunContext
from vcil_bench.nets.prompts import Slots, gather_prefixes, prompt_similarity, select_prompts
from vcil_bench.prompting import PromptClassifier, PromptClassifierConfig
from vcil_bench.stream import Task


@dataclass(frozen=True, kw_only=True)
class DualPromptConfig(PromptClassifierConfig):
    """Hyper-parameters; the defaults are the authors' on CIFAR (configs of google-research/l2p).

    Attributes:
        general_length: Keys and values of the general prompt in each of its blocks.
        expert_length: The same of a task's expert prompt; 20 on ImageNet-R.
        general_blocks: The first blocks, which have the general prompt.
        expert_blocks: The blocks behind them, which have expert prompts, as far as the network has so many.
        pull: Weight of the cosine to the task's own key; LAMDA-PILOT has 0.1.
        choice: Of expert prompts at test, where no task is known. ``sample``: the key nearest to a query.
            ``batch``: the key that is nearest most often in a batch, for all of it, as released for CIFAR; a
            clip's scores then hang on the clips beside it, hence on the batch of the evaluation.
        released_prefixes: Mix keys and values of expert prompts up as the PyTorch port and LAMDA-PILOT do, see
            ``nets.prompts.gather_prefixes``. What a clip gets then hangs on its place in the batch.
        lr: Adam's, constant: 0.03 for a batch of 256, as published, scaled to 24.
        batch_size: Theirs, of images.
        epochs: LAMDA-PILOT's on ImageNet-R. Published: 5 on CIFAR, 50 on ImageNet-R at a rate of 0.005.
        clip_norm: Largest norm of the gradient.
    """

    lr: float = 0.03 * 24 / 256
    batch_size: int = 24
    clip_norm: float | None = 1.0
    general_length: int = 5
    expert_length: int = 5
    general_blocks: int = 2
    expert_blocks: int = 3
    pull: float = 1.0
    choice: Literal["sample", "batch"] = "sample"
    released_prefixes: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self,
            positive=("general_length", "expert_length", "expert_blocks"),
            not_negative=("general_blocks", "pull"),
        )


class DualPrompt(PromptClassifier):
    """General and expert prefixes, read out at the class token."""

    name = "dualprompt"
    paper = "Wang et al., DualPrompt: Complementary Prompting for Rehearsal-free Continual Learning, ECCV 2022"
    Config = DualPromptConfig
    recipes: ClassVar = {"synthetic_*": {"lr": 0.01, "batch_size": 10, "epochs": 6, "general_blocks": 1}}

    config: DualPromptConfig

    def __init__(self, config: DualPromptConfig, context: RunContext) -> None:
        """Draw the general prompt, uniform between -1 and 1 as in the authors' PyTorch code."""
        super().__init__(config, context)
        clip = context.clip
        if config.general_blocks >= clip.num_blocks:
            raise ConfigError(
                f"general_blocks: {config.general_blocks} leave no block of {clip.name}, which has "
                f"{clip.num_blocks}, to expert prompts; take fewer"
            )
        self._expert_blocks = range(clip.num_blocks)[config.general_blocks :][: config.expert_blocks]
        heads = clip.model.visual.transformer.resblocks[0].attn.num_heads
        self._expert_shape = (len(self._expert_blocks), 2, config.expert_length, heads, clip.width // heads)
        general = torch.empty(config.general_blocks, 1, 2, config.general_length, clip.width)
        self.general = nn.Parameter(general.uniform_(-1, 1))
        self.experts = nn.ParameterList()  # per task [blocks, 2, L, heads, width / heads]
        self.keys = nn.ParameterList()  # per task [D]

    def grow(self, task: Task) -> None:
        """Add an expert prompt, which starts as the last task's, and a key; those before stay as they are."""
        super().grow(task)
        device = self.general.device
        for parameter in (*self.experts, *self.keys):
            parameter.requires_grad_(False)
        if len(self.experts):
            expert = self.experts[-1].detach().clone()
        else:
            expert = torch.empty(self._expert_shape).uniform_(-1, 1).to(device)
        self.experts.append(nn.Parameter(expert))
        self.keys.append(nn.Parameter(torch.empty(self.network.dim).uniform_(-1, 1).to(device)))

    @classmethod
    def mixes_test_clips_with(cls, config: DualPromptConfig) -> bool:
        """Tell whether prompts are chosen as released, for a whole batch, or mixed up in it."""
        return config.choice == "batch" or config.released_prefixes

    def slots(self, query: Tensor, task: Task | None) -> tuple[Slots, dict[str, Tensor]]:
        """Take the task's own expert prompt in training, at test the one whose key is nearest (Eq. 5 to 7)."""
        config = self.config
        keys = torch.stack(list(self.keys))
        chosen = select_prompts(
            query, keys, 1, batchwise=config.choice == "batch", task=None if task is None else task.index
        )
        pool = torch.stack(list(self.experts), dim=2)  # [blocks, 2, tasks, L, heads, width / heads]
        experts = gather_prefixes(pool, chosen, config.released_prefixes).flatten(-2)
        prefixes = dict(enumerate(self.general)) | dict(zip(self._expert_blocks, experts, strict=True))
        return Slots(prefixes=prefixes), {"key": -config.pull * prompt_similarity(query, keys, chosen)}
