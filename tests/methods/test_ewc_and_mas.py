"""EWC and MAS: importance as vCLIMB's code takes it, and a penalty that acts, is kept and does not grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_files import DTYPES, close, tensors
from small_runs import clips_of, config_of, learn, method_class
from torch import Tensor

from vcil_bench import record
from vcil_bench.common.config import ConfigError
from vcil_bench.consolidation import ConsolidatingClassifier, QuadraticPenalty, trained
from vcil_bench.data.loader import Batch
from vcil_bench.losses import parameter_penalty
from vcil_bench.methods import ewc, mas
from vcil_bench.nets.backbones import backbone
from vcil_bench.stream import TaskStream
from vcil_bench.training import Trainer

NAMES = ("fc1_weight", "fc1_bias", "head_weight", "head_bias")
MODULES: dict[str, ModuleType] = {"ewc": ewc, "mas": mas}
BOTH = pytest.mark.parametrize("name", ["ewc", "mas"])
LIVELY = {"lr": 0.01, "dropout": 0.2, "epochs": 3, "epochs_first": 3, "batch_size": 4}


@pytest.fixture(scope="module")
def trunk() -> Any:
    return backbone("tsm_tiny").load(None)


def named(data: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: data[f"{prefix}_{name}"] for name in NAMES}


def logits_of(p: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the logits [B, K] of the recorded network on x [B, T, in]."""
    hidden = F.linear(x, p["fc1_weight"], p["fc1_bias"]).tanh()
    return F.linear(hidden, p["head_weight"], p["head_bias"]).mean(dim=1)


def objective(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels) if name == "ewc" else mas.output_norm(logits)


@DTYPES
@pytest.mark.parametrize("task", [0, 1])
@BOTH
def test_importance_equals_vclimb(name: str, task: int, precision: str) -> None:
    data = tensors("vclimb_31", precision)
    parameters = {key: t.clone().requires_grad_() for key, t in named(data, f"star{task}").items()}

    def gradients() -> Iterator[dict[str, Tensor]]:
        for number in range(int(data["num_batches"][task])):
            x, y = (data[f"task{task}_batch{number}_{which}"] for which in "xy")
            value = objective(name, logits_of(parameters, x), y)
            yield dict(zip(parameters, torch.autograd.grad(value, list(parameters.values())), strict=True))

    found = MODULES[name].importance(gradients())
    for key in NAMES:
        close(found[key], data[f"{name}_importance{task}_{key}"])


@DTYPES
@pytest.mark.parametrize("task", [1, 2])
@BOTH
def test_the_loss_and_its_gradients_equal_vclimb(name: str, task: int, precision: str) -> None:
    data = tensors("vclimb_31", precision)
    parameters = {key: t.clone().requires_grad_() for key, t in named(data, f"now{task}").items()}
    stars = [named(data, f"star{i}") for i in range(task)]
    importances = [named(data, f"{name}_importance{i}") for i in range(task)]
    loss = F.cross_entropy(logits_of(parameters, data["train_x"]), data[f"train_y_task{task}"])
    loss = loss + data["lambda"] * parameter_penalty(parameters, stars, importances)
    close(loss.detach(), data[f"{name}_loss_task{task}"])
    for key, gradient in zip(NAMES, torch.autograd.grad(loss, list(parameters.values())), strict=True):
        close(gradient, data[f"{name}_loss_task{task}_grad_{key}"])


@pytest.mark.parametrize("released", [pytest.param(False, marks=pytest.mark.slow), True])
@BOTH
def test_what_is_trained_against_is_the_sum_over_tasks(
    name: str, released: bool, trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss that a run records and the gradients it steps by are those with maps of every task."""
    cls: Any = method_class(name)
    stars: list[dict[str, Tensor]] = []
    importances: list[dict[str, Tensor]] = []
    seen: list[tuple[float, float]] = []
    ahead: list[int] = []
    consolidate, value, hold = (getattr(QuadraticPenalty, n) for n in ("consolidate", "value", "hold_new_rows"))

    def noted(maps: Any, parameters: Any, importance: Any) -> None:
        stars.append({key: p.detach().clone() for key, p in parameters.items()})
        importances.append({key: i.clone() for key, i in importance.items()})
        consolidate(maps, parameters, importance)

    def held(maps: Any, parameters: Any, first: int) -> None:
        hold(maps, parameters, first)
        for star, importance in zip(stars[-1:], importances[-1:], strict=True):
            for key, parameter in parameters.items():  # their code has the new rows by now: where they start
                rows = min(len(star[key]), len(parameter))
                ahead.append(rows - first)
                star[key] = torch.cat([star[key][:first], parameter.detach()[first:rows]])
                importance[key] = importance[key][:rows]

    def compared(maps: Any, parameters: Any) -> Tensor:
        found = value(maps, parameters)
        seen.append((float(found), float(parameter_penalty(parameters, stars, importances).detach())))
        return found

    monkeypatch.setattr(QuadraticPenalty, "consolidate", noted)
    monkeypatch.setattr(QuadraticPenalty, "hold_new_rows", held)
    monkeypatch.setattr(QuadraticPenalty, "value", compared)
    learn(cls, config_of(cls, **LIVELY, released=released), trunk, stream, tiny, 3)
    assert len(stars) == 3
    assert len(seen) > 4
    assert max(expected for _, expected in seen) > 0
    for found, expected in seen:
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-12)
    assert ahead == [int(released)] * 4  # rows of the next task, of weight and bias, that had an importance


@BOTH
def test_the_penalty_holds_and_each_switch_changes_the_scores(
    name: str, trunk: Any, stream: TaskStream, tiny: Any
) -> None:
    cls: Any = method_class(name)

    def trained_with(**changes: Any) -> Any:
        return learn(cls, config_of(cls, **LIVELY, **changes), trunk, stream, tiny, 2)

    plain, free, tight, released = (
        trained_with(),
        trained_with(reg_lambda=0.0),
        trained_with(reg_lambda=1e9),
        trained_with(released=True),
    )
    first = learn(cls, config_of(cls, **LIVELY), trunk, stream, tiny, 1)
    with torch.inference_mode():
        scores = [m.predict(clips_of(stream, m, 2))["cnn"] for m in (plain, free, tight, released)]
    for other in scores[1:]:
        assert not torch.allclose(scores[0], other, rtol=0, atol=1e-6)

    def moved(method: Any) -> float:
        """How far parameters that mattered have gone, weighted as the penalty weighs them."""
        network = {key: p for key, p in trained(method.model).items() if key.startswith("network.")}
        return float(first.penalty.value(network))

    assert moved(tight) < moved(plain) < moved(free)


@BOTH
def test_the_pass_for_importance_leaves_the_network_as_it_was(
    name: str, trunk: Any, stream: TaskStream, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[str, Tensor] = {}
    original = ConsolidatingClassifier._consolidate

    def watched(method: Any, task: Any) -> None:
        before.update({key: tensor.clone() for key, tensor in method.model.state_dict().items()})
        original(method, task)

    monkeypatch.setattr(ConsolidatingClassifier, "_consolidate", watched)
    cls = method_class(name)
    method: Any = learn(cls, config_of(cls, **LIVELY), trunk, stream, tiny, 1)
    after = method.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert float(method.penalty.value(trained(method.model))) == 0


@pytest.mark.slow
@BOTH
def test_a_run_cut_off_in_the_pass_for_importance_ends_in_the_same(
    name: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["epochs=2", "epochs_first=2", "batch_size=3", "backbone=tsm_tiny", "workers=0"]

    def run(folder: Path) -> int:
        where = ["--data", tiny.root, "--results", folder, "--device", "cpu", "--seed", "1"]
        return tiny.main("run", name, tiny.protocol, *where, "--set", *sets)

    def outcome(folder: Path) -> Any:
        (path,) = folder.glob("*/*/*-s1.json")
        found = record.load(path)
        assert found.complete
        return [(s["correct"], s["losses"]) for s in found.data["steps"]]

    assert run(tmp_path / "whole") == 0
    batches = Trainer.batches
    for task in (1, 2):

        def cut(trainer: Any, samples: Any, *, phase: str, task: int = task, **more: Any) -> Iterator[Batch]:
            for number, batch in enumerate(batches(trainer, samples, phase=phase, **more)):
                if phase == f"task {task} importance" and number == 2 - task:  # task 2 has one batch
                    raise KeyboardInterrupt
                yield batch

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "batches", cut)
            assert run(tmp_path / "cut") == 130
    assert run(tmp_path / "cut") == 0
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@BOTH
def test_the_state_grows_with_the_classes_outputs_alone(
    name: str, trunk: Any, stream: TaskStream, tiny: Any
) -> None:
    cls = method_class(name)
    sizes = []
    for steps in (1, 2, 3):
        method: Any = learn(cls, config_of(cls), trunk, stream, tiny, steps)
        head = sum(p.numel() for p in method.model.head.parameters())
        sizes.append(sum(t.numel() for t in method.state_dict().values()) - 3 * head)
        maps = 2 * sum(p.numel() for p in method.model.parameters() if p.requires_grad)
        assert method.memory_use().statistics_bytes == 4 * (maps + 1)
    assert len(set(sizes)) == 1


def test_adagrad_has_no_momentum() -> None:
    with pytest.raises(ConfigError, match=r"momentum: 0\.9 is not allowed"):
        ewc.EWCConfig(momentum=0.9)


@BOTH
def test_it_is_trained_by_vclimbs_recipe(name: str, trunk: Any, stream: TaskStream, tiny: Any) -> None:
    cls: Any = method_class(name)
    config, _ = cls.resolve_config("vclimb_kinetics400_10", {})
    assert cls.backbone_for("vclimb_kinetics400_10")[0] == "tsn_resnet34"
    assert (config.lr, config.milestones, config.weight_decay, config.dropout) == (1e-3, (), 1e-4, 0.5)
    assert (config.reg_lambda, config.epochs) == {"ewc": (3000, 30), "mas": (3e5, 20)}[name]
    method: Any = learn(cls, config_of(cls), trunk, stream, tiny, 0)
    optimiser = method.optimiser()
    assert isinstance(optimiser, torch.optim.Adagrad)
    assert {(group["lr"], group["weight_decay"]) for group in optimiser.param_groups} == {(1e-3, 1e-4)}
    stepped = sum(len(group["params"]) for group in optimiser.param_groups)
    assert stepped == len(list(method.model.parameters()))
