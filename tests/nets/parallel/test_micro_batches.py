"""Parts of a batch: chunks and processes give the features, losses, gradients and statistics of the whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from double_precision import double_precision
from torch import Tensor, nn

from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.compute import ComputeOptions
from vcil_bench.nets.parallel.batch_part import BatchPart, RowDropout, computing, current_part
from vcil_bench.nets.prompts import Slots
from vcil_bench.nets.trunk import AdapterConfig, Trunk, Tuning


def clips(batch: int = 5, frames: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, frames, 3, 64, 64), generator=generator, dtype=torch.uint8)


def network(trunk: Any, **tuning: Any) -> Any:
    """Return a network in training whose adapters, if any, count and drop out."""
    torch.manual_seed(0)
    found = trunk.network(Tuning(adapters=AdapterConfig(bottleneck=8, dropout=0.1), **tuning))
    for adapter in getattr(found, "adapters", []):
        nn.init.normal_(adapter.up.weight, std=0.1)
    return found.train()


def clip(micro_batch: int | None = None, **compute: Any) -> Any:
    return backbone("clip_tiny").load("random", ComputeOptions(micro_batch=micro_batch, **compute))


def coupled(frames: Tensor) -> Tensor:
    """A loss that no sum over parts of the batch gives."""
    unit = F.normalize(frames.mean(dim=1), dim=-1)
    return (unit @ unit.T * 5).exp().sum().log()


SAME = 1e-11  # relative, in float64: products of other shapes round differently, and that is all


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the distance of tensors from what is expected, relative to their length."""
    a, b = (torch.cat([t.float().flatten() for t in tensors]) for tensors in (found, expected))
    return float((a - b).norm() / b.norm().clamp_min(1e-9))


class Prompted(nn.Module):
    """Adapters with prompts for every clip or frame and prefixes for all and for every clip beside them."""

    def __init__(self, trunk: Any, frames_too: bool) -> None:
        super().__init__()
        self.encoder = network(trunk)
        rows = 15 if frames_too else 5
        self.prompts = nn.Parameter(torch.randn(rows, 2, 128))
        self.shared = nn.Parameter(torch.randn(1, 2, 3, 128))
        self.each = nn.Parameter(torch.randn(5, 2, 3, 128))

    def forward(self, some: Tensor) -> Tensor:
        slots = Slots(prompts=self.prompts, readout="prompts", prefixes={0: self.shared, 2: self.each})
        features: Tensor = self.encoder(some, slots)
        return features


def pass_of(net: Any, run: Callable[[], Tensor]) -> tuple[list[Tensor], Tensor]:
    """Return loss and gradients of one pass, and the state of the generator behind it."""
    torch.manual_seed(1)
    loss = coupled(run())
    trained = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    gradients = tuple(torch.zeros_like(p) if g is None else g for g, p in zip(gradients, trained, strict=True))
    return [loss.detach(), *gradients], torch.get_rng_state()


# --- dropout


def test_without_parts_the_dropout_is_torchs_own() -> None:
    x = torch.randn(4, 3)
    drop = RowDropout(0.3)
    torch.manual_seed(0)
    expected = F.dropout(x, 0.3)
    torch.manual_seed(0)
    assert torch.equal(drop(x), expected)
    with computing(BatchPart(1, 4, 9)):
        assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mask_of_a_part_is_its_part_of_the_whole_mask(dtype: torch.dtype) -> None:
    x = torch.randn(7, 3, 2, dtype=dtype)
    torch.manual_seed(0)
    whole = F.dropout(x, 0.5)
    for part in (slice(0, 3), slice(2, 4), slice(6, 7)):
        torch.manual_seed(0)
        with computing(BatchPart(part.start, part.stop - part.start, 7)):
            assert torch.equal(RowDropout(0.5)(x[part]), whole[part])


@pytest.mark.parametrize("start", [5, 7, 9])
def test_rows_that_pad_a_part_take_no_mask(start: int) -> None:
    x = torch.ones(4, 2)
    torch.manual_seed(0)
    whole = F.dropout(torch.ones(7, 2), 0.5)
    torch.manual_seed(0)
    with computing(BatchPart(start, 4, 7)):
        found = RowDropout(0.5)(x)
    assert found.shape == x.shape
    assert torch.equal(found[: max(0, 7 - start)], whole[start:])


# --- chunks


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_chunks_train_as_the_whole_batch(float64: None, size: int) -> None:
    whole, chunked = network(clip()), network(clip(size))
    expected, after = pass_of(whole, lambda: whole(clips()))
    found, chunked_after = pass_of(chunked, lambda: chunked(clips()))
    assert error(found, expected) < SAME
    assert torch.equal(after, chunked_after)


@pytest.mark.parametrize("frames_too", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_chunks_split_slots_and_give_them_gradients(float64: None, size: int, frames_too: bool) -> None:
    whole, chunked = Prompted(clip(), frames_too), Prompted(clip(size), frames_too)
    expected, after = pass_of(whole, lambda: whole(clips()))
    found, chunked_after = pass_of(chunked, lambda: chunked(clips()))
    assert error(found, expected) < SAME
    assert torch.equal(after, chunked_after)
    assert all(gradient.abs().sum() > 0 for gradient in found)


def test_chunks_train_prefixes_of_the_last_block_alone(float64: None) -> None:
    gradients = []
    for size in (None, 2):
        trunk = clip(size)
        prefix = torch.ones(5, 2, 3, 128).requires_grad_()
        frames = trunk.encode_frames(clips(), None, slots=Slots(prefixes={2: prefix}))
        gradients.append(torch.autograd.grad(coupled(frames), prefix)[0])
    assert error([gradients[1]], [gradients[0]]) < SAME


def test_chunks_of_a_distillation_train_as_the_whole_batch(float64: None) -> None:
    def distilled(size: int | None) -> tuple[list[Tensor], Tensor]:
        trunk = clip(size)
        net = network(trunk)
        old = network(trunk).frozen_copy()
        nn.init.normal_(old.adapters[0].down.bias)

        def drift() -> Tensor:
            new, before = net.forward_with(old, clips())
            assert not before.requires_grad
            return new * before

        return pass_of(net, drift)

    expected, after = distilled(None)
    found, chunked_after = distilled(2)
    assert error(found, expected) < SAME
    assert torch.equal(after, chunked_after)


def test_chunks_keep_autocast_in_the_backward_pass() -> None:
    whole, chunked = (network(clip(size, precision="bf16")) for size in (None, 2))
    expected, _ = pass_of(whole, lambda: whole(clips()).float())
    found, _ = pass_of(chunked, lambda: chunked(clips()).float())
    assert error(found, expected) < 0.02


def test_chunks_hold_fewer_activations() -> None:
    def held(net: Any) -> int:
        """Bytes that autograd keeps between the passes, each storage once."""
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or pack(t), lambda t: t):
            frames = net(clips(8))
        del frames
        return sum(storages.values())

    # What checkpoint keeps are its inputs, which these hooks do not see.
    assert held(network(clip(1))) < 0.1 * held(network(clip()))


def test_nothing_is_computed_twice_where_nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = clip(1)
    net = network(trunk)
    calls: list[int] = []
    stem = type(trunk)._stem

    def counting(self: Any, some: Tensor) -> Any:
        calls.append(len(some))
        return stem(self, some)

    monkeypatch.setattr(type(trunk), "_stem", counting)
    with torch.no_grad():
        net(clips())
    trunk.encode_frames(clips(), None)
    assert calls == [5, 5]


@pytest.mark.parametrize(("name", "able"), [("clip_tiny", True), ("tsm_tiny", False)])
def test_a_trunk_says_whether_chunks_are_the_whole(name: str, able: bool) -> None:
    assert backbone(name).load("random").supports_micro_batch == able


# --- processes


@dataclasses.dataclass
class Alone:
    """One of several processes as the networks see it; what others compute is zero."""

    rank: int
    size: int

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, local: Tensor, total: int) -> Tensor:
        before = local.new_zeros(self.rank * len(local), *local.shape[1:])
        after = local.new_zeros((self.size - self.rank - 1) * len(local), *local.shape[1:])
        return torch.cat([before, local, after])[:total]


def part_of(whole: Tensor, rank: int, size: int) -> Tensor:
    """Return a process's clips; the last ones are repeated where clips are too few."""
    count = math.ceil(len(whole) / size)
    return torch.stack([whole[min(i, len(whole) - 1)] for i in range(rank * count, (rank + 1) * count)])


@pytest.mark.parametrize("micro_batch", [None, 1])
def test_a_process_computes_its_rows_of_the_batch(float64: None, micro_batch: int | None) -> None:
    net = network(clip())
    torch.manual_seed(1)
    whole = net(clips())
    net = network(clip(micro_batch))
    for rank in range(4):  # two clips each; the last process has padding alone
        torch.manual_seed(1)
        with computing(BatchPart(2 * rank, 2, 5, Alone(rank, 4))):  # type: ignore[arg-type]
            found = net(part_of(clips(), rank, 4))
        assert found.shape == whole.shape
        own = slice(2 * rank, 2 * rank + 2)
        torch.testing.assert_close(found[own], whole[own])
        assert (found[: own.start] == 0).all()
    torch.manual_seed(1)
    torch.testing.assert_close(net(clips()), whole)


@pytest.mark.parametrize("micro_batch", [None, 1])
@pytest.mark.parametrize("frames_too", [False, True])
def test_a_process_takes_its_rows_of_the_slots(float64: None, micro_batch: int | None, frames_too: bool) -> None:
    whole = Prompted(clip(), frames_too).eval()
    expected = whole(clips())
    net = Prompted(clip(micro_batch), frames_too).eval()
    gradients = []
    for rank in range(4):  # two clips each; the last process has padding alone
        with computing(BatchPart(2 * rank, 2, 5, Alone(rank, 4))):  # type: ignore[arg-type]
            found = net(part_of(clips(), rank, 4))
            mine = slice(2 * rank, 2 * rank + 2)
            torch.testing.assert_close(found[mine], expected[mine])
            weights = torch.arange(5.0)[:, None, None] + 1
            gradients.append(torch.autograd.grad((found * weights).sum(), list(net.parameters())))
    alone = torch.autograd.grad((expected * weights).sum(), list(whole.parameters()))
    for gradient, parts in zip(alone, zip(*gradients, strict=True), strict=True):
        assert error([torch.stack(parts).sum(dim=0)], [gradient]) < SAME


CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("clip_tiny", {}, False),
    ("clip_tiny", {}, True),
    ("tsm_tiny", {"partial_bn": True}, False),
    ("tsm_tiny", {"partial_bn": False}, True),
]


def outcome(trunk: Trunk, tuning: dict[str, Any], with_maps: bool, batch: Tensor) -> list[Tensor]:
    """Return features, loss, gradients with respect to maps, gradients of weights, and statistics."""
    net = network(trunk, **tuning)
    trained = [p for p in net.parameters() if p.requires_grad]
    torch.manual_seed(1)
    if not with_maps:
        frames, maps = net(batch), []
    else:
        features = net.features(batch)
        frames, maps = features.frames, features.maps
    loss = coupled(frames) + sum((coupled(m.flatten(2)) for m in maps), torch.zeros(()))
    gradients = torch.autograd.grad(loss, [*maps, *trained], allow_unused=True)
    filled = [torch.zeros_like(w) if g is None else g for g, w in zip(gradients, [*maps, *trained], strict=True)]
    statistics = [b for name, b in net.named_buffers() if "running" in name or "tracked" in name]
    part = current_part()
    if part is not None and part.team is not None:  # as the training loop does with networks
        filled = [*filled[: len(maps)], *(part.team.sum(g) for g in filled[len(maps) :])]
    return [frames.detach(), *(m.detach() for m in maps), loss.detach(), *filled, *statistics]


def prompted_outcome(frames_too: bool, batch: Tensor) -> list[Tensor]:
    """Return features, the slots' gradients and the adapters' of a pass with slots."""
    net = Prompted(clip(), frames_too)
    torch.manual_seed(1)
    frames = net(batch)
    slots = [net.prompts, net.shared, net.each]
    adapters = list(net.encoder.parameters())
    gradients = torch.autograd.grad(coupled(frames), [*slots, *adapters])
    part = current_part()
    if part is not None and part.team is not None:  # of slots a process has the whole gradient by itself
        gradients = (*gradients[:3], *(part.team.sum(g) for g in gradients[3:]))
    return [frames.detach(), *gradients]


def work(rank: int, folder: str) -> None:
    """Be one of two processes that share every batch."""
    import torch.distributed as dist

    from vcil_bench.nets.parallel.team import Team

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    part = BatchPart(3 * rank, 3, 5, Team(rank, 2))
    with double_precision(), computing(part):
        for i, (name, tuning, with_maps) in enumerate(CASES):
            trunk = backbone(name).load("random")
            torch.save(outcome(trunk, tuning, with_maps, part_of(clips(), rank, 2)), f"{folder}/{rank}_{i}.pt")
        for frames_too in (False, True):
            found = prompted_outcome(frames_too, part_of(clips(), rank, 2))
            torch.save(found, f"{folder}/{rank}_prompted_{frames_too}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_as_one(float64: None, tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    for i, (name, tuning, with_maps) in enumerate(CASES):
        expected = outcome(backbone(name).load("random"), tuning, with_maps, clips())
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}_{i}.pt", weights_only=True)
            for a, b in zip(found, expected, strict=True):
                assert error([a], [b]) < SAME
    for frames_too in (False, True):
        expected = prompted_outcome(frames_too, clips())
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}_prompted_{frames_too}.pt", weights_only=True)
            for a, b in zip(found, expected, strict=True):
                assert error([a], [b]) < SAME
