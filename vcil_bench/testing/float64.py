"""Float64 for whole computations: two ways to one result then agree to rounding, on every processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def double_precision() -> Iterator[None]:
    """Make every tensor float64, and let ``Tensor.float`` cast to it, while the block runs."""
    before, cast = torch.get_default_dtype(), torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.Tensor.float = cast  # type: ignore[method-assign]
