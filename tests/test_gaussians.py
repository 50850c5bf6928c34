"""Class Gaussians against the authors' code (SSIAT, SLCA, FeCAM), and the forms that take less memory."""

from __future__ import annotations

import pytest
import torch
from golden_files import DTYPES, close, tensors
from torch import Tensor

from vcil_bench.gaussians import ClassStatistics, Spread, class_gaussians, sample, scaled_means


def stacked(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return [K, n, D] as rows and labels."""
    return features.flatten(0, 1), torch.arange(len(features)).repeat_interleave(features.shape[1])


@DTYPES
@pytest.mark.parametrize(("item", "jitter"), [("ssiat_42", 1e-3), ("slca_43", 1e-4)])
def test_statistics_equal_the_authors(item: str, jitter: float, precision: str) -> None:
    data = tensors(item, precision)
    means, covariances = class_gaussians(*stacked(data["class_features"]), 2, jitter)
    close(means, data["class_means_of_features"])
    close(covariances, data["class_covs_of_features"])


@DTYPES
@pytest.mark.parametrize("item", ["ssiat_42", "slca_43"])
def test_scaled_means_equal_the_authors(item: str, precision: str) -> None:
    data = tensors(item, precision)
    sizes = data["task_sizes"].tolist()
    close(scaled_means(data["means"], sizes, released=True), data["scaled_means"])
    own = scaled_means(data["means"], sizes)
    tasks = torch.tensor([task for task, size in enumerate(sizes) for _ in range(size)])
    close(own, data["means"] * (0.9 + 0.1 * (tasks[:, None] + 1).to(own) / len(sizes)))


def test_a_class_without_samples_and_one_of_a_single_sample() -> None:
    means, covariances = class_gaussians(torch.tensor([[1.0, 2.0]]), torch.tensor([1]), 2, 0.5)
    assert means.tolist() == [[0, 0], [1, 2]]
    assert torch.equal(covariances, 0.5 * torch.eye(2).expand(2, 2, 2))


@pytest.mark.parametrize("spread", ["class", "pooled", "diagonal"])
def test_statistics_kept_over_tasks(spread: Spread) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=generator)
    y = torch.tensor([0] * 5 + [1] * 15 + [2] * 10)
    kept = ClassStatistics(4, spread, jitter=0.1)
    for new in (range(2), range(2, 3)):
        kept.grow(len(new))
        some = (y >= new.start) & (y < new.stop)
        kept.take_in(x[some], y[some], new)
    means, covariances = class_gaussians(x.double(), y, 3)
    scatter = ((torch.tensor([5, 15, 10]) - 1)[:, None, None] * covariances).sum(dim=0, keepdim=True)
    expected = {
        "class": covariances + 0.1 * torch.eye(4),
        "pooled": scatter / (30 - 3) + 0.1 * torch.eye(4),
        "diagonal": covariances.diagonal(dim1=1, dim2=2) + 0.1,
    }[spread]
    torch.testing.assert_close(kept.means, means.float())
    torch.testing.assert_close(kept.covariances, expected.float())
    assert kept.nbytes == 4 * (3 * 4 + {"class": 3 * 16, "pooled": 16, "diagonal": 12}[spread])


@pytest.mark.parametrize("spread", ["class", "pooled", "diagonal"])
def test_samples_have_the_statistics_they_were_drawn_from(spread: Spread) -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    roots = torch.randn(1 if spread == "pooled" else 2, 3, 3, generator=generator, dtype=torch.float64)
    full = roots @ roots.mT + torch.eye(3)
    if spread == "diagonal":
        full = torch.diag_embed(full.diagonal(dim1=1, dim2=2))
    draws = torch.randn(2, 20_000, 3, generator=generator, dtype=torch.float64)
    given = full.diagonal(dim1=1, dim2=2) if spread == "diagonal" else full
    found = class_gaussians(*stacked(sample(means, given, draws)), 2)
    torch.testing.assert_close(found[0], means, rtol=0, atol=0.1)
    torch.testing.assert_close(found[1], full.expand(2, 3, 3), rtol=0.05, atol=0.1)
