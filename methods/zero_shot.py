"""Zero-shot CLIP: frozen features against class texts, the floor of every CLIP-based method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vcil_bench.method import Method, RunContext
from vcil_bench.nets.clip import check_template, prompts
from vcil_bench.stream import Task


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """The one choice zero-shot CLIP has.

    Attributes:
        template: Text of a class; ``{}`` is its name split into words. StPR's default, so that they compare.
    """

    template: str = "a video of a person doing {}"

    def __post_init__(self) -> None:
        """Refuse a template without a place for the name."""
        check_template(self.template)


class ZeroShot(Method):
    """Mean frame feature of the frozen CLIP, cosine to the class texts; nothing is trained."""

    name = "zero_shot"
    paper = "Radford et al., CLIP, ICML 2021 (frozen, no adaptation)"
    readouts = ("text",)
    needs = frozenset({"text"})
    splits_batches = True
    Config = ZeroShotConfig
    recipes: ClassVar = {"synthetic_*": {"template": "{}"}}

    config: ZeroShotConfig
    texts: Tensor

    def __init__(self, config: ZeroShotConfig, context: RunContext) -> None:
        """Make an encoder without adapters and an empty pool of texts."""
        super().__init__(config, context)
        self.encoder = context.clip.encoder()
        self.register_buffer("texts", torch.empty(0, context.clip.dim))

    def grow(self, task: Task) -> None:
        """Add the new classes' texts."""
        new = self.context.clip.encode_text(prompts(task.class_names, self.config.template))
        self.texts = torch.cat([self.texts.to(new), new])

    def learn(self, task: Task) -> None:
        """Learn nothing: that is the point of this baseline."""

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the cosine of their mean frame feature with every class text."""
        with self.context.autocast():
            frames = self.encoder(clips)  # [B, T, D]
        return {"text": F.normalize(frames.float().mean(dim=1), dim=-1) @ self.texts.T}
