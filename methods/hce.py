"""HCE: hypercorrelation evolution for video class-incremental learning (Liang et al., AAAI 2024).

A learned network looks at the correlations between the new and the old model's feature maps on all levels and
says, per layer, frame and channel, how strongly the maps are held together (hierarchical aggregation, HAS); how
much these weights vary over old exemplars and new videos gives a bias against imbalance (correlation
refinement, CRM). Re-implemented from the paper alone: its code was announced and never released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcil_bench.classifier import LINEAR_STD, ClassifierConfig
from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.losses import feature_distillation
from vcil_bench.memory import nearest_to_mean_order
from vcil_bench.method import RunContext
from vcil_bench.nets.centre_pivot import CentrePivotConv4d, average_last_pair, upsample_first_pair
from vcil_bench.nets.heads import CosineHead, GrowingLinear, Head
from vcil_bench.nets.network import Features
from vcil_bench.rehearsal import RehearsalClassifier
from vcil_bench.stream import Task


@dataclass(frozen=True, kw_only=True)
class HCEConfig(ClassifierConfig):
    """Hyper-parameters of HCE; stated ones first, then our readings where the paper is silent.

    Stated: 128 ``channels`` behind the 4-D convolutions; ``expansion`` 1000, the best of its Table 6; the three
    losses add up with equal weights (Eq. 6). Everything about training is silent: the recipe is TCD's, whose
    protocol, storage and backbone the paper says it shares.

    Components, for the paper's ablations (Tables 3 to 5):
        distil_features: L_kd, the distillation of the last layer's features.
        distil_maps: L_hc, the distillation of the feature maps (Eq. 2).
        aggregation: Weights from the hierarchical aggregation. Without, all maps are held alike.
        refinement: Bias of the cross-entropy: ``variance`` of the weights (Eq. 3-5), ``number`` of samples (the
            comparison of Table 5), or ``none``.

    Readings:
        scale: ``mean`` divides Eq. 2 by the number of its terms, the channels taken at their mean over layers so
            that layers count alike; ``literal`` sums as printed. On a ResNet-34 the sum has millions of terms
            and, times 1000, drowns the other losses by orders of magnitude, which does not fit the paper's
            insensitivity to the scalar.
        correlation_size: Feature maps are averaged down to at most this side before they are correlated. The
            first stage of a ResNet-34 would otherwise take 0.9 GB per clip.
        evolved_size: (H_e, W_e), the side to which the last two dimensions are reduced; the paper asks for one
            below the smallest map's, which is 7.
        depth: Stride-1 4-D convolutions on the aggregate; the paper says "multiple".
        hidden: Channels of the decoder's shared convolutions.
        head: ``lsc`` cosine head as in TCD, trained by cross-entropy (Eq. 5), or ``linear``.

    Readings without a switch:
        The "sparse" 4-D convolution is the centre-pivot one of HSNet (Min et al., ICCV 2021), whose
        hypercorrelations the paper takes up. Components of several levels are added up.
        Weights end in a batch norm without scale and shift and a softmax over a layer's channels: trained by
        Eq. 2 alone they would otherwise sink to zero, or settle on dead channels. Weights of about 1 / C_l also
        are of a size that calls for an expansion by about 1000.
        Maps are detached before they are correlated, so that the network cannot lower Eq. 2 through its weights.
        The variances of Eq. 3 and 4 are those of the past epoch, over weights averaged over frames; in the
        first epoch, or with fewer than two videos on one side, the number of samples stands in.
        L_kd holds the frame features in front of the dropout, without weights.
        Exemplars are chosen as in TCD's code, new proxies imprinted likewise, and nothing is fine-tuned in
        balance, since the bias is there against imbalance.
    """

    expansion: float = 1000.0
    channels: int = 128

    distil_features: bool = True
    distil_maps: bool = True
    aggregation: bool = True
    refinement: Literal["variance", "number", "none"] = "variance"

    scale: Literal["mean", "literal"] = "mean"
    correlation_size: int = 14
    evolved_size: int = 4
    depth: int = 2
    hidden: int = 128
    head: Literal["lsc", "linear"] = "lsc"

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self,
            positive=("channels", "correlation_size", "evolved_size", "depth", "hidden"),
            not_negative=("expansion",),
        )
        if self.evolved_size > self.correlation_size:
            raise ConfigError(
                f"evolved_size: {self.evolved_size} must be at most correlation_size = {self.correlation_size}, "
                "which it reduces"
            )
        if self.refinement == "variance" and not (self.aggregation and self.distil_maps):
            raise ConfigError(
                "refinement: variance is that of weights which nothing trains without aggregation and "
                "distil_maps; with either off give refinement=number or refinement=none"
            )


class HCE(RehearsalClassifier):
    """Weights from hypercorrelations distil the maps of all layers; their variance biases the cross-entropy."""

    name = "hce"
    paper = "Liang et al., Hypercorrelation Evolution, AAAI 2024 (re-implemented from the paper)"
    needs = frozenset({"maps"})
    splits_batches = True
    final_relu = False
    Config = HCEConfig
    recipes: ClassVar = {
        "synthetic_*": {"channels": 16, "hidden": 16, "depth": 1, "correlation_size": 4, "evolved_size": 2},
    }

    config: HCEConfig
    ratios: Tensor

    def __init__(self, config: HCEConfig, context: RunContext) -> None:
        """Make network, memory and the hierarchical aggregation."""
        super().__init__(config, context)
        self.aggregation = (
            HierarchicalAggregation(
                self.model.network.stage_channels,
                channels=config.channels,
                hidden=config.hidden,
                depth=config.depth,
                correlation_size=config.correlation_size,
                evolved_size=config.evolved_size,
            )
            if config.aggregation and config.distil_maps
            else None
        )
        # Of Eq. 5, carried from step to step of a task's training: ln of the old and the new classes' spread.
        self.register_buffer("ratios", torch.zeros(2))
        channels = sum(c for stage in self.model.network.stage_channels for c in stage)
        self.old_spread, self.new_spread = RunningVariance(channels), RunningVariance(channels)

    def make_head(self, dim: int) -> Head:
        """Return a head without classes."""
        return CosineHead(dim, 0) if self.config.head == "lsc" else GrowingLinear(dim, LINEAR_STD)

    def learn(self, task: Task) -> None:
        """Train with ``L'_ce + L_kd + L_hc`` (Eq. 6), then choose exemplars and compute class means."""
        config, model = self.config, self.model
        old = None
        if task.index > 0:
            old = model.frozen_copy()
            if isinstance(model.head, CosineHead):
                self.imprint(model.head, task)
        exemplars = self.memory.samples()
        by_number = torch.tensor([len(exemplars), len(task.train)]).clamp_min(1).log()
        self.ratios.copy_(by_number if config.refinement != "none" else torch.zeros(2))
        extra = [{"params": list(self.aggregation.parameters())}] if self.aggregation is not None else []
        optimiser = self.optimiser(extra_groups=extra)
        for epoch in self.task_epochs(task, [*task.train, *exemplars], optimiser):
            for batch in epoch:
                new = model.features_with_maps(batch.clips)
                logits = model.mean_logits(model.dropout(new.frames))
                if old is None:
                    losses = {"cross_entropy": F.cross_entropy(logits, batch.labels)}
                else:
                    before = old.features_with_maps(batch.clips)
                    losses = {"cross_entropy": biased_cross_entropy(logits, self._bias(task), batch.labels)}
                    if config.distil_features:
                        losses["features"] = feature_distillation(new.frames, before.frames)  # L_kd
                    weights = self.aggregation(new, before) if self.aggregation is not None else None
                    if config.distil_maps:
                        losses["maps"] = self._map_loss(new, before, weights)  # L_hc
                    if weights is not None:
                        self._add_to_spreads(weights, batch.labels < task.num_old)
                epoch.step(losses, clip_norm=config.clip_norm)
            if config.refinement == "variance":
                self._refine(by_number)
        self.choose_exemplars(task, nearest_to_mean_order)
        self.update_exemplar_means()

    def _bias(self, task: Task) -> Tensor:
        """Return R of Eq. 5 [num_seen]: the log ratio of the old classes, then that of the new ones."""
        of_old, of_new = self.ratios[:, None]
        return torch.cat([of_old.expand(task.num_old), of_new.expand(task.num_new)])

    def _add_to_spreads(self, weights: Sequence[Tensor], is_old: Tensor) -> None:
        """Take a batch's weights [B, T, C_l] into the sums of Eq. 3 (old exemplars) and Eq. 4 (new videos)."""
        of_video = torch.cat([w.detach().mean(dim=1) for w in weights], dim=1)  # H(x) [B, sum C]
        self.old_spread.add(of_video, is_old)
        self.new_spread.add(of_video, ~is_old)

    def _refine(self, by_number: Tensor) -> None:
        """Set the log ratios to the past epoch's, or ``by_number`` where one side had fewer than two videos."""
        spreads = self.old_spread, self.new_spread
        enough = all(spread.count > 1 for spread in spreads)
        self.ratios.copy_(torch.stack([spread.log_sum() for spread in spreads]) if enough else by_number)
        for spread in spreads:
            spread.reset()

    def _map_loss(self, new: Features, before: Features, weights: Sequence[Tensor] | None) -> Tensor:
        """Return L_hc: Eq. 2 with the weights times the expansion scalar."""
        maps, old_maps = ([m for stage in f.blocks for m in stage] for f in (new, before))
        if weights is None:
            weights = [m.new_full(m.shape[:3], 1 / m.shape[2]) for m in maps]
        factor = self.config.expansion
        if self.config.scale == "literal":
            return correlation_distillation(maps, old_maps, [factor * w for w in weights])
        # Sums over layers, frames and positions become means. Weights of about 1 / C_l make a mean of the sum
        # over channels already; what is left of its number of terms is divided out alike for all layers.
        channels = sum(m.shape[2] for m in maps) / len(maps)
        terms = [len(maps) * channels * m.shape[1] * m.shape[3] * m.shape[4] for m in maps]
        return correlation_distillation(
            maps, old_maps, [factor / n * w for n, w in zip(terms, weights, strict=True)]
        )


class HierarchicalAggregation(nn.Module):
    """HAS: from the maps of the new and the old model to a weight per layer, frame and channel (Fig. 3)."""

    def __init__(
        self,
        stage_channels: Sequence[Sequence[int]],
        *,
        channels: int,
        hidden: int,
        depth: int,
        correlation_size: int,
        evolved_size: int,
    ) -> None:
        """Make the three parts: a 4-D convolution per stage, those on their sum, and the decoder.

        Args:
            stage_channels: C_l of every layer l, grouped by stage P_s.
            channels: Behind the 4-D convolutions.
            hidden: Of the decoder's shared part.
            depth: 4-D convolutions on the sum.
            correlation_size: Largest side of the maps that are correlated.
            evolved_size: Side (H_e, W_e) of the last two dimensions behind the first convolutions.
        """
        super().__init__()
        self.correlation_size = correlation_size
        self.evolved_size = evolved_size
        self.levels = nn.ModuleList(CentrePivotConv4d(len(stage), channels) for stage in stage_channels)
        self.mixing = nn.ModuleList(CentrePivotConv4d(channels, channels) for _ in range(depth))
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
        )
        layers = [c for stage in stage_channels for c in stage]
        self.outputs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(hidden, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, c, 1)) for c in layers
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(c, affine=False) for c in layers)

    def forward(self, new: Features, old: Features) -> list[Tensor]:
        """Return H per layer [B, T, C_l], positive, with the sum 1 over channels."""
        levels = []
        for conv, new_stage, old_stage in zip(self.levels, new.blocks, old.blocks, strict=True):
            pairs = zip(new_stage, old_stage, strict=True)
            stacked = torch.stack(
                [hypercorrelation(self._small(a), self._small(b)) for a, b in pairs], dim=1
            )  # C_s [B*T, |P_s|, H, W, H, W]
            stride = -(-stacked.shape[-1] // self.evolved_size)
            levels.append(average_last_pair(conv(stacked, stride).relu(), self.evolved_size))
        side = max(level.shape[2] for level in levels)
        mixed = torch.stack([upsample_first_pair(level, side) for level in levels]).sum(dim=0)  # C'
        for conv in self.mixing:
            mixed = conv(mixed).relu()
        z = self.decoder(mixed.mean(dim=(-2, -1)))  # Z [B*T, channels, H, W], decoded
        batch = new.frames.shape[0]
        weights = []
        for output, norm in zip(self.outputs, self.norms, strict=True):
            assert isinstance(norm, nn.BatchNorm1d)
            raw = output(z).mean(dim=(-2, -1))  # [B*T, C_l]
            own = self.training and len(raw) > 1  # one frame of one clip has no statistics of its own
            raw = F.batch_norm(raw, norm.running_mean, norm.running_var, training=own)
            weights.append(raw.softmax(dim=-1).unflatten(0, (batch, -1)))
        return weights

    def _small(self, maps: Tensor) -> Tensor:
        """Average maps [B, T, C, H, W] down to the side that is correlated, as [B*T, C, H, W]."""
        flat = maps.detach().flatten(0, 1)
        side = min(self.correlation_size, *flat.shape[-2:])
        return F.adaptive_avg_pool2d(flat, side)


class RunningVariance(nn.Module):
    """The sum in Eq. 3 and 4 over videos that come batch by batch: ``sum_x |H(x) - mean|^2``.

    A module, whose buffers a run that is resumed inside an epoch finds again.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self, size: int) -> None:
        """Start without videos, of weights of this size D."""
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("squares", torch.zeros(()))

    def reset(self) -> None:
        """Forget all videos."""
        for buffer in self.buffers():
            buffer.zero_()

    def add(self, h: Tensor, member: Tensor) -> None:
        """Take in the weights of some videos (pairwise update, which does not cancel).

        Args:
            h: Weights [N, D].
            member: Which of them count [N]; to take these rows alone, a GPU must be waited for.
        """
        member = member[:, None]
        number = member.sum()
        mean = h.masked_fill(~member, 0.0).sum(dim=0) / number.clamp_min(1)
        count = self.count + number
        share = number.to(h.dtype) / count.clamp_min(1)
        gap = mean - self.mean
        within = (h - mean).masked_fill(~member, 0.0).square().sum()
        self.squares = self.squares + within + gap.square().sum() * (self.count * share)
        self.mean = self.mean + gap * share
        self.count = count

    def log_sum(self) -> Tensor:
        """Return the logarithm of the sum; identical videos count as the least number above 0."""
        return self.squares.clamp_min(torch.finfo(self.squares.dtype).tiny).log()


def hypercorrelation(new: Tensor, old: Tensor) -> Tensor:
    """Eq. 1: cosines between all positions of the new and the old model's map of a frame, negatives cut off.

    Args:
        new: [T, C, H, W].
        old: [T, C, H, W].

    Returns:
        [T, H, W, H, W]; the first pair of positions is the new model's.
    """
    a, b = (F.normalize(m, dim=1) for m in (new, old))
    return torch.einsum("tchw,tcuv->thwuv", a, b).relu()


def correlation_distillation(
    maps: Sequence[Tensor], old_maps: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    """Eq. 2: ``sum_l sum_t sum_c H^l |e^k - e^{k-1}|_F^2``, averaged over the clips of a batch.

    Args:
        maps: Per layer [B, T, C, H, W] of the new model.
        old_maps: The same of the old model.
        weights: H per layer [B, T, C].

    Returns:
        Scalar.
    """
    total = maps[0].new_zeros(())
    for new, old, weight in zip(maps, old_maps, weights, strict=True):
        total = total + (weight * (new - old).square().sum(dim=(-2, -1))).sum(dim=(1, 2)).mean()
    return total


def variance_log_ratio(h: Tensor) -> Tensor:
    """Eq. 3 and 4: ``log sum_x |H(x) - mean|^2``, the sum running over entries too.

    Args:
        h: H(x) [N, D] of N videos.

    Returns:
        Scalar.
    """
    spread = RunningVariance(h.shape[1]).to(h)
    spread.add(h, torch.ones(len(h), dtype=torch.bool, device=h.device))
    return spread.log_sum()


def biased_cross_entropy(logits: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Eq. 5: cross-entropy of ``p + R``.

    Args:
        logits: p [B, C].
        bias: R [C], one value for all old classes and one for all new ones.
        targets: [B] labels.

    Returns:
        Scalar.
    """
    return F.cross_entropy(logits + bias, targets)
