"""MAS: memory aware synapses, exemplar-free (Aljundi et al., ECCV 2018).

Parameters are held where earlier tasks left them, each by how much the length of the output depends on it. On
videos it was published in vCLIMB, whose code this follows: ojedaf/vCLIMB_Benchmark @ 05c14f4a, utils/MAS.py and
main_regularized.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from vcil_bench.consolidation import ConsolidatingClassifier, ConsolidationConfig, summed_gradients


@dataclass(frozen=True, kw_only=True)
class MASConfig(ConsolidationConfig):
    """Hyper-parameters of MAS in vCLIMB, from its configuration for Kinetics."""

    reg_lambda: float = 3e5
    batch_size: int = 64
    epochs_first: int = 20
    epochs: int = 20


class MAS(ConsolidatingClassifier):
    """Cross-entropy over all classes seen, and a penalty on what moves parameters that the output hangs on."""

    name = "mas"
    paper = "Aljundi et al., MAS, ECCV 2018; on videos as in Villa et al., vCLIMB, CVPR 2022"
    Config = MASConfig

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean length of the output."""
        return output_norm(logits)

    def importance(self, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the sums of gradients without their signs."""
        return importance(batches)


def output_norm(logits: Tensor) -> Tensor:
    """Return the Euclidean length of the logits [B, K], averaged over the batch: a scalar.

    The length, where the paper takes its square. Source: vCLIMB utils/MAS.py.
    """
    return logits.norm(dim=1).mean()


def importance(gradients: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the importance of parameters: the size of the gradient summed over all batches.

    The absolute value is taken of the sum; the paper sums absolute values, of single samples. vCLIMB's lambda
    belongs to this form. Source: vCLIMB utils/MAS.py.

    Args:
        gradients: Per batch, the gradient of ``output_norm`` by each parameter's name.

    Returns:
        Importance by name.
    """
    return {name: total.abs() for name, total in summed_gradients(gradients).items()}
