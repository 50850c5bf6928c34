"""DiST: a temporal encoder and an integration branch beside a frozen CLIP (Qing et al., ICCV 2023).

Disentangled spatial and temporal learning: the tower sees sparse frames and gives the tokens behind its blocks,
through which no gradient passes; a small encoder of dense frames and an integration branch exchange what they
have with each other, block by block; pooling modules make one vector of a video. Source:
alibaba-mmai-research/DiST@4b3a09b, models/module_zoo/branches/dist.py and models/base/clip.py; parameters have
the names they have there. The module behind the last block that leads back to the temporal encoder is left out:
nothing reads what it gives.

Shapes: B clips, T dense frames, S = T / alpha sparse ones, L = 1 + H*W tokens, d the integration branch's width,
C the temporal encoder's, D the space of images and texts.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError

from .clip import MAX_STAGES, ClipTrunk
from .network import Features, VideoNetwork
from .parallel.gather import gather_batch
from .parallel.micro_batches import in_chunks, recomputed
from .precision import autocast
from .token_maps import keep_map
from .trunk import DistConfig as DistConfig
from .trunk import Tuning

POOLING_RATIO = 4  # width inside the pooling modules' maps


class TemporalModule(nn.Module):
    """A layer of the temporal encoder: convolutions along time, then over rows and columns.

    The activation is of the sum: the residual is no path past it.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        """Make the layer.

        Args:
            channels: C.
            kernel: Frames that the convolution along time sees.
        """
        super().__init__()
        self.temporal_net = nn.Sequential(
            OrderedDict(
                c_fc1=nn.Conv3d(channels, channels, (kernel, 1, 1), padding=(kernel // 2, 0, 0)),
                gelu1=QuickGELU(),
                c_fc2=nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1)),
            )
        )
        self.gelu = QuickGELU()
        self.ln = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T, H, W] to the same shape."""
        normed = self.ln(x.movedim(1, -1)).movedim(-1, 1)
        out: Tensor = self.gelu(x + self.temporal_net(normed))
        return out


class ToIntegration(nn.Module):
    """From the temporal encoder to the integration branch; a learned vector for each frame's class token."""

    def __init__(self, channels: int, width: int, frames: int, alpha: int) -> None:
        """Make the module.

        Args:
            channels: C.
            width: d.
            frames: S.
            alpha: Dense frames for each sparse one.
        """
        super().__init__()
        self.linear_fuse = nn.Conv3d(channels, width, (alpha, 1, 1), stride=(alpha, 1, 1))
        self.cls_token = nn.Parameter(torch.empty(1, 1, frames, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T, H, W] to tokens [B, S, L, d]."""
        patches = self.linear_fuse(x).flatten(3).permute(0, 2, 3, 1)  # [B, S, HW, d]
        first = self.cls_token.transpose(1, 2).to(patches.dtype)  # [1, S, 1, d]
        return torch.cat([first.expand(len(x), -1, -1, -1), patches], dim=2)


class ToTemporal(nn.Module):
    """From the integration branch's patches back to the temporal encoder, each frame alpha times."""

    def __init__(self, width: int, channels: int, alpha: int) -> None:
        """Make the module.

        Args:
            width: d.
            channels: C.
            alpha: Dense frames for each sparse one.
        """
        super().__init__()
        self.alpha = alpha
        self.linear_fuse = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, S, L, d] to [B, C, T, H, W]."""
        side = isqrt(x.shape[2] - 1)
        maps = self.linear_fuse(x)[:, :, 1:].permute(0, 3, 1, 2).unflatten(3, (side, side))
        return maps.repeat_interleave(self.alpha, dim=2) if self.alpha > 1 else maps


class Integration(nn.Module):
    """A layer of the integration branch: one part for each token, one along time; no residual inside."""

    def __init__(self, width: int, ratio: float = 1, temporal_ratio: float = 0.25, kernel: int = 3) -> None:
        """Make the layer.

        Args:
            width: d.
            ratio: Width inside the part for each token, as a part of d.
            temporal_ratio: The same of the part along time.
            kernel: Frames that the convolution along time sees.
        """
        super().__init__()
        self.ffn = _two_layers(width, int(width * ratio))
        self.temporal_ffn = _AlongTime(width, int(width * temporal_ratio), kernel)
        self.ln = nn.LayerNorm(width)
        self.ln_temporal = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, S, L, d] to the same shape."""
        out: Tensor = self.ffn(self.ln(x)) + self.temporal_ffn(self.ln_temporal(x))
        return out


class AdaptivePooling(nn.Module):
    """A token per frame attends to the frame's tokens, then a token per video to those of its frames."""

    def __init__(self, width: int, frames: int, heads: int) -> None:
        """Make the module.

        Args:
            width: d.
            frames: S.
            heads: Of both attentions.
        """
        super().__init__()
        self.temporal_transformer = _CrossAttention(width, heads)
        self.positional_embedding = nn.Parameter(torch.empty(1, frames, width))
        self.output_map_cls_token = _two_layers(width, width * POOLING_RATIO)
        self.ln_out_temp_cls_token = nn.LayerNorm(width)
        self.spatial_transformer = _CrossAttention(width, heads)
        self.output_map_spatial_cls_token = _two_layers(width, width * POOLING_RATIO)
        self.ln_out_spat_cls_token = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, video: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Pool once more.

        Args:
            tokens: [B, S, L, d].
            video: Video tokens [B, d].
            frames: Frame tokens [B, S, d].

        Returns:
            Both kinds of tokens as they are then.
        """
        seen = self.spatial_transformer(frames.flatten(0, 1)[:, None], tokens.flatten(0, 1))
        frames = frames + seen[:, 0].unflatten(0, frames.shape[:2])
        frames = frames + self.output_map_spatial_cls_token(self.ln_out_spat_cls_token(frames))
        placed = frames + self.positional_embedding.to(frames.dtype)
        video = video + self.temporal_transformer(video[:, None], placed)[:, 0]
        video = video + self.output_map_cls_token(self.ln_out_temp_cls_token(video))
        return video, frames


@dataclass(frozen=True)
class DistOutput:
    """What the branch makes of clips.

    Attributes:
        video: [B, D].
        frames: [B, S, D], whose mean over frames is ``video``: each frame's own read-out less their mean.
        maps: Of each layer, the patches that its integration module takes [B, S, d, H, W].
    """

    video: Tensor
    frames: Tensor
    maps: list[Tensor]


class DistBranch(nn.Module):
    """All of DiST that trains."""

    def __init__(self, config: DistConfig, tower_width: int, out: int, patch: int, frames: int) -> None:
        """Make the branch, as the authors' starts, or with a last projection of zero.

        Args:
            config: Its shape; names the layers.
            tower_width: Width of the tower's tokens.
            out: D.
            patch: Side of the tower's patches in pixels.
            frames: S, the frames that the tower sees.
        """
        super().__init__()
        if config.layers is None:
            raise ConfigError("layers: a branch alone does not know how many blocks the tower has; name them")
        depth, width, channels = len(config.layers), config.width, config.temporal_width
        self.temporal_stem = nn.Conv3d(
            3,
            channels,
            (config.stem_kernel, patch, patch),
            stride=(1, patch, patch),
            padding=(config.stem_kernel // 2, 0, 0),
        )
        self.input_linears = nn.ModuleList(nn.Linear(tower_width, width) for _ in range(depth))
        self.integration2temporal_nets = nn.ModuleList(
            ToTemporal(width, channels, config.alpha) for _ in range(depth - 1)
        )
        self.temporal2integration_nets = nn.ModuleList(
            ToIntegration(channels, width, frames, config.alpha) for _ in range(depth)
        )
        self.temporal_nets = nn.ModuleList(TemporalModule(channels, config.kernel) for _ in range(depth))
        self.integration_nets = nn.ModuleList(
            Integration(width, config.ffn_ratio, config.temporal_ffn_ratio, config.kernel) for _ in range(depth)
        )
        heads = width // config.head_width
        self.adapooling_nets = nn.ModuleList(
            AdaptivePooling(width, frames, heads) for _ in range(config.poolings)
        )
        self.proj_spatial_cls_token = nn.Linear(tower_width, width)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, out))
        self.aggregated_cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.aggregated_spatial_cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.apply(_start)
        for name, parameter in self.named_parameters():
            if name.endswith(("cls_token", "positional_embedding")):
                nn.init.trunc_normal_(parameter, std=0.02)
        if config.start == "clip":
            nn.init.zeros_(self.proj)
        else:
            nn.init.normal_(self.proj, std=width**-0.5)

    def forward(
        self,
        mids: Sequence[Tensor],
        clips: Tensor,
        keep: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> DistOutput:
        """Read the tower's tokens and the dense frames.

        Args:
            mids: Of each layer, the tower's tokens [B, S, L, tower_width].
            clips: [B, T, 3, H, W], normalised.
            keep: Takes the tokens of which a map is made [B, S, L, d], and returns the map and the tokens to go
                on with; None for maps through which nothing passes.
        """
        t = self.temporal_stem(clips.transpose(1, 2))  # [B, C, T, H, W]
        r: Tensor | float = 0.0
        maps = []
        for i, mid in enumerate(mids):
            t = self.temporal_nets[i](t)
            m = self.input_linears[i](mid) + r
            joined = m + self.temporal2integration_nets[i](t)
            map_, joined = (_patches(joined), joined) if keep is None else keep(joined)
            maps.append(map_)
            if i < len(self.integration2temporal_nets):
                t = t + self.integration2temporal_nets[i](m)
            r = self.integration_nets[i](joined)
        tokens = r + joined
        batch, frames = tokens.shape[:2]
        v = self.aggregated_cls_token[:, 0].to(tokens.dtype).expand(batch, -1)
        s = self.aggregated_spatial_cls_token.to(tokens.dtype).expand(batch, frames, -1)
        for pooling in self.adapooling_nets:
            v, s = pooling(tokens, v, s)
        first = self.proj_spatial_cls_token(mids[-1][:, :, 0].contiguous())  # [B, S, d]
        video = self.ln_post(v + first.mean(dim=1)) @ self.proj
        each = self.ln_post(s + first) @ self.proj
        return DistOutput(video, video[:, None] + each - each.mean(dim=1, keepdim=True), maps)


class DistNetwork(VideoNetwork):
    """DiST on a trunk: its parameters are the branch's alone, and a copy for a distillation copies nothing else.

    A network here gives features of frames, DiST one of a video: [B, S, D] whose mean over frames is that one
    (ours), so that every method that averages over frames reads DiST itself. With ``start="clip"`` the frozen
    CLIP's frame features are added. Feature maps are the patches that the integration modules take, of all
    layers, since the pooling modules read all tokens; no gradient with respect to them passes through the tower.
    """

    trains_whole = False

    def __init__(self, trunk: ClipTrunk, tuning: Tuning) -> None:
        """Make a fresh branch.

        Raises:
            ConfigError: Layers that the tower does not have; ``start="clip"`` without its last.
        """
        super().__init__()
        assert tuning.dist is not None
        assert tuning.frames is not None
        visual = trunk.model.visual
        depth = len(visual.transformer.resblocks)
        layers = tuple(range(depth)) if tuning.dist.layers is None else tuning.dist.layers
        if layers[-1] >= depth:
            raise ConfigError(f"layers: {trunk.name} has blocks 0 to {depth - 1}, none {layers[-1]}")
        if tuning.dist.start == "clip" and layers[-1] != depth - 1:
            raise ConfigError(
                f"layers: start='clip' adds what the last block gives, {depth - 1}, which is not among "
                f"{list(layers)}"
            )
        self.trunk = trunk
        self.config = dataclasses.replace(tuning.dist, layers=layers)
        self.clip_frames = tuning.frames
        self.dim = trunk.dim
        stages = np.array_split(range(len(layers)), min(MAX_STAGES, len(layers)))
        self.stage_channels = tuple((self.config.width,) * len(stage) for stage in stages)
        self.branch = DistBranch(
            self.config,
            int(visual.transformer.width),
            trunk.dim,
            int(visual.patch_size[0]),
            tuning.frames // self.config.alpha,
        )

    def forward(self, clips: Tensor) -> Tensor:
        """Encode uint8 clips [B, T, 3, S, S] to frame features [B, T / alpha, D]."""
        return self._encode(clips, [self])[0]

    def video(self, clips: Tensor) -> Tensor:
        """Encode clips to DiST's video features [B, D]."""
        return self(clips).mean(dim=1)

    def forward_with(self, old: DistNetwork | None, clips: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode clips by this branch and by an old copy's, in one pass of the tower.

        Args:
            old: A ``frozen_copy``, or None where there is nothing to distil.
            clips: [B, T, 3, S, S] uint8.

        Returns:
            Frame features [B, T / alpha, D] of this network and, without gradient, of the old one.
        """
        if old is None:
            return self(clips), None
        new, before = self._encode(clips, [self, old])
        return new, before

    def features(self, clips: Tensor) -> Features:
        """Encode clips, keeping the integration branch's patches as maps [B, T / alpha, d, H, W]."""
        self._check(clips)

        def keep(tokens: Tensor) -> tuple[Tensor, Tensor]:
            whole, again = keep_map(tokens.flatten(0, 1), len(tokens))
            return whole, again.unflatten(0, tokens.shape[:2])

        with autocast(clips.device, self.trunk.compute.precision):
            dense, mids = self._seen(clips, _train([self]))
            output = self.branch(mids, dense, keep)
            frames = self._with_start(output.frames, mids[-1])
        ends = np.cumsum([len(stage) for stage in self.stage_channels]).tolist()
        blocks = tuple(
            tuple(output.maps[end - len(stage) : end])
            for end, stage in zip(ends, self.stage_channels, strict=True)
        )
        return Features(gather_batch(frames), blocks)

    def copy_adapters(self) -> DistNetwork:
        """Return a copy with a branch of its own on the same trunk."""
        return copy.deepcopy(self)

    def frozen_copy(self) -> DistNetwork:
        """Return a copy on the same trunk that does not train: the old model of a distillation."""
        return self.copy_adapters().eval().requires_grad_(False)

    def _encode(self, clips: Tensor, networks: Sequence[DistNetwork]) -> list[Tensor]:
        """Run the tower once and the networks' branches, in chunks where memory is short."""
        self._check(clips)
        size = self.trunk.compute.micro_batch
        trains = _train(networks)
        chunked = bool(size) and trains

        def compute(clips: Tensor) -> list[Tensor]:
            dense, mids = self._seen(clips, trains and not chunked)
            found = []
            for network in networks:

                def run(dense: Tensor, *mids: Tensor, network: DistNetwork = network) -> Tensor:
                    frames: Tensor = network.branch(mids, dense).frames
                    return frames

                # The tower's tokens are kept, so that the branch alone is computed again.
                frames = recomputed(run, dense, *mids) if chunked and _train([network]) else run(dense, *mids)
                found.append(network._with_start(frames, mids[-1]))
            return found

        with autocast(clips.device, self.trunk.compute.precision):
            if size and chunked:
                found = in_chunks(lambda some: compute(clips[some]), clips, size)
            else:
                found = compute(clips)
        return [gather_batch(frames) for frames in found]

    def _seen(self, clips: Tensor, trains: bool) -> tuple[Tensor, list[Tensor]]:
        """Return the normalised clips and the tower's tokens of every alpha-th frame, [B, S, L, width] each.

        Args:
            clips: uint8.
            trains: Whether the pass trains. What such a pass saw is remembered as long as its clips are there,
                for passes that do not: the old model's of a distillation. Its branch is then all they cost.
        """
        assert self.config.layers is not None
        version = None if clips.is_inference() else clips._version
        of_what = (version, self.config.alpha, self.config.layers)
        if not trains and (known := self.trunk.seen.get(clips)) and known[0] == of_what:
            return known[1]
        dense = self.trunk.normalise(clips)
        found = dense, self.trunk.middle(dense[:, :: self.config.alpha], self.config.layers)
        if trains:
            self.trunk.seen[clips] = (of_what, found)
        return found

    def _with_start(self, frames: Tensor, last: Tensor) -> Tensor:
        """Add the frozen CLIP's frame features, of its last block's tokens, where training began there."""
        if self.config.start == "random":
            return frames
        with torch.no_grad():
            frozen = self.trunk.pooled(last.flatten(0, 1)).unflatten(0, last.shape[:2])
        return frames + frozen

    def _check(self, clips: Tensor) -> None:
        """Refuse clips of another length, which would be taken for clips cut otherwise."""
        if clips.shape[1] != self.clip_frames:
            raise ValueError(
                f"a clip of {clips.shape[1]} frames for a branch that was made for {self.clip_frames}"
            )


class _AlongTime(nn.Module):
    """Narrow, convolve every token along the frames, activate, widen; nothing between the first two."""

    def __init__(self, width: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.c_fc1 = nn.Conv3d(width, hidden, 1)
        self.c_fc2 = nn.Conv3d(hidden, hidden, (kernel, 1, 1), padding=(kernel // 2, 0, 0))
        self.gelu1 = QuickGELU()
        self.c_proj = nn.Conv3d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, S, L, d] to the same shape."""
        # Convolutions of one place are products, and so without moving the channels.
        h = F.linear(x, self.c_fc1.weight.flatten(1), self.c_fc1.bias)
        h = self.gelu1(self.c_fc2(h.permute(0, 3, 1, 2)[..., None]))[..., 0].permute(0, 2, 3, 1)
        # Contiguous, or torch multiplies in another way by weights that train than by frozen ones.
        return F.linear(h.contiguous(), self.c_proj.weight.flatten(1), self.c_proj.bias)


class _CrossAttention(nn.Module):
    """Attention of normed queries to normed tokens, with one norm for both."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Return what queries [N, Q, d] see of tokens [N, L, d]."""
        queries, tokens = self.ln_1(queries), self.ln_1(tokens)
        seen: Tensor = self.attn(queries, tokens, tokens, need_weights=False)[0]
        return seen


def _train(networks: Sequence[DistNetwork]) -> bool:
    return torch.is_grad_enabled() and any(p.requires_grad for n in networks for p in n.parameters())


def _two_layers(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(c_fc=nn.Linear(width, hidden), gelu=QuickGELU(), c_proj=nn.Linear(hidden, width))
    )


def _start(module: nn.Module) -> None:
    """Give products and convolutions the authors' start; attention's joint projection has torch's own."""
    if isinstance(module, (nn.Linear, nn.Conv3d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _patches(tokens: Tensor) -> Tensor:
    """Return the patches of tokens [B, S, L, d] as a map [B, S, d, H, W]."""
    side = isqrt(tokens.shape[2] - 1)
    return tokens[:, :, 1:].transpose(2, 3).unflatten(3, (side, side))
