"""LwM: learning without memorizing, exemplar-free (Dhar et al., CVPR 2019).

LwF.MC with attention distillation: where the old model looks to recognise its best old class, the new one must
look too. No authors' code was published; the paper is about images, each frame is one here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vcil_bench.classifier import ClipClassifier
from vcil_bench.common.config import check_numbers
from vcil_bench.data.loader import Batch
from vcil_bench.losses import attention_distillation
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.nets.network import Features
from vcil_bench.stream import Task
from vcil_bench.training import gradients

from .lwf import LwF, LwFConfig, lwf_losses

# For fp16. Scores are a mean over frames alone; their gradients lie around 1e-5 to 1e-2.
SCORE_SCALE = 2.0**10


@dataclass(frozen=True, kw_only=True)
class LwMConfig(LwFConfig):
    """LwF.MC's hyper-parameters and the attention's weight.

    Attributes:
        attention: Weight of the attention loss (the paper's gamma). Its value on videos is unknown; 1 is what
            FACIL's re-implementation takes on images.
    """

    attention: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, not_negative=("attention",))


class LwM(LwF):
    """LwF.MC with Grad-CAM maps of the last stage distilled as well."""

    name = "lwm"
    paper = "Dhar et al., Learning without Memorizing, CVPR 2019 (re-implemented from the paper)"
    needs = frozenset({"maps"})
    splits_batches = False  # the gradients of Eq. 5 are those of all clips together
    Config = LwMConfig

    config: LwMConfig

    def losses(self, batch: Batch, task: Task, old: ClipClassifier[GrowingLinear] | None) -> dict[str, Tensor]:
        """Return LwF's terms and the attention loss on the old model's best old class of each clip."""
        if old is None:
            return super().losses(batch, task, None)
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention of a CLIP has no second derivative
            new = self.model.features_with_maps(batch.clips)
            old.network.requires_grad_(True)  # or its maps could not be differentiated by; no step changes it
            before = old.features_with_maps(batch.clips)
            old_logits = old.mean_logits(before.frames)[:, : task.num_old]
            best = old_logits.argmax(dim=1)  # the class b of Eq. 6
            old_attention = grad_cam(before, old_logits, best, differentiable=False)
            attention = grad_cam(new, self.model.mean_logits(new.frames), best, differentiable=True)
        logits = self.model.mean_logits(self.model.dropout(new.frames))
        terms = lwf_losses(self.config.loss, logits, old_logits.detach(), batch.labels)
        drift = attention_distillation(attention.flatten(0, 1), old_attention.flatten(0, 1))  # Eq. 7
        return terms | {"attention": self.config.attention * drift}


def grad_cam(features: Features, logits: Tensor, classes: Tensor, *, differentiable: bool) -> Tensor:
    """Return Grad-CAM maps of the last stage: ``relu(sum_c alpha_c A_c)``, alpha the mean gradient of a channel.

    Source: LwM Eq. 5, after Selvaraju et al., ICCV 2017.

    Args:
        features: Of the clips; ``logits`` were made from them.
        logits: [B, K].
        classes: [B] class whose evidence is sought.
        differentiable: Whether the maps are to be trained on.

    Returns:
        [B, T, H, W].
    """
    last = features.maps[-1]  # A [B, T, C, H, W]
    wanted = logits.gather(1, classes[:, None]).sum()
    (gradient,) = gradients(wanted, [last], scale=SCORE_SCALE, differentiable=differentiable)
    alpha = gradient.mean(dim=(-2, -1), keepdim=True)
    cam = (alpha * last).sum(dim=2).relu()
    return cam if differentiable else cam.detach()
