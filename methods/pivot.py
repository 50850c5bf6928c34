"""PIVOT: prompts of every task on a frozen CLIP and a temporal module (Villa et al., CVPR 2023).

A task is learnt in three phases: the temporal module on its videos, without prompts; its spatial and temporal
prompts, the module frozen; from the second task on the module again, on videos and exemplars, each both with the
prompts of its predicted task and without. Which task a video is of is told by the class texts: that of the class
whose text is nearest to the video's feature without prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.data.loader import Sample
from vcil_bench.losses import contrastive_loss
from vcil_bench.memory import ExemplarMemory
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.clip import check_template, prompts
from vcil_bench.nets.prompts import Slots
from vcil_bench.nets.temporal import TemporalEncoder
from vcil_bench.protocol import MemorySpec
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task
from vcil_bench.training import Epoch, sgd

PROMPT_STD = 0.02  # of new prompts (model/prompting_module.py)


@dataclass(frozen=True, kw_only=True)
class PIVOTConfig:
    """Hyper-parameters; the defaults are those of the one released configuration, ActivityNet in 20 tasks.

    SGD has neither momentum nor decay, and its rate stays. The authors keep the epoch that is best on a
    validation list, on ActivityNet the one they report; here the last epoch counts, on every protocol.

    Attributes:
        lr, batch_size: SGD, begun anew in every phase; an incomplete last batch is left out.
        epochs: Epochs of the first phase, the temporal module on the task's videos.
        prompt_epochs: Epochs of the second, the task's prompts.
        replay_epochs: Epochs of the third, the temporal module on videos and exemplars; not in the first task.
        spatial_prompts: Tokens a task adds to the image tower, read out there in place of the class token; 0 for
            none, and the class token.
        temporal_prompts: Tokens a task adds to the temporal module, read out in place of its own token; 0 for
            none, and its own token.
        temporal_layers, temporal_heads, temporal_ratio, temporal_dropout: Shape of the temporal module; the
            ratio is that of its feed-forward to CLIP's joint space, 2048 to 512. Its layers start equal, as
            published.
        template: Text of a class; the configuration takes the name alone, the code's other choice is "a photo of
            a {}" of the name in small letters.

    CLIP is ViT-B/16, as of all methods here, where the released configuration has ViT-B/32. Which one the
    paper's other tables have is unknown, and so are settings for other data than ActivityNet: every protocol
    takes these.

    In-batch contrast takes videos of one class for each other's negatives. With one or two classes a task nearly
    all are, and little is left to learn from; nothing is known of PIVOT there, and the loss stays as published.
    """

    lr: float = 0.01
    batch_size: int = 50
    epochs: int = 40
    prompt_epochs: int = 40
    replay_epochs: int = 40
    spatial_prompts: int = 3
    temporal_prompts: int = 3
    temporal_layers: int = 3
    temporal_heads: int = 2
    temporal_ratio: int = 4
    temporal_dropout: float = 0.1
    template: str = "{}"

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_template(self.template)
        check_numbers(
            self,
            positive=(
                *("lr", "batch_size", "epochs", "prompt_epochs", "replay_epochs"),
                *("temporal_layers", "temporal_heads", "temporal_ratio"),
            ),
            not_negative=("spatial_prompts", "temporal_prompts"),
            below_one=("temporal_dropout",),
        )


class PIVOT(Method):
    """Frozen CLIP, one temporal module, spatial and temporal prompts of every task, exemplars.

    Attributes:
        temporal: The temporal module, which all tasks train.
        spatial_prompts: Of each task [L, width of the image tower]; empty without.
        temporal_prompts: Of each task [L, D]; empty without.
        texts: Unit-length class texts [K, D], label order.
        task_of_class: Task of each class [K].
        memory: The exemplars.
    """

    name = "pivot"
    paper = "Villa et al., PIVOT, CVPR 2023"
    readouts = ("text",)
    uses_memory = True
    splits_batches = True
    needs = frozenset({"text"})
    Config = PIVOTConfig
    recipes: ClassVar = {
        "synthetic_*": {
            # A run must take about a minute or two on two cores, so the module is small and the epochs are few.
            "lr": 0.1,
            "batch_size": 10,
            "epochs": 8,
            "prompt_epochs": 4,
            "replay_epochs": 6,
            "temporal_layers": 2,
        },
    }

    config: PIVOTConfig
    texts: Tensor
    task_of_class: Tensor

    def __init__(self, config: PIVOTConfig, context: RunContext) -> None:
        """Make the temporal module, its layers equal, and an empty memory."""
        super().__init__(config, context)
        dim = context.clip.dim
        if dim % config.temporal_heads:
            raise ConfigError(f"temporal_heads: {config.temporal_heads} does not divide the feature size {dim}")
        self.temporal = TemporalEncoder(
            dim,
            layers=config.temporal_layers,
            head_width=dim // config.temporal_heads,
            ratio=config.temporal_ratio,
            dropout=config.temporal_dropout,
            activation="relu",
            cls_position=True,
        )
        for layer in self.temporal.layers[1:]:
            layer.load_state_dict(self.temporal.layers[0].state_dict())
        nn.init.normal_(self.temporal.cls)
        self.spatial_prompts, self.temporal_prompts = nn.ParameterList(), nn.ParameterList()
        self.register_buffer("texts", torch.empty(0, dim))
        self.register_buffer("task_of_class", torch.empty(0, dtype=torch.long))
        assert isinstance(context.budget, MemorySpec)  # refused before any work where there is none
        self.memory = ExemplarMemory(context.budget, context.loader.spec)

    def grow(self, task: Task) -> None:
        """Add the new classes' texts, room for their exemplars, and the task's prompts; the old ones freeze."""
        config, clip = self.config, self.context.clip
        new_texts = clip.encode_text(prompts(task.class_names, config.template))
        self.texts = torch.cat([self.texts.to(new_texts), new_texts])
        new = torch.full((task.num_new,), task.index).to(self.task_of_class)
        self.task_of_class = torch.cat([self.task_of_class, new])
        width = int(clip.model.visual.transformer.width)
        for kept, length, size in (
            (self.spatial_prompts, config.spatial_prompts, width),
            (self.temporal_prompts, config.temporal_prompts, clip.dim),
        ):
            kept.requires_grad_(False)
            if length:
                kept.append(nn.Parameter(PROMPT_STD * torch.randn(length, size)))
        self.memory.grow(task)

    def learn(self, task: Task) -> None:
        """Train the temporal module, the task's prompts, the module again; then keep some of the videos."""
        ranking = self.memory.random_ranking(task)  # drawn first
        self._learn_task(task)
        self._learn_prompts(task)
        if task.index > 0:
            self._rehearse(task)
        self.memory.store(task, ranking)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Predict the clips' tasks without prompts, then match the prompted features with the texts."""
        tasks = self._predicted_tasks(self._encode(clips))
        return {"text": F.normalize(self._encode_prompted(clips, tasks), dim=-1) @ self.texts.T}

    def memory_use(self) -> MemoryUse:
        """Return what the memory keeps."""
        return self.memory.use()

    def _learn_task(self, task: Task) -> None:
        """Phase 1: train the temporal module on the task's videos, without prompts."""
        for epoch in self._phase("videos", task, task.train, self.temporal.parameters(), self.config.epochs):
            for batch in epoch:
                video = self._encode(batch.clips)
                epoch.step({"contrast": self._contrast(video, batch.labels)})

    def _learn_prompts(self, task: Task) -> None:
        """Phase 2: train the task's prompts, which its videos are given, behind the frozen temporal module."""
        trained = [*self.spatial_prompts[-1:], *self.temporal_prompts[-1:]]
        if not trained:
            return
        self.temporal.eval().requires_grad_(False)
        for epoch in self._phase("prompts", task, task.train, trained, self.config.prompt_epochs):
            for batch in epoch:
                spatial = self.spatial_prompts[-1][None] if self.spatial_prompts else None
                temporal = None
                if self.temporal_prompts:
                    temporal = self.temporal_prompts[-1].expand(len(batch.labels), -1, -1)
                video = self._encode(batch.clips, spatial, temporal)
                epoch.step({"prompted": self._contrast(video, batch.labels)})
        self.temporal.train().requires_grad_(True)

    def _rehearse(self, task: Task) -> None:
        """Phase 3: train the temporal module on the task's videos and the exemplars of the tasks before.

        Every clip counts twice, with the prompts of the task that is predicted for it, which are trained no
        more, and without.
        """
        samples = [*task.train, *self.memory.samples()]
        for epoch in self._phase("replay", task, samples, self.temporal.parameters(), self.config.replay_epochs):
            for batch in epoch:
                plain = self._encode(batch.clips)
                with torch.no_grad():
                    tasks = self._predicted_tasks(plain)
                prompted = self._encode_prompted(batch.clips, tasks)
                loss = self._contrast(torch.cat([prompted, plain]), torch.cat([batch.labels, batch.labels]))
                epoch.step({"replay": loss})

    def _phase(
        self, name: str, task: Task, samples: Sequence[Sample], trained: Iterable[nn.Parameter], num_epochs: int
    ) -> Iterator[Epoch]:
        """Yield the epochs of a phase of the task, with an optimiser of its own."""
        return self.train_epochs(
            samples,
            sgd(self.context, trained, lr=self.config.lr, momentum=0.0, weight_decay=0.0),
            num_epochs=num_epochs,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1} {name}",
            drop_last=True,
        )

    def _encode_prompted(self, clips: Tensor, tasks: Tensor) -> Tensor:
        """Return the features [B, D] of clips, each with the prompts of its task [B], which get no gradient."""
        spatial, temporal = (
            torch.stack(list(kept)).detach()[tasks] if kept else None
            for kept in (self.spatial_prompts, self.temporal_prompts)
        )
        return self._encode(clips, spatial, temporal)

    def _encode(self, clips: Tensor, spatial: Tensor | None = None, temporal: Tensor | None = None) -> Tensor:
        """Return the float32 features [B, D] of clips [B, T, 3, S, S], not normalised.

        Args:
            clips: uint8.
            spatial: Prompts of the image tower [B or 1, L, width]; None for none.
            temporal: Prompts of the temporal module [B, L, D]; None for none.
        """
        slots = None if spatial is None else Slots(prompts=spatial, readout="prompts")
        with self.context.autocast():
            frames = self.context.clip.encode_frames(clips, None, slots=slots)
            return self.temporal(frames, temporal).float()

    def _predicted_tasks(self, video: Tensor) -> Tensor:
        return predict_tasks(video, self.texts, self.task_of_class)

    def _contrast(self, video: Tensor, labels: Tensor) -> Tensor:
        """Return the in-batch contrast of video features [B, D] and the texts of their labels [B]."""
        unit, scale = F.normalize(video, dim=-1), self.context.clip.logit_scale
        return contrastive_loss(unit, self.texts, labels, scale=scale, negatives="batch")


def predict_tasks(video: Tensor, class_text: Tensor, task_of_class: Tensor) -> Tensor:
    """Predict which task each video is of: that of the learnt class whose text is nearest by cosine.

    Source: PIVOT model/baseline_model.py, forward_selector, where all classes in the list are learnt.

    Args:
        video: [B, D] features without prompts, of any length.
        class_text: [K, D] texts of the classes, of any length.
        task_of_class: [K] tasks, -1 for classes that are not learnt; at least one is.

    Returns:
        [B] tasks.
    """
    cosines = F.normalize(video, dim=-1) @ F.normalize(class_text, dim=-1).T  # [B, K]
    nearest = cosines.masked_fill(task_of_class < 0, -torch.inf).argmax(dim=1)
    return task_of_class[nearest]
