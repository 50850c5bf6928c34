"""The centre-pivot convolution against a dense 4-D one, and averaging against adaptive pooling."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vcil_bench.nets.centre_pivot import CentrePivotConv4d, average_last_pair


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_kernel(conv: CentrePivotConv4d) -> Tensor:
    """Return the 4-D kernel [O, I, 3, 3, 3, 3] of which the layer keeps the entries through either centre."""
    out, into = conv.first.weight.shape[:2]
    kernel = conv.first.weight.new_zeros(out, into, 3, 3, 3, 3)
    kernel[:, :, :, :, 1, 1] += conv.first.weight
    kernel[:, :, 1, 1, :, :] += conv.second.weight
    return kernel


def dense_convolution(x: Tensor, kernel: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolve [N, C, H, W, U, V] entry by entry."""
    h, w, u, v = x.shape[2:]
    padded = F.pad(x, (1, 1) * 4)
    rows, columns = range(0, u, stride), range(0, v, stride)
    out = x.new_empty(len(x), len(kernel), h, w, len(rows), len(columns))
    for i, j in itertools.product(range(h), range(w)):
        for k, row in enumerate(rows):
            for m, column in enumerate(columns):
                window = padded[:, :, i : i + 3, j : j + 3, row : row + 3, column : column + 3]
                out[:, :, i, j, k, m] = torch.einsum("ncabde,ocabde->no", window, kernel) + bias
    return out


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("sides", [(3, 2, 4, 5), (1, 1, 1, 1), (2, 3, 6, 6)])
def test_the_centre_pivot_convolution_equals_a_dense_one(sides: tuple[int, ...], stride: int) -> None:
    torch.manual_seed(0)
    conv = CentrePivotConv4d(2, 3).double()
    x = noise(2, 2, *sides)
    with torch.no_grad():
        assert conv.first.bias is not None
        expected = dense_convolution(x, dense_kernel(conv), conv.first.bias, stride)
        torch.testing.assert_close(conv(x, stride), expected)


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (7, 7), (3, 2), (1, 4), (4, 4)])
def test_averaging_is_adaptive_pooling_with_a_gradient_that_strict_runs_allow(rows: int, columns: int) -> None:
    x = noise(2, 3, 2, 2, rows, columns).requires_grad_()
    weight = noise(2, 3, 2, 2, 4, 4, seed=1)
    expected = F.adaptive_avg_pool2d(x.flatten(1, 3), 4).unflatten(1, (3, 2, 2))
    found = average_last_pair(x, 4)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((weight * y).sum(), x, retain_graph=True)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)
    with Refusing():
        torch.autograd.grad((weight * found).sum(), x)


class Refusing(TorchDispatchMode):
    """Refuses the gradient that a GPU has no deterministic kernel for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "adaptive_avg_pool2d_backward" not in func.name(), f"{func} is not deterministic on GPUs"
        return func(*args, **(kwargs or {}))
