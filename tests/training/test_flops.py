"""FLOPs: torch's formulas by hand, samples that stand for a whole pass, and counting that moves no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vcil_bench import record
from vcil_bench.training.flops import FlopCount


def counted(compute: Any) -> int:
    with FlopCount(counts=True).apart() as numbers:
        compute()
    return numbers[0]


def test_a_product_counts_two_for_each_multiplication_and_a_backward_pass_two_products() -> None:
    layer, x = nn.Linear(8, 4), torch.ones(3, 8, requires_grad=True)
    assert counted(lambda: layer(x)) == 2 * 3 * 8 * 4
    assert counted(lambda: layer(x).sum().backward()) == 3 * (2 * 3 * 8 * 4)
    with torch.inference_mode():
        assert counted(lambda: layer(x.detach())) == 2 * 3 * 8 * 4
        assert counted(lambda: layer(torch.ones(2, 5, 8))) == 2 * 10 * 8 * 4


def test_a_convolution_counts_its_kernel_at_every_place() -> None:
    layer = nn.Conv2d(3, 5, 3, padding=1)
    assert counted(lambda: layer(torch.ones(2, 3, 6, 7))) == 2 * (2 * 6 * 7) * 5 * (3 * 9)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_counts_alike_in_training_and_by_the_fast_path_of_testing(heads: int) -> None:
    attention, x = nn.MultiheadAttention(8, heads, batch_first=True), torch.ones(3, 5, 8)
    expected = 2 * 3 * 5 * 8 * (4 * 8 + 2 * 5)
    assert counted(lambda: attention(x, x, x, need_weights=False)) == expected
    attention.eval()
    with torch.no_grad():
        assert counted(lambda: attention(x, x, x, need_weights=False)) == expected


@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_as_a_whole_counts_as_its_parts_and_computes_the_same(autocast: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True).eval()
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        parts = counted(lambda: layer(x))
        with torch.no_grad():
            plain, results = layer(x), []
            assert counted(lambda: results.append(layer(x))) == parts
    assert parts == 2 * 3 * 5 * 8 * (4 * 8 + 2 * 5) + 2 * 3 * 5 * 2 * 8 * 16
    assert torch.equal(results[0], plain)


def test_a_sample_stands_for_what_it_is_said_to_and_a_phase_has_one() -> None:
    flops, layer = FlopCount(counts=True), nn.Linear(8, 4)
    for _ in range(3):
        with flops.standing_for(2.5, "task 1"):
            layer(torch.ones(1, 8))
    assert flops.total == 2.5 * 64
    resumed = FlopCount(counts=True)
    resumed.load_state_dict(flops.state_dict())
    with resumed.standing_for(2.5, "task 1"), resumed.standing_for(7):
        layer(torch.ones(1, 8))
    assert resumed.total == 2.5 * 64 + 7 * 64
    flops.begin_task()
    assert flops.total == 0


def test_a_pass_that_is_broken_off_counts_no_further() -> None:
    flops, layer = FlopCount(counts=True), nn.Linear(8, 4)

    def batches() -> Any:
        with flops.standing_for(1, "task 1"):
            yield torch.ones(1, 8)

    broken_off = batches()
    next(broken_off)
    flops.stop()
    assert counted(lambda: layer(torch.ones(1, 8))) == 64
    broken_off.close()
    assert flops.total == 0


@pytest.mark.parametrize(
    ("method", "backbone", "precision"),
    [
        ("finetune", "clip_tiny", "fp32"),
        pytest.param("stpr", "clip_tiny", "bf16", marks=pytest.mark.slow),
        pytest.param("tcd", "tsm_tiny", "fp32", marks=pytest.mark.slow),
    ],
)
def test_counting_moves_no_number_and_the_record_has_it(
    method: str, backbone: str, precision: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ["epochs=2", "epochs_first=2", "batch_size=4", f"backbone={backbone}", "workers=0"]
    quick += [f"precision={precision}"]
    quick += ["balanced_epochs=1"] if method == "tcd" else []

    def run(folder: Path) -> dict[str, Any]:
        places = ("--data", tiny.root, "--results", folder, "--device", "cpu", "--seed", "1")
        assert tiny.main("run", method, tiny.protocol, *places, "--set", *quick) == 0
        (path,) = folder.glob("*/*/*-s1.json")
        return dict(record.load(path).data)

    counting = run(tmp_path / "counting")
    plain = FlopCount.__init__
    monkeypatch.setattr(FlopCount, "__init__", lambda self, *_, counts: plain(self, counts=False))
    without = run(tmp_path / "without")
    for step, other in zip(counting["steps"], without["steps"], strict=True):
        assert (step["correct"], step["losses"]) == (other["correct"], other["losses"])
        assert (other["costs"]["train_flops"], other["costs"]["test_clip_flops"]) == (None, None)
        # Forward and backward passes of some dozen clips, against one forward pass.
        assert step["costs"]["train_flops"] > 10 * step["costs"]["test_clip_flops"] > 0


def test_samples_come_to_what_every_batch_counts(tiny: Any, stream: Any) -> None:
    """Of a network without batches that differ: the count of a phase equals that of all its steps."""
    from small_runs import context_of
    from torch.optim import SGD

    from vcil_bench.nets.backbones import backbone
    from vcil_bench.training import Trainer

    context = context_of(backbone("tsm_tiny").load("random"), tiny.protocol)
    trainer = Trainer(torch.device("cpu"), "fp32", context.loader, count_flops=True)
    layer = nn.Linear(3 * 2 * 2, 4)
    steps: list[int] = []

    def score(clips: Tensor) -> Tensor:
        return layer(clips[:, 0, :, :2, :2].flatten(1).float() / 255)

    videos = stream.task(0).train[:5]
    optimiser = SGD(layer.parameters(), lr=0.1)
    for epoch in trainer.epochs(layer, videos, optimiser, num_epochs=3, batch_size=2, phase="task 1"):
        for batch in epoch:
            steps.append(len(batch.clips))
            epoch.step({"loss": score(batch.clips).square().mean()})
    assert steps == [2, 2, 1] * 3
    assert trainer.flops.total == pytest.approx(2 * 15 * (2 * 12 * 4))  # no gradient by the clips
