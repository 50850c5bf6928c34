"""Ridge heads against the authors' code (RanPAC, ACIL and its group's layer); what order must not change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden_files import DTYPES, close, tensors
from torch import Tensor

from vcil_bench.nets.ridge import (
    RecursiveRidge,
    choose_ridge,
    random_features,
    ridge_losses,
    solve_ridge,
)


def expanded(data: dict[str, Tensor], kind: str, key: str) -> Tensor:
    """Return features as RanPAC's head takes them."""
    return random_features(data[key], data["W_rand"].T) if kind == "rp" else data[key]


@DTYPES
@pytest.mark.parametrize("kind", ["rp", "norp"])
def test_ranpac_equals_the_authors(kind: str, precision: str) -> None:
    data = tensors("ranpac_39", precision)
    sizes = data["classes_per_task"].tolist()
    ridges = data["ridges"].tolist()
    gram, cross = 0.0, 0.0
    for task in range(len(sizes)):
        x = expanded(data, kind, f"task{task}_features")
        y = F.one_hot(data[f"task{task}_labels"], sum(sizes)).to(x)
        losses = ridge_losses(x, y, ridges)
        well = [i for i, ridge in enumerate(ridges) if ridge >= 1e-2]  # the source's own digits end below
        close(losses[well], data[f"{kind}_task{task}_validation_losses"][well])
        ridge = choose_ridge(x, y, ridges)
        assert ridge == float(data[f"{kind}_task{task}_ridge"])
        gram, cross = gram + x.T @ x, cross + x.T @ y
        seen = sum(sizes[: task + 1])
        weight = solve_ridge(gram, cross, ridge)[:seen]
        close(weight, data[f"{kind}_task{task}_weight"], least=1e-9)
        close(expanded(data, kind, "test_features") @ weight.T, data[f"{kind}_task{task}_test_logits"])
    close(gram, data[f"{kind}_G"])
    close(cross, data[f"{kind}_Q"])


@pytest.mark.parametrize("rows", [12, 60])
def test_the_losses_are_those_of_solving_each_ridge(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 25, generator=generator, dtype=torch.float64)
    y = F.one_hot(torch.arange(rows) % 4).double()
    first = int(0.8 * rows)
    losses = []
    for ridge in (1e-1, 1.0, 1e3):
        weight = solve_ridge(x[:first].T @ x[:first], x[:first].T @ y[:first], ridge)
        losses.append((x[first:] @ weight.T - y[first:]).square().mean())
    torch.testing.assert_close(ridge_losses(x, y, (1e-1, 1.0, 1e3)), torch.stack(losses))


def test_the_first_of_equal_ridges_is_chosen() -> None:
    x, y = torch.zeros(10, 3, dtype=torch.float64), torch.ones(10, 1, dtype=torch.float64)
    assert choose_ridge(x, y, (4.0, 2.0, 8.0)) == 4.0


@DTYPES
def test_acil_equals_the_authors(precision: str) -> None:
    data = tensors("acil_01", precision)
    sizes = data["class_sizes"].tolist()
    least = 0.0 if precision == "float64" else 1e-3
    head = RecursiveRidge(len(data["projection"]), float(data["gamma"]))
    for task, size in enumerate(sizes):
        x = random_features(data[f"features{task}"], data["projection"])
        close(x, data[f"expanded{task}"])
        head.grow(size)
        head.update(x, data[f"labels{task}"])
        dtype = x.dtype
        close(head.weight.to(dtype), data[f"weight{task}"].T.contiguous(), least=least)
        close(head.weight.to(dtype), data[f"own_joint_weight{task}"].T.contiguous(), least=least)
        close(head.inverse.to(dtype), data[f"inverse{task}"], least=least)
    close(head(random_features(data["query"], data["projection"])), data["scores"], least=least)


@DTYPES
def test_the_recursive_head_equals_the_authors(precision: str) -> None:
    data = tensors("rls_47", precision)
    sizes = data["classes_per_task"].tolist()
    number = int(data["num_batches"]) // len(sizes)
    least = 0.0 if precision == "float64" else 1e-3
    head = RecursiveRidge(data["batch0_x"].shape[1], float(data["gamma"]))
    for task, size in enumerate(sizes):
        head.grow(size)
        for batch in range(task * number, (task + 1) * number):
            head.update(data[f"batch{batch}_x"], data[f"batch{batch}_y"])
        dtype = data["test_x"].dtype
        close(head.weight.to(dtype), data[f"task{task}_weight"].T.contiguous(), least=least)
        close(head.inverse.to(dtype), data[f"task{task}_R"], least=least)
    close(head(data["test_x"]), data["test_logits"], least=least)


@pytest.mark.parametrize("portions", [1, 7, 40])
def test_how_samples_are_cut_and_ordered_does_not_matter(portions: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 9, generator=generator, dtype=torch.float64)
    y = torch.arange(40) // 10
    whole = RecursiveRidge(9, 0.1)
    whole.grow(4)
    whole.update(x, y)
    cut = RecursiveRidge(9, 0.1)
    order = torch.randperm(40, generator=generator)
    cut.grow(4)
    for some in order.chunk(portions):
        cut.update(x[some], y[some])
    torch.testing.assert_close(cut.weight, whole.weight, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(cut.inverse, whole.inverse, rtol=1e-9, atol=1e-12)


def test_the_head_is_float64_inside_and_changes_nothing_it_is_handed() -> None:
    x, y = torch.rand(5, 3), torch.tensor([0, 0, 1, 1, 1])
    kept = x.clone()
    head = RecursiveRidge(3, 0.1)
    head.grow(2)
    head.update(x, y)
    assert (head.weight.dtype, head.inverse.dtype) == (torch.float64, torch.float64)
    assert head(x).dtype == torch.float32
    assert torch.equal(x, kept)
