"""ResNets with temporal shift: timm's own blocks, with the shift in front of each block's first convolution.

Source: TSM (Lin et al., ICCV 2019), its ``blockres`` form with a fold of 1/8, as TCD and every method compared
with it use it (TCD ops/temporal_shift.py, ops/models.py).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError

from .compute import PLAIN, ComputeOptions
from .network import Features, VideoNetwork
from .parallel.batch_norm import TeamBatchNorm2d
from .parallel.batch_part import current_part
from .parallel.gather import gather_batch, gather_maps
from .trunk import Trunk, Tuning
from .weights import WeightsInfo

FOLD_DIV = 8  # one eighth of the channels looks ahead in time, one eighth back


def temporal_shift(x: Tensor, fold_div: int = FOLD_DIV) -> Tensor:
    """Exchange channels between neighbouring frames.

    The first ``floor(C / fold_div)`` channels take the values of the next frame, as many again those of the
    previous frame, the rest stay; beyond the clip's ends stand zeros. Source: TCD ops/temporal_shift.py,
    TemporalShift.shift.

    Args:
        x: [B, T, C, H, W].
        fold_div: Divisor of the channels.

    Returns:
        [B, T, C, H, W].
    """
    fold = x.shape[2] // fold_div
    shifted: Tensor = _Shift.apply(x, slice(0, fold), slice(fold, 2 * fold))
    return shifted


class _Shift(torch.autograd.Function):
    """One pass either way: torch's own gradient of the slices copies the whole map once a slice."""

    @staticmethod
    def forward(context: Any, x: Tensor, ahead: slice, back: slice) -> Tensor:
        context.ahead, context.back = ahead, back
        return _exchanged(x, ahead, back)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Shift.apply(gradient, context.back, context.ahead), None, None  # to where the values came from


def _exchanged(x: Tensor, ahead: slice, back: slice) -> Tensor:
    """Return x [B, T, C, H, W] with one group of channels taken from the next frame, one from the last."""
    shifted = x.clone()
    shifted[:, :-1, ahead] = x[:, 1:, ahead]
    shifted[:, -1, ahead] = 0
    shifted[:, 1:, back] = x[:, :-1, back]
    shifted[:, 0, back] = 0
    return shifted


class ShiftedConv(nn.Module):
    """A convolution whose input frames exchange channels first.

    Attributes:
        frames: Frames per clip of the batch that is coming; the network sets it before each pass.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.frames = 1

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B*T, C, H, W] after the shift."""
        return self.conv(temporal_shift(x.unflatten(0, (-1, self.frames))).flatten(0, 1))


class TSMNetwork(VideoNetwork):
    """A ResNet over frames with temporal shift, trained whole."""

    trains_whole = True
    trunk: TSMTrunk

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: TSMTrunk,
        net: ResNet,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        tuning: Tuning,
        *,
        shift: bool,
    ) -> None:
        """Take over a timm ResNet without its classifier.

        Args:
            trunk: Says how the network is to be run.
            net: The network; it is changed.
            mean: Of the input's channels, for values in 0..1.
            std: The same.
            tuning: Partial batch norm and the final ReLU.
            shift: Whether frames exchange channels; without it this is TSN.
        """
        super().__init__()
        self.trunk = trunk
        self.net = net
        for parent in list(net.modules()):
            for child, norm in parent.named_children():
                if isinstance(norm, nn.BatchNorm2d):
                    setattr(parent, child, TeamBatchNorm2d.taking_over(norm))
        self.partial_bn = tuning.partial_bn
        self.dim = int(net.num_features)
        stages: list[nn.Sequential] = [getattr(net, f"layer{i}") for i in range(1, 5)]
        for stage in stages:
            for block in stage if shift else ():
                block.conv1 = ShiftedConv(block.conv1)  # type: ignore[arg-type]  # timm leaves it open
        self.stage_channels = tuple(tuple(_channels(block) for block in stage) for stage in stages)
        if not tuning.final_relu:
            last = stages[-1][-1]
            setattr(last, "act2" if isinstance(last, BasicBlock) else "act3", nn.Identity())
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on CPUs
        self._freeze_norms()
        self.compile_blocks()

    def forward(self, clips: Tensor) -> Tensor:
        """Encode uint8 clips [B, T, 3, S, S] to frame features [B, T, D]."""
        return gather_batch(self._run(clips, with_maps=False)[0])

    def features(self, clips: Tensor) -> Features:
        """Encode clips, keeping the output of every residual block."""
        frames, blocks = self._run(clips, with_maps=True)
        return Features(gather_batch(frames), blocks)

    def _run(self, clips: Tensor, *, with_maps: bool) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        """Encode this process's clips [B, T, 3, S, S].

        Args:
            clips: [B, T, 3, S, S] uint8.
            with_maps: Whether the maps are wanted, of all processes' clips.

        Returns:
            Frame features [B, T, D] and, per stage, the output of each block.
        """
        batch, length = clips.shape[:2]
        norms = [module for module in self.net.modules() if isinstance(module, TeamBatchNorm2d)]
        for module in self.net.modules():
            if isinstance(module, ShiftedConv):
                module.frames = length
        try:
            for norm in norms:
                norm.part = current_part()
            return self._blocks(clips, batch, length, with_maps=with_maps)
        finally:
            for norm in norms:  # a part knows its processes, which no copy of the network may
                norm.part = None

    def _blocks(
        self, clips: Tensor, batch: int, length: int, *, with_maps: bool
    ) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        """Run the blocks one after the other, see ``_run``."""
        net: Any = self.net
        stages = []
        x = (clips.flatten(0, 1).float() - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        x = net.maxpool(net.act1(net.bn1(net.conv1(x))))
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            blocks = []
            for block in stage:
                if self.trunk.compute.compile:  # for a last batch, which is smaller, nothing is compiled anew
                    torch._dynamo.maybe_mark_dynamic(x, 0)
                maps = block(x).unflatten(0, (batch, length)).float()  # [B, T, C, H, W]
                whole, local = gather_maps(maps) if with_maps else (maps, maps)
                blocks.append(whole)
                x = local.flatten(0, 1)  # the maps lie on the way, so that gradients reach them
            stages.append(tuple(blocks))
        frames = x.mean(dim=(-2, -1)).unflatten(0, (batch, length))  # [B, T, D]
        return frames, tuple(stages)

    def frozen_copy(self) -> TSMNetwork:
        """Return a copy in evaluation mode without gradients."""
        twin = copy.deepcopy(self).eval().requires_grad_(False)
        twin.compile_blocks()
        return twin

    def compile_blocks(self) -> None:
        """Compile the residual blocks if the trunk is to be compiled; a copy of a network forgets it."""
        if self.trunk.compute.compile:
            net: Any = self.net
            for block in (*net.layer1, *net.layer2, *net.layer3, *net.layer4):
                block.compile(dynamic=False)  # sizes are fixed but for the rows, whose number _run leaves open

    def train(self, mode: bool = True) -> TSMNetwork:
        """Switch the mode; with partial batch norm only the first batch norm follows (TSN.train)."""
        super().train(mode)
        if self.partial_bn:
            for norm in self._norms()[1:]:
                norm.eval()
        return self

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [m for m in self.net.modules() if isinstance(m, nn.BatchNorm2d)]

    def _freeze_norms(self) -> None:
        if self.partial_bn:
            for norm in self._norms()[1:]:
                norm.requires_grad_(False)


class TSMTrunk(Trunk):
    """A pretrained ResNet from which networks start; each network has weights of its own."""

    supports_micro_batch = False

    def __init__(
        self,
        name: str,
        net: ResNet,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        image_size: int,
        weights: WeightsInfo,
        compute: ComputeOptions = PLAIN,
        *,
        shift: bool = True,
    ) -> None:
        """Keep the pretrained network, which is never trained itself."""
        self.name = name
        self.weights = weights
        self.dim = int(net.num_features)
        self.image_size = image_size
        self.model = net.eval().requires_grad_(False)
        self._mean, self._std = mean, std
        self._shift = shift
        self.compute = compute
        if compute.compile:
            # Blocks share their code but not their shapes, and torch gives up on code after eight of those.
            torch._dynamo.config.recompile_limit = 256

    @property
    def num_parameters(self) -> int:
        """None are shared: every network trains its own copy."""
        return 0

    def to(self, device: torch.device) -> TSMTrunk:
        """Leave the pretrained weights as they are; networks move with their method, and train in float32."""
        return self

    def network(self, tuning: Tuning) -> TSMNetwork:
        """Return a trainable copy with temporal shift.

        Raises:
            ConfigError: Other frame features than a ResNet's own are asked for.
        """
        if tuning.kind not in ("adaptformer", "none"):
            raise ConfigError(f"tuning: {tuning.kind!r} is for a CLIP; {self.name} trains whole")
        if tuning.features != "joint":
            raise ConfigError(
                f"features: {tuning.features!r} is for a CLIP; {self.name} has no projection, and its frame "
                "features are those of its last block; leave features out"
            )
        net = copy.deepcopy(self.model).requires_grad_(True)
        return TSMNetwork(self, net, self._mean, self._std, tuning, shift=self._shift)


def _channels(block: nn.Module) -> int:
    """Return the channels of a residual block's output."""
    assert isinstance(block, (BasicBlock, Bottleneck))
    norm: Any = block.bn2 if isinstance(block, BasicBlock) else block.bn3
    return int(norm.num_features)
