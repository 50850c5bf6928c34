"""HCE's own pieces against the paper's formulas, which are all that exists of it."""

from __future__ import annotations

import pytest
import torch
from golden_files import DTYPES, close, tensors
from torch import Tensor

from vcil_bench.methods.hce import (
    HierarchicalAggregation,
    RunningVariance,
    biased_cross_entropy,
    correlation_distillation,
    hypercorrelation,
    variance_log_ratio,
)
from vcil_bench.nets.network import Features


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everyone(h: Tensor) -> Tensor:
    return torch.ones(len(h), dtype=torch.bool)


# --- correlations


@DTYPES
def test_hypercorrelation_equals_the_formula(precision: str) -> None:
    data = tensors("hce_01", precision)
    for i in range(int(data["num_layers"])):
        found = hypercorrelation(data[f"l{i}_map_new"], data[f"l{i}_map_old"])
        close(found, data[f"l{i}_correlation"])


def test_the_first_pair_of_positions_is_the_new_models() -> None:
    new, old = torch.zeros(2, 3, 2, 4), torch.zeros(2, 3, 2, 4)
    new[1, :, 0, 3] = old[1, :, 1, 2] = 5.0
    found = hypercorrelation(new, old)
    assert found.shape == (2, 2, 4, 2, 4)
    assert found.nonzero().tolist() == [[1, 0, 3, 1, 2]]
    torch.testing.assert_close(found.max(), torch.tensor(1.0))


def test_hypercorrelation_cuts_off_negative_cosines_and_survives_dead_positions() -> None:
    new = noise(1, 3, 2, 2).requires_grad_()
    assert (hypercorrelation(new, -new)[0].flatten(2).flatten(0, 1).diagonal() == 0).all()
    dead = torch.zeros_like(new).requires_grad_()
    found = hypercorrelation(dead, new)
    assert (found == 0).all()
    assert torch.autograd.grad(found.sum(), dead)[0].isfinite().all()


@pytest.mark.parametrize("side", [2, 3, 7])
def test_weights_have_the_layers_shapes_lie_between_0_and_1_and_train_the_aggregation_alone(side: int) -> None:
    torch.manual_seed(0)
    channels = ((3, 4), (5,))
    aggregation = HierarchicalAggregation(
        channels, channels=4, hidden=6, depth=2, correlation_size=4, evolved_size=2
    )
    for batch, frames in ((1, 1), (1, 3), (2, 3)):
        new, old = (
            Features(
                torch.zeros(batch, frames, 5),
                tuple(
                    tuple(noise(batch, frames, c, s, s, seed=seed).float().requires_grad_() for c in stage)
                    for stage, s in zip(channels, (side, side // 2), strict=True)
                ),
            )
            for seed in (0, 1)
        )
        weights = aggregation(new, old)
        assert [w.shape for w in weights] == [(batch, frames, c) for stage in channels for c in stage]
        assert all(((w > 0) & (w < 1)).all() for w in weights)
        loss = torch.stack([(w * noise(*w.shape)).sum() for w in weights]).sum()
        maps = [m for f in (new, old) for stage in f.blocks for m in stage]
        gradients = torch.autograd.grad(loss, [*maps, *aggregation.parameters()], allow_unused=True)
        assert gradients[: len(maps)] == (None,) * len(maps)
        assert all(g is not None and g.isfinite().all() for g in gradients[len(maps) :])


# --- distillation


@DTYPES
def test_correlation_distillation_equals_the_formula(precision: str) -> None:
    data = tensors("hce_02", precision)
    layers = range(int(data["num_layers"]))
    new, old, weights = ([data[f"l{i}_{k}"] for i in layers] for k in ("map_new", "map_old", "H"))
    close(correlation_distillation(new, old, weights), data["loss_batch_mean"])
    expanded = [data["expansion_scalar"] * w for w in weights]
    close(correlation_distillation(new, old, expanded), data["loss_batch_mean_expanded"])
    each = [
        correlation_distillation(*([m[b : b + 1] for m in part] for part in (new, old, weights)))
        for b in range(len(weights[0]))
    ]
    close(torch.stack(each), data["loss_per_video"])


@pytest.mark.parametrize("values", ["apart", "equal", "zero"])
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (1, 3), (2, 1)])
def test_correlation_distillation_is_finite(batch: int, frames: int, values: str) -> None:
    shape = (batch, frames, 4, 2, 2)
    new = torch.zeros(shape) if values == "zero" else noise(*shape).float()
    old = noise(*shape, seed=1).float() if values == "apart" else new.clone()
    new.requires_grad_()
    weights = torch.rand(shape[:3], generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = correlation_distillation([new], [old], [weights])
    assert (loss == 0) == (values != "apart")
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, [new, weights]))


# --- refinement


@DTYPES
def test_the_ratio_and_the_biased_cross_entropy_equal_the_formulas(precision: str) -> None:
    data = tensors("hce_03", precision)
    old, new = (variance_log_ratio(data[key]) for key in ("H_old_exemplars", "H_new_data"))
    close(old, data["ratio_old_sum"])
    close(new, data["ratio_new_sum"])
    bias = torch.cat([old.expand(int(data["n_old_classes"])), new.expand(int(data["n_new_classes"]))])
    close(bias, data["R_sum"])
    logits = data["logits"].clone().requires_grad_()
    loss = biased_cross_entropy(logits, bias, data["labels"])
    close(loss.detach(), data["biased_ce_sum"])
    close(torch.autograd.grad(loss, logits)[0], data["biased_ce_sum_grad_logits"])
    close(biased_cross_entropy(data["logits"], torch.zeros_like(bias), data["labels"]), data["plain_ce"])


@DTYPES
@pytest.mark.parametrize("cuts", [(18,), (1,) * 18, (5, 0, 1, 12)])
def test_a_variance_over_batches_equals_that_over_all_videos(cuts: tuple[int, ...], precision: str) -> None:
    h = tensors("hce_03", precision)["H_old_exemplars"]
    spread = RunningVariance(h.shape[1]).to(h)
    for part in h.split(cuts):
        spread.add(part, everyone(part))
    assert spread.count == len(h) == 18
    close(spread.log_sum(), tensors("hce_03", precision)["ratio_old_sum"])


@DTYPES
@pytest.mark.parametrize("cuts", [(30,), (1,) * 30, (5, 0, 1, 24)])
def test_a_variance_over_some_videos_of_a_batch_leaves_the_others_out(
    cuts: tuple[int, ...], precision: str
) -> None:
    data = tensors("hce_03", precision)
    is_old = torch.ones(18, dtype=torch.bool)
    others = torch.zeros(12, dtype=torch.bool)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    far = torch.full((12, data["H_old_exemplars"].shape[1]), torch.inf)
    h = torch.cat([data["H_old_exemplars"], far.to(data["H_old_exemplars"])])[order]
    member = torch.cat([is_old, others])[order]
    spread = RunningVariance(h.shape[1]).to(h)
    for part, counted in zip(h.split(cuts), member.split(cuts), strict=True):
        spread.add(part, counted)
    assert spread.count == 18
    close(spread.log_sum(), data["ratio_old_sum"])


def test_a_small_variance_around_a_large_mean_does_not_cancel() -> None:
    h = torch.tensor([[0.99990], [0.99991], [0.99992], [0.99993]])
    spread = RunningVariance(1)
    for part in h.split(2):
        spread.add(part, everyone(part))
    expected = (h.double() - h.double().mean(dim=0)).square().sum().log().float()
    torch.testing.assert_close(spread.log_sum(), expected, rtol=1e-3, atol=0)


@DTYPES
def test_the_variance_of_one_video_or_of_equal_ones_is_finite(precision: str) -> None:
    dtype = getattr(torch, precision)
    for h in (torch.full((1, 3), 0.3, dtype=dtype), torch.full((4, 3), 0.3, dtype=dtype)):
        ratio = variance_log_ratio(h)
        assert ratio.dtype == dtype
        assert ratio.isfinite()
        assert ratio < -20


def test_a_bias_on_all_classes_alike_changes_nothing() -> None:
    logits, labels = noise(4, 5), torch.tensor([0, 4, 2, 2])
    plain = biased_cross_entropy(logits, logits.new_zeros(5), labels)
    torch.testing.assert_close(biased_cross_entropy(logits, logits.new_full((5,), 3.0), labels), plain)
