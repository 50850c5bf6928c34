"""Recorded inputs and outputs in ``tests/golden``.

``tcd_*`` and ``vclimb_*`` were recorded from the authors' own code (bellos1203/TCD@3dc3638,
ojedaf/vCLIMB_Benchmark@05c14f4), ``stpr_*`` from the paper's formulas written a second time in numpy.
Inputs are float32 values, outputs float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of ``tests/golden/<name>.npz``."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}
