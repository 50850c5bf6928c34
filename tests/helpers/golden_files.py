"""Recorded inputs and outputs in ``tests/golden``.

Recorded from the authors' own code: ``tcd_*`` from bellos1203/TCD@3dc3638, ``vclimb_*`` from
ojedaf/vCLIMB_Benchmark@05c14f4, ``pycil_*`` from LAMDA-CL/PyCIL@f3509b8, ``ucir_*`` from
hshustc/CVPR19_Incremental_Learning@e5a90ae, ``podnet_*`` from
arthurdouillard/incremental_learning.pytorch@c09fc54, ``l2p_*`` from JH-LEE-KR/l2p-pytorch@f7bc994,
``dualprompt_*`` from JH-LEE-KR/dualprompt-pytorch@7eb457d, ``coda_*`` from GT-RIPL/CODA-Prompt@6417d4f,
``sprompts_*`` from iamwangyabin/S-Prompts@a26e822, ``piv_*`` from ojedaf/PIVOT@c9897f6, ``ess_*`` from
jong980812/ESSENTIAL@ef5f575, ``dist_*`` from alibaba-mmai-research/DiST@4b3a09b, ``aim_*`` from
taoyang1122/adapt-image-models@b3580d2, ``sta_*`` from linziyi96/st-adapter@b914b38, ``counts_04`` from the
constructors of all three. ``stpr_*`` and ``hce_*`` come from the papers' formulas written a second time in
numpy, and so do keys with ``own``.
Inputs are float32 values, outputs float64; a key with ``grad`` is the derivative of the loss of that name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden"
DTYPES = pytest.mark.parametrize("precision", ["float64", "float32"])


def golden(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of ``tests/golden/<name>.npz``."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def tensors(name: str, precision: str) -> dict[str, Tensor]:
    """Return the arrays as tensors, floats in the working precision."""
    import torch

    dtype: torch.dtype = getattr(torch, precision)
    found = {key: torch.from_numpy(array) for key, array in golden(name).items()}
    return {key: t.to(dtype) if t.is_floating_point() else t for key, t in found.items()}


def close(actual: Tensor, expected: Tensor, *, least: float = 0.0) -> None:
    """Compare at the precision of ``actual``, whose type must be that of the inputs.

    Args:
        actual: What our code gives.
        expected: What was recorded.
        least: Relative tolerance that is granted at least, where the source itself is less precise.
    """
    import torch

    assert actual.dtype == expected.dtype
    rtol, atol = (1e-9, 1e-11) if actual.dtype == torch.float64 else (1e-4, 1e-5)
    size = float(expected.abs().max())  # the recorded gradients range from 1e-6 to 1e5
    torch.testing.assert_close(actual, expected, rtol=max(rtol, least), atol=max(atol, least) * size)
