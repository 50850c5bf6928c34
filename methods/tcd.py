"""TCD: class-incremental learning for action recognition in videos (Park, Kang and Han, ICCV 2021).

Time-channel distillation: feature maps and features are held to the old model's, each frame and channel by its
importance to the old classes; frames are decorrelated; an LSC head with imprinted proxies is fine-tuned on
balanced exemplars. Code: bellos1203/TCD @ 3dc36387, whose behaviour is the default here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vcil_bench.classifier import ClassifierConfig, ClipClassifier
from vcil_bench.common.config import check_numbers
from vcil_bench.data.loader import Sample
from vcil_bench.losses import feature_distillation, feature_map_distillation, frame_decorrelation, nca_loss
from vcil_bench.memory import nearest_to_mean_order
from vcil_bench.method import RunContext
from vcil_bench.nets.heads import CosineHead
from vcil_bench.nets.network import Features
from vcil_bench.rehearsal import RehearsalClassifier
from vcil_bench.stream import Task
from vcil_bench.training import Epoch, buffers_kept, fuses, gradients, sgd

# For fp16. The loss is a mean over videos and frames; its gradients by a map's values lie around 1e-9 to 1e-5.
IMPORTANCE_SCALE = 2.0**16


@dataclass(frozen=True, kw_only=True)
class TCDConfig(ClassifierConfig):
    """Hyper-parameters of TCD; defaults from opts.py and scripts/ucf101, HMDB51's and SSv2's were not published.

    Attributes:
        importance: Weigh both distillations by time-channel importance; without, every frame and channel alike.
        lambda_0: Weight of the feature distillation, see ``lambda_kind``.
        lambda_kind: ``geo`` scales ``lambda_0`` by sqrt(old / new classes) (the scripts' choice); ``fix`` takes
            it as it is; ``arith`` weighs classification and feature distillation by the shares of new and old
            classes (cl_methods/cl_utils.py, set_lambda_0).
        lambda_1: Weight of the feature map distillation.
        lambda_2: Weight of the frame decorrelation, which also acts in the base task.
        proxies: Per class.
        balanced_epochs: Epochs of the head's fine-tuning on exemplars after each increment.
        balanced_lr: Its rate, on the head times ``head_lr``. Their option says 1e-4, but their schedule sets the
            training's rate in every epoch, whose milestones 20 epochs do not reach: so 1e-3. Here it stays so
            however many epochs there are; in their code it would fall at the first milestone.
        authors_code: Follow what their code does where it departs from what it sets out to do: (1) proxies of
            new classes are stepped twice per update, for they stand in the optimiser twice; (2) proxies of old
            classes are not trained in an increment; (3) gradients of everything outside the optimiser (old
            proxies, in the fine-tuning the whole network) pile up from step to step and count in the norm that
            is clipped, which shrinks the head's steps; (4) with other than 8 frames the importance loses time.
            False trains all proxies once and clears every gradient. The published numbers come from the code.
            Not followed: their optimiser compares the rows of a block of proxies with the number of old classes
            to tell old from new, and where new ones have as many rows takes them for the old (a first step as
            large as the base task).
    """

    importance: bool = True
    lambda_0: float = 0.01
    lambda_kind: Literal["geo", "fix", "arith"] = "geo"
    lambda_1: float = 0.3
    lambda_2: float = 0.01
    proxies: int = 1
    balanced_epochs: int = 20
    balanced_lr: float = 1e-3
    authors_code: bool = True

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        super().__post_init__()
        check_numbers(
            self,
            positive=("proxies", "balanced_epochs", "balanced_lr"),
            not_negative=("lambda_0", "lambda_1", "lambda_2"),
        )


class TCD(RehearsalClassifier):
    """Time-channel importance, feature and map distillation, frame decorrelation, balanced LSC head."""

    name = "tcd"
    paper = "Park et al., Class-Incremental Learning for Action Recognition in Videos, ICCV 2021"
    needs = frozenset({"maps"})
    splits_batches = True
    final_relu = False
    Config = TCDConfig
    recipes: ClassVar = {
        "tcd_ucf101_2x25": {"lambda_1": 1.0, "lambda_2": 1e-3},  # scripts/ucf101/ucf101_51_2.sh
        "synthetic_*": {"balanced_epochs": 3, "balanced_lr": 0.005},
    }

    config: TCDConfig
    model: ClipClassifier[CosineHead]

    def __init__(self, config: TCDConfig, context: RunContext) -> None:
        """Make network and memory, and places for the importance of each stage and of the features."""
        super().__init__(config, context)
        frames = context.loader.spec.frames
        for i, channels in enumerate([*self.model.network.map_channels, self.model.network.dim]):
            self.register_buffer(f"importance_{i}", torch.ones(frames, channels))  # F [T, C]

    def make_head(self, dim: int) -> CosineHead:
        """Return an LSC head."""
        return CosineHead(dim, 0, proxies=self.config.proxies)

    def learn(self, task: Task) -> None:
        """Train, measure importance, choose exemplars, fine-tune the head in balance, in their order."""
        config = self.config
        old = None
        if task.index > 0:
            old = self.model.frozen_copy()
            self.imprint(self.model.head, task)  # cl_methods/cl_utils.py, init_cosine_classifier
        samples = [*task.train, *self.memory.samples()]
        optimiser = self.training_optimiser()
        for epoch in self.task_epochs(task, samples, optimiser):
            for batch in epoch:
                new = self.model.features_with_maps(batch.clips)
                before = old.features_with_maps(batch.clips) if old is not None else None
                self._step(epoch, optimiser, self.losses(new, before, batch.labels, task))
        if config.importance:
            self._measure_importance(task, samples)  # F, cl_methods/tcd.py
        self.choose_exemplars(task, nearest_to_mean_order)  # cl_methods/exemplars.py
        if task.index > 0:
            self._tune_head(task)
        self.update_exemplar_means()  # cl_methods/classifer.py

    def losses(self, new: Features, before: Features | None, labels: Tensor, task: Task) -> dict[str, Tensor]:
        """Return the weighted loss terms of a batch (train/train_i_cl.py, _train).

        Args:
            new: Features of the model in training.
            before: The old model's, None in the base task.
            labels: [B].
            task: The task.
        """
        config = self.config
        weight_ce, weight_features = loss_weights(
            config.lambda_kind, config.lambda_0, task.num_new, task.num_old
        )
        importance = self.importance_maps() if config.importance else None
        frames = self.model.dropout(new.frames)  # their distillation sees the features after dropout
        losses = {"nca": weight_ce * nca_loss(self.model.mean_logits(frames), labels)}
        if before is not None:
            of_maps, of_features = (importance[:-1], importance[-1]) if importance else (None, None)
            features = feature_distillation(frames, before.frames, of_features)
            maps = feature_map_distillation(new.maps, before.maps, of_maps)
            losses["features"] = weight_features * features
            losses["maps"] = config.lambda_1 * maps
        losses["decorrelation"] = config.lambda_2 * frame_decorrelation(new.maps)
        return losses

    def _head_groups(self) -> list[dict[str, Any]]:
        """Return the head's groups: in an increment of their code, new proxies twice and old ones not at all."""
        head = self.model.head
        rate = self.config.lr * self.config.head_lr
        if not self.config.authors_code:
            return [{"params": list(head.parameters()), "lr": rate}]
        if not len(head.old_weight):
            return [{"params": [head.weight, head.sigma, head.eta], "lr": rate}]
        # With several proxies their test for the old block compares the wrong number, and it is trained.
        kept = [head.old_weight] if self.config.proxies > 1 else []
        return [
            {"params": [head.weight], "lr": rate, "repeated": True},
            {"params": [head.sigma, head.eta, *kept], "lr": rate},
        ]

    def training_optimiser(self) -> torch.optim.Optimizer:
        """Return SGD over network and head, in the form of their code if it is followed."""
        return self._sgd([*self.network_groups(), *self._head_groups()])

    def _tune_head(self, task: Task) -> None:
        """Fine-tune the head in balance; in their code all gradients are computed, and count in the norm."""
        optimiser, config = self._head_optimiser(), self.config
        if not isinstance(optimiser, AuthorsSGD):
            self.tune_head(task, optimiser, nca_loss, config.balanced_epochs)
            return
        for epoch in self.train_epochs(
            self.memory.samples(),
            optimiser,
            num_epochs=config.balanced_epochs,
            batch_size=config.batch_size,
            phase=f"task {task.index + 1} balanced",
            drop_last=config.drop_last,
        ):
            for batch in epoch:
                loss = nca_loss(self.model.logits(batch.clips), batch.labels)
                self._step(epoch, optimiser, {"balanced": loss})

    def _step(self, epoch: Epoch, optimiser: torch.optim.Optimizer, losses: dict[str, Tensor]) -> None:
        """Step on clipped gradients; in their code on those that have piled up outside the optimiser as well."""
        if not isinstance(optimiser, AuthorsSGD):
            epoch.step(losses, clip_norm=self.config.clip_norm)
            return
        epoch.backward(losses)
        optimiser.pile_up(overflows=self.context.precision == "fp16")
        trained = [p for p in self.parameters() if p.requires_grad]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        # Clipping writes into what has piled up, so not by a norm that overflowed: fp16 leaves out its step.
        nn.utils.clip_grads_with_norm_(trained, self.config.clip_norm, torch.where(norm.isfinite(), norm, 0.0))
        epoch.update()

    def _head_optimiser(self) -> torch.optim.Optimizer:
        """Return the optimiser of the balanced fine-tuning, in which old proxies are trained as well."""
        head = self.model.head
        rate = self.config.balanced_lr * self.config.head_lr
        twice = self.config.authors_code
        return self._sgd(
            [
                {"params": [head.weight], "lr": rate, "repeated": twice},
                {"params": [head.old_weight], "lr": rate, "repeated": twice and self.config.proxies > 1},
                {"params": [head.sigma, head.eta], "lr": rate},
            ]
        )

    def _sgd(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        config = self.config
        momentum, decay = config.momentum, config.weight_decay
        if not config.authors_code:
            return sgd(self.context, groups, lr=config.lr, momentum=momentum, weight_decay=decay)
        stepped = {id(p) for group in groups for p in group["params"]}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in stepped]
        groups = [*groups, {"params": others, "piles_up": True}]
        fused = fuses(self.context) or None
        return AuthorsSGD(groups, lr=config.lr, momentum=momentum, weight_decay=decay, fused=fused)

    def importance_maps(self) -> list[Tensor]:
        """Return F of each stage and, last, of the features [T, C]."""
        return [self.get_buffer(f"importance_{i}") for i in range(len(self.model.network.map_channels) + 1)]

    def _measure_importance(self, task: Task, samples: Sequence[Sample]) -> None:
        """Set F from the gradients of the NCA loss over one pass of training batches (cl_methods/tcd.py).

        The network stays as it was, the statistics of its first batch norm too: their code goes on from the
        checkpoint that it wrote before the pass.
        """
        sums = [torch.zeros_like(m) for m in self.importance_maps()]
        batches = self.context.trainer.batches(
            samples,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1} importance",
            drop_last=self.config.drop_last,
        )
        with buffers_kept(self.model.network):
            for batch in batches:
                features = self.model.features_with_maps(batch.clips)
                frames = self.model.dropout(features.frames)
                loss = nca_loss(self.model.mean_logits(frames), batch.labels)
                by_layer = gradients(loss, [*features.maps, frames], scale=IMPORTANCE_SCALE)
                for total, gradient in zip(sums, by_layer, strict=True):
                    total += accumulate_importance([gradient], authors_code=self.config.authors_code)
        for buffer, total in zip(self.importance_maps(), sums, strict=True):
            buffer.copy_(normalise_importance(total))


class AuthorsSGD(torch.optim.SGD):
    """SGD as it comes out in TCD's code, by two marks of parameter groups.

    ``repeated`` groups are stepped as torch does where a parameter stands in a group twice: both steps use the
    same gradient and one momentum, which starts anew in the second step of the first update, since torch looks
    for the momentum before it takes either.

    Groups marked ``piles_up`` hold what is outside of their optimiser: never stepped, gradients never cleared.
    The sums lie in the optimiser's state, which a run that goes on inside a task finds again.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, by default with neither mark."""
        super().add_param_group({"repeated": False, "piles_up": False} | param_group)

    def pile_up(self, *, overflows: bool) -> None:
        """Add the gradients to those of the steps before, to be clipped together with them.

        Args:
            overflows: Whether gradients may overflow (fp16). Those that do count as zero in the sums; the step
                is left out, as where a gradient that is stepped by overflows.
        """
        for parameter in (p for group in self.param_groups if group["piles_up"] for p in group["params"]):
            state = self.state[parameter]
            new = parameter.grad
            if new is not None and overflows:
                new = torch.where(new.isfinite().all(), new, 0.0)
            if new is not None:
                state["pile"] = new + state["pile"] if "pile" in state else new
            parameter.grad = state.get("pile")

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step, and another on the repeated groups."""
        groups = self.param_groups
        again = [group for group in groups if group["repeated"]]
        fresh = [p for group in again for p in group["params"] if "momentum_buffer" not in self.state[p]]
        try:
            self.param_groups = [group for group in groups if not group["piles_up"]]
            super().step(closure)
            for parameter in fresh:
                self.state[parameter].pop("momentum_buffer", None)
            self.param_groups = again
            super().step(closure)
        finally:
            self.param_groups = groups


def loss_weights(
    kind: Literal["geo", "fix", "arith"], lambda_0: float, num_new: int, num_old: int
) -> tuple[float, float]:
    """Return the weights of the classification and of the feature distillation (set_lambda_0).

    In the base task, where nothing is distilled, classification counts 1.
    """
    if num_old == 0:
        return 1.0, 0.0
    if kind == "arith":
        return num_new / (num_old + num_new), num_old / (num_old + num_new)
    return 1.0, lambda_0 * ((num_old / num_new) ** 0.5 if kind == "geo" else 1.0)


def accumulate_importance(gradients: Sequence[Tensor], *, authors_code: bool = True) -> Tensor:
    """Sum up how much a loss depends on each frame and channel of a layer.

    Per batch the squared gradients are summed over positions and averaged over videos; batches are added up.
    Source: TCD ops/resnet_models.py, gradhook.

    Args:
        gradients: Of the layer's output, per batch: [B, T, C, H, W], or [B, T, D] for features.
        authors_code: With other than 8 frames their code averages over videos and frames alike and gives every
            frame the same row; False keeps the frames apart for any T.

    Returns:
        [T, C].
    """
    total: Tensor | None = None
    for gradient in gradients:
        squares = gradient.square()
        if squares.dim() == 5:
            squares = squares.sum(dim=(-2, -1))  # [B, T, C]
        part = squares.mean(dim=0)  # [T, C]
        if authors_code and part.shape[0] != 8:
            part = part.mean(dim=0, keepdim=True).expand_as(part)
        total = part if total is None else total + part
    assert total is not None
    return total


def normalise_importance(importance: Tensor) -> Tensor:
    """Divide importance [T, C] by its mean plus 1e-8 (TCD ops/resnet_models.py, normalize_importance)."""
    return importance / (importance.mean() + 1e-8)
