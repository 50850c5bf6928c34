"""CLIP as a frozen trunk with slots for adapters, prompts and prefixes, built from open_clip's own blocks.

The trunk is a plain object, not a module, so that no method's parameters, state dict or checkpoint contain it:
its weights are named by their hash. An encoder is a set of adapters on a shared trunk; freezing a copy of an
encoder for distillation copies the adapters alone, never the ViT.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vcil_bench.common.config import ConfigError

from .clip_blocks import CLASS_TOKEN, class_token_block, frame_tokens, frozen_block
from .compute import PLAIN, ComputeOptions
from .feature_cache import FeatureCache
from .network import Features, VideoNetwork
from .parallel.batch_part import RowDropout, current_part
from .parallel.gather import gather_batch, local_part
from .parallel.micro_batches import in_chunks, recomputed
from .precision import HALF, autocast, store
from .prompts import PromptReadout, Slots, put_in_front
from .token_maps import keep_map
from .trunk import AdapterConfig, FrameFeatures, Trunk, Tuning
from .weights import WeightsInfo

Tokenizer = Callable[[list[str]], Tensor]
Adapters = Sequence[nn.Module] | None  # one per block, or none at all: the frozen CLIP
MAX_STAGES = 4


class Adapter(nn.Module):
    """Down-projection, non-linearity, up-projection, parallel to a block's MLP.

    Source: AdaptFormer (Chen et al., NeurIPS 2022), Eq. 5: ``s * up(relu(down(x)))`` of the tokens before the
    MLP's norm. ``down`` starts as kaiming uniform, ``up`` at zero, so that training begins at the frozen CLIP.
    """

    def __init__(self, width: int, config: AdapterConfig) -> None:
        super().__init__()
        self.scale = config.scale
        self.down = nn.Linear(width, config.bottleneck)
        self.activate = nn.ReLU()
        self.drop = RowDropout(config.dropout)
        self.up = nn.Linear(config.bottleneck, width)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what is added to the tokens [N, L, width]."""
        return self.scale * self.up(self.drop(self.activate(self.down(tokens))))


class ClipTrunk(Trunk):
    """A frozen open_clip model: its visual blocks, its text tower and what its weights are.

    Attributes:
        name: The backbone's name.
        dim: Size D of the joint image-text space.
        image_size: Side of the square frames it takes, in pixels.
        logit_scale: CLIP's own factor on cosines, the inverse temperature.
        weights: Where the weights come from.
    """

    supports_micro_batch = True

    def __init__(
        self,
        name: str,
        model: CLIP,
        tokenizer: Tokenizer,
        weights: WeightsInfo,
        compute: ComputeOptions = PLAIN,
    ) -> None:
        """Freeze ``model``, store its visual tower's products in a precision, and read what else is to be known.

        What autocast would cast is cast, so that results are autocast's own; encoders then run inside it by
        themselves. Text features are computed once a task and stay float32.
        """
        self.name = name
        self.weights = weights
        self.model = model.eval().requires_grad_(False)
        self.dim = int(model.visual.output_dim)
        self.image_size = int(model.visual.image_size[0])
        self.logit_scale = float(model.logit_scale.exp())
        self._tokenizer = tokenizer
        self.compute = compute
        store(model.visual, compute.precision)
        if compute.precision in HALF:
            model.visual.proj.data = model.visual.proj.data.to(HALF[compute.precision])
        # Adapters stay as they are, and their dropout with them.
        self._block = torch.compile(frozen_block) if compute.compile else frozen_block
        self._texts: dict[tuple[str, ...], Tensor] = {}
        self._caches: dict[FrameFeatures, FeatureCache] = {}
        # By clips: what networks beside the tower saw of them, see ``DistNetwork``.
        self.seen: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._mean = torch.tensor(model.visual.image_mean).view(3, 1, 1) * 255
        self._std = torch.tensor(model.visual.image_std).view(3, 1, 1) * 255

    def to(self, device: torch.device) -> ClipTrunk:
        """Move the trunk to a device, in place."""
        self.model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        self._texts.clear()
        self._caches.clear()
        return self

    @property
    def num_parameters(self) -> int:
        """Number of frozen weights, the text tower included."""
        return sum(p.numel() for p in self.model.parameters())

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return the unit-length text features [len(texts), D], float32; a list that comes again is known."""
        key = tuple(texts)  # the whole list, since the texts beside one move its last digits
        if key not in self._texts:
            tokens = self._tokenizer(list(texts)).to(self._mean.device)
            self._texts[key] = F.normalize(self.model.encode_text(tokens).float(), dim=-1)
        return self._texts[key].clone()

    def normalise(self, clips: Tensor) -> Tensor:
        """Turn uint8 frames [..., 3, S, S] into CLIP's input range, colour by colour in memory."""
        return (clips.contiguous().float() - self._mean) / self._std

    def encoder(self, adapters: AdapterConfig | None = None, features: FrameFeatures = "joint") -> ClipEncoder:
        """Return an encoder on this trunk, with fresh adapters or (None) without any."""
        return ClipEncoder(self, adapters, features)

    def network(self, tuning: Tuning) -> VideoNetwork:
        """Return a network of which nothing trains but what the tuning puts on or beside the frozen tower."""
        # Here, since they build on this module.
        if tuning.kind == "aim":
            from .aim import AimNetwork

            return AimNetwork(self, tuning)
        if tuning.kind == "st_adapter":
            from .st_adapter import SpatioTemporalNetwork

            return SpatioTemporalNetwork(self, tuning)
        if tuning.kind == "dist":
            from .dist import DistNetwork

            return DistNetwork(self, tuning)
        return self.encoder(tuning.adapters, tuning.features)

    def middle(self, clips: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Run the frozen tower without gradients, up to the last block that is wanted.

        Args:
            clips: [B, T, 3, S, S], uint8 or normalised already.
            layers: Blocks, counted from 0, ascending.

        Returns:
            The tokens behind each of these blocks [B, T, 1 + patches, width].
        """
        tokens = []
        with torch.no_grad(), self._autocast():
            pixels = clips if clips.is_floating_point() else self.normalise(clips)
            x = self.model.visual._embeds(pixels.flatten(0, 1))
            for i, block in enumerate(self.model.visual.transformer.resblocks[: layers[-1] + 1]):
                _, x = self._block(block, x)
                if i in layers:
                    tokens.append(x.unflatten(0, clips.shape[:2]))
        return tokens

    def pooled(self, tokens: Tensor, features: FrameFeatures = "joint") -> Tensor:
        """Return the frame features [N, D] of the tokens [N, 1 + patches, width] behind the last block."""
        found, _ = self.model.visual._pool(tokens)
        frames: Tensor = found @ self.model.visual.proj if features == "joint" else found
        return frames

    @property
    def width(self) -> int:
        """Size of a token of the visual tower."""
        return int(self.model.visual.transformer.width)

    @property
    def num_blocks(self) -> int:
        """Number of blocks of the visual tower."""
        return len(self.model.visual.transformer.resblocks)

    def encode_frames(
        self,
        clips: Tensor,
        adapters: Adapters,
        features: FrameFeatures = "joint",
        slots: Slots | None = None,
    ) -> Tensor:
        """Run the visual tower, an adapter beside the MLP of every block.

        Args:
            clips: [B, T, 3, S, S] uint8.
            adapters: One per block, or None for the frozen CLIP.
            features: Whether frame features are projected to the joint space.
            slots: Prompts and prefixes, None for none.

        Returns:
            [B, T, D] frame features, not normalised.

        Raises:
            ValueError: Slots that are neither one for all nor one a clip nor one a frame, or of a block that
                there is not.
        """
        if slots is not None:
            return gather_batch(self._encode_with(clips, adapters, features, slots))
        if adapters is None and self.compute.feature_cache_mb:
            if features not in self._caches:
                self._caches[features] = FeatureCache(self.compute.feature_cache_mb * 2**20)
            cache = self._caches[features]
            return gather_batch(cache.get(clips, lambda some: self._encode_each(some, [None], features)[0]))
        return self.encode_each(clips, [adapters], features)[0]

    def encode_each(
        self, clips: Tensor, branches: Sequence[Adapters], features: FrameFeatures = "joint"
    ) -> list[Tensor]:
        """Encode the same clips through several sets of adapters.

        What comes before the first adapter is computed once: the patches' embedding and the first block. Only
        sets that train leave something for the backward pass.

        Args:
            clips: [B, T, 3, S, S] uint8.
            branches: Sets of adapters.
            features: Whether frame features are projected to the joint space.

        Returns:
            Frame features [B, T, D] of each.
        """
        return [gather_batch(frames) for frames in self._encode_each(clips, branches, features)]

    def encode(
        self, clips: Tensor, adapters: Adapters, num_maps: int, features: FrameFeatures = "joint"
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the visual tower and keep the patch tokens behind the first ``num_maps`` blocks.

        Args:
            clips: [B, T, 3, S, S] uint8.
            adapters: One per block, or None for the frozen CLIP.
            num_maps: Blocks whose patch tokens are wanted.
            features: Whether frame features are projected to the joint space.

        Returns:
            Frame features [B, T, D] and maps, each [B, T, width, H, W].
        """
        maps: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            if len(maps) == num_maps:
                return x
            whole, x = keep_map(x, len(clips))
            maps.append(whole)
            return x

        with self._autocast():
            frames = self._rest(*self._stem(clips), adapters, features, keep).unflatten(0, clips.shape[:2])
        return gather_batch(frames), maps

    def _encode_each(self, clips: Tensor, branches: Sequence[Adapters], features: FrameFeatures) -> list[Tensor]:
        """Encode this process's clips, in chunks where gradients are needed and memory is short."""
        trained = [torch.is_grad_enabled() and _trains(adapters) for adapters in branches]
        size = self.compute.micro_batch
        chunked = size is not None and any(trained)

        def compute(some: slice) -> list[Tensor]:
            stem = self._stem(clips[some])
            found = []
            for adapters, trains in zip(branches, trained, strict=True):
                # What is only compared with may differ by rounding from what it is alone.
                beside = any(trained) and not trains
                run = partial(self._rest, adapters=adapters, features=features, class_only=beside)
                frames = recomputed(run, *stem) if trains and chunked else run(*stem)
                found.append(frames.unflatten(0, (-1, clips.shape[1])))
            return found

        with self._autocast():
            if size is not None and chunked:
                return in_chunks(compute, clips, size)
            return compute(slice(None))

    def _encode_with(self, clips: Tensor, adapters: Adapters, features: FrameFeatures, slots: Slots) -> Tensor:
        """Encode this process's clips with prompts and prefixes, in chunks as ``_encode_each`` does."""
        beyond = sorted(block for block in slots.prefixes if not 0 <= block < self.num_blocks)
        if beyond:
            raise ValueError(f"prefixes of block {beyond[0]}: {self.name} has blocks 0 to {self.num_blocks - 1}")
        batch, frames = clips.shape[:2]
        part = current_part()
        total = batch if part is None or part.team is None else part.total
        rows = slots.each(partial(_by_clip, clips=total, frames=frames)).each(local_part)
        trains = torch.is_grad_enabled() and (_trains(adapters) or slots.trains)
        size = self.compute.micro_batch
        chunked = trains and size is not None

        def compute(some: slice) -> list[Tensor]:
            count = len(range(batch)[some])
            mine = rows.each(lambda row: row if len(row) == 1 else row[some])
            mine = mine.each(lambda row: row.expand(count, frames, *row.shape[2:]).flatten(0, 1))
            start = _first_changed(adapters, slots)
            run = partial(self._rest_with, start=start, adapters=adapters, features=features, slots=mine)
            with torch.no_grad():
                x = self._before_slots(clips[some], slots, start)
            encoded = recomputed(run, x) if chunked else run(x)
            return [encoded.unflatten(0, (count, frames))]

        with self._autocast():
            if size is not None and chunked:
                return in_chunks(compute, clips, size)[0]
            return compute(slice(None))[0]

    def _before_slots(self, clips: Tensor, slots: Slots, start: int) -> Tensor:
        """Compute what no slot and no adapter changes: the tokens in front of block ``start``.

        With prompts these are the tokens in front of the first norm [B*T, 1 + patches, width].
        """
        visual = self.model.visual
        x = frame_tokens(visual, self.normalise(clips.flatten(0, 1)))
        if slots.prompts is not None:
            return x
        x = visual.ln_pre(x)
        for block in visual.transformer.resblocks[:start]:
            _, x = self._block(block, x)
        return x

    def _rest_with(
        self, x: Tensor, start: int, adapters: Adapters, features: FrameFeatures, slots: Slots
    ) -> Tensor:
        """Go on from ``_before_slots`` to frame features [B*T, D].

        Args:
            x: Tokens [B*T, 1 + patches, width].
            start: The block they are in front of.
            adapters: One per block, or None.
            features: Whether they are projected to the joint space.
            slots: One for every frame.
        """
        visual = self.model.visual
        blocks = visual.transformer.resblocks
        if slots.prompts is not None:
            x = visual.ln_pre(put_in_front(slots.prompts, x))
        read = _read(slots.length, slots.readout)
        for i in range(start, len(blocks)):
            prefix = slots.prefixes.get(i)
            if i == len(blocks) - 1:  # nothing that is not read out is needed of the last block
                before, x = class_token_block(blocks[i], x, prefix, read)
            elif prefix is None:
                before, x = self._block(blocks[i], x)
            else:
                before, x = self._block(blocks[i], x, prefix)
            if adapters is not None:
                x = x + adapters[i](before)
        pooled = visual.ln_post(x.mean(dim=1))  # [B*T, width]
        frames: Tensor = pooled @ visual.proj if features == "joint" else pooled
        return frames

    def _autocast(self) -> AbstractContextManager[Any]:
        return autocast(self._mean.device, self.compute.precision)

    def _stem(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what no adapter can change: the first block's tokens before its MLP, and its frozen output."""
        visual = self.model.visual
        x = visual._embeds(self.normalise(clips.flatten(0, 1)))  # [B*T, 1 + patches, width]
        return self._block(visual.transformer.resblocks[0], x)

    def _rest(
        self,
        before: Tensor,
        x: Tensor,
        adapters: Adapters,
        features: FrameFeatures,
        keep: Callable[[Tensor], Tensor] | None = None,
        class_only: bool = False,
    ) -> Tensor:
        """Go on from the stem to frame features [B*T, D].

        Args:
            before: Tokens before the first block's MLP [B*T, 1 + patches, width].
            x: The first block's frozen output.
            adapters: One per block, or None.
            features: Whether they are projected to the joint space.
            keep: Sees every block's output and returns what to go on with.
            class_only: Leave out what the last block does for patches, which moves results by rounding.
        """
        visual = self.model.visual
        blocks = visual.transformer.resblocks
        for i, block in enumerate(blocks):
            if i > 0:
                last = class_only and i == len(blocks) - 1
                before, x = class_token_block(block, x) if last else self._block(block, x)
            if adapters is not None:
                x = x + adapters[i](before)
            if keep is not None:
                x = keep(x)
        return self.pooled(x, features)


class ClipEncoder(VideoNetwork):
    """The trunk seen through one set of adapters; its parameters are the adapters' alone.

    Its feature maps are the patch tokens behind all blocks but the last, in up to four stages of about equal
    depth. The last block is left out because its patch tokens reach nothing: the frame feature is the class
    token, so a loss or a gradient on them would say nothing about what is recognised.
    """

    trains_whole = False
    trunk: ClipTrunk

    def __init__(
        self, trunk: ClipTrunk, config: AdapterConfig | None, features: FrameFeatures = "joint"
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.frame_features: FrameFeatures = features
        blocks = trunk.model.visual.transformer.resblocks
        width = trunk.width
        self.dim = trunk.dim if features == "joint" else width
        stages = np.array_split(range(len(blocks) - 1), min(MAX_STAGES, len(blocks) - 1))
        self.stage_channels = tuple((width,) * len(stage) for stage in stages)
        self.adapters = nn.ModuleList(Adapter(width, config) for _ in blocks if config is not None)

    def forward(self, clips: Tensor, slots: Slots | None = None) -> Tensor:
        """Encode clips.

        Args:
            clips: [B, T, 3, S, S] uint8.
            slots: Prompts and prefixes beside the adapters, None for none.

        Returns:
            Frame features [B, T, D].
        """
        return self.trunk.encode_frames(clips, list(self.adapters) or None, self.frame_features, slots)

    def forward_with(self, old: ClipEncoder | None, clips: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode clips by this encoder and by an old copy on the same trunk, for a distillation.

        Args:
            old: A ``frozen_copy``, or None where there is nothing to distil.
            clips: [B, T, 3, S, S] uint8.

        Returns:
            Frame features [B, T, D] of this encoder and, without gradient, of the old one.
        """
        if old is None:
            return self(clips), None
        branches = [list(self.adapters), list(old.adapters)]
        new, before = self.trunk.encode_each(clips, branches, self.frame_features)
        return new, before

    def features(self, clips: Tensor) -> Features:
        """Encode clips, keeping the patch tokens as maps [B, T, width, H, W]."""
        sizes = [len(stage) for stage in self.stage_channels]
        adapters = list(self.adapters) or None
        frames, maps = self.trunk.encode(clips, adapters, sum(sizes), self.frame_features)
        ends = np.cumsum(sizes).tolist()
        blocks = tuple(tuple(maps[end - size : end]) for size, end in zip(sizes, ends, strict=True))
        return Features(frames, blocks)

    def copy_adapters(self) -> ClipEncoder:
        """Return a copy with adapters of its own on the same trunk."""
        return copy.deepcopy(self)

    def frozen_copy(self) -> ClipEncoder:
        """Return a copy on the same trunk that neither trains nor drops out: the old model of a distillation."""
        return self.copy_adapters().eval().requires_grad_(False)


def _trains(adapters: Adapters) -> bool:
    return adapters is not None and any(p.requires_grad for adapter in adapters for p in adapter.parameters())


def prompted_features(
    visual: VisionTransformer,
    images: Tensor,
    prompts: Tensor | None = None,
    readout: PromptReadout = "prompts",
) -> Tensor:
    """Encode images by a CLIP's visual tower, with prompts among their tokens.

    Prompts enter in front of the class token, behind the positions and before the first norm. Source: Villa et
    al. 2023 (PIVOT), model/CLIP/clip/model.py.

    Args:
        visual: Of open_clip.
        images: [B, 3, S, S], normalised.
        prompts: [B or 1, L, width], None for none.
        readout: The output at the class token, or the mean of the outputs at the prompts; without prompts the
            class token.

    Returns:
        [B, D], not normalised.
    """
    x = frame_tokens(visual, images)
    if prompts is None:
        read = CLASS_TOKEN
    else:
        x = put_in_front(prompts.expand(len(x), -1, -1), x)
        read = _read(prompts.shape[1], readout)
    x = visual.ln_pre(x)
    for block in visual.transformer.resblocks:
        _, x = frozen_block(block, x)
    features: Tensor = visual.ln_post(x[:, read].mean(dim=1)) @ visual.proj
    return features


def _read(length: int, readout: PromptReadout) -> slice:
    """Return the places of the tokens that are read out behind ``length`` prompts."""
    return slice(0, length) if readout == "prompts" else slice(length, length + 1)


def _by_clip(slot: Tensor, clips: int, frames: int) -> Tensor:
    """Return a tensor of slots as [1 or clips, 1 or frames, ...].

    Raises:
        ValueError: Its first axis is neither 1 nor the clips nor their frames.
    """
    if len(slot) in (1, clips):
        return slot[:, None]
    if len(slot) == clips * frames:
        return slot.unflatten(0, (clips, frames))
    raise ValueError(
        f"{len(slot)} slots for {clips} clips of {frames} frames: one for all, one a clip ({clips}) or one a "
        f"frame ({clips * frames})"
    )


def _first_changed(adapters: Adapters, slots: Slots) -> int:
    """Return the first block whose output slots or adapters change, those before it being the frozen CLIP's."""
    return 0 if slots.prompts is not None or adapters is not None else min(slots.prefixes, default=0)


def readable(class_name: str) -> str:
    """Split a class name at underscores and inner capitals: ``HighJump`` and ``high_jump`` give words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", class_name.replace("_", " "))
    return " ".join(spaced.split())


def check_template(template: str) -> None:
    """Refuse a text template that has no place, or more than one kind of place, for the class name.

    Raises:
        ConfigError: Says what a template looks like.
    """
    try:
        named = template.format("a class name")
    except (IndexError, KeyError, ValueError):
        named = ""
    if "a class name" not in named:
        raise ConfigError(f"template: {template!r} must be text with {{}} for the class name, and no other {{")


def prompts(class_names: Sequence[str], template: str) -> list[str]:
    """Put readable class names into a template that holds ``{}``."""
    return [template.format(readable(name)) for name in class_names]
