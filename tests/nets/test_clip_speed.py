"""What makes trunks faster leaves their results: stored precision, known features, compiled blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.compute import ComputeOptions
from vcil_bench.nets.feature_cache import FeatureCache
from vcil_bench.nets.prompts import Slots
from vcil_bench.nets.trunk import AdapterConfig, Tuning


def clips(batch: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 2, 3, 64, 64), generator=generator, dtype=torch.uint8)


def network(trunk: Any) -> Any:
    torch.manual_seed(0)
    found = trunk.network(Tuning(adapters=AdapterConfig(bottleneck=8)))
    for adapter in getattr(found, "adapters", []):
        nn.init.normal_(adapter.up.weight, std=0.1)
    return found.train()


def trained(net: Any) -> list[Tensor]:
    """Return features and gradients of a pass with dropout."""
    torch.manual_seed(1)
    frames = net(clips())
    return [frames, *torch.autograd.grad(frames.float().square().sum(), _parameters(net))]


def _parameters(net: nn.Module) -> list[nn.Parameter]:
    return [p for p in net.parameters() if p.requires_grad]


# --- stored precision


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_stored_precision_gives_what_autocast_gives(precision: Any, dtype: torch.dtype) -> None:
    plain = backbone("clip_tiny").load(None)
    stored = backbone("clip_tiny").load(None, ComputeOptions(precision=precision))
    a, b = network(plain), network(stored)
    with torch.autocast("cpu", dtype):
        expected = trained(a)
        assert all(map(torch.equal, trained(b), expected))
        with torch.no_grad():
            assert torch.equal(stored.encode_frames(clips(), None), plain.encode_frames(clips(), None))
    # Where a method forgets autocast, weights and activations still meet.
    with torch.no_grad():
        assert torch.equal(stored.encode_frames(clips(), None), b.eval().trunk.encode_frames(clips(), None))
    assert expected[0].dtype == dtype


def test_only_products_are_rounded_and_texts_stay_as_they_are() -> None:
    plain = backbone("clip_tiny").load(None)
    stored = backbone("clip_tiny").load(None, ComputeOptions(precision="bf16"))
    assert torch.equal(stored.encode_text(["a red square"]), plain.encode_text(["a red square"]))
    kinds = {name: p.dtype for name, p in stored.model.named_parameters()}
    low = {name for name, kind in kinds.items() if kind == torch.bfloat16}
    blocks = "visual.transformer.resblocks"
    parts = ("attn.in_proj", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    products = {name for name in kinds if name.startswith(blocks) and any(part in name for part in parts)}
    assert low == {"visual.conv1.weight", "visual.proj"} | products
    assert stored.num_parameters == plain.num_parameters


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_full_precision_is_stored_as_it_is(precision: Any) -> None:
    trunk = backbone("clip_tiny").load(None, ComputeOptions(precision=precision))
    assert {p.dtype for p in trunk.model.parameters()} == {torch.float32}  # type: ignore[attr-defined]


# --- known features


def test_known_clips_are_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = backbone("clip_tiny").load(None).encode_frames(clips(), None)  # type: ignore[attr-defined]
    trunk: Any = backbone("clip_tiny").load(None, ComputeOptions(feature_cache_mb=1))
    assert torch.equal(trunk.encode_frames(clips(), None), expected)
    monkeypatch.setattr(trunk, "_stem", None)
    assert torch.equal(trunk.encode_frames(clips(), None), expected)
    assert torch.equal(trunk.encode_frames(clips()[[2, 0, 0]], None), expected[[2, 0, 0]])


def test_features_known_from_an_evaluation_can_be_trained_on() -> None:
    trunk: Any = backbone("clip_tiny").load(None, ComputeOptions(feature_cache_mb=1))
    with torch.inference_mode():
        trunk.encode_frames(clips(), None)
    head = nn.Linear(trunk.dim, 1)
    head(trunk.encode_frames(clips(), None)).sum().backward()
    assert head.weight.grad is not None


def test_the_cache_keeps_what_was_used_last_within_its_bound() -> None:
    asked: list[int] = []

    def compute(some: Tensor) -> Tensor:
        asked.append(len(some))
        return some.float().mean(dim=(2, 3, 4))

    cache = FeatureCache(limit=2 * 8)  # two features of two float32
    a, b, c = (clips(1, seed) for seed in range(3))
    expected = compute(torch.cat([a, b, a, c]))
    asked.clear()
    assert torch.equal(cache.get(torch.cat([a, b, a, c]), compute), expected)
    assert cache.bytes == 16
    cache.get(c, compute)
    cache.get(a, compute)  # the first that went
    cache.get(c, compute)
    assert asked == [4, 1]


# --- compiled blocks, each in a process of its own: where a block was compiled, torch computes no gradients in
# processes that are forked later, as other tests do


def in_a_fork(check: Callable[[], object], output: Path) -> None:
    def work() -> int:
        check()
        return 0

    assert forked.run(work, output) == 0, output.read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
@pytest.mark.parametrize("name", ["clip_tiny", "tsm_tiny"])
def test_compiled_blocks_train_alike(name: str, tmp_path: Path) -> None:
    def check() -> None:
        expected = trained(network(backbone(name).load("random")))
        net = network(backbone(name).load("random", ComputeOptions(compile=True)))
        for found in (trained(net), trained(net)):
            for a, b in zip(found[:1] if name == "tsm_tiny" else found, expected, strict=False):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.detach().abs().max()))
        with torch.no_grad():
            torch.testing.assert_close(net.frozen_copy()(clips()), net.eval()(clips()), rtol=1e-4, atol=1e-4)

    in_a_fork(check, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_compiled_blocks_train_slots_alike(tmp_path: Path) -> None:
    def check() -> None:
        passes = []
        for compute in (ComputeOptions(), ComputeOptions(compile=True)):
            trunk: Any = backbone("clip_tiny").load("random", compute)
            torch.manual_seed(0)
            prompts, prefix = torch.randn(3, 4, 128).requires_grad_(), torch.randn(1, 2, 5, 128).requires_grad_()
            slots = Slots(prompts=prompts, readout="prompts", prefixes={0: prefix})
            frames = trunk.encode_frames(clips(), None, slots=slots)
            passes.append([frames, *torch.autograd.grad(frames.square().sum(), [prompts, prefix])])
        for a, b in zip(*passes, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4 * float(a.detach().abs().max()))

    in_a_fork(check, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_a_block_is_compiled_once_for_all_sizes_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    def check() -> None:
        net = network(backbone("tsm_tiny").load("random", ComputeOptions(compile=True)))
        net.net.layer2 = net.net.layer3 = net.net.layer4 = nn.Sequential()  # one block will do
        for size in (10, 9, 12):  # below 16 frames torch's convolutions on CPUs take another way
            net.train()(clips(size)).sum().backward()
            assert len(graphs) == 1
        for size in (11, 8):
            with torch.inference_mode():
                net.eval()(clips(size))
            assert len(graphs) == 2
        assert not counters["graph_break"]

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    in_a_fork(check, tmp_path / "out")
