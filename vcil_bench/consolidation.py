"""Weight consolidation: a quadratic penalty holds the parameters that mattered to earlier tasks where they were.

EWC and MAS build on it. They differ in what makes a parameter important, and share the rest, as in vCLIMB's
code (main_regularized.py): training by Adagrad, a pass over the task's videos for the importance, and the
penalty, here kept in two maps of the parameters however many tasks there were.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .classifier import LINEAR_STD, Classifier, ClipClassifier, VCLIMBConfig
from .common.config import ConfigError, check_numbers
from .method import RunContext
from .nets.heads import GrowingLinear
from .record_schema import MemoryUse
from .stream import Task
from .training import TrainingError, adagrad, buffers_kept, gradients

# For fp16. Gradients of a mean over videos by the parameters of a layer lie around 1e-7 to 10.
IMPORTANCE_SCALE = 2.0**10


@dataclass(frozen=True, kw_only=True)
class ConsolidationConfig(VCLIMBConfig):
    """What EWC and MAS share.

    On the embedded protocols they have the classifiers' epochs and batches. The rate there is the one of 0.001,
    0.002, 0.005 and 0.01 that brought the cross-entropy of the base task lowest on one order of the clips'
    version 2 (0.41, 0.26, 0.29, 0.70); nothing else was looked at. Lambda is vCLIMB's, no other was tried:
    importance is a sum over a task's batches, and the base task has as many as a task of vCLIMB on UCF101 (14;
    13 to 15).

    Attributes:
        reg_lambda: Weight of the penalty, lambda.
        momentum: None, since Adagrad has no momentum.
        released: Take the importance as the released code does, behind a head that has been grown for the next
            task: the softmax and the norm count its untrained outputs too, and their rows are held where they
            start. Since a method cannot know the next task's number of classes, it is taken to have as many as
            the present one; rows beyond these are free. Without, a pass over a task's videos sees the outputs
            that were trained on them, and new rows are free.
    """

    reg_lambda: float
    momentum: float = 0.0
    released: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(self, not_negative=("reg_lambda",))
        if self.momentum:
            raise ConfigError(f"momentum: {self.momentum} is not allowed, Adagrad has none; leave it at 0")


class QuadraticPenalty(nn.Module):
    """Importance-weighted squared distance of parameters to where earlier tasks left them.

    With I_i the importance and star_i the parameters after task i, completing the square of the sum gives
    ``sum_i I_i (theta - star_i)^2 = A (theta - m)^2 + r``, where ``A = sum_i I_i``, ``m = sum_i I_i star_i / A``
    and r is a constant. So two maps and a number stand for the maps of all tasks, exactly but for rounding.

    What that costs in float32, after 20 tasks that each moved parameters of size 0.05 by 2e-3 (by 1e-4),
    relative to ``losses.parameter_penalty`` in float64: 1e-7 (1e-6) of the value and 6e-7 (1.3e-5) of the
    gradient, where maps of every task would lose 1e-7 of either. Multiplied out, ``A theta^2 - 2 b theta + c``
    with three maps, terms would cancel: 1e-6 (6e-4) of the value.

    Attributes:
        rest: r, summed over parameters.
    """

    rest: Tensor

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Begin without importance.

        Args:
            parameters: What is to be held, by name.
        """
        super().__init__()
        self.register_buffer("rest", torch.zeros(()))
        for name, parameter in parameters.items():
            for kind in ("importance", "centre"):
                self.register_buffer(_key(kind, name), torch.zeros_like(parameter))

    def grow(self, parameters: Mapping[str, Tensor], room: int = 0) -> None:
        """Give maps the rows of parameters that have grown.

        Args:
            parameters: These, by name.
            room: Rows to have beyond, for importance that is known before the rows are there.
        """
        for name, parameter in parameters.items():
            for kind in ("importance", "centre"):
                old = self.get_buffer(_key(kind, name))
                new = old.new_zeros((len(parameter) + room, *parameter.shape[1:]))
                kept = min(len(old), len(parameter))
                new[:kept] = old[:kept]
                setattr(self, _key(kind, name), new)

    def hold_new_rows(self, parameters: Mapping[str, Tensor], first: int) -> None:
        """Make the present values of new rows the centres of such importance as they have.

        Args:
            parameters: Parameters that have grown, by name.
            first: The first new row.
        """
        for name, parameter in parameters.items():
            self.get_buffer(_key("centre", name))[first : len(parameter)] = parameter.detach()[first:]

    @torch.no_grad()
    def consolidate(self, parameters: Mapping[str, Tensor], importance: Mapping[str, Tensor]) -> None:
        """Add a task: hold parameters where they are by their importance.

        Args:
            parameters: star by name; perhaps fewer rows than the maps have.
            importance: I by name, in the shapes of star.
        """
        for name, star in parameters.items():
            held, centre = self._maps(name, len(star))
            total = held + importance[name]
            share = torch.where(total > 0, importance[name] / total, 0.0)
            self.rest += (held * share * (star - centre).square()).sum()
            centre.lerp_(star, share)
            held.copy_(total)

    @torch.no_grad()
    def value(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the penalty without lambda, a scalar through which no gradients flow: see ``add_gradients``."""
        total = self.rest.clone()
        for name, parameter in parameters.items():
            held, centre = self._maps(name, len(parameter))
            total += (held * (parameter - centre).square()).sum()
        return total

    @torch.no_grad()
    def add_gradients(self, parameters: Mapping[str, Tensor], weight: float) -> None:
        """Add ``weight`` times the penalty's gradients to those that the parameters have.

        By hand: where processes share a batch, the backward pass sums up gradients of networks over them, but
        this one is the same in all and counts once.
        """
        for name, parameter in parameters.items():
            held, centre = self._maps(name, len(parameter))
            assert parameter.grad is not None
            parameter.grad.add_(held * (parameter - centre), alpha=2 * weight)

    def _maps(self, name: str, rows: int) -> tuple[Tensor, Tensor]:
        """Return the first rows of a parameter's importance and centre, to read or to write."""
        return self.get_buffer(_key("importance", name))[:rows], self.get_buffer(_key("centre", name))[:rows]


def _key(kind: str, name: str) -> str:
    """Return the name of a buffer, which may hold no dot."""
    return f"{kind}:{name.replace('.', '/')}"


def summed_gradients(batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the sum over batches of each parameter's gradient, holding one batch's at a time."""
    total: dict[str, Tensor] = {}
    for batch in batches:
        for name, gradient in batch.items():
            total[name] = total[name] + gradient if name in total else gradient
    return total


class ConsolidatingClassifier(Classifier):
    """A classifier without exemplars that is held to the parameters of earlier tasks.

    Attributes:
        penalty: Where they were, and how important.
    """

    splits_batches = True
    recipes: ClassVar = {
        "synthetic_*": {"lr": 2e-3, "milestones": [], "partial_bn": True},
    }

    config: ConsolidationConfig
    model: ClipClassifier[GrowingLinear]

    def __init__(self, config: Any, context: RunContext) -> None:
        """Make the network, a head without classes, and maps without importance."""
        super().__init__(config, context)
        self.penalty = QuadraticPenalty(trained(self.model))

    @abstractmethod
    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar of a batch whose gradients tell which parameters are important.

        Args:
            logits: [B, K].
            labels: [B].
        """

    @abstractmethod
    def importance(self, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the importance of every parameter from its gradients in each batch."""

    def make_head(self, dim: int) -> GrowingLinear:
        """Return a linear head."""
        return GrowingLinear(dim, LINEAR_STD)

    def make_optimiser(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return Adagrad over groups of parameters; it begins anew with every task."""
        return adagrad(groups, lr=self.config.lr, weight_decay=self.config.weight_decay)

    def grow(self, task: Task) -> None:
        """Add the new classes' outputs and their rows in the maps."""
        super().grow(task)
        self.penalty.grow(self._head(), task.num_new if self.config.released else 0)

    def learn(self, task: Task) -> None:
        """Train under the penalty of the tasks before, then take the importance to this one."""
        config, model = self.config, self.model
        parameters = trained(model)
        self.penalty.hold_new_rows(self._head(), task.num_old)
        for epoch in self.task_epochs(task, task.train):
            for batch in epoch:
                losses = {"cross_entropy": F.cross_entropy(model.logits(batch.clips), batch.labels)}
                if task.index > 0:
                    losses["penalty"] = config.reg_lambda * self.penalty.value(parameters)
                epoch.backward(losses)
                if task.index > 0:
                    self.penalty.add_gradients(parameters, config.reg_lambda)
                epoch.update(config.clip_norm)
        self._consolidate(task)

    def _consolidate(self, task: Task) -> None:
        """Hold the parameters where they are, by their importance over one pass of training batches.

        The network trains as before, dropout and batch norm included, as in their code; its batch norms'
        statistics are put back, so that what is tested is what was trained.
        """
        model = self.model
        if self.config.released:
            head = copy.deepcopy(model.head)
            head.grow(task.num_new)
            model = model.with_head(head)
        with buffers_kept(model.network):
            importance = self.importance(self._gradients(task, model))
        if not torch.stack([each.isfinite().all() for each in importance.values()]).all():
            raise TrainingError(
                f"method {self.name!r}: the importance of parameters to task {task.index + 1} is not finite; "
                "take another precision (--set precision=fp32)"
            )
        self.penalty.consolidate(trained(model), importance)

    def _gradients(self, task: Task, model: ClipClassifier[GrowingLinear]) -> Iterator[dict[str, Tensor]]:
        """Yield the gradients of the objective by each parameter, batch by batch."""
        parameters = trained(model)
        for batch in self.context.trainer.batches(
            task.train,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1} importance",
            drop_last=self.config.drop_last,
        ):
            value = self.objective(model.logits(batch.clips), batch.labels)
            by_parameter = gradients(value, list(parameters.values()), scale=IMPORTANCE_SCALE)
            yield dict(zip(parameters, by_parameter, strict=True))

    def memory_use(self) -> MemoryUse:
        """Count the maps: what is kept of old tasks beside the weights."""
        return MemoryUse(statistics_bytes=sum(buffer.nbytes for buffer in self.penalty.buffers()))

    def _head(self) -> dict[str, Tensor]:
        """Return the head's parameters by the model's names."""
        return {f"head.{name}": parameter for name, parameter in self.model.head.named_parameters()}


def trained(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that require gradients, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
