"""Methods on pretrained features: their switches, the order of tasks, what they keep, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import config_of, learn, method_class, stream_of, untried_switches
from torch import Tensor

from vcil_bench.classifier import ClassifierConfig
from vcil_bench.common.config import ConfigError
from vcil_bench.method import Method
from vcil_bench.methods import ranpac
from vcil_bench.nets.backbones import backbone
from vcil_bench.nets.trunk import Tuning
from vcil_bench.run.plan import RunError, make_plan

# One variant per switch value, and per number that takes a part away.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "simplecil": [{"adapt": "first"}, {"features": "unprojected"}],
    "ranpac": [{"adapt": "first"}, {"features": "unprojected"}, {"expansion": 0}, {"ridge": 1e3}],
    "fecam": [
        *({"adapt": "first"}, {"features": "unprojected"}, {"alpha": 1.0}),
        *({"covariance": "pooled"}, {"covariance": "diagonal"}),
    ],
    "ssiat": [
        *({"features": "unprojected"}, {"margin": 0.3}, {"shift": False}, {"paired": False}),
        *({"sigma": 0.1}, {"sigma_unit": "median"}, {"alignment_epochs": 0}),
        *({"covariance": "pooled"}, {"covariance": "diagonal"}),
    ],
    "acil": [{"base_training": "always"}, {"features": "unprojected"}, {"expansion": 0}, {"gamma": 10.0}],
    "ease": [{"features": "unprojected"}, {"alpha": 0.5}, {"beta": 0.5}],
}
# acil on a CLIP trains nothing by itself, so that base_training=never is what it does there.
# Where tasks are alike, or only two, these change nothing; their functions are tested for themselves.
NEED_OTHER_TASKS: dict[str, list[dict[str, Any]]] = {
    "acil": [{"base_training": "never"}],
    "ssiat": [{"released_scaling": True}],
    "ease": [{"reset": False}],
}
FREE_OF_TRAINING: list[tuple[str, dict[str, Any]]] = [
    ("simplecil", {}),
    ("ranpac", {"ridge": 10.0}),
    ("fecam", {}),
    ("acil", {"base_training": "never"}),
]


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("clip_tiny").load(None)


def scores(
    name: str, trunk: Any, tiny: Any, *, seed: int = 1, sizes: tuple[int, ...] = (2, 2), **changes: Any
) -> tuple[Method, Tensor]:
    """Let a method learn all tasks; return it with its scores of all test clips, classes in their own order."""
    cls = method_class(name)
    stream = stream_of(tiny, seed, sizes)
    method = learn(cls, config_of(cls, **changes), trunk, stream, tiny, steps=len(sizes))
    samples = sorted((s for i in range(len(sizes)) for s in stream.test(i)), key=lambda s: s.id)
    loader = method.context.loader
    clips = torch.cat([batch.clips[:, 0] for batch in loader.views(samples, 8)])
    with torch.no_grad():
        all_scores = method.predict(clips)[cls.readouts[0]]
    return method, all_scores[:, torch.tensor(stream.order).argsort()]


@pytest.fixture(scope="module")
def plain(trunk: Any, tiny: Any) -> Any:
    made: dict[str, Tensor] = {}

    def of(name: str) -> Tensor:
        if name not in made:
            made[name] = scores(name, trunk, tiny)[1]
        return made[name]

    return of


@pytest.mark.parametrize("name", VARIANTS)
def test_every_switch_is_among_the_variants(name: str) -> None:
    variants = [*VARIANTS[name], *NEED_OTHER_TASKS.get(name, [])]
    base = ClassifierConfig if name == "acil" else None  # whose switches are tried under lwf
    assert untried_switches(method_class(name), variants, base) == []


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param(name, changes, marks=() if number == 0 else pytest.mark.slow)
        for name, variants in VARIANTS.items()
        for number, changes in enumerate(variants)
    ],
    ids=lambda x: x if isinstance(x, str) else "+".join(f"{k}={v}" for k, v in x.items()),
)
def test_every_switch_changes_the_scores(
    name: str, changes: dict[str, Any], plain: Any, trunk: Any, tiny: Any
) -> None:
    changed = scores(name, trunk, tiny, **changes)[1]
    assert changed.isfinite().all()
    assert not torch.allclose(changed, plain(name))


@pytest.mark.parametrize("on", ["clip_tiny", pytest.param("tsm_tiny", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "changes"), FREE_OF_TRAINING)
def test_without_training_the_order_of_the_tasks_does_not_matter(
    name: str, changes: dict[str, Any], on: str, tiny: Any
) -> None:
    trunk = backbone(on).load(None)
    first = scores(name, trunk, tiny, **changes)[1]
    for seed, sizes in ((2, (2, 2)), (2, (1, 2, 1)), (1, (4,))):
        other = scores(name, trunk, tiny, seed=seed, sizes=sizes, **changes)[1]
        torch.testing.assert_close(other, first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_videos_are_kept_and_statistics_are_counted(name: str, trunk: Any, tiny: Any) -> None:
    method, _ = scores(name, trunk, tiny)
    use = method.memory_use()
    assert (use.videos, use.frames, use.bytes) == (0, 0, 0)
    assert use.statistics_bytes > 0


@pytest.mark.parametrize("name", ["fecam", "ssiat"])
def test_a_covariance_for_each_class_costs_what_it_costs(name: str, trunk: Any, tiny: Any) -> None:
    dim = trunk.dim
    covariances = {"class": 4 * dim * dim, "pooled": dim * dim, "diagonal": 4 * dim}
    for kind, numbers in covariances.items():
        method, _ = scores(name, trunk, tiny, covariance=kind)
        assert method.memory_use().statistics_bytes == 4 * (4 * dim + numbers)


def test_aper_reads_out_both_networks_side_by_side(trunk: Any, tiny: Any) -> None:
    tuned, _ = scores("simplecil", trunk, tiny, adapt="first")
    plain, _ = scores("simplecil", trunk, tiny)
    assert tuned.prototypes.shape == (4, 2 * trunk.dim)
    torch.testing.assert_close(tuned.prototypes[:, : trunk.dim], plain.prototypes)
    assert not torch.allclose(tuned.prototypes[:, trunk.dim :], plain.prototypes)
    assert not any(parameter.requires_grad for parameter in tuned.parameters())


def test_the_base_task_alone_trains_the_network_of_acil(tiny: Any) -> None:
    small = backbone("tsm_tiny").load(None)
    cls = method_class("acil")
    stream = stream_of(tiny, sizes=(2, 2))
    states = []
    for steps in (1, 2):
        method = learn(cls, config_of(cls), small, stream, tiny, steps=steps)
        states.append({k: v for k, v in method.state_dict().items() if k.startswith("model.network")})
    fresh = small.network(Tuning()).state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][f"model.network.{key}"], fresh[key]) for key in fresh)


def test_old_means_move_only_by_the_shift(trunk: Any, tiny: Any) -> None:
    cls = method_class("ssiat")
    stream = stream_of(tiny, sizes=(2, 2))
    for shift in (False, True):
        config = config_of(cls, shift=shift)
        before, after = (learn(cls, config, trunk, stream, tiny, steps=n).statistics.means for n in (1, 2))
        assert torch.equal(before, after[:2]) != shift


def test_ease_adds_a_subspace_a_task_and_leaves_the_old_adapters(trunk: Any, tiny: Any) -> None:
    cls = method_class("ease")
    stream = stream_of(tiny, sizes=(2, 2))
    first, both = (learn(cls, config_of(cls), trunk, stream, tiny, steps=n) for n in (1, 2))
    assert both.completed.shape == (4, 2, trunk.dim)
    for key, value in first.networks.state_dict().items():
        assert torch.equal(both.networks.state_dict()[key], value)
    assert torch.equal(both.means[:2, 1], torch.zeros(2, trunk.dim))  # never measured, hence
    assert both.completed[:2, 1].any()  # synthesised


@pytest.mark.parametrize(
    ("name", "other", "changes", "lacking"),
    [
        ("simplecil", "tsm_tiny", {"features": "unprojected"}, "projection"),
        ("acil", "tsm_tiny", {"features": "unprojected"}, "projection"),
        ("fecam", "clip_tiny", {"tukey": 0.5}, "non_negative"),
    ],
)
def test_what_a_backbone_cannot_do_is_said_before_any_work(
    name: str, other: str, changes: dict[str, Any], lacking: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=f"needs a backbone with {lacking}; '{other}' provides"):
        make_plan(
            name,
            "synthetic_3x4",
            seed=1000,
            assignments={"backbone": other} | changes,
            results=tmp_path,
            device="cpu",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sizes", "stays"), [((1, 3), True), ((2, 2), False)])
def test_a_base_task_of_one_class_leaves_the_network_as_it_was_pretrained(
    sizes: tuple[int, ...], stays: bool, tiny: Any
) -> None:
    """On a ResNet, where the decay and the batch norms would move it though the loss is 0."""
    cls, trunk = method_class("ranpac"), backbone("tsm_tiny").load(None)
    method = learn(cls, config_of(cls, adapt="first"), trunk, stream_of(tiny, sizes=sizes), tiny, steps=1)
    start = trunk.network(Tuning()).state_dict()
    assert all(torch.equal(value, start[key]) for key, value in method.network.state_dict().items()) == stays


@pytest.mark.parametrize(("sizes", "ridges"), [((2, 1, 1), [7, 7, 7]), ((2, 2), [7, 8])])
def test_a_task_with_nothing_to_choose_by_keeps_the_ridge(
    sizes: tuple[int, ...], ridges: list[float], trunk: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls, kept = method_class("ranpac"), []
    for steps in range(1, len(sizes) + 1):
        choices = iter([7, 8])
        monkeypatch.setattr(ranpac, "choose_ridge", lambda *_, choices=choices: next(choices))
        kept.append(
            float(learn(cls, config_of(cls), trunk, stream_of(tiny, sizes=sizes), tiny, steps=steps).ridge)
        )
    assert kept == ridges


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ranpac", {"ridge": 0.0}),
        ("ranpac", {"expansion": -1}),
        ("fecam", {"tukey": 2.0}),
        ("fecam", {"alpha": 0.0}),
        ("acil", {"gamma": 0.0}),
    ],
)
def test_values_that_no_run_can_use_are_refused(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        config_of(method_class(name), **changes)
