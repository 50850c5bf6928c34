"""The penalty of EWC and MAS in two maps: the same as with maps of every task, whatever grows in between."""

from __future__ import annotations

import pytest
import torch
from golden_files import DTYPES, close, tensors
from torch import Tensor

from vcil_bench.consolidation import QuadraticPenalty, summed_gradients
from vcil_bench.losses import parameter_penalty

NAMES = ("fc1_weight", "fc1_bias", "head_weight", "head_bias")
HEAD = NAMES[2:]


def named(data: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: data[f"{prefix}_{name}"] for name in NAMES}


def consolidated(data: dict[str, Tensor], method: str, tasks: int) -> QuadraticPenalty:
    """Return the maps after some of the recorded tasks, the head grown in front of each."""
    star = named(data, "star0")
    maps = QuadraticPenalty({n: star[n][:0] if n in HEAD else star[n] for n in NAMES}).to(star["fc1_bias"].dtype)
    for task in range(tasks):
        star = named(data, f"star{task}")
        maps.grow({name: star[name] for name in HEAD})
        maps.consolidate(star, named(data, f"{method}_importance{task}"))
    return maps


def with_gradients(
    maps: QuadraticPenalty, parameters: dict[str, Tensor], weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the penalty times a weight, and its gradients."""
    leaves = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in parameters.items()}
    for leaf in leaves.values():
        leaf.grad = torch.zeros_like(leaf)
    maps.add_gradients(leaves, weight)
    return weight * maps.value(leaves), {
        name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None
    }


@DTYPES
@pytest.mark.parametrize("task", [1, 2])
@pytest.mark.parametrize("method", ["ewc", "mas"])
def test_the_penalty_of_every_task_equals_vclimb(method: str, task: int, precision: str) -> None:
    data = tensors("vclimb_31", precision)
    now = named(data, f"now{task}")
    stars = [named(data, f"star{i}") for i in range(task)]
    importances = [named(data, f"{method}_importance{i}") for i in range(task)]
    penalty = data["lambda"] * parameter_penalty(now, stars, importances)
    close(penalty, data[f"{method}_penalty_task{task}"])


@DTYPES
@pytest.mark.parametrize("task", [1, 2])
@pytest.mark.parametrize("method", ["ewc", "mas"])
def test_two_maps_equal_vclimb_with_gradients(method: str, task: int, precision: str) -> None:
    data = tensors("vclimb_31", precision)
    now, weight = named(data, f"now{task}"), float(data["lambda"])
    maps = consolidated(data, method, task)
    maps.grow({name: now[name] for name in HEAD})  # the rows of a later task are free
    penalty, gradients = with_gradients(maps, now, weight)
    close(penalty, data[f"{method}_penalty_task{task}"])
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in now.items()}
    stars = [named(data, f"star{i}") for i in range(task)]
    importances = [named(data, f"{method}_importance{i}") for i in range(task)]
    expected = torch.autograd.grad(weight * parameter_penalty(leaves, stars, importances), list(leaves.values()))
    for name, gradient in zip(NAMES, expected, strict=True):
        close(gradients[name], gradient)


def test_without_a_task_there_is_no_penalty() -> None:
    parameters = {"w": torch.randn(3, 2)}
    assert float(parameter_penalty(parameters, [], [])) == 0
    value, gradients = with_gradients(QuadraticPenalty(parameters), parameters, 5.0)
    assert float(value) == 0
    assert not gradients["w"].any()


@pytest.mark.parametrize(("moved", "of_value", "of_gradient"), [(2e-3, 1e-6, 2e-6), (1e-4, 5e-6, 5e-5)])
def test_twenty_tasks_in_two_maps_cost_the_digits_that_the_docstring_says(
    moved: float, of_value: float, of_gradient: float
) -> None:
    draw = torch.Generator().manual_seed(0)

    def normal(std: float) -> Tensor:
        return std * torch.randn(50_000, generator=draw, dtype=torch.float64)

    star, stars, importances = normal(0.05), [], []
    maps = QuadraticPenalty({"w": torch.zeros(50_000)})
    for _ in range(20):
        star = star + normal(moved)
        importance = normal(2.3).exp()  # over some decades
        stars.append({"w": star.float().double()})
        importances.append({"w": importance.float().double()})
        maps.consolidate({"w": star.float()}, {"w": importance.float()})
    now = (star + normal(moved)).float()
    leaf = now.double().requires_grad_()
    expected = parameter_penalty({"w": leaf}, stars, importances)
    (gradient,) = torch.autograd.grad(expected, leaf)
    value, found = with_gradients(maps, {"w": now}, 1.0)
    assert abs(float(value) / float(expected.detach()) - 1) < of_value
    assert float((found["w"].double() - gradient).norm() / gradient.norm()) < of_gradient


def test_maps_stay_as_large_as_the_parameters() -> None:
    parameters = {"w": torch.zeros(7, 3), "head": torch.zeros(0, 3)}
    maps = QuadraticPenalty(parameters)
    for task in range(1, 21):
        parameters["head"] = torch.zeros(2 * task, 3)
        maps.grow({"head": parameters["head"]})
        maps.consolidate(parameters, {name: torch.ones_like(p) for name, p in parameters.items()})
        stored = sum(tensor.numel() for tensor in maps.state_dict().values())
        assert stored == 1 + 2 * sum(p.numel() for p in parameters.values())


def test_importance_of_rows_to_come_holds_them_where_they_start() -> None:
    """And is dropped where fewer come; more are free."""
    for new in (1, 2, 3):
        maps = QuadraticPenalty({"head": torch.zeros(0)})
        maps.grow({"head": torch.zeros(2)}, room=2)
        maps.consolidate({"head": torch.zeros(4)}, {"head": torch.tensor([1.0, 2.0, 3.0, 4.0])})
        head = torch.full((2 + new,), 0.5)
        maps.grow({"head": head}, room=new)
        maps.hold_new_rows({"head": head}, 2)
        held = [1.0, 2.0, 3.0, 4.0, 0.0][: 2 + new]
        value, gradients = with_gradients(maps, {"head": head}, 1.0)
        assert float(value) == 0.25 * 3
        assert gradients["head"].tolist() == [1.0, 2.0, *[0.0] * new]
        _, gradients = with_gradients(maps, {"head": head + 1}, 1.0)
        assert gradients["head"].tolist() == [3.0, 6.0, *[2 * h for h in held[2:]]]
        assert not maps.get_buffer("importance:head")[2 + new :].any()


def test_gradients_are_summed_one_batch_at_a_time() -> None:
    batches = ({"a": torch.tensor([float(i)]), "b": torch.ones(2)} for i in range(4))
    total = summed_gradients(batches)
    assert total["a"].tolist() == [6.0]
    assert total["b"].tolist() == [4.0, 4.0]
