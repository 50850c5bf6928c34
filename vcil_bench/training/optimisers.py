"""SGD, Adam, AdamW, Adagrad and rate schedules as this field takes them; gradients beside the loss's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
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


def adamw(
    modules: Iterable[nn.Module], *, lr: float, weight_decay: float, without_decay: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Return AdamW over the trained parameters of modules; vectors and biases do not decay.

    Args:
        modules: Modules without a parameter in common.
        lr: Learning rate.
        weight_decay: Weight decay of parameters with two dimensions or more.
        without_decay: Further parameters that do not decay.
    """
    spared = {id(parameter) for parameter in without_decay}
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                decays = parameter.dim() > 1 and id(parameter) not in spared
                (decaying if decays else others).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decaying}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)


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


def warmup_cosine_rates(base: float, floor: float, num_steps: int, warmup_steps: int) -> NDArray[np.float64]:
    """Return a learning rate per step: a linear warm-up from 0, then a cosine decay.

    The first ``warmup_steps`` go from 0 to ``base``, both ends included; then ``floor + (base - floor)
    (1 + cos(pi j / n)) / 2`` for the ``n`` steps that are left, j = 0..n-1. Source: ESSENTIAL utils.py,
    cosine_scheduler, which comes from DINO and BEiT.

    Args:
        base: Highest rate.
        floor: What the rate falls towards.
        num_steps: Steps in all.
        warmup_steps: Steps of the warm-up among them.

    Returns:
        [num_steps].

    Raises:
        ValueError: The warm-up is longer than the training.
    """
    if not 0 <= warmup_steps <= num_steps:
        raise ValueError(f"a warm-up of {warmup_steps} steps does not fit into {num_steps} steps")
    left = num_steps - warmup_steps
    decay = floor + (base - floor) / 2 * (1 + np.cos(np.pi * np.arange(left) / max(1, left)))
    return np.concatenate([np.linspace(0.0, base, warmup_steps), decay])


class StepSchedule(torch.optim.lr_scheduler.LambdaLR):
    """A learning rate for every step, whatever rate the optimiser came with; stepped after every batch."""

    def __init__(self, optimiser: torch.optim.Optimizer, rates: Sequence[float] | NDArray[np.float64]) -> None:
        """Set the first rate.

        Args:
            optimiser: All its groups take the same rate.
            rates: One per step; the last holds on.
        """
        for group in optimiser.param_groups:
            group["lr"] = 1.0  # which LambdaLR multiplies
        super().__init__(optimiser, lambda step: float(rates[min(step, len(rates) - 1)]))


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
