"""StPR: space-time preserving and routing, exemplar-free (Wang et al., ICLR 2026, arXiv 2505.13997).

Re-implemented from descriptions of the paper; no code was published. Symbols: F frozen CLIP, A_b adapters,
G_b the spatio-temporal expert of task b, V^s_i frame features, V̄s their mean, V_st = G(V^s), T_c class texts.
Where the paper is silent, ``Config`` says what was taken and why.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vcil_bench.common.config import check_numbers
from vcil_bench.losses import Negatives, contrastive_loss
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.clip import ClipEncoder, check_template, prompts
from vcil_bench.nets.expert_pool import ExpertPool
from vcil_bench.nets.temporal import TemporalEncoder
from vcil_bench.nets.trunk import AdapterConfig
from vcil_bench.stream import Task
from vcil_bench.training import cosine, evaluating, sgd

SOFTMAX_TEMPERATURE = 0.1  # of the alternative routing weights; the paper's weights have none


@dataclass(frozen=True, kw_only=True)
class StPRConfig:
    """Hyper-parameters of StPR; stated values first, then our readings where the paper is silent.

    Stated: SGD with ``lr`` 0.01, ``batch_size`` 40, ``epochs_first`` 60 and ``epochs`` 30 (first and later
    tasks), ``fssd_weight`` w = 1e4, 8 frames (the protocol's).

    Components, for the paper's ablation:
        adapters: Train A_b. Without, the encoder cannot drift and FSSD has nothing to do.
        fssd: Distil shared semantics from the encoder of task b-1.
        moe: Train experts G_b and route them. Without, a clip is V̄s alone (with ``adapters`` also off
            nothing is trained and StPR is frozen CLIP).
        router: What is compared with the anchors: ``tdmoe`` V_tem (the paper's); ``clip`` the frozen CLIP's
            mean feature; ``adapter`` V̄s; ``average`` weighs every expert 1/K. The paper names the last
            three (Avg-, CLIP-, Adapter-MoE) without formulas; these are our readings.

    Readings, a switch where the alternative moves results beyond the spread over orders (change in brackets):
        expert_init: ``copy`` of G_{b-1} (30 epochs against 60 for the first task suggest a warm start) or
            ``fresh`` (-6.9, +26.1). Experts and anchors are frozen after their task: without exemplars they
            cannot be recomputed.
        expert_readout: Output at a learned ``cls`` token (PIVOT), or the ``mean`` over frames (-2.7, +14.0).
        routing: Weights from scores r: ``literal`` r as written, though it may be negative and grows with the
            number of experts; or their ``softmax`` (at temperature 0.1, ours; +2.1, +13.1).
        negatives: Texts a video is held against: all classes ``seen`` (names are no exemplars), or the
            ``current`` task's (+4.8, -15.8), or the ``batch``'s (PIVOT's form, which fails with one or two
            classes a task; +3.3, -15.2). The first two pair it with texts against the batch's videos, equal
            targets for equal classes (ActionCLIP), since plain in-batch targets make videos of one class each
            other's negatives.
        template: Text of a class; names are split into words first. Not calibrated: the paper's frozen-CLIP
            baseline (72.72 on UCF101 10x5) is the number to search template and order against.
        momentum, weight_decay, schedule: 0.9, 5e-4 and ``cosine`` decay to zero in every task, as in SSIAT,
            whose epochs StPR's resemble; PIVOT keeps the rate ``constant`` (+5.9, +4.5).
        adapter_bottleneck, adapter_scale, adapter_dropout: AdaptFormer's, beside the MLP of every block, with
            ReLU, to which "down, ReLU, up" points; AIM, ESSENTIAL and CSTA use 192.
        expert_layers, expert_head_width, expert_ratio, expert_dropout: 3 layers with a feed-forward of 4 D
            come to 9.46 M parameters at D = 512, the "about 9 M per expert" of the reviews; heads of 64
            do not change the count.

    In brackets: what the other reading changes in average incremental accuracy and in forgetting, in points, the
    mean of three orders on version 1 of ``synthetic_3x4``, where they spread by 3.9 and 8.8 points; run by run
    in ``results/stpr_readings.csv``.

    Readings that moved both by less are fixed. One chain of adapters, A_b from A_{b-1}, the last of which
    serves all tasks, since V̄s needs no task index then (an own A_b for each expert: 0.0, -0.3). Importance
    from the new classes under encoder b-1, the only reading of I_{b-1,c} that is consistent in its indices
    (stored, from the old classes: -0.1, +0.8). Negative importance is zero, since it would reward drift (kept:
    -0.2, +1.8). Variances of at least 1e-6, against division by zero for classes of identical features (1e-4:
    0.0, 0.0). Unit lengths of V̄s and V_st in statistics, V_tem and fusion, as they are trained, since with
    CLIP's own lengths w = 1e4 would swamp the loss (-0.1, +8.3). V_tem from these unit vectors, though the
    paper's identity holds exactly for those before (-0.5, +4.0). Scores as they are (their ReLU: -0.1, +0.1;
    the largest alone: +1.5, +1.0). CLIP's own inverse temperature in both losses, frozen, as in PIVOT (1/0.07
    for 100: +3.0, +3.3). ReLU in the adapters (GELU: -0.1, -0.3).
    """

    lr: float = 0.01
    batch_size: int = 40
    epochs_first: int = 60
    epochs: int = 30
    fssd_weight: float = 1e4

    adapters: bool = True
    fssd: bool = True
    moe: bool = True
    router: Literal["tdmoe", "average", "clip", "adapter"] = "tdmoe"

    expert_init: Literal["copy", "fresh"] = "copy"
    routing: Literal["literal", "softmax"] = "literal"
    negatives: Negatives = "seen"
    template: str = "a video of a person doing {}"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    adapter_bottleneck: int = 64
    adapter_scale: float = 0.1
    adapter_dropout: float = 0.1
    expert_layers: int = 3
    expert_head_width: int = 64
    expert_ratio: int = 4
    expert_dropout: float = 0.1
    expert_readout: Literal["cls", "mean"] = "cls"

    def __post_init__(self) -> None:
        """Refuse values that no run can use."""
        check_template(self.template)
        check_numbers(
            self,
            positive=(
                *("lr", "batch_size", "epochs_first", "epochs", "adapter_bottleneck"),
                *("expert_layers", "expert_head_width", "expert_ratio"),
            ),
            not_negative=("fssd_weight", "weight_decay", "adapter_scale"),
            below_one=("momentum", "adapter_dropout", "expert_dropout"),
        )


class StPR(Method):
    """Frozen CLIP, one chain of adapters, one temporal expert per task, routing by temporal dynamics."""

    name = "stpr"
    paper = "Wang et al., StPR, ICLR 2026 (re-implemented from descriptions of the paper)"
    readouts = ("text",)
    needs = frozenset({"text", "adapters"})
    splits_batches = True
    Config = StPRConfig
    recipes: ClassVar = {
        "synthetic_*": {
            # Names are whole sentences. A run must take about a minute on two cores, so the network is
            # small and the epochs are few; they and the batch are those of fine-tuning.
            "template": "{}",
            "lr": 0.05,
            "batch_size": 10,
            "epochs_first": 14,
            "epochs": 4,
            "adapter_bottleneck": 16,
            "expert_layers": 2,
        },
    }

    config: StPRConfig
    encoder: ClipEncoder
    texts: Tensor
    anchors: Tensor
    expert_of_anchor: Tensor

    def __init__(self, config: StPRConfig, context: RunContext) -> None:
        """Make the first adapters and empty pools of texts and anchors."""
        super().__init__(config, context)
        clip = context.clip
        adapters = AdapterConfig(
            bottleneck=config.adapter_bottleneck,
            scale=config.adapter_scale,
            dropout=config.adapter_dropout,
        )
        self.encoder = clip.encoder(adapters if config.adapters else None)  # F with A_b
        self.experts = ExpertPool()
        self.register_buffer("texts", torch.empty(0, clip.dim))  # T, unit length, label order
        self.register_buffer("anchors", torch.empty(0, clip.dim))  # class means of V_tem
        self.register_buffer("expert_of_anchor", torch.empty(0, dtype=torch.long))

    def grow(self, task: Task) -> None:
        """Add the new classes' texts, places for their anchors, and the task's expert and adapters."""
        config, clip = self.config, self.context.clip
        new_texts = clip.encode_text(prompts(task.class_names, config.template))
        self.texts = torch.cat([self.texts.to(new_texts), new_texts])
        if not config.moe:
            return
        self.experts.requires_grad_(False)
        if self.experts and config.expert_init == "copy":
            expert = copy.deepcopy(self.experts[-1]).requires_grad_(True)
        else:
            expert = TemporalEncoder(
                clip.dim,
                layers=config.expert_layers,
                head_width=config.expert_head_width,
                ratio=config.expert_ratio,
                dropout=config.expert_dropout,
                readout=config.expert_readout,
            )
        self.experts.append(expert)
        self.anchors = _extend(self.anchors, task.num_new)
        new = torch.full((task.num_new,), task.index).to(self.expert_of_anchor)
        self.expert_of_anchor = torch.cat([self.expert_of_anchor, new])

    def learn(self, task: Task) -> None:
        """Measure importance under encoder b-1, train A_b and G_b, then store anchors.

        ``L = L_cont(V_st, T) + L_cont(V̄s, T) + w L_FSSD``.
        """
        config = self.config
        trained = [self.encoder, *self.experts[-1:]]  # A_b and G_b
        if any(p.requires_grad for module in trained for p in module.parameters()):
            distil = config.fssd and config.adapters and task.index > 0
            old = self.encoder.frozen_copy() if distil else None
            importance = self._importance(task) if distil else None  # I [num_seen, D]

            num_epochs = config.epochs_first if task.index == 0 else config.epochs
            optimiser = sgd(
                self.context,
                (p for module in trained for p in module.parameters()),
                lr=config.lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
            )
            for epoch in self.train_epochs(
                task.train,
                optimiser,
                None if config.schedule == "constant" else cosine(optimiser, num_epochs),
                num_epochs=num_epochs,
                batch_size=config.batch_size,
                phase=f"task {task.index + 1}",
            ):
                for batch in epoch:
                    with self.context.autocast():
                        # V^s under the encoders b and b-1 [B, T, D], V_st [B, D].
                        frames, before = self.encoder.forward_with(old, batch.clips)
                        dynamic = self.experts[-1](frames) if config.moe else None
                    spatial = frames.float().mean(dim=1)  # V̄s [B, D]
                    losses = {"spatial": self._text_contrast(spatial, batch.labels, task)}
                    if dynamic is not None:
                        losses["spatiotemporal"] = self._text_contrast(dynamic, batch.labels, task)
                    if before is not None and importance is not None:
                        losses["fssd"] = config.fssd_weight * shared_semantic_distillation(
                            _unit(spatial), _spatial(before), importance[batch.labels]
                        )
                    epoch.step(losses)
        if config.moe and config.router != "average":
            with evaluating(self):
                self._store_anchors(task)

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Route the experts by the clip's dynamics, fuse, and match with the class texts.

        ``V = V̄s + sum_k r_k V_st,k``; scores are cosines with T.
        """
        with self.context.autocast():
            frames = self.encoder(clips)  # V^s [B, T, D]
            dynamic = self.experts(frames) if self.config.moe else None  # V_st [B, K, D]
        if dynamic is None:
            fused = frames.float().mean(dim=1)
        else:
            weights = self._expert_weights(clips, frames, dynamic)  # r [B, K]
            # V̄s is given as the only frame: ``fuse`` averages V^s, but V̄s is normalised behind the mean.
            fused = fuse(_spatial(frames)[:, None], _unit(dynamic), weights)
        return {"text": F.normalize(fused, dim=-1) @ self.texts.T}

    def _text_contrast(self, features: Tensor, labels: Tensor, task: Task) -> Tensor:
        """Return L_cont of video features [B, D] and the class texts."""
        return contrastive_loss(
            _unit(features),
            self.texts,
            labels,
            scale=self.context.clip.logit_scale,
            negatives=self.config.negatives,
            num_old=task.num_old,
        )

    def _expert_weights(self, clips: Tensor, frames: Tensor, dynamic: Tensor) -> Tensor:
        """Return r [B, K] of test clips.

        Args:
            clips: [B, T, 3, S, S].
            frames: V^s [B, T, D].
            dynamic: V_st of every expert [B, K, D], as the experts give it.
        """
        num_experts = dynamic.shape[1]
        if self.config.router == "average":
            return torch.full((len(clips), num_experts), 1 / num_experts, device=clips.device)
        if self.config.router == "clip":
            queries = self._clip_feature(clips)[:, None].expand(-1, num_experts, -1)
        else:
            of_experts = [self._routing_query(frames, v) for v in dynamic.unbind(1)]
            queries = torch.stack(of_experts, dim=1)  # [B, K, D]
        scores = routing_scores(queries, self.anchors, self.expert_of_anchor)
        return routing_weights(scores, self.config.routing)

    def _clip_feature(self, clips: Tensor) -> Tensor:
        """Return the frozen CLIP's mean frame feature [B, D], the ``clip`` router's query."""
        with self.context.autocast():
            frames = self.context.clip.encode_frames(clips, None)
        return _spatial(frames)

    def _routing_query(self, frames: Tensor, dynamic: Tensor) -> Tensor:
        """Return what is compared with anchors [B, D]: V_tem, or V̄s for the ``adapter`` router."""
        if self.config.router == "adapter":
            return _spatial(frames)
        # V̄s as the only frame, as in ``predict``.
        return temporal_dynamics(_unit(dynamic), _spatial(frames)[:, None])

    def _store_anchors(self, task: Task) -> None:
        """Keep, per new class, the mean routing query over its training videos (for TD-MoE, of V_tem)."""
        total = torch.zeros(task.num_new, self.anchors.shape[1], device=self.anchors.device)
        count = torch.zeros(task.num_new, 1, device=self.anchors.device)
        for batch in self.context.centre_clips(task.train):
            if self.config.router == "clip":
                query = self._clip_feature(batch.clips)
            else:
                with self.context.autocast():
                    frames = self.encoder(batch.clips)
                    dynamic = self.experts[-1](frames)
                query = self._routing_query(frames, dynamic)
            # A product, since adding by index is not deterministic on GPUs.
            member = F.one_hot(batch.labels - task.num_old, task.num_new).to(query).T  # [num_new, B]
            total += member @ query
            count += member.sum(dim=1, keepdim=True)
        self.anchors[task.num_old :] = total / count

    def _importance(self, task: Task) -> Tensor:
        """Return I per label [num_seen, D] under the encoder of the task before; of old classes zero, unused."""
        features, labels = [], []
        with evaluating(self):
            for batch in self.context.centre_clips(task.train):
                with self.context.autocast():
                    frames = self.encoder(batch.clips)
                features.append(_spatial(frames))
                labels.append(batch.labels)
        spatial, label = torch.cat(features), torch.cat(labels)
        importance = torch.zeros_like(self.texts)
        for c in range(task.num_old, task.num_seen):
            importance[c] = channel_importance(spatial[label == c], self.texts[c])
        return importance


def channel_importance(features: Tensor, text: Tensor, floor: float = 1e-6, clamp: bool = True) -> Tensor:
    """Semantic importance of each channel for one class: ``I_cj = T_cj mu_cj / var_cj`` (FSSD).

    Fisher information of the mean (1 / var) times the channel's expected share of the cosine with the text.

    Args:
        features: [N, D] mean frame features of the class's videos.
        text: [D] text feature of the class.
        floor: Least variance; a class of one video has variance 0.
        clamp: Set negative values to 0.

    Returns:
        [D].
    """
    mean = features.mean(dim=0)
    variance = features.var(dim=0, correction=0).clamp_min(floor)
    importance = text * mean / variance
    return importance.clamp_min(0) if clamp else importance


def shared_semantic_distillation(new: Tensor, old: Tensor, importance: Tensor) -> Tensor:
    """L_FSSD: squared drift of V̄s between encoders, weighted per channel, averaged over videos and channels.

    ``1 / (N D) sum_i sum_j I_{y_i,j} (old_ij - new_ij)^2``.

    Conditioning: the relative error is about ``2 eps |V| / |drift|``, where eps is the rounding of the features
    as the network gives them. It is lost before this function is called, so float64 or another scale in here
    brings nothing: on the embedded clips (seed 1000), with two sets of a processor's kernels, the epochs' means
    agree to 7e-6 in float32 and to 3e-6 with importance and loss in float64, all counts equal in both. While
    nothing has drifted the term is rounding alone: about 1e-9 in float32, which harms nobody. In bf16 it is not
    small: there the mean over a task's first epoch came out 76 and 41 % too large, over later ones 2 to 10 %.

    Args:
        new: [N, D] features under the encoder in training.
        old: [N, D] features of the same clips under the encoder of the task before.
        importance: [N, D] importance of each sample's class.

    Returns:
        Scalar.
    """
    return (importance * (old - new).square()).mean()


def temporal_dynamics(spatiotemporal: Tensor, frames: Tensor) -> Tensor:
    """Temporal decomposition: ``V_tem = V_st - V̄s``, which equals ``sum_i (a_i - 1/T) eps_i``.

    Args:
        spatiotemporal: V_st [B, D].
        frames: V^s [B, T, D].

    Returns:
        V_tem [B, D].
    """
    return spatiotemporal - frames.mean(dim=1)


def routing_scores(dynamics: Tensor, anchors: Tensor, expert_of_anchor: Tensor) -> Tensor:
    """TD-MoE's scores: ``r_k = max_{c in C_k} cos(V_tem,k, anchor_c)``.

    Args:
        dynamics: V_tem under each expert [B, K, D].
        anchors: [A, D], one per class.
        expert_of_anchor: [A] index of the expert each anchor belongs to.

    Returns:
        [B, K]; an expert without anchors scores -1, the least a cosine can be.
    """
    cosines = F.normalize(dynamics, dim=-1) @ F.normalize(anchors, dim=-1).T  # [B, K, A]
    experts = torch.arange(dynamics.shape[1], device=anchors.device)
    own = expert_of_anchor[None, :] == experts[:, None]  # [K, A]
    return cosines.masked_fill(~own, -1.0).amax(dim=-1)


def routing_weights(scores: Tensor, kind: str) -> Tensor:
    """Turn routing scores [B, K] into the weights of the fusion; ``literal`` is the paper's."""
    if kind == "softmax":
        return (scores / SOFTMAX_TEMPERATURE).softmax(dim=-1)
    return scores


def fuse(frames: Tensor, spatiotemporal: Tensor, scores: Tensor) -> Tensor:
    """Fused clip feature ``V = V̄s + sum_k r_k V_st,k``.

    Args:
        frames: V^s [B, T, D].
        spatiotemporal: V_st of every expert [B, K, D].
        scores: r [B, K].

    Returns:
        V [B, D].
    """
    return frames.mean(dim=1) + (scores[..., None] * spatiotemporal).sum(dim=1)


def _unit(features: Tensor) -> Tensor:
    """Return features in unit length, in which they are trained; statistics and sums are taken of these."""
    return F.normalize(features.float(), dim=-1)


def _spatial(frames: Tensor) -> Tensor:
    """Return V̄s [B, D], of unit length, of frame features [B, T, D]."""
    return _unit(frames.float().mean(dim=1))


def _extend(pool: Tensor, rows: int) -> Tensor:
    """Append zero rows to a pool, to be filled when the task has been learnt."""
    return torch.cat([pool, pool.new_zeros(rows, pool.shape[1])])
