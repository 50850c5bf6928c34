"""Pretended computation: networks run at full size in a fraction of the time, with noise for their products.

Matrix products, convolutions and attention in float32 give normal noise of the right shape instead of being
computed, so that a method's own code runs whole while its operations are counted. What is solved for (Gram
matrices, ridge regressions) is in float64 and is computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten

_PRODUCTS = {
    aten.mm,
    aten.addmm,
    aten.bmm,
    aten.baddbmm,
    aten.convolution,
    aten.convolution_backward,
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
}
# Whole layers, whose first result is as large as their first argument.
_LAYERS = {aten._native_multi_head_attention, aten._transformer_encoder_layer_fwd}
_SMALL = 1 << 16  # numbers; smaller products are computed, such as logits
_NOISE = 1 << 20


class Pretended(TorchDispatchMode):
    """Gives noise for every large float32 product that is asked for inside."""

    def __init__(self) -> None:
        super().__init__()
        self._noise = torch.randn(_NOISE, generator=torch.Generator().manual_seed(0))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        tensors = [a for a in args if isinstance(a, Tensor)]
        if packet not in _PRODUCTS | _LAYERS or tensors[0].dtype != torch.float32:
            return func(*args, **kwargs)
        if packet in _LAYERS:
            first = self._like(torch.empty_like(args[0], device="meta"))
            return first if packet is aten._transformer_encoder_layer_fwd else (first, torch.empty(0))
        shapes = func(*tree_map(_as_meta, args), **tree_map(_as_meta, kwargs))
        sizes = [t.numel() for t in [*tensors, *tree_leaves(shapes)] if isinstance(t, Tensor)]
        if max(sizes) < _SMALL:
            return func(*args, **kwargs)
        return tree_map(lambda t: self._like(t) if isinstance(t, Tensor) else t, shapes)

    def _like(self, wanted: Tensor) -> Tensor:
        """Return noise of the shape and the strides of a tensor without content."""
        made = torch.empty_strided(wanted.shape, wanted.stride(), dtype=wanted.dtype)
        if made.dtype != torch.float32:
            return made.zero_()
        flat = made.as_strided((made.numel(),), (1,))
        whole = len(flat) // _NOISE * _NOISE
        flat[:whole].view(-1, _NOISE).copy_(self._noise)
        flat[whole:].copy_(self._noise[: len(flat) - whole])
        return made


def _as_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value
