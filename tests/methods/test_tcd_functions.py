"""TCD's own pieces against its authors' code: importance, loss weights, and the optimiser that steps twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch
from golden_files import DTYPES, close, golden, tensors
from torch import Tensor, nn

from vcil_bench.methods.tcd import TCD, AuthorsSGD, accumulate_importance, loss_weights, normalise_importance

LAYERS = ["layer1", "layer2", "layer3", "layer4", "raw"]


def batches(data: dict[str, Tensor], frames: int, layer: str) -> list[Tensor]:
    """Return the recorded gradients of a layer's output, per batch [B, T, ...]."""
    sizes = data[f"T{frames}_batch_sizes"].tolist()
    found = [data[f"T{frames}_b{i}_grad_{layer}"].unflatten(0, (-1, frames)) for i in range(len(sizes))]
    assert [len(batch) for batch in found] == sizes
    return found


# --- importance


@DTYPES
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("frames", [8, 16])
def test_importance_equals_the_authors(frames: int, layer: str, precision: str) -> None:
    data = tensors("tcd_06", precision)
    importance = accumulate_importance(batches(data, frames, layer))
    close(importance, data[f"T{frames}_accum_{layer}"])
    close(normalise_importance(importance), data[f"T{frames}_normalized_{layer}"])


@DTYPES
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("frames", [8, 16])
def test_importance_as_written_keeps_frames_apart_for_any_length(
    frames: int, layer: str, precision: str
) -> None:
    data = tensors("tcd_06", precision)
    gradients = batches(data, frames, layer)
    importance = accumulate_importance(gradients, authors_code=False)
    squares = [g.square().flatten(3).sum(dim=3) if g.dim() > 3 else g.square() for g in gradients]
    close(importance, torch.stack([q.mean(dim=0) for q in squares]).sum(dim=0))
    if frames == 8:
        close(importance, data[f"T8_accum_{layer}"])
    else:
        # The authors' code loses time there, and nothing else.
        assert not torch.allclose(importance[0], importance[1], atol=0)
        close(importance.mean(dim=0).expand(16, -1), data[f"T16_accum_{layer}"])


def test_importance_adds_up_over_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(n, 8, 5, 2, 2, generator=generator) for n in (3, 1, 2)]
    parts = [accumulate_importance([g]) for g in gradients]
    torch.testing.assert_close(accumulate_importance(gradients), torch.stack(parts).sum(dim=0))


def test_normalised_importance_has_mean_one_and_survives_a_loss_without_gradient() -> None:
    importance = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(normalise_importance(importance).mean(), torch.tensor(1.0))
    assert (normalise_importance(torch.zeros(8, 5)) == 0).all()


@pytest.mark.parametrize("shape", [(1, 8, 5), (1, 1, 5), (1, 1, 5, 1, 1), (2, 4, 1, 3, 2)])
@pytest.mark.parametrize("authors_code", [True, False])
def test_importance_is_finite_on_one_video_or_frame_or_channel(
    shape: tuple[int, ...], authors_code: bool
) -> None:
    importance = accumulate_importance([torch.ones(shape)], authors_code=authors_code)
    assert importance.shape == shape[1:3]
    expected = np.prod(shape[3:])
    assert (importance == expected).all()


# --- loss weights


@pytest.mark.parametrize("kind", ["geo", "fix", "arith"])
def test_loss_weights_equal_the_authors(kind: Literal["geo", "fix", "arith"]) -> None:
    data = golden("tcd_13")
    for row, (new, old) in enumerate(zip(data["n_new"], data["n_old"], strict=True)):
        found = loss_weights(kind, float(data["lambda_0"][row]), int(new), int(old))
        np.testing.assert_allclose(found, data[f"lambda_{kind}"][row], rtol=1e-9)


@pytest.mark.parametrize("kind", ["geo", "fix", "arith"])
def test_the_base_task_is_classification_alone(kind: Literal["geo", "fix", "arith"]) -> None:
    assert loss_weights(kind, 0.01, 51, 0) == (1.0, 0.0)


# --- steps


def positions(repeated: bool, steps: int = 3, decay: float = 0.0) -> list[float]:
    """Return where a parameter that starts at 0 comes to under a constant gradient of 1."""
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    other = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    groups = [{"params": [parameter], "repeated": repeated}, {"params": [other], "repeated": not repeated}]
    optimiser = AuthorsSGD(groups, lr=1.0, momentum=0.9, weight_decay=decay)
    found = []
    for _ in range(steps):
        parameter.grad, other.grad = torch.ones_like(parameter), torch.ones_like(other)
        optimiser.step()
        found.append(parameter.item())
    return found


def test_groups_that_are_repeated_step_as_if_they_stood_in_the_optimiser_twice() -> None:
    # -2, not -2.9: at the first step neither finds momentum.
    assert positions(repeated=True) == pytest.approx([-2.0, -6.61, -14.1441])


def test_groups_that_are_not_repeated_step_once() -> None:
    assert positions(repeated=False) == pytest.approx([-1.0, -2.9, -5.61])


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_repeated_steps_equal_a_parameter_listed_twice(decay: float) -> None:
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = torch.optim.SGD(
        [{"params": [parameter, parameter]}], lr=1.0, momentum=0.9, weight_decay=decay, foreach=False
    )
    for expected in positions(repeated=True, steps=4, decay=decay):
        parameter.grad = torch.ones_like(parameter)
        optimiser.step()
        assert parameter.item() == pytest.approx(expected)


def test_a_schedule_changes_the_rate_of_repeated_groups_too() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = AuthorsSGD([{"params": [parameter], "repeated": True}], lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [1], 0.1)
    found = []
    for _ in range(2):
        parameter.grad = torch.ones_like(parameter)
        optimiser.step()
        schedule.step()
        found.append(parameter.item())
    assert found == pytest.approx([-2.0, -2.2])
    assert len(optimiser.param_groups) == 1


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_overflows_leaves_what_has_piled_up_as_it_was(bad: float) -> None:
    stepped, piling = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimiser = AuthorsSGD([{"params": [stepped]}, {"params": [piling], "piles_up": True}], lr=0.1)
    method = SimpleNamespace(
        config=SimpleNamespace(clip_norm=1.0),
        context=SimpleNamespace(precision="fp16"),
        parameters=lambda: [stepped, piling],
    )
    piled = []
    for gradient in (1.0, bad, 1.0):

        def backward(losses: dict[str, torch.Tensor], gradient: float = gradient) -> None:
            stepped.grad, piling.grad = torch.full((2,), gradient), torch.ones(2)

        epoch = SimpleNamespace(backward=backward, update=lambda: None)
        TCD._step(method, epoch, optimiser, {})  # type: ignore[arg-type]
        piled.append(optimiser.state[piling]["pile"].clone())
    assert all(torch.isfinite(sums).all() for sums in piled)
    assert (piled[1] >= piled[0]).all()
    assert not piled[2].equal(piled[0])
