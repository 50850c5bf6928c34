"""The common interface: what a method is, and what the harness hands to it.

A method is one class in one file. Everything it keeps from task to task must be a parameter or a buffer, made
in ``__init__`` or ``grow``: a run is resumed by constructing the method, replaying ``grow`` and loading its
state dict.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from .common.config import build
from .data.loader import Batch, ClipLoader, Sample
from .nets.clip import ClipTrunk
from .nets.network import Trunk, VideoNetwork
from .nets.parallel.team import Team
from .protocol import MemorySpec
from .stream import Task
from .trackers import NoTracker, Tracker
from .training.resume import Stages


@dataclass
class RunContext:
    """What a run gives to its method.

    Attributes:
        device: Where tensors live.
        precision: ``fp32``, ``tf32``, ``bf16`` or ``fp16``.
        run_seed: Seed of initialisation, shuffling and frame sampling (not of the class order).
        loader: Batches of clips.
        backbone: The pretrained weights, and the networks that start from them.
        budget: Exemplars that the protocol allows, None for none.
        progress: The terminal's progress bars.
        losses: Mean of every loss term per epoch of the current step, kept for the record.
        tracker: Takes the same means as they come.
        epochs_done: Epochs of all phases so far, the tracker's step.
        team: The processes that work on the run.
        stages: What a run that dies inside a task goes on from.
        method: The method, once it is made.
    """

    device: torch.device
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    run_seed: int
    loader: ClipLoader
    backbone: Trunk
    budget: MemorySpec | None
    progress: Progress
    losses: list[dict[str, float | int | str]] = dataclasses.field(default_factory=list)
    tracker: Tracker = dataclasses.field(default_factory=NoTracker)
    epochs_done: int = 0
    team: Team = dataclasses.field(default_factory=Team)
    stages: Stages = dataclasses.field(default_factory=Stages)
    method: Method | None = None

    @functools.cached_property
    def scaler(self) -> GradScaler:
        """The scale of the loss under which fp16 gradients do not vanish; of other precisions, none."""
        return GradScaler(self.device.type, enabled=self.precision == "fp16")

    def network_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the method's networks, of which a process computes its own clips' share."""
        assert self.method is not None
        networks = [m for m in self.method.modules() if isinstance(m, VideoNetwork)]
        return [p for network in networks for p in network.parameters()]

    def peak_mb(self) -> float:
        """Return the most memory that the GPU held since the task began; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0.0
        return torch.cuda.max_memory_allocated(self.device) / 2**20

    @property
    def clip(self) -> ClipTrunk:
        """The backbone of a method that needs text or adapter slots, which only a CLIP has."""
        assert isinstance(self.backbone, ClipTrunk)
        return self.backbone

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks run at the run's precision; losses and scores stay fp32.

        Only the forward pass of networks belongs inside: a product of unit vectors times a logit scale of
        100 would lose half a unit in bf16.
        """
        low = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(self.device.type, dtype=low.get(self.precision), enabled=self.precision in low)

    def plain_clips(self, samples: Sequence[Sample], batch_size: int = 32) -> Iterator[Batch]:
        """Yield training samples as a test with one centre crop sees them: [B, T, 3, S, S] uint8.

        For passes over the data that are not training: statistics, anchors, exemplar choice. However many crops
        the protocol tests, these take one, as TCD's code does.
        """
        for batch in self.loader.plain(samples, batch_size):
            self.team.total = len(batch.labels) if self.team.size > 1 else None
            yield batch
            self.team.total = None


@dataclass(frozen=True)
class MemoryUse:
    """Exemplars that a method keeps at present, in the three units papers argue with."""

    videos: int = 0
    frames: int = 0
    bytes: int = 0


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
        splits_batches: Whether several processes can share its batches; not where ``learn`` differentiates by
            feature maps.
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
    splits_batches: ClassVar[bool] = True
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

    def memory_use(self) -> MemoryUse:
        """Return the exemplars kept at present; checked against ``context.budget`` after every task."""
        return MemoryUse()

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
        return build(cls.Config, values, f"config of method {cls.name!r}"), origins
