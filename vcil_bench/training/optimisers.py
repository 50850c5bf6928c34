"""SGD, Adam, Adagrad and rate schedules as this field takes them; gradients beside those of the loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Computes(Protocol):
    """Where and how a run computes, of which a ``RunContext`` tells."""

    @property
    def device(self) -> torch.device:
        """Where tensors live."""

    @property
    def precision(self) -> str:
        """``fp32``, ``tf32``, ``bf16`` or ``fp16``."""


def sgd(
    context: Computes,
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Return SGD over parameters that require gradients, or over groups of them; fused on a GPU.

    Args:
        context: The run.
        parameters: Parameters, of which those that require no gradient are passed over, or groups for torch.
        lr: Learning rate, of groups that name none.
        momentum: Momentum.
        weight_decay: Weight decay, of groups that name none.
    """
    trained, groups = [], []
    for given in parameters:
        if isinstance(given, dict):
            groups.append(given)
        elif given.requires_grad:
            trained.append(given)
    if not groups:
        groups = [{"params": trained}]
    return torch.optim.SGD(
        groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fuses(context) or None
    )


def adagrad(groups: list[dict[str, Any]], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return Adagrad over groups of parameters.

    Args:
        groups: For torch.
        lr: Learning rate, of groups that name none.
        weight_decay: Weight decay, of groups that name none.
    """
    return torch.optim.Adagrad(groups, lr=lr, weight_decay=weight_decay)


def adam(
    context: Computes,
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Return Adam without decay over the parameters that require gradients; fused where SGD is.

    Args:
        context: The run.
        parameters: Parameters, of which those that require no gradient are passed over.
        lr: Learning rate.
        betas: Decay of the means of gradients and of their squares.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=lr, betas=betas, fused=fuses(context) or None)


def fuses(context: Computes) -> bool:
    """Tell whether SGD is to run as torch's fused kernel: on a GPU, unless its steps may be skipped (fp16).

    A scaler leaves it to a fused kernel to skip steps whose gradients overflow, and torch's makes the momentum
    in the first step without writing it if it skips, so that the next takes what lay there.
    """
    return context.device.type == "cuda" and context.precision != "fp16"


def cosine(optimiser: torch.optim.Optimizer, num_epochs: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a per-epoch cosine decay of the learning rate to zero, without warm-up."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(1, num_epochs))


def multistep(
    optimiser: torch.optim.Optimizer, milestones: Sequence[int], factor: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a per-epoch schedule that multiplies the learning rate by ``factor`` at each milestone."""
    return torch.optim.lr_scheduler.MultiStepLR(optimiser, list(milestones), gamma=factor)


def gradients(
    value: Tensor, by: Sequence[Tensor], *, scale: float, differentiable: bool = False
) -> list[Tensor]:
    """Return the gradients of a value that is not the training's loss, which ``Epoch.step`` takes care of.

    In an fp16 network whatever is below 6e-8 becomes 0 on its way back, and gradients with respect to the values
    of feature maps are that small. So they are taken of a multiple and divided after.

    Args:
        value: Scalar.
        by: What it is differentiated by.
        scale: The multiple, a power of two: without fp16 it then changes no bit.
        differentiable: Whether the gradients are to be trained on.
    """
    scaled = torch.autograd.grad(scale * value, by, create_graph=differentiable, retain_graph=differentiable)
    return [gradient / scale for gradient in scaled]
