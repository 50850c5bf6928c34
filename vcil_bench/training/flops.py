"""FLOPs: counts the floating-point operations of training and testing by torch's formulas, on samples.

Matrix products, convolutions and attention count, a multiplication and an addition as two. Counting makes every
operation slower, so the first batch of a pass stands for the others by its share of the clips; in a phase of
training, the first of the second epoch for all later epochs, since features may be known by then. What works on
no batch of clips (ridge solutions, k-means, classifiers on drawn features) is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


def _attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any) -> int:
    """Count scaled dot-product attention of [N, heads, L, width / heads] each."""
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any
) -> int:
    """Count its backward pass."""
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


def _multi_head(
    query: Tensor, key: Tensor, value: Tensor, width: int, heads: int, *rest: Any, **more: Any
) -> int:
    """Count the fast path of ``nn.MultiheadAttention`` on [N, L, width]: four projections, two products."""
    count, length = query.shape[:2]
    return 2 * count * length * width * (4 * width + 2 * key.shape[1])


def _encoder_layer(tokens: Tensor, width: int, heads: int, *weights: Any, **more: Any) -> int:
    """Count the fast path of ``nn.TransformerEncoderLayer`` on [N, L, width]; 12th is its first MLP weight."""
    count, length = tokens.shape[:2]
    hidden = weights[11].shape[0]
    return _multi_head(tokens, tokens, tokens, width, heads) + 2 * count * length * 2 * width * hidden


# What a CPU takes, and torch's own table lacks.
_ON_CPU: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
# Layers as a whole, which networks that neither train nor need gradients take.
_FUSED: dict[Any, Callable[..., int]] = {
    aten._native_multi_head_attention: _multi_head,
    aten._transformer_encoder_layer_fwd: _encoder_layer,
}


class _Counter(TorchDispatchMode):
    """Adds up the operations of everything that is computed inside.

    Attributes:
        total: So far.
    """

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.total = 0
        self._device_type = device_type

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket in _FUSED:
            self.total += _FUSED[func._overloadpacket](*args, **kwargs)
            # Their parts would be autocast inside, which is off in here: put it back as it was.
            with torch._C._RestorePythonTLSSnapshot():  # type: ignore[attr-defined]
                is_autocast = torch.is_autocast_enabled(self._device_type)
            kind = torch.get_autocast_dtype(self._device_type)
            with torch.autocast(self._device_type, kind, enabled=is_autocast):
                return func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in _ON_CPU:
            self.total += _ON_CPU[packet](*args, **kwargs)
        elif packet not in flop_registry:
            with self:  # what is made of others, such as a linear layer under inference mode
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **kwargs, out_val=result)
        return result


class FlopCount:
    """The operations of a task's training, estimated from samples.

    Attributes:
        total: So far, in all processes together; None where nothing is counted.
    """

    def __init__(self, device_type: str = "cpu", *, counts: bool) -> None:
        """Begin.

        Args:
            device_type: Where tensors live.
            counts: Whether anything is counted. Whoever asks for it must ``stop`` when an error has ended a
                pass, since a loop over batches that is broken off would go on counting.
        """
        self._device_type = device_type
        self._counts = counts
        self._active: _Counter | None = None
        self.begin_task()

    def begin_task(self) -> None:
        """Begin at nothing."""
        self.total: float | None = 0.0 if self._counts else None
        self._sampled: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on inside a task needs of this, as plain data."""
        return {"total": self.total, "sampled": sorted(self._sampled)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned in another process."""
        self.total, self._sampled = state["total"], set(state["sampled"])

    @contextmanager
    def standing_for(self, others: float, name: str | None = None) -> Iterator[None]:
        """Count what is computed inside, and take it ``others`` times.

        Args:
            others: Clips it stands for, in clips of the batch.
            name: Of a phase, of which only the first is counted; None to count in any case.
        """
        if not self._counts or self._active is not None or name in self._sampled:
            yield
            return
        self._active = counter = _Counter(self._device_type)
        counter.__enter__()
        try:
            yield
        finally:
            self.stop()
        if name is not None:
            self._sampled.add(name)
        self.total = (self.total or 0.0) + counter.total * others

    @contextmanager
    def apart(self) -> Iterator[list[int]]:
        """Count what is computed inside by itself: what is yielded has the number afterwards, if counted."""
        numbers: list[int] = []
        if not self._counts or self._active is not None:
            yield numbers
            return
        self._active = counter = _Counter(self._device_type)
        counter.__enter__()
        try:
            yield numbers
        finally:
            self.stop()
        numbers.append(counter.total)

    def stop(self) -> None:
        """Count no further, wherever that ended."""
        if self._active is not None:
            self._active.__exit__(None, None, None)
            self._active = None
