"""The common interface: what a method is, and what the harness hands to it.

A method is one class in one file. Everything it keeps from task to task must be a parameter or a buffer, made
in ``__init__`` or ``grow``: a run is resumed by constructing the method, replaying ``grow`` and loading its
state dict.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from .common.config import build
from .data.clips import SecondClip
from .data.loader import Batch, ClipLoader, Sample
from .nets.parallel.batch_part import computing
from .nets.precision import Precision, autocast
from .nets.trunk import Trunk
from .nets.tuning_config import TuningConfig
from .protocol import MemorySpec
from .record_schema import MemoryUse as MemoryUse  # a part of what methods are written against
from .stream import Task
from .training import Epoch, RowEpoch, Trainer

if TYPE_CHECKING:  # or a change of CLIP's code would count for methods on other backbones
    from .nets.clip import ClipTrunk


@dataclass(frozen=True)
class RunContext:
    """What a run gives to its method; made once, and the same for all its tasks.

    Attributes:
        device: Where tensors live.
        precision: ``fp32``, ``tf32``, ``bf16`` or ``fp16``.
        loader: Batches of clips.
        backbone: The pretrained weights, and the networks that start from them.
        budget: Exemplars that the protocol allows, None for none.
        trainer: Epochs of training (``Method.train_epochs``), and what changes while they last.
        num_tasks: Tasks of the protocol, which a method may divide a fixed capacity by; None where no protocol
            says it.
    """

    device: torch.device
    precision: Precision
    loader: ClipLoader
    backbone: Trunk
    budget: MemorySpec | None
    trainer: Trainer
    num_tasks: int | None = None

    @property
    def clip(self) -> ClipTrunk:
        """The backbone of a method that needs text or adapter slots, which only a CLIP has."""
        return cast("ClipTrunk", self.backbone)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks run at the run's precision; losses and scores stay fp32.

        Only the forward pass of networks belongs inside: a product of unit vectors times a logit scale of
        100 would lose half a unit in bf16.
        """
        return autocast(self.device, self.precision)

    def on_device(self, host: Tensor) -> Tensor:
        """Copy a tensor from the host to the device without waiting for it, as inside a training step."""
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def centre_clips(self, samples: Sequence[Sample], batch_size: int = 32) -> Iterator[Batch]:
        """Yield one clip a video, its middle frames' centre crop: [B, T, 3, S, S] uint8.

        For passes over the data that are not training: statistics, anchors, exemplar choice. However many crops
        the protocol tests, these take one, as TCD's code does.
        """
        flops = self.trainer.flops
        for number, batch in enumerate(self.loader.plain(samples, batch_size)):
            counting = nullcontext() if number else flops.standing_for(len(samples) / len(batch))
            with computing(batch.part), counting:
                yield batch


class Method(nn.Module, ABC):
    """A VCIL method.

    Class attributes:
        name: Name on the command line and in tables; a built-in's is its file's.
        paper: Where it was published, or what it stands for.
        readouts: Names of the score matrices that ``predict`` returns; the first is the headline.
        data_access: ``task``, or ``cumulative`` for upper bounds that train on all data so far.
        uses_memory: Whether it keeps exemplars.
        needs: What its backbone must provide.
        backbone: Backbone it runs on unless told otherwise.
        backbones: Other ones for protocols whose names match a pattern; later patterns win.
        splits_batches: Whether several processes may share its batches: each then has a part of ``batch.clips``,
            and networks give every process the features of all clips. Not where ``learn`` pairs clips with
            labels (to mix clips, say), passes some clips of a batch alone, or differentiates by feature maps.
        Config: Frozen dataclass of its hyper-parameters; the defaults are the paper's.
        recipes: Config values for protocols whose names match a pattern, laid over those of the base classes;
            later patterns win.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    readouts: ClassVar[tuple[str, ...]]
    data_access: ClassVar[Literal["task", "cumulative"]] = "task"
    uses_memory: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    backbone: ClassVar[str] = "clip_vit_b16"
    backbones: ClassVar[Mapping[str, str]] = {}
    splits_batches: ClassVar[bool] = False
    Config: ClassVar[type]
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: Any, context: RunContext) -> None:
        """Keep the config and the context; subclasses make what exists before the first task."""
        super().__init__()
        self.config = config
        self.context = context

    @abstractmethod
    def grow(self, task: Task) -> None:
        """Make the structure that ``task`` adds (wider head, new expert) without looking at its videos."""

    @abstractmethod
    def learn(self, task: Task) -> None:
        """Do all training of the step, in the method's own order."""

    @abstractmethod
    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips against all classes seen, without a task id and without side effects.

        Args:
            clips: [B, T, 3, S, S] uint8.

        Returns:
            Per readout, scores [B, num_seen]; higher is likelier.
        """

    def train_epochs(
        self,
        samples: Sequence[Sample],
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
        *,
        num_epochs: int,
        batch_size: int,
        phase: str,
        drop_last: bool = False,
        second: SecondClip | None = None,
    ) -> Iterator[Epoch]:
        """Yield the epochs of one phase of training: ``for batch in epoch`` and ``epoch.step(losses)`` for each.

        A run that was cut off inside a task replays ``learn`` from the task's beginning. What stands outside of
        these epochs is computed again; they put the saved state of parameters, buffers, optimiser and random
        generators in place and yield only the steps that are left: a phase that had ended is skipped. So what
        ``learn`` carries from one step to the next must be a parameter or a buffer, and every batch of an epoch
        must be taken.

        Args:
            samples: Training videos.
            optimiser: Steps parameters of this method.
            schedule: Stepped after every epoch, a ``StepSchedule`` after every batch; None leaves the rate as
                it is.
            num_epochs: Passes over the samples.
            batch_size: Videos per step; the last batch of an epoch may be smaller.
            phase: Name of the phase, which keys its random draws; different for every phase of a task.
            drop_last: Leave out an incomplete last batch, unless it would be the only one.
            second: Give batches a second clip of every video, ``batch.second``; None for none.

        Raises:
            TrainingError: A loss term of an epoch is not finite; names the terms.
        """
        return self.context.trainer.epochs(
            self,
            samples,
            optimiser,
            schedule,
            num_epochs=num_epochs,
            batch_size=batch_size,
            phase=phase,
            drop_last=drop_last,
            second=second,
        )

    def row_epochs(
        self,
        count: int,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
        *,
        num_epochs: int,
        batch_size: int,
        phase: str,
        drop_last: bool = False,
    ) -> Iterator[RowEpoch]:
        """Yield the epochs of a phase that trains on what the method holds, such as features.

        ``for batch in epoch.rows()``: ``batch.rows`` are places in it, on the host
        (``context.on_device``). Else as ``train_epochs``, but no network of the backbone may be run.

        Args:
            count: Rows held.
            optimiser: Steps parameters of this method.
            schedule: As in ``train_epochs``.
            num_epochs: Passes over the rows.
            batch_size: Rows per step; the last batch of an epoch may be smaller.
            phase: Name of the phase, different for every phase of a task.
            drop_last: Leave out an incomplete last batch, unless it would be the only one.

        Raises:
            TrainingError: A loss term of an epoch is not finite; names the terms.
        """
        return self.context.trainer.row_epochs(
            self,
            count,
            optimiser,
            schedule,
            num_epochs=num_epochs,
            batch_size=batch_size,
            phase=phase,
            drop_last=drop_last,
        )

    def memory_use(self) -> MemoryUse:
        """Return the exemplars kept at present; checked against ``context.budget`` after every task."""
        return MemoryUse()

    @classmethod
    def needs_with(cls, config: Any) -> frozenset[str]:
        """Return what its backbone must provide with a config: ``needs``, unless a value of it asks for more.

        Another tuning than the default is for a CLIP, whose adapters have slots.
        """
        tuned = isinstance(config, TuningConfig) and config.tuning != "adaptformer"
        return cls.needs | {"adapters"} if tuned else cls.needs

    @classmethod
    def mixes_test_clips_with(cls, config: Any) -> bool:
        """Tell whether, with a config, a test clip's scores hang on the clips beside it, as in released code.

        Such runs keep the evaluation's own batch size and one process, since both would move their results.
        """
        return False

    @classmethod
    def backbone_for(cls, protocol: str) -> tuple[str, str]:
        """Return the backbone a method takes on a protocol by itself, and where that was said."""
        name, origin = cls.backbone, "default"
        for pattern, other in cls.backbones.items():
            if fnmatch.fnmatchcase(protocol, pattern):
                name, origin = other, f"recipe {pattern}"
        return name, origin

    @classmethod
    def all_recipes(cls) -> list[tuple[str, Mapping[str, Any]]]:
        """Return each pattern with its values, those of base classes first, so that later ones win."""
        return [item for base in reversed(cls.__mro__) for item in vars(base).get("recipes", {}).items()]

    @classmethod
    def resolve_config(cls, protocol: str, overrides: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
        """Build the config for a protocol and say where each value came from.

        Args:
            protocol: Protocol name, matched against ``recipes``.
            overrides: Values from the command line, which win.

        Returns:
            The config and, per key, ``default``, ``recipe <pattern>`` or ``command line``.

        Raises:
            ConfigError: An unknown key or a value of the wrong type.
        """
        values: dict[str, Any] = {}
        origins = {f.name: "default" for f in dataclasses.fields(cls.Config)}
        for pattern, recipe in cls.all_recipes():
            if fnmatch.fnmatchcase(protocol, pattern):
                values.update(recipe)
                origins.update(dict.fromkeys(recipe, f"recipe {pattern}"))
        values.update(overrides)
        origins.update(dict.fromkeys(overrides, "command line"))
        where = f"config of method {cls.name!r}"
        config: Any = build(cls.Config, values, where)
        if isinstance(config, TuningConfig):
            config.check_given(overrides, cls.needs)
        return config, origins
