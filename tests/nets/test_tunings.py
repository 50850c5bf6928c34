"""Every tuning of a frozen CLIP keeps the contract of networks; what does not belong together is refused."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from double_precision import double_precision
from torch import Tensor, nn

from vcil_bench.common.config import ConfigError
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.compute import ComputeOptions
from vcil_bench.nets.parallel.batch_part import BatchPart, computing
from vcil_bench.nets.trunk import (
    AdapterConfig,
    AimConfig,
    DistConfig,
    SpatioTemporalConfig,
    Tuning,
)
from vcil_bench.nets.tuning import tuning_parameters

FRAMES = 4
SMALL = {"width": 32, "temporal_width": 8, "head_width": 16}
TUNINGS: dict[str, Tuning] = {
    "adaptformer": Tuning(adapters=AdapterConfig(bottleneck=8, dropout=0.0)),
    "aim": Tuning(kind="aim", aim=AimConfig(temporal_adapters=2), frames=FRAMES),
    "st_adapter": Tuning(kind="st_adapter", st_adapter=SpatioTemporalConfig(bottleneck=8, places="both")),
    "dist": Tuning(kind="dist", dist=DistConfig(**SMALL, start="clip"), frames=FRAMES),
    "dist_random": Tuning(kind="dist", dist=DistConfig(**SMALL, alpha=2, layers=(0, 2)), frames=FRAMES),
}
EVERY = pytest.mark.parametrize("name", list(TUNINGS))


@pytest.fixture
def float64() -> Any:
    with double_precision():
        yield


def trunk_of(micro_batch: int | None = None, **compute: Any) -> Any:
    return backbone("clip_tiny").load("random", ComputeOptions(micro_batch=micro_batch, **compute))


@pytest.fixture(scope="module")
def trunk() -> Any:
    return trunk_of()


def clips(batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, FRAMES, 3, 64, 64), generator=generator, dtype=torch.uint8)


def network(trunk: Any, name: str, moved: bool = True) -> Any:
    """Return a network; ``moved`` makes every weight count, also those that start at zero."""
    torch.manual_seed(0)
    found = trunk.network(TUNINGS[name])
    if moved:
        for parameter in found.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return found


def coupled(frames: Tensor) -> Tensor:
    """A loss that no sum over parts of the batch gives."""
    unit = F.normalize(frames.mean(dim=1), dim=-1)
    return (unit @ unit.T * 5).exp().sum().log()


@EVERY
def test_a_tuned_network_keeps_the_contract(trunk: Any, name: str) -> None:
    net = network(trunk, name)
    frames = net(clips())
    assert frames.shape == (3, 2 if name == "dist_random" else FRAMES, net.dim)
    assert bool(frames.isfinite().all())
    frozen = {id(p) for p in trunk.model.parameters()}
    assert not any(id(p) in frozen for p in net.parameters())
    assert sum(p.numel() for p in net.parameters()) == sum(t.numel() for t in net.state_dict().values())
    coupled(frames).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())] == []
    assert all(p.grad is None for p in trunk.model.parameters())
    old = net.frozen_copy()
    net.zero_grad()
    with torch.no_grad():
        assert torch.equal(old(clips()), net(clips()))
    assert not old(clips()).requires_grad
    new, before = net.forward_with(old, clips())
    assert new.requires_grad
    assert not before.requires_grad
    torch.testing.assert_close(new, before)
    twin = net.copy_adapters()
    for parameter in twin.parameters():
        parameter.data += 0.1
        assert parameter.requires_grad
    assert not torch.equal(twin(clips()), new)
    torch.testing.assert_close(net(clips()), frames)
    assert twin.trunk is net.trunk


@EVERY
def test_as_many_parameters_as_are_counted(trunk: Any, name: str) -> None:
    visual = trunk.model.visual
    tuning = TUNINGS[name]
    counted = tuning_parameters(
        tuning.kind,
        tuning,
        width=visual.transformer.width,
        depth=len(visual.transformer.resblocks),
        out=trunk.dim,
        patch=visual.patch_size[0],
    )
    assert counted == sum(p.numel() for p in network(trunk, name).parameters())


@pytest.mark.parametrize("name", ["adaptformer", "aim", "st_adapter", "dist"])
def test_training_begins_at_the_frozen_clip(float64: None, name: str) -> None:
    trunk = trunk_of()
    torch.testing.assert_close(network(trunk, name, moved=False)(clips()), trunk.encode_frames(clips(), None))


@EVERY
def test_maps_lie_on_the_way_to_the_features(float64: None, name: str) -> None:
    net = network(trunk_of(), name)
    features = net.features(clips())
    torch.testing.assert_close(features.frames, net(clips()))
    assert [[m.shape[2] for m in stage] for stage in features.blocks] == [list(s) for s in net.stage_channels]
    maps = [m for stage in features.blocks for m in stage]
    assert all(m.shape[:2] == features.frames.shape[:2] for m in maps)
    assert all(bool(g.any()) for g in torch.autograd.grad(coupled(features.frames), maps))


@EVERY
def test_chunks_train_as_the_whole_batch(float64: None, name: str) -> None:
    whole, chunked = network(trunk_of(), name), network(trunk_of(2), name)
    expected, found = whole(clips()), chunked(clips())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    of_whole = torch.autograd.grad(coupled(expected), list(whole.parameters()))
    of_chunked = torch.autograd.grad(coupled(found), list(chunked.parameters()))
    for a, b in zip(of_chunked, of_whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["aim", "st_adapter", "dist"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_about_the_same(trunk: Any, name: str, precision: Any) -> None:
    plain, half = network(trunk, name), network(trunk_of(precision=precision), name)
    with torch.no_grad():
        distance = (half(clips()).float() - plain(clips())).norm() / plain(clips()).norm()
    assert 0 < distance < 0.05
    coupled(half(clips()).float()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in half.parameters())


def test_no_gradient_passes_through_dists_tower(trunk: Any) -> None:
    net = network(trunk, "dist")
    assert not any(tokens.requires_grad for tokens in trunk.middle(clips(), (0, 2)))
    frames = net(clips())
    nodes, todo = set(), [frames.grad_fn]
    while todo:  # everything that the backward pass reaches ends in the branch's parameters
        node = todo.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            todo += [following for following, _ in node.next_functions]
    ends = {id(node.variable) for node in nodes if hasattr(node, "variable")}
    assert ends == {id(p) for p in net.parameters()}


def passes_of_the_tower(trunk: Any, run: Any) -> int:
    """Return how often a computation runs the tower's first block."""
    calls = []
    handle = trunk.model.visual.conv1.register_forward_pre_hook(lambda *_: calls.append(1))
    run()
    handle.remove()
    return len(calls)


def test_an_old_branch_costs_no_pass_of_the_tower(trunk: Any) -> None:
    net = network(trunk, "dist")
    old = net.frozen_copy()
    batch = clips()

    def step() -> None:
        net(batch)
        with torch.no_grad():
            old(batch)

    def together() -> None:
        net.forward_with(old, batch)

    for way in (together, step, step):  # the old model's clips are those that were trained on last
        assert passes_of_the_tower(trunk, way) == 1
    batch[0] = 255 - batch[0]
    with torch.no_grad():
        assert torch.equal(old(batch), old(batch.clone()))


def test_what_was_seen_of_clips_goes_with_them(trunk: Any) -> None:
    net, batch = network(trunk, "dist"), clips()
    net(batch)
    assert len(trunk.seen) == 1
    del batch
    assert len(trunk.seen) == 0


def test_videos_of_dist_are_the_means_of_its_frames(float64: None) -> None:
    trunk = trunk_of()
    net = network(trunk, "dist_random")
    dense = trunk.normalise(clips())
    output = net.branch(trunk.middle(dense[:, ::2], (0, 2)), dense)
    torch.testing.assert_close(net.video(clips()), output.video)
    torch.testing.assert_close(net(clips()).mean(dim=1), output.video)
    spread = (net(clips()) - output.video[:, None]).detach().abs()
    assert float(spread.max()) > 1e-3  # frames differ all the same


@pytest.mark.parametrize("name", ["aim", "dist"])
def test_clips_of_another_length_are_refused(trunk: Any, name: str) -> None:
    with pytest.raises(ValueError, match="2 frames"):
        network(trunk, name)(clips()[:, :2])


# --- several processes


def outcome(name: str, with_maps: bool, batch: Tensor) -> list[Tensor]:
    """Return features, maps, and gradients with respect to both maps and weights."""
    from vcil_bench.nets.parallel.batch_part import current_part

    net = network(trunk_of(), name)
    if with_maps:
        features = net.features(batch)
        frames, maps = features.frames, features.maps
    else:
        frames, maps = net(batch), []
    loss = coupled(frames) + sum((coupled(m.flatten(2)) for m in maps), torch.zeros(()))
    gradients = list(torch.autograd.grad(loss, [*maps, *net.parameters()], allow_unused=True))
    zeros = [*maps, *net.parameters()]
    gradients = [torch.zeros_like(z) if g is None else g for g, z in zip(gradients, zeros, strict=True)]
    part = current_part()
    if part is not None and part.team is not None:  # as the training loop does with networks
        gradients[len(maps) :] = [part.team.sum(g) for g in gradients[len(maps) :]]
    return [frames.detach(), *(m.detach() for m in maps), *gradients]


CASES = [(name, with_maps) for name in ("aim", "st_adapter", "dist") for with_maps in (False, True)]


def work(rank: int, folder: str) -> None:
    """Be one of two processes that share a batch of three clips, the last of which pads."""
    import torch.distributed as dist

    from vcil_bench.nets.parallel.team import Team

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    padded = torch.cat([clips(), clips()[:1]])
    with double_precision(), computing(BatchPart(2 * rank, 2, 3, Team(rank, 2))):
        for i, (name, with_maps) in enumerate(CASES):
            found = outcome(name, with_maps, padded[2 * rank : 2 * rank + 2])
            torch.save(found, f"{folder}/{rank}_{i}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_as_one(float64: None, tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    for i, (name, with_maps) in enumerate(CASES):
        expected = outcome(name, with_maps, clips())
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}_{i}.pt", weights_only=True)
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


# --- what does not belong together


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kind": "dist", "frames": 8, "adapters": AdapterConfig()}, ("adapters", "dist", "adaptformer")),
        ({"dist": DistConfig()}, ("dist", "adaptformer")),
        ({"kind": "aim", "frames": 8, "st_adapter": SpatioTemporalConfig()}, ("st_adapter", "aim")),
        ({"kind": "none", "aim": AimConfig()}, ("aim", "none")),
        ({"adapters": None}, ("adapters", "none")),
        ({"kind": "dist"}, ("frames", "dist")),
        ({"kind": "dist", "dist": DistConfig(alpha=3), "frames": 8}, ("alpha", "3", "8")),
        ({"kind": "dist", "frames": 8, "features": "unprojected"}, ("features", "dist")),
        ({"kind": "lora"}, ("lora", "adaptformer", "dist")),
    ],
)
def test_a_tuning_that_does_not_fit_is_refused(values: dict[str, Any], named: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as refused:
        Tuning(**values)
    assert all(word in str(refused.value) for word in named)


def test_the_chosen_kind_alone_has_options() -> None:
    tuning = Tuning(kind="dist", frames=8)
    assert tuning.dist == DistConfig()
    assert (tuning.adapters, tuning.aim, tuning.st_adapter) == (None, None, None)
    assert Tuning().adapters == AdapterConfig()
    assert dataclasses.replace(tuning, frames=16).adapters is None


def test_layers_that_the_tower_has_not_are_refused(trunk: Any) -> None:
    for options, named in ({"layers": (0, 7)}, "7"), ({"layers": (0, 1), "start": "clip"}, "start"):
        config = DistConfig(**SMALL, **options)
        with pytest.raises(ConfigError, match=named):
            trunk.network(Tuning(kind="dist", dist=config, frames=FRAMES))


def test_a_resnet_is_not_tuned() -> None:
    resnet = backbone("tsm_tiny").load("random")
    with pytest.raises(ConfigError, match="tsm_tiny"):
        resnet.network(TUNINGS["dist"])


def test_copies_share_the_trunk(trunk: Any) -> None:
    module = nn.ModuleList([network(trunk, "dist")])
    assert copy.deepcopy(module)[0].trunk is trunk


def test_parameters_are_not_counted_by_the_options_of_another_tuning() -> None:
    with pytest.raises(ConfigError, match="adaptformer"):
        tuning_parameters("dist", Tuning())
