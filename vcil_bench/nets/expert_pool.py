"""Temporal encoders of one shape, evaluated side by side as one batched operation.

A pool grows by an encoder a task; one after the other, their many small products leave a GPU waiting for
launches.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .temporal import TemporalEncoder, sinusoidal_positions

# Values of the widest activation at a time: more clips and encoders than that go in several rounds.
MAX_ACTIVATION = 2**26


class ExpertPool(nn.ModuleList):
    """A list of temporal encoders; in evaluation they run together.

    Its parameters and their names are those of the list. While it evaluates it holds a stacked copy beside them,
    made at the first batch, made anew when a parameter has changed and gone as soon as it trains.
    """

    def __init__(self, encoders: Iterable[TemporalEncoder] = ()) -> None:
        """Start with these encoders, all of one shape."""
        super().__init__(encoders)
        self._stacked: dict[str, Tensor] = {}
        self._made_from: tuple[object, ...] = ()

    def forward(self, frames: Tensor) -> Tensor:
        """Aggregate frame features by every encoder.

        Args:
            frames: [B, T, D].

        Returns:
            [B, K, D].
        """
        if self.training or torch.is_grad_enabled():
            return torch.stack([expert(frames) for expert in self], dim=1)
        self._stack(frames.dtype)
        batch, length, _ = frames.shape
        widest = self._stacked["layers.0.linear1.bias"].shape[1]
        at_a_time = max(1, MAX_ACTIVATION // (batch * (1 + length) * widest))
        rounds = [slice(k, k + at_a_time) for k in range(0, len(self), at_a_time)]
        return torch.cat([self._together(frames, some) for some in rounds]).transpose(0, 1)

    def train(self, mode: bool = True) -> ExpertPool:
        """Switch the mode; training gives back the memory of the stacked copy."""
        super().train(mode)
        if mode:
            self._stacked, self._made_from = {}, ()
        return self

    def _stack(self, dtype: torch.dtype) -> None:
        """Put the encoders' parameters side by side: the matrices in the precision of what they multiply."""
        made_from = (dtype, *((p.data_ptr(), p._version) for p in self.parameters()))
        if made_from == self._made_from:
            return
        self._stacked, self._made_from = {}, made_from  # emptied first, so that there are never two copies
        for name, parameter in self[0].named_parameters():
            kind = parameter.dtype if "norm" in name else dtype
            self._stacked[name] = torch.stack([e.get_parameter(name).detach().to(kind) for e in self])

    def _together(self, frames: Tensor, some: slice) -> Tensor:
        """Run some encoders on frame features [B, T, D]; returns [k, B, D]."""
        encoder = self[0]
        assert isinstance(encoder, TemporalEncoder)
        batch, length, dim = frames.shape
        stacked = {name: parameters[some] for name, parameters in self._stacked.items()}
        x = frames + sinusoidal_positions(length, dim, frames.device, frames.dtype)
        count = len(stacked["cls"])
        cls = stacked["cls"].expand(count, batch, 1, dim)
        x = torch.cat([cls, x.expand(count, *x.shape)], dim=2)  # [k, B, 1 + T, D]

        def linear(x: Tensor, name: str, dot: str = ".") -> Tensor:
            weight, bias = stacked[f"{name}{dot}weight"], stacked[f"{name}{dot}bias"]
            product = torch.baddbmm(bias[:, None], x.flatten(1, 2), weight.transpose(1, 2))
            return product.unflatten(1, x.shape[1:3])

        def norm(x: Tensor, name: str) -> Tensor:
            weight, bias = stacked[f"{name}.weight"], stacked[f"{name}.bias"]
            y = F.layer_norm(x.float(), (dim,)) * weight[:, None, None] + bias[:, None, None]
            return y.to(x.dtype)

        for i in range(len(encoder.layers)):
            at = f"layers.{i}"
            packed = linear(norm(x, f"{at}.norm1"), f"{at}.self_attn.in_proj", "_")
            packed = packed.view(count * batch, 1 + length, 3, encoder.heads, dim // encoder.heads)
            seen = F.scaled_dot_product_attention(*packed.permute(2, 0, 3, 1, 4))
            x = x + linear(seen.transpose(1, 2).reshape(x.shape), f"{at}.self_attn.out_proj")
            x = x + linear(F.gelu(linear(norm(x, f"{at}.norm2"), f"{at}.linear1")), f"{at}.linear2")
        return x[:, :, 0] if encoder.readout == "cls" else x[:, :, 1:].mean(dim=2)
