"""Networks that methods train: the temporal shift, what partial batch norm freezes, maps that gradients reach.

Distillation and importance differentiate through the maps; a map that lies beside the path would give losses
that are right and gradients that are zero.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_files import DTYPES, tensors
from torch import Tensor, nn

from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.network import VideoNetwork
from vcil_bench.nets.parallel.batch_norm import TeamBatchNorm2d
from vcil_bench.nets.parallel.batch_part import BatchPart, computing
from vcil_bench.nets.trunk import AdapterConfig, Trunk, Tuning
from vcil_bench.nets.tsm import TSMNetwork, temporal_shift


def clips(batch: int = 2, frames: int = 3, size: int = 64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, frames, 3, size, size), generator=generator, dtype=torch.uint8)


def loaded(name: str) -> Any:
    """Return a trunk with random weights whose residual branches count.

    timm by itself starts their last batch norm at zero, so that nothing but the shortcuts would be tested.
    """
    found: Any = backbone(name).load("random")
    for norm in norms(found.model):
        nn.init.ones_(norm.weight)
    return found


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return loaded("tsm_tiny")


@pytest.fixture(scope="module")
def tsn_resnet34() -> Trunk:
    return loaded("tsn_resnet34")


@pytest.fixture
def network(trunk: Trunk) -> TSMNetwork:
    return tsm(trunk)


def tsm(trunk: Trunk, **tuning: Any) -> TSMNetwork:
    found = trunk.network(Tuning(**tuning))
    assert isinstance(found, TSMNetwork)
    return found


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


# --- the shift


@DTYPES
@pytest.mark.parametrize("case", [0, 1, 2])
def test_the_temporal_shift_equals_the_authors(case: int, precision: str) -> None:
    data = tensors("tcd_12", precision)
    clip = (-1, int(data[f"c{case}_num_segments"]))
    x = data[f"c{case}_x"].unflatten(0, clip)
    before = x.clone()
    assert torch.equal(temporal_shift(x), data[f"c{case}_shifted"].unflatten(0, clip))
    assert torch.equal(x, before)


def test_the_gradient_goes_back_to_where_the_values_came_from() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weights = torch.randn(2, 2, 3, 17, 2, 2, generator=generator, dtype=torch.float64)
    x.requires_grad_(True)
    # What the shift does, in parts that torch knows the gradient of.
    ahead = torch.cat([x[:, 1:, :2], torch.zeros_like(x[:, :1, :2])], dim=1)
    back = torch.cat([torch.zeros_like(x[:, :1, 2:4]), x[:, :-1, 2:4]], dim=1)
    expected = torch.cat([ahead, back, x[:, :, 4:]], dim=2)
    shifted = temporal_shift(x)
    assert torch.equal(shifted, expected)
    gradients = [torch.autograd.grad(y, x, weights)[0] for y in (shifted, expected)]
    assert torch.equal(*gradients)


def test_the_gradient_of_the_shift_has_a_gradient() -> None:
    """As a method asks for that differentiates by maps and trains on the result."""
    x = torch.randn(1, 3, 8, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(temporal_shift, x)


def test_the_shift_looks_ahead_with_the_first_channels_and_back_with_the_next() -> None:
    x = torch.arange(1.0, 4.0).reshape(1, 3, 1, 1, 1).expand(1, 3, 16, 1, 1)
    shifted = temporal_shift(x)[0, :, :, 0, 0].T.tolist()
    assert shifted == [[2, 3, 0]] * 2 + [[0, 1, 2]] * 2 + [[1, 2, 3]] * 12


def test_one_frame_loses_the_shifted_channels_and_few_channels_are_not_shifted() -> None:
    assert temporal_shift(torch.ones(2, 1, 16, 1, 1))[0, 0, :, 0, 0].tolist() == [0] * 4 + [1] * 12
    few = torch.randn(2, 3, 7, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(temporal_shift(few), few)


def test_frames_in_another_order_are_another_clip(network: TSMNetwork) -> None:
    network.eval()
    with torch.no_grad():
        there, back = network(clips()), network(clips().flip(1)).flip(1)
    assert not torch.allclose(there, back, atol=1e-3)


@pytest.mark.parametrize("name", ["tsm_tiny", "tsm_resnet34"])
def test_every_weight_of_a_network_with_random_weights_learns(name: str) -> None:
    # A block whose last batch norm starts at zero never would, since partial batch norm keeps it there.
    network = tsm(backbone(name).load("random"))
    network(clips(1, 2)).square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0, parameter_name


def test_videos_of_a_batch_do_not_see_each_other(network: TSMNetwork) -> None:
    network.eval()
    with torch.no_grad():
        both, second = network(clips()), network(clips()[1:])
    torch.testing.assert_close(both[1:], second)


def test_one_network_takes_clips_of_any_length(network: TSMNetwork) -> None:
    network.eval()
    with torch.no_grad():
        short, long = network(clips(4, 2)), network(clips(2, 4))
        assert (short.shape, long.shape) == ((4, 2, network.dim), (2, 4, network.dim))
        torch.testing.assert_close(network(clips(4, 2)), short)
        torch.testing.assert_close(network(clips(2, 4)), long)


def test_without_shift_frames_stand_alone(tsn_resnet34: Trunk) -> None:
    tsn, shifting = tsm(tsn_resnet34).eval(), tsm(loaded("tsm_resnet34")).eval()
    clip = clips(1, 2)
    with torch.no_grad():
        for network, alone in ((tsn, True), (shifting, False)):
            there, back = network(clip), network(clip.flip(1)).flip(1)
            assert torch.allclose(there, back, atol=1e-4) == alone
    # The same weights otherwise.
    names = [[name.replace("conv1.conv.", "conv1.") for name in net.state_dict()] for net in (tsn, shifting)]
    assert names[0] == names[1]
    assert all(map(torch.equal, tsn.state_dict().values(), shifting.state_dict().values()))


def test_every_block_of_a_resnet_is_shifted_in_front_of_its_first_convolution(network: TSMNetwork) -> None:
    shifted = [name for name, m in network.named_modules() if type(m).__name__ == "ShiftedConv"]
    assert shifted == [f"net.layer{i}.0.conv1" for i in range(1, 5)]


# --- maps


def test_maps_are_the_outputs_of_the_four_stages(network: TSMNetwork) -> None:
    network.eval()
    with torch.no_grad():
        found = network.features(clips())
        frames = network(clips())
    sides = [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert [tuple(m.shape[:2]) for m in found.maps] == [(2, 3)] * 4
    assert [tuple(m.shape[3:]) for m in found.maps] == sides
    assert [m.shape[2] for m in found.maps] == network.map_channels
    assert frames.shape == (2, 3, network.dim)
    assert torch.equal(found.frames, frames)
    torch.testing.assert_close(found.maps[-1].mean(dim=(-2, -1)), frames)


def test_stages_of_several_blocks_keep_the_map_of_each(tsn_resnet34: Trunk) -> None:
    network = tsm(tsn_resnet34).eval()
    with torch.no_grad():
        found = network.features(clips(1, 1, 32))
    assert [len(stage) for stage in found.blocks] == [3, 4, 6, 3]
    assert network.stage_channels == tuple(tuple(m.shape[2] for m in stage) for stage in found.blocks)
    assert all(m is stage[-1] for m, stage in zip(found.maps, found.blocks, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_map_and_the_input_of_all(network: TSMNetwork, training: bool) -> None:
    network.train(training)
    found = network.features(clips())
    maps = [m for stage in found.blocks for m in stage]
    weights = torch.randn(found.frames.shape, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad((weights * found.frames).sum(), [*maps, next(network.parameters())])
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
    assert [g.shape for g in gradients[:-1]] == [m.shape for m in maps]


def test_without_the_final_relu_features_point_anywhere(trunk: Trunk) -> None:
    with torch.no_grad():
        plain, free = (tsm(trunk, final_relu=relu).eval().features(clips()) for relu in (True, False))
    assert (plain.maps[-1] >= 0).all()
    assert (free.maps[-1] < 0).any()
    torch.testing.assert_close(free.maps[-1].relu(), plain.maps[-1])
    assert free.frames.min() < 0 <= plain.frames.min()
    for a, b in zip(plain.maps[:-1], free.maps[:-1], strict=True):
        assert torch.equal(a, b)


def test_without_the_final_relu_only_the_very_last_is_gone(tsn_resnet34: Trunk) -> None:
    network = tsm(tsn_resnet34, final_relu=False).eval()
    with torch.no_grad():
        blocks = network.features(clips(1, 1, 32)).blocks
    assert [(m < 0).any().item() for stage in blocks for m in stage] == [False] * 15 + [True]


# --- what trains


@pytest.mark.parametrize("partial", [True, False])
def test_partial_batch_norm_trains_the_first_alone(trunk: Trunk, partial: bool) -> None:
    network = tsm(trunk, partial_bn=partial)
    for switch in (network.train, lambda: network.eval().train(), lambda: nn.Sequential(network).train()):
        switch()
        found = norms(network)
        assert len(found) > 4
        trains = [True] + [not partial] * (len(found) - 1)
        assert [norm.training for norm in found] == trains
        assert [norm.weight.requires_grad for norm in found] == trains
        assert [norm.bias.requires_grad for norm in found] == trains
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in found]
    network(clips()).square().sum().backward()
    updated = [
        not torch.equal(norm.running_mean, mean) and not torch.equal(norm.running_var, var)
        for norm, (mean, var) in zip(found, before, strict=True)
    ]
    assert updated == trains
    network.eval()
    assert not any(norm.training for norm in found)


def test_the_first_batch_norm_of_a_resnet_is_the_one_behind_its_first_convolution(tsn_resnet34: Trunk) -> None:
    network = tsm(tsn_resnet34).train()
    training = [name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    assert training == ["net.bn1"]


@pytest.mark.parametrize("partial", [True, False])
def test_everything_but_frozen_norms_gets_a_gradient(trunk: Trunk, partial: bool) -> None:
    network = tsm(trunk, partial_bn=partial)
    network(clips()).square().sum().backward()
    frozen = {id(p) for norm in norms(network)[1:] for p in norm.parameters()} if partial else set()
    for parameter in network.parameters():
        assert parameter.requires_grad == (id(parameter) not in frozen)
        assert (parameter.grad is not None and parameter.grad.abs().max() > 0) == parameter.requires_grad


def test_a_pass_leaves_nothing_of_its_batch_in_the_network(trunk: Trunk) -> None:
    """Or a copy of the network would try to copy the processes that share the batch, which cannot be done."""
    network = tsm(trunk).eval()
    with computing(BatchPart(0, 2, 2)):
        network(clips(2))
        assert all(norm.part is None for norm in norms(network))
        with pytest.raises(RuntimeError):
            network(clips(2)[:, :, :2])  # a channel is missing: broken off
    assert all(norm.part is None for norm in norms(network))


def train(network: nn.Module, steps: int = 2) -> None:
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.train()
    for _ in range(steps):
        optimiser.zero_grad()
        network(clips()).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("name", ["tsm_tiny", "clip_tiny"])
def test_training_a_network_leaves_the_trunk_and_other_networks_alone(name: str) -> None:
    shared = loaded(name)
    first, second = shared.network(Tuning()), shared.network(Tuning())
    before, other = copied(shared.model), copied(second)
    start = copied(first)
    for adapter in getattr(first, "adapters", []):
        nn.init.normal_(adapter.up.weight)
    train(first)
    assert any(not torch.equal(value, start[key]) for key, value in first.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in shared.model.state_dict().items())
    assert all(torch.equal(value, other[key]) for key, value in second.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in shared.model.parameters())


def test_networks_of_one_trunk_start_alike(trunk: Trunk) -> None:
    first, second = (copied(tsm(trunk)) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_frozen_copy_stays_as_it_is_while_the_network_trains(network: TSMNetwork) -> None:
    network.train()
    old = network.frozen_copy()
    assert network.training
    assert not any(m.training for m in old.modules())
    assert not any(p.requires_grad for p in old.parameters())
    with torch.no_grad():
        before = old(clips())
        torch.testing.assert_close(network.eval()(clips()), before)
    train(network)
    with torch.no_grad():
        assert torch.equal(old(clips()), before)
        assert not torch.allclose(network.eval()(clips()), before)


# --- CLIP through the same contract


@pytest.fixture
def encoder() -> VideoNetwork:
    torch.manual_seed(0)
    found: Any = backbone("clip_tiny").load("random").network(Tuning(adapters=AdapterConfig(bottleneck=8)))
    for adapter in found.adapters:
        nn.init.normal_(adapter.up.weight)
    return found


def test_the_maps_of_a_clip_are_the_patches_behind_all_blocks_but_the_last(encoder: VideoNetwork) -> None:
    encoder.eval()
    trunk: Any = encoder.trunk
    but_the_last = len(trunk.model.visual.transformer.resblocks) - 1
    with torch.no_grad():
        found = encoder.features(clips())
        frames = encoder(clips())
    assert [tuple(m.shape) for m in found.maps] == [(2, 3, 128, 4, 4)] * but_the_last
    assert encoder.map_channels == [128] * but_the_last
    torch.testing.assert_close(found.frames, frames)


def test_the_maps_of_a_clip_lie_as_its_picture_does(encoder: VideoNetwork) -> None:
    encoder.eval()
    clip = clips(1, 1)
    changed = clip.clone()
    changed[..., 16:32, 48:64] += 100  # the patch of the second row and fourth column
    with torch.no_grad():
        first, second = (encoder.features(c).maps[0][0, 0] for c in (clip, changed))
    difference = (first - second).norm(dim=0)
    assert divmod(int(difference.argmax()), 4) == (1, 3)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_map_of_a_clip(encoder: VideoNetwork, training: bool) -> None:
    encoder.train(training)
    found = encoder.features(clips())
    loss = (torch.randn(found.frames.shape, generator=torch.Generator().manual_seed(0)) * found.frames).sum()
    gradients = torch.autograd.grad(loss, [*found.maps, *encoder.parameters()])
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)
    # Each patch counts.
    assert all((g.norm(dim=2) > 0).all() for g in gradients[: len(found.maps)])


# --- statistics


@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_statistics_of_large_maps_are_exact(order: torch.memory_format) -> None:
    """Of 8 clips of 8 frames of 112 x 112, 8 of the 64 channels; torch's are 3e-4 off."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, 112, 112, generator=generator).mul_(1.3).add_(0.7)
    double = x.double()
    norm = TeamBatchNorm2d.taking_over(nn.BatchNorm2d(8, momentum=1.0))
    y = norm(x.contiguous(memory_format=order))
    variance, mean = torch.var_mean(double, dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-7, atol=0)
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-7, atol=0)
    unit = F.batch_norm(double, None, None, training=True)
    torch.testing.assert_close(y.double(), unit, rtol=0, atol=1e-5)


def test_a_batch_norm_in_training_is_torchs_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, 7, 3, generator=generator, dtype=torch.float64).add_(2)
    weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    plain = nn.BatchNorm2d(5, dtype=torch.float64)
    nn.init.normal_(plain.weight, generator=generator)
    nn.init.normal_(plain.bias, generator=generator)
    ours = TeamBatchNorm2d.taking_over(copy.deepcopy(plain))
    found = []
    for norm in (plain, ours):
        inputs = x.clone().requires_grad_()
        y = norm(inputs)
        gradients = torch.autograd.grad((weight * y).sum(), [inputs, *norm.parameters()])
        found.append([y.detach(), *gradients, *(b.double() for b in norm.buffers())])
        assert torch.equal(
            norm.eval()(x), F.batch_norm(x, norm.running_mean, norm.running_var, *norm.parameters())
        )
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)
