"""ESSENTIAL: episodic features of a few frames, semantic prompts that restore the others (ICCV 2025).

A frozen CLIP, a temporal encoder by cross-attention, a linear head. Of old videos the features of k of T frames
are kept, and of every task a retrieval module that makes T features of them again; a second stage rehearses with
both. Formulas are those of the authors' code: jong980812/ESSENTIAL @ ef5f575, model/CLIP_model.py and
engine_for_cil.py; the paper's text was not to be had.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError, check_numbers
from vcil_bench.data.loader import Sample
from vcil_bench.feature_memory import FeatureMemory
from vcil_bench.losses import task_cross_entropy
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.heads import GrowingLinear
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task
from vcil_bench.training import Epoch, StepSchedule, adamw, evaluating, warmup_cosine_rates

LINEAR_STD = 0.02  # of the modules' linear layers; the head's is a thousandth of it
LR_BATCH = 256  # the batch for which a rate is given


@dataclass(frozen=True, kw_only=True)
class ESSENTIALConfig:
    """Hyper-parameters; the defaults are the authors' for UCF101 (scripts/ucf_final.sh), which state N_s = 16.

    Attributes:
        epochs, rehearsal_epochs: Of the first and the second stage of every task; without rehearsal epochs there
            is no second stage.
        lr, min_lr: Highest rate of AdamW and what it falls towards, for a batch of 256: both are multiplied by
            ``batch_size`` / 256.
        warmup_epochs: In which the rate rises from 0, in both stages; a stage of fewer epochs than one more
            warms up in all but its last.
        batch_size, weight_decay: Vectors, biases and the temporal embedding do not decay.
        videos_per_class: N_s, chosen at random. The scripts have 16 for UCF101 on vCLIMB and 4 for SSv2; 10 is
            what an earlier state of the code had for UCF101 on TCD's protocols. A protocol that allows less
            keeps less.
        frames_per_video: k, of the clip's T frames. That earlier state had 1; we take the final scripts' 2.
        temporal_layers: Of the temporal encoder.
        head_width: Of an attention head; must divide the feature size.
        temporal_matching: ``full`` draws together the temporal encoder's outputs for a clip and for its
            retrieved features, as the project's page says and the code did before its release (@ 06c1a83);
            ``release`` draws that for the clip to the encoder's learned vector, which is what the released code
            does, since the loop over the retrieved features is commented out; ``none`` leaves it out.
        views: Training clips of the first stage. ``random``: the protocol's, drawn anew in every epoch, as in
            the authors' code; every epoch decodes and encodes all videos. ``fixed``: the middle frames' centre
            crop of every video, encoded once a task; later epochs read neither videos nor CLIP. The second
            stage never does.
        rehearse_base: Have a second stage after the first task as well.
        path_dropout, dropout: Of residual branches, clip by clip, and in front of the head.
    """

    epochs: int = 30
    rehearsal_epochs: int = 20
    lr: float = 1e-3
    min_lr: float = 1e-6
    warmup_epochs: int = 5
    batch_size: int = 24
    weight_decay: float = 0.05
    videos_per_class: int = 10
    frames_per_video: int = 2
    temporal_layers: int = 1
    head_width: int = 64
    temporal_matching: Literal["full", "release", "none"] = "full"
    views: Literal["random", "fixed"] = "random"
    rehearse_base: bool = True
    path_dropout: float = 0.2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_numbers(
            self,
            positive=(
                *("epochs", "lr", "batch_size", "videos_per_class", "frames_per_video"),
                *("temporal_layers", "head_width"),
            ),
            not_negative=("rehearsal_epochs", "min_lr", "warmup_epochs", "weight_decay"),
            below_one=("path_dropout", "dropout"),
        )


class ESSENTIAL(Method):
    """Temporal encoder and head on frozen frame features, rehearsed with sparse features of old videos.

    Attributes:
        temporal: From frame features to a clip's.
        retrieval: Of every task so far, what restores a clip's features from those of a few frames.
        memory: Features of a few frames of some videos.
    """

    name = "essential"
    paper = "Lee et al., ESSENTIAL, ICCV 2025"
    readouts = ("cnn",)
    uses_memory = True
    needs = frozenset({"projection"})
    splits_batches = True
    Config = ESSENTIALConfig
    recipes: ClassVar = {
        "vclimb_*": {"videos_per_class": 16},
        "tcd_ssv2_*": {
            "epochs": 50,
            "rehearsal_epochs": 25,
            "videos_per_class": 4,
            "frames_per_video": 4,
            "temporal_layers": 3,
            "rehearse_base": False,
        },
        # A run takes about a minute on two cores; views that change gave no more on the small CLIP.
        "synthetic_*": {
            "views": "fixed",
            "lr": 0.05,
            "batch_size": 10,
            "epochs": 14,
            "rehearsal_epochs": 8,
            "warmup_epochs": 2,
        },
    }

    config: ESSENTIALConfig

    def __init__(self, config: ESSENTIALConfig, context: RunContext) -> None:
        """Make the temporal encoder, a head without classes and an empty memory.

        Raises:
            ConfigError: The clips have fewer frames than are to be kept, or heads do not divide the features.
        """
        super().__init__(config, context)
        assert context.budget is not None
        frames = context.loader.spec.frames
        if config.frames_per_video > frames:
            raise ConfigError(
                f"frames_per_video: {config.frames_per_video} of a clip of {frames} frames cannot be kept; "
                f"it must be at most {frames}"
            )
        self.encoder = context.clip.encoder(None, "unprojected")
        dim = self.encoder.dim
        if dim % config.head_width:
            raise ConfigError(f"head_width: heads of {config.head_width} do not divide the feature size {dim}")
        self._heads = dim // config.head_width
        self.temporal = CrossAttentionEncoder(
            dim, self._heads, frames, config.temporal_layers, dropout=config.path_dropout
        )
        self.retrieval = nn.ModuleList()
        self.dropout = nn.Dropout(config.dropout)
        self.head = GrowingLinear(dim, LINEAR_STD / 1000)
        self.memory = FeatureMemory(
            context.budget, dim=dim, frames=config.frames_per_video, per_class=config.videos_per_class
        )
        self._task_of_label: list[int] = []  # a run that goes on replays grow

    def grow(self, task: Task) -> None:
        """Add the task's retrieval module, fresh, outputs for its classes and room for their features."""
        self.retrieval.requires_grad_(False)
        frames = self.context.loader.spec.frames  # as many as static matching compares
        self.retrieval.append(
            MemoryRetrieval(self.encoder.dim, self._heads, frames, dropout=self.config.path_dropout)
        )
        self.head.grow(task.num_new)
        self.memory.grow(task)
        self._task_of_label += [task.index] * task.num_new

    def learn(self, task: Task) -> None:
        """Train on the task's clips, keep features of some, then rehearse with all that are kept."""
        # Drawn first: a run that goes on inside the training finds the random state here as it was.
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        features = self._encode(task.train) if self.config.views == "fixed" else None
        self._train(task, features)
        self._store(task, features, rng)
        if self.config.rehearsal_epochs and (task.index > 0 or self.config.rehearse_base):
            self._rehearse(task)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Score clips by the head on the temporal encoder's output; no retrieval module takes part."""
        frames = self._frames(clips)
        with self.context.autocast():
            clip = self.temporal(self.temporal.embed(frames))
        return {"cnn": self.head(clip.float())}

    def memory_use(self) -> MemoryUse:
        """Return the size of the features, and that of the retrieval modules without which they are few."""
        modules = sum(parameter.nbytes for parameter in self.retrieval.parameters())
        return dataclasses.replace(self.memory.use(), statistics_bytes=modules)

    def _train(self, task: Task, features: Tensor | None) -> None:
        """First stage: classify among the task's classes, and match retrieved features with the clip's.

        ``CE(head(c(x))) + MSE(x, r) + MSE(c(x), c(r))``, x the features of all frames with the temporal
        embedding, r those retrieved from k of them, c the temporal encoder. The last term is ``full``.

        Args:
            task: The task.
            features: [N, T, D] of its videos; None reads the protocol's training clips.
        """
        config, retrieval = self.config, self.retrieval[-1]
        new_classes = range(task.num_old, task.num_seen)
        trained = [self.temporal, self.head, retrieval]
        for epoch, frames, labels in self._batches(task, features, trained):
            positions = self._draw_positions(len(frames))
            with self.context.autocast():
                dense = self.temporal.embed(frames)  # [B, T, D]
                sparse = dense.gather(1, positions[:, :, None].expand(-1, -1, dense.shape[2]))  # [B, k, D]
                retrieved = retrieval(sparse)
                clip = self.temporal(dense)  # [B, D]
                target = self._matched_with(clip, retrieved)
            logits = self.head(self.dropout(clip.float()))
            static, temporal = matching_losses(dense.float(), retrieved.float(), clip.float(), target.float())
            losses = {"classification": task_cross_entropy(logits, labels, new_classes), "static": static}
            if config.temporal_matching != "none":
                losses["temporal"] = temporal
            epoch.step(losses)

    def _matched_with(self, clip: Tensor, retrieved: Tensor) -> Tensor:
        """Return what the temporal encoder's output for a clip [B, D] is to resemble: [B, D] or [D].

        Args:
            clip: [B, D].
            retrieved: [B, T, D].
        """
        if self.config.temporal_matching == "full":
            matched: Tensor = self.temporal(retrieved)
            return matched
        return self.temporal.cls if self.config.temporal_matching == "release" else clip

    def _rehearse(self, task: Task) -> None:
        """Second stage: classify stored features, as they are and as retrieved, among all classes so far.

        The retrieval modules are frozen; gradients go through them into the temporal embedding.
        """
        stored = self.memory.rows()
        tasks = torch.tensor(self._task_of_label)[stored.labels.cpu()]  # [N] on the host
        self.retrieval.requires_grad_(False)
        optimiser, schedule = self._optimiser(
            [self.temporal, self.head], len(tasks), self.config.rehearsal_epochs
        )
        for epoch in self.row_epochs(
            len(tasks),
            optimiser,
            schedule,
            num_epochs=self.config.rehearsal_epochs,
            batch_size=self.config.batch_size,
            phase=f"task {task.index + 1} rehearsal",
        ):
            for batch in epoch.rows():
                places = batch.rows[tasks[batch.rows].argsort(stable=True)]  # task by task
                counts = tasks[places].bincount(minlength=len(self.retrieval)).tolist()
                rows = self.context.on_device(places)
                labels = stored.labels[rows]
                with self.context.autocast():
                    sparse = self.temporal.embed(stored.features[rows], stored.positions[rows])
                    parts = zip(self.retrieval, sparse.split(counts), strict=True)
                    retrieved = torch.cat([module(part) for module, part in parts if len(part)])
                    clips = self.temporal(sparse), self.temporal(retrieved)
                of_sparse, of_retrieved = (self.head(self.dropout(clip.float())) for clip in clips)
                epoch.step(
                    {
                        "sparse": F.cross_entropy(of_sparse, labels),
                        "retrieved": F.cross_entropy(of_retrieved, labels),
                    }
                )
        self.retrieval[-1].requires_grad_(True)

    def _store(self, task: Task, features: Tensor | None, rng: np.random.Generator) -> None:
        """Keep k random frames of random videos of each new class."""
        frames, kept = self.context.loader.spec.frames, self.config.frames_per_video
        for label, places in self.memory.choose(task, rng).items():
            drawn = [np.sort(rng.permutation(frames)[:kept]) for _ in places]
            positions = torch.from_numpy(np.stack(drawn)).to(self.context.device)  # [n, k]
            if features is None:
                whole = self._encode([task.train[place] for place in places])
            else:
                whole = features[torch.tensor(places, device=features.device)]
            index = positions[:, :, None].expand(-1, -1, whole.shape[2])
            self.memory.store(task, label, whole.gather(1, index), positions)

    def _batches(
        self, task: Task, features: Tensor | None, trained: Sequence[nn.Module]
    ) -> Iterator[tuple[Epoch, Tensor, Tensor]]:
        """Yield the steps of the first stage: epoch, frame features [B, T, D] and labels [B]."""
        config, number = self.config, len(task.train)
        optimiser, schedule = self._optimiser(trained, number, config.epochs)
        phase = f"task {task.index + 1}"
        if features is None:
            for epoch in self.train_epochs(
                task.train,
                optimiser,
                schedule,
                num_epochs=config.epochs,
                batch_size=config.batch_size,
                phase=phase,
            ):
                for batch in epoch:
                    yield epoch, self._frames(batch.clips), batch.labels
            return
        labels = torch.tensor([sample.label for sample in task.train], device=features.device)
        for row_epoch in self.row_epochs(
            number,
            optimiser,
            schedule,
            num_epochs=config.epochs,
            batch_size=config.batch_size,
            phase=phase,
        ):
            for places in row_epoch.rows():
                rows = self.context.on_device(places.rows)
                yield row_epoch, features[rows], labels[rows]

    def _optimiser(
        self, trained: Sequence[nn.Module], number: int, num_epochs: int
    ) -> tuple[torch.optim.Optimizer, StepSchedule]:
        """Return AdamW, anew for every stage, and its rates for epochs over so many samples."""
        config = self.config
        optimiser = adamw(
            trained,
            lr=config.lr,
            weight_decay=config.weight_decay,
            without_decay=[self.temporal.temporal_embedding],
        )
        steps, factor = -(-number // config.batch_size), config.batch_size / LR_BATCH
        warmup = min(config.warmup_epochs, num_epochs - 1)
        rates = warmup_cosine_rates(
            factor * config.lr, factor * config.min_lr, num_epochs * steps, warmup * steps
        )
        return optimiser, StepSchedule(optimiser, rates)

    def _draw_positions(self, number: int) -> Tensor:
        """Draw k of T frames for each of so many clips: [number, k], ascending, on the device."""
        draws = torch.rand(number, self.context.loader.spec.frames)
        positions = draws.argsort(dim=1)[:, : self.config.frames_per_video].sort(dim=1).values
        return self.context.on_device(positions)

    def _encode(self, samples: Sequence[Sample]) -> Tensor:
        """Return the frame features [N, T, D] of videos, from their middle frames and centre crop."""
        with evaluating(self):
            return torch.cat([self._frames(batch.clips) for batch in self.context.centre_clips(samples)])

    def _frames(self, clips: Tensor) -> Tensor:
        """Return frozen frame features [B, T, D], the class tokens before CLIP's projection."""
        with torch.no_grad(), self.context.autocast():
            return self.encoder(clips).float()


class PathDropout(nn.Module):
    """Stochastic depth: in training, leaves out a residual branch of some clips and scales up the others'."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Return the branch [B, ...] with some rows at 0."""
        kept = F.dropout(torch.ones_like(branch[:, :1, :1]), self.rate, self.training)
        return branch * kept


class MemoryRetrieval(nn.Module):
    """Restores features of a clip from those of a few frames: prompts that attend to them, one per feature.

    ``r = P + MHA(LN(P), LN(x))``, then ``r + MLP(LN(r))``. Source: model/CLIP_model.py, MR_module (mode cross).
    With D = 768 it has 7,095,552 parameters.
    """

    def __init__(self, dim: int, heads: int, prompts: int = 8, *, dropout: float = 0.0) -> None:
        """Make the module; it starts as the authors'.

        Args:
            dim: Feature size D.
            heads: Attention heads.
            prompts: L, features that it returns.
            dropout: Of residual branches, whole clips at a time.
        """
        super().__init__()
        self.prompt = nn.Parameter(torch.empty(prompts, dim).uniform_())
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_1, self.ln_2, self.ln_tokens = (nn.LayerNorm(dim) for _ in range(3))
        layers = [("c_fc", nn.Linear(dim, 4 * dim)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(4 * dim, dim))]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.path_dropout = PathDropout(dropout)
        _start_linear(self)

    def forward(self, sparse: Tensor) -> Tensor:
        """Return features [B, L, D] for those of a few frames [B, k, D], which hold the temporal embedding."""
        prompts = self.prompt.expand(len(sparse), -1, -1)
        retrieved = prompts + self.path_dropout(_attend(self.attn, self.ln_tokens(prompts), self.ln_1(sparse)))
        result: Tensor = retrieved + self.path_dropout(self.mlp(self.ln_2(retrieved)))
        return result


class CrossAttentionLayer(nn.Module):
    """One layer of the temporal encoder: the clip's vector attends to the frames; there is no feed-forward."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_1, self.ln_cls = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.path_dropout = PathDropout(dropout)
        _start_linear(self)

    def forward(self, clip: Tensor, frames: Tensor) -> Tensor:
        """Return the clip's vector [B, 1, D] after a look at its frames [B, T, D]."""
        return clip + self.path_dropout(_attend(self.attn, self.ln_cls(clip), self.ln_1(frames)))


class CrossAttentionEncoder(nn.Module):
    """The temporal encoder: a learned vector that attends to frame features.

    Source: model/CLIP_model.py, Decoder_ResidualAttentionBlock_time. At D = 768 a layer has 2,365,440 weights.

    Attributes:
        cls: The vector it starts from [D].
        temporal_embedding: [1, T, D], added to dense frame features, or its rows to those of some frames; never
            to retrieved ones.
    """

    def __init__(self, dim: int, heads: int, frames: int = 8, layers: int = 1, *, dropout: float = 0.0) -> None:
        """Make the encoder; it starts as the authors'.

        Args:
            dim: Feature size D.
            heads: Attention heads.
            frames: T.
            layers: Layers.
            dropout: Of residual branches, whole clips at a time.
        """
        super().__init__()
        self.cls = nn.Parameter(dim**-0.5 * torch.randn(dim))
        self.temporal_embedding = nn.Parameter(torch.zeros(1, frames, dim))
        self.layers = nn.ModuleList(CrossAttentionLayer(dim, heads, dropout) for _ in range(layers))

    def embed(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Add the temporal embedding.

        Args:
            tokens: [B, T, D] features of frames.
            positions: [B, T] int64, which frames of the clip these are; None for all in order.

        Returns:
            [B, T, D].
        """
        if positions is None:
            return tokens + self.temporal_embedding
        return tokens + self.temporal_embedding[0][positions]

    def forward(self, x: Tensor) -> Tensor:
        """Return clip features [B, D] of frame features [B, T, D] that have the embedding in them already."""
        clip = self.cls.expand(len(x), 1, -1)
        for layer in self.layers:
            clip = layer(clip, x)
        return clip[:, 0]


def matching_losses(dense: Tensor, retrieved: Tensor, clip: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the static and the temporal matching loss, both mean squared differences.

    Source: model/CLIP_model.py, CLIPs.forward.

    Args:
        dense: [B, T, D] features of all frames, with the temporal embedding.
        retrieved: [B, T, D] features retrieved from a few of them.
        clip: [B, D], the temporal encoder's output for ``dense``.
        target: [B, D], its output for ``retrieved``; or (the released code) its start vector [D].
    """
    return F.mse_loss(dense, retrieved), F.mse_loss(clip, target.expand_as(clip))


def _attend(attention: nn.MultiheadAttention, queries: Tensor, frames: Tensor) -> Tensor:
    """Return what queries [B, L, D] find in frames [B, T, D]."""
    attended: Tensor = attention(queries, frames, frames, need_weights=False)[0]
    return attended


def _start_linear(module: nn.Module) -> None:
    """Start linear layers as the authors do; the packed projections of attention stay as torch starts them."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=LINEAR_STD)
            nn.init.zeros_(part.bias)
