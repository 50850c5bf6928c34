"""StPR's training step, by the harness, against the loop that one would write around open_clip by hand.

Both take the same operations on the same clips behind the same frozen CLIP; what the two cost in turn is
compared, step by step in one process. The loop below has no plan, no progress, no sums, no place to resume from.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from common import Row, hand_over, ratio, seconds
from torch import Tensor, nn

from vcil_bench.data.loader import Batch, Sample
from vcil_bench.doctor.steady import SteadyClips, learn, stpr, trunk_of

BACKBONE, BATCH, ROUNDS = "clip_vit_b16", 1, 7


class Bare:
    """AdaptFormer beside the frozen blocks of open_clip, a transformer over frames, two contrasts with texts."""

    def __init__(self, clip: Any, texts: Tensor, *, distils: bool) -> None:
        self.clip, self.texts = clip.requires_grad_(False), texts
        width, dim = clip.visual.conv1.out_channels, clip.visual.output_dim
        self.down = nn.ModuleList(nn.Linear(width, 64) for _ in clip.visual.transformer.resblocks)
        self.up = nn.ModuleList(nn.Linear(64, width) for _ in clip.visual.transformer.resblocks)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)
        self.old = copy.deepcopy((self.down, self.up)) if distils else None
        self.cls, self.position = nn.Parameter(0.02 * torch.randn(1, 1, dim)), torch.randn(1, 9, dim)
        layer = nn.TransformerEncoderLayer(dim, 8, 4 * dim, 0.1, "gelu", batch_first=True, norm_first=True)
        self.expert = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        trained = [*self.down.parameters(), *self.up.parameters(), self.cls, *self.expert.parameters()]
        self.optimiser = torch.optim.SGD(trained, lr=0.01, momentum=0.9, weight_decay=5e-4)
        colours = (clip.visual.image_mean, clip.visual.image_std)
        self.mean, self.std = (255 * torch.tensor(values).view(3, 1, 1) for values in colours)

    def frames(self, clips: Tensor, down: nn.ModuleList, up: nn.ModuleList, dropout: float) -> Tensor:
        """Encode clips [B, T, 3, S, S] to frame features [B, T, D]."""
        visual = self.clip.visual
        x = visual._embeds((clips.flatten(0, 1).float() - self.mean) / self.std)
        for block, narrow, wide in zip(visual.transformer.resblocks, down, up, strict=True):
            x = x + block.attention(block.ln_1(x))
            beside = 0.1 * wide(F.dropout(F.relu(narrow(x)), dropout))
            x = x + block.mlp(block.ln_2(x)) + beside
        return (visual._pool(x)[0] @ visual.proj).unflatten(0, clips.shape[:2])

    def contrast(self, video: Tensor, labels: Tensor) -> Tensor:
        """Hold videos [B, D] to their texts, and texts to their videos."""
        video, scale = F.normalize(video, dim=-1), self.clip.logit_scale.exp()
        same = (labels[:, None] == labels).float()
        of_texts = F.cross_entropy(scale * self.texts[labels] @ video.T, same / same.sum(dim=1, keepdim=True))
        return (F.cross_entropy(scale * video @ self.texts.T, labels) + of_texts) / 2

    def step(self, clips: Tensor, labels: Tensor) -> None:
        """Take a training step."""
        frames = self.frames(clips, self.down, self.up, 0.1)
        tokens = torch.cat([self.cls.expand(len(clips), 1, -1), frames], dim=1) + self.position
        spatial = frames.mean(dim=1)
        loss = self.contrast(spatial, labels) + self.contrast(self.expert(tokens)[:, 0], labels)
        if self.old is not None:
            with torch.no_grad():
                before = self.frames(clips, *self.old, 0.0).mean(dim=1)
            drift = F.normalize(spatial, dim=-1) - F.normalize(before, dim=-1)
            loss = loss + 1e4 * drift.square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


class InTurn(SteadyClips):
    """Steady clips that take a step of the bare loop in front of each of the harness's.

    Attributes:
        bare: The other loop.
        times: Seconds of a step, by who took it.
    """

    bare: Bare
    times: dict[str, list[float]]

    def training(self, samples: Sequence[Sample], *arguments: Any, **more: Any) -> Iterator[Batch]:
        """Yield the batches, and note how long each was away."""
        self.times = {"harness": [], "bare": []}
        for batch in super().training(samples, *arguments, **more):
            self.times["bare"].append(seconds(partial(self.bare.step, batch.clips, batch.labels)))
            start = time.perf_counter()
            yield batch
            self.times["harness"].append(time.perf_counter() - start)


def compare(trunk: Any, *, distils: bool) -> dict[str, list[float]]:
    """Return seconds of steps in turn, without the first (it warms up) and the last (nobody sees its end)."""
    device = torch.device("cpu")
    loader = InTurn(BATCH, ROUNDS + 2, device, few=1)
    method, task = stpr(trunk, loader, device, fssd=distils)
    loader.bare = Bare(trunk.model, method.texts, distils=distils)
    with torch.no_grad():  # adapters begin at nothing, so that both see the frozen CLIP
        of_harness, bare = method.encoder(loader.clips), loader.bare
        torch.testing.assert_close(
            of_harness, bare.frames(loader.clips, bare.down, bare.up, 0.0), rtol=1e-3, atol=1e-4
        )
    learn(method, task)
    return {name: spent[1 : ROUNDS + 1] for name, spent in loader.times.items()}


def main() -> None:
    """Measure and hand over."""
    trunk = trunk_of(BACKBONE, torch.device("cpu"))
    alone, distilling = compare(trunk, distils=False), compare(trunk, distils=True)
    against = ratio(alone, "harness", "bare")
    how = f"ViT-B-16, {BATCH} clip of 8 frames of 224 pixels, fp32; median of {ROUNDS} steps in turn"
    rows = [
        Row("a step by the harness against the bare loop's", f"{against:.2f}", "<= 1.03", against <= 1.03, how),
        Row("a step of the bare loop", f"{median(alone['bare']):.2f} s"),
        Row(
            "the same with distillation",
            f"{ratio(distilling, 'harness', 'bare'):.2f}",
            note="the bare loop runs the old encoder whole, the harness from where the adapters differ",
        ),
    ]
    hand_over(rows)


if __name__ == "__main__":
    main()
