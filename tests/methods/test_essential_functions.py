"""ESSENTIAL's modules, losses and schedule against its authors' code.

Their layer norms compute in float32 whatever comes in, which bounds how closely float64 can agree.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import DTYPES, close, golden, tensors
from torch import Tensor, nn

from vcil_bench.losses import task_cross_entropy
from vcil_bench.methods.essential import CrossAttentionEncoder, MemoryRetrieval, matching_losses
from vcil_bench.metrics import average_incremental_accuracy, max_forgetting, step_accuracy
from vcil_bench.training import StepSchedule, adamw, warmup_cosine_rates

NORMS = 1e-5


def near(actual: Tensor, expected: Tensor) -> None:
    close(actual, expected, least=NORMS)


def load(module: nn.Module, data: dict[str, Tensor], names: dict[str, str]) -> None:
    """Load a module's parameters from the arrays whose names begin as given, by the module's own beginnings."""
    state = {}
    for name in module.state_dict():
        ours, theirs = next((a, b) for a, b in names.items() if name.startswith(a))
        state[name] = data[theirs + name.removeprefix(ours).replace(".", "_")]
    module.load_state_dict(state)
    module.eval()


def retrieval_of(data: dict[str, Tensor], prefix: str) -> MemoryRetrieval:
    prompts, dim = data[f"{prefix}prompt"].shape
    module = MemoryRetrieval(dim, int(data["num_heads"]), prompts).to(data[f"{prefix}prompt"].dtype)
    load(module, data, {"": prefix})
    return module


def encoder_of(data: dict[str, Tensor]) -> CrossAttentionEncoder:
    _, frames, dim = data["w_decoder_temporal_embedding"].shape
    module = CrossAttentionEncoder(dim, int(data["num_heads"]), frames, layers=2)
    module = module.to(data["w_decoder_cls"].dtype)
    load(module, data, {"layers.": "w_decoder_transformer_for_cls_", "": "w_decoder_"})
    return module


def head_of(data: dict[str, Tensor]) -> nn.Linear:
    weight, bias = data["w_head_weight"], data["w_head_bias"]
    head = nn.Linear(weight.shape[1], len(weight)).to(weight.dtype)
    head.load_state_dict({"weight": weight, "bias": bias})
    return head


def classes_of(data: dict[str, Tensor], task: int) -> range:
    ends = data["class_sizes"].cumsum(0).tolist()
    return range(ends[task] - int(data["class_sizes"][task]), ends[task])


def rows_of(x: Tensor, positions: Tensor) -> Tensor:
    return torch.stack([clip[chosen] for clip, chosen in zip(x, positions, strict=True)])


@DTYPES
def test_memory_retrieval_equals_the_authors(precision: str) -> None:
    data = tensors("ess_01", precision)
    module = retrieval_of(data, "w_")
    sparse = data["sparse"].requires_grad_()
    retrieved = module(sparse)
    near(retrieved, data["retrieved"])
    near(module(sparse[:, :1]), data["retrieved_one_frame"])
    (retrieved * data["probe"]).sum().backward()
    for name, parameter in (
        ("prompt", module.prompt),
        ("sparse", sparse),
        ("w_attn_in_proj_weight", module.attn.in_proj_weight),
        ("w_mlp_c_fc_weight", module.mlp.c_fc.weight),
    ):
        near(parameter.grad, data[f"grad_{name}"])


@DTYPES
def test_the_temporal_encoder_equals_the_authors(precision: str) -> None:
    data = tensors("ess_02", precision)
    encoder = encoder_of(data)
    clip = encoder(encoder.embed(data["tokens"]))
    near(clip, data["clip_feature"])
    near(head_of(data)(clip), data["logits"])


@DTYPES
@pytest.mark.parametrize("kind", ["full", "release"])
def test_the_losses_of_the_first_stage_equal_the_authors(kind: str, precision: str) -> None:
    data = tensors("ess_03", precision)
    task, encoder, head = int(data["task"]), encoder_of(data), head_of(data)
    retrieval = retrieval_of(data, f"w_mr_module_{task}_")
    dense = encoder.embed(data["tokens"])
    retrieved, clip = retrieval(rows_of(dense, data["chosen_frames"])), encoder(dense)
    target = encoder(retrieved) if kind == "full" else encoder.cls
    static, temporal = matching_losses(dense, retrieved, clip, target)
    classification = task_cross_entropy(head(clip), data["labels"], classes_of(data, task))
    total = classification + static + temporal
    losses = {"classification": classification, "static": static, "temporal": temporal, "total": total}
    for name, loss in losses.items():
        near(loss, data[f"loss_{name}_{kind}"])
    total.backward()
    for name, parameter in (
        ("prompt", retrieval.prompt),
        ("decoder_cls", encoder.cls),
        ("decoder_temporal_embedding", encoder.temporal_embedding),
        ("head_weight", head.weight),
    ):
        near(parameter.grad, data[f"grad_{name}_{kind}"])


@DTYPES
def test_the_losses_of_the_rehearsal_equal_the_authors(precision: str) -> None:
    data = tensors("ess_04", precision)
    encoder, head = encoder_of(data), head_of(data)
    modules = [retrieval_of(data, f"w_mr_module_{i}_").requires_grad_(False) for i in range(3)]
    positions, seen = data["chosen_frames"], classes_of(data, int(data["current_task"])).stop
    sparse = encoder.embed(rows_of(data["tokens"], positions), positions)
    parts = zip(sparse, data["task_of_sample"].tolist(), strict=True)
    retrieved = torch.cat([modules[task](clip[None]) for clip, task in parts])
    losses = {
        name: task_cross_entropy(head(encoder(x)), data["labels"], range(seen))
        for name, x in (("sparse", sparse), ("retrieved", retrieved))
    }
    total = losses["sparse"] + losses["retrieved"]
    for name, loss in (losses | {"total": total}).items():
        near(loss, data[f"loss_{name}"])
    total.backward()
    for name, parameter in (
        ("head_weight", head.weight),
        ("decoder_cls", encoder.cls),
        ("decoder_temporal_embedding", encoder.temporal_embedding),
        ("decoder0_in_proj_weight", encoder.layers[0].attn.in_proj_weight),
    ):
        near(parameter.grad, data[f"grad_{name}"])


@pytest.mark.parametrize("run", ["s0", "s1"])
def test_the_rates_of_warm_up_and_cosine_equal_the_authors(run: str) -> None:
    data = golden("ess_05")
    per_epoch, factor = int(data[f"{run}_steps_per_epoch"]), data[f"{run}_batch_size"] / 256
    rates = warmup_cosine_rates(
        factor * data[f"{run}_lr"],
        factor * data[f"{run}_min_lr"],
        int(data[f"{run}_epochs"]) * per_epoch,
        int(data[f"{run}_warmup_epochs"]) * per_epoch,
    )
    np.testing.assert_allclose(rates, data[f"{run}_schedule"], rtol=1e-12, atol=1e-18)


def test_metrics_equal_the_authors() -> None:
    data = golden("ess_05")
    matrix, totals = data["accuracy"], data["num_videos"]
    np.testing.assert_allclose(step_accuracy(matrix, totals), data["step_accuracy"], rtol=1e-12)
    expected = float(data["average_incremental_accuracy"])
    assert average_incremental_accuracy(matrix, totals) == pytest.approx(expected, rel=1e-12)
    assert max_forgetting(matrix) == pytest.approx(float(data["forgetting_max"]), rel=1e-12)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (3, 3), (4, 1)])
def test_rates_have_every_step(steps: int, warmup: int) -> None:
    rates = warmup_cosine_rates(1.0, 0.1, steps, warmup)
    assert len(rates) == steps
    assert ((rates >= 0) & (rates <= 1)).all()
    assert rates[warmup:].tolist() == sorted(rates[warmup:], reverse=True)
    with pytest.raises(ValueError, match=f"{steps + 1} steps does not fit into {steps}"):
        warmup_cosine_rates(1.0, 0.1, steps, steps + 1)


def test_an_optimiser_has_the_rate_of_its_step_and_no_other() -> None:
    module = nn.Linear(2, 2)
    optimiser = adamw([module], lr=123.0, weight_decay=0.5)
    schedule = StepSchedule(optimiser, [0.25, 0.5, 0.125])
    seen = []
    for _ in range(4):
        seen.append([group["lr"] for group in optimiser.param_groups])
        optimiser.step()
        schedule.step()
    assert seen == [[rate, rate] for rate in (0.25, 0.5, 0.125, 0.125)]


def test_vectors_biases_and_what_is_named_do_not_decay() -> None:
    encoder = CrossAttentionEncoder(8, 2, frames=4)
    optimiser = adamw([encoder], lr=1.0, weight_decay=0.5, without_decay=[encoder.temporal_embedding])
    decays = {
        name: next(g["weight_decay"] for g in optimiser.param_groups if any(p is q for q in g["params"]))
        for name, p in encoder.named_parameters()
    }
    decaying = {name for name, decay in decays.items() if decay}
    assert decaying == {"layers.0.attn.in_proj_weight", "layers.0.attn.out_proj.weight"}


def test_modules_have_the_sizes_of_the_authors() -> None:
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(MemoryRetrieval(768, 12)) == 7_095_552
    encoder = CrossAttentionEncoder(768, 12)
    assert count(encoder.layers[0]) == 2_365_440
    assert count(encoder) == 2_365_440 + 9 * 768


def test_dropping_paths_drops_a_clip_s_own_branch() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3, 8, dtype=torch.float64)
    module = MemoryRetrieval(8, 2, 4, dropout=0.4).double()
    whole = module.eval()(x)
    some = module.train()(x)
    prompts = module.prompt[None].expand(64, -1, -1)
    dropped = (some == prompts).flatten(1).all(dim=1)
    assert 0 < dropped.sum() < 32  # both branches, of 0.16 of the clips
    assert not torch.isclose(some[~dropped], whole[~dropped]).flatten(1).all(dim=1).any()  # scaled up
    assert F.mse_loss(module.eval()(x), whole) == 0
