"""EWC: elastic weight consolidation, exemplar-free (Kirkpatrick et al., PNAS 2017).

Parameters are held where earlier tasks left them, each by how much the cross-entropy there depends on it. On
videos it was published in vCLIMB, whose code this follows: ojedaf/vCLIMB_Benchmark @ 05c14f4a, utils/EWC.py and
main_regularized.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from vcil_bench.consolidation import ConsolidatingClassifier, ConsolidationConfig, summed_gradients


@dataclass(frozen=True, kw_only=True)
class EWCConfig(ConsolidationConfig):
    """Hyper-parameters of EWC in vCLIMB, from its configuration for Kinetics."""

    reg_lambda: float = 3000.0
    batch_size: int = 64
    epochs_first: int = 30
    epochs: int = 30


class EWC(ConsolidatingClassifier):
    """Cross-entropy over all classes seen, and a penalty on what moves parameters that mattered."""

    name = "ewc"
    paper = "Kirkpatrick et al., EWC, PNAS 2017; on videos as in Villa et al., vCLIMB, CVPR 2022"
    Config = EWCConfig

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(logits, labels)

    def importance(self, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the squared sums of gradients."""
        return importance(batches)


def importance(gradients: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the importance of parameters: the square of the gradient summed over all batches.

    No Fisher information in the strict sense, which is a mean of squared gradients of single samples: here
    batches whose gradients point in opposite directions cancel. vCLIMB's lambda belongs to this form. Source:
    vCLIMB utils/EWC.py, on_task_update.

    Args:
        gradients: Per batch, the gradient of its mean cross-entropy by each parameter's name.

    Returns:
        Importance by name.
    """
    return {name: total.square() for name, total in summed_gradients(gradients).items()}
