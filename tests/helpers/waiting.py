"""Tells, without a GPU, where a host would have to wait for one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Refuses what a host can only know by waiting for the device: sizes, numbers and truths from tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        places = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
        masked = any(isinstance(place, Tensor) and place.dtype == torch.bool for place in places)
        if masked or name in {"nonzero", "masked_select", "_local_scalar_dense", "equal", "unique", "_unique2"}:
            self.allowed -= 1
            assert self.allowed >= 0, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))
