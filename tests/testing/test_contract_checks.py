"""Every check of the contract catches the method that breaks it, and no other check does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from right_method import Right
from torch import Tensor, nn

from vcil_bench.cli import main
from vcil_bench.common.errors import UserError
from vcil_bench.losses import task_cross_entropy
from vcil_bench.stream import Task
from vcil_bench.testing import check_method
from vcil_bench.testing.contract import CHECKS

WRONG = Path(__file__).parent / "wrong"
# Which check is meant for which wrong method, and what of the method its message must name.
MEANT = {
    "undescribed_key": ("declares_itself", "'strength'"),
    "fails_to_construct": ("constructs", "fails_to_construct.py, line 11: AttributeError"),
    "reads_videos_in_grow": ("grows", "reads_videos_in_grow.py, line 11: TrainingError"),
    "nan_loss": ("learns", "not finite"),
    "keeps_old_videos": ("learns", "keeps_old_videos.py, line 13: TrainingError"),
    "structure_in_learn": ("makes_structure_in_grow", "'mean_0'"),
    "forgets_to_train": ("trains_what_requires_gradients", "forgets_to_train.py, line 13: 'scale'"),
    "changes_directory": ("leaves_the_process_as_found", "learn changed the working directory"),
    "unfreezes_backbone": ("leaves_the_backbone_alone", "require gradients"),
    "wrong_shape": ("scores_every_class", "(6, 1)"),
    "nan_scores": ("scores_are_finite", "nan_scores.py, line 9"),
    "updates_buffer": ("predict_changes_nothing", "updates_buffer.py, line 12: predict changed 'running_mean'"),
    "draws_in_predict": ("predict_changes_nothing", "random generator"),
    "python_list": ("state_dict_is_complete", "python_list.py, line 12: "),
    "batch_statistics": ("predict_takes_each_clip_alone", "'cnn'"),
    "over_budget": ("keeps_exemplars_within_budget", "6 videos"),
    "unseeded": ("repeats_with_the_same_seed", "head.bias"),
    "old_loss_in_attribute": ("resumes_between_tasks", "must be a parameter or a buffer"),
    "momentum_in_attribute": ("resumes_inside_a_task", "must be a parameter or a buffer"),
    "takes_variance": ("learns_tasks_of_one_class", "not finite"),
    "squeezes_batch": ("learns_a_last_batch_of_one", "squeezes_batch.py, line 11: IndexError"),
    "undeclared_need": ("runs_on_its_backbones", "undeclared_need.py, line 11: "),
}


def test_every_wrong_method_is_meant_for_a_check_and_every_check_has_one() -> None:
    assert {path.stem for path in WRONG.glob("*.py")} == set(MEANT)
    assert {check for check, _ in MEANT.values()} == {check.name for check in CHECKS}


# Of what a check may find wrong in several ways, one is tried each time, the others by the slow tests.
FIRST = {check: name for name, (check, _) in reversed(MEANT.items())}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if FIRST[check] == n else pytest.mark.slow) for n, (check, _) in MEANT.items()],
)
def test_the_check_meant_for_it_alone_catches_a_wrong_method(name: str) -> None:
    meant, told = MEANT[name]
    failed = [result for result in check_method(WRONG / f"{name}.py", "clip_tiny") if result.outcome == "failed"]
    assert [result.name for result in failed] == [meant], "\n".join(map(str, failed))
    assert told in str(failed[0])


def test_a_right_method_passes_every_check() -> None:
    class Plain(Right):
        name = "plain"

    results = check_method(Plain)
    assert [result.name for result in results] == [check.name for check in CHECKS]
    assert {result.outcome for result in results} == {"ok"}, "\n".join(map(str, results))


def test_what_waits_for_a_second_class_of_a_task_counts_as_trained() -> None:
    """In a task of one class the cross-entropy among its classes is zero: it moves nothing new."""

    class OfTheTask(Right):
        name = "of_the_task"

        def __init__(self, config: Any, context: Any) -> None:
            super().__init__(config, context)
            self.scales = nn.ParameterList()
            self.memory.samples = list  # new videos alone are trained on

        def grow(self, task: Task) -> None:
            super().grow(task)
            self.new = range(task.num_old, task.num_seen)
            self.scales.append(nn.Parameter(torch.ones(3)))

        def loss(self, clips: Tensor, labels: Tensor) -> Tensor:
            return task_cross_entropy(self.logits(clips), labels, self.new)

        def features(self, clips: Tensor) -> Tensor:
            return super().features(clips) * self.scales[-1]

    outcomes = {result.name: result for result in check_method(OfTheTask)}
    assert outcomes["trains_what_requires_gradients"].outcome == "ok", outcomes["trains_what_requires_gradients"]


def test_what_builds_on_a_failed_check_is_skipped() -> None:
    outcomes = {result.name: result for result in check_method(WRONG / "python_list.py", "clip_tiny")}
    assert outcomes["resumes_inside_a_task"].outcome == "skipped"
    assert outcomes["resumes_between_tasks"].text == "until state_dict_is_complete is ok"
    assert outcomes["keeps_exemplars_within_budget"].outcome == "ok"


def test_the_command_prints_a_line_a_check_and_tells_failure_by_its_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", str(WRONG / "nan_scores.py"), "--backbone", "clip_tiny"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [check.name for check in CHECKS]
    (failed,) = [line for line in lines if line.split()[1] == "FAILED"]
    assert failed.startswith("scores_are_finite")
    assert "division by zero" in failed
    assert "1 failed" in last
    assert main(["check", str(WRONG / "nan_scores.py"), "--backbone", "clip_tiny", "--json"]) == 1
    outcomes: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [outcome["name"] for outcome in outcomes] == [check.name for check in CHECKS]
    assert [o["name"] for o in outcomes if o["outcome"] == "failed"] == ["scores_are_finite"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["no_such_method"], "unknown method"),
        ([str(WRONG / "nothing.py")], "no method file"),
        (["zero_shot", "--backbone", "tsm_tiny"], "clip_tiny"),
        (["zero_shot", "--backbone", "tsm_tin"], "did you mean 'tsm_tiny'?"),
        (["finetune", "--set", "epoch=1"], "did you mean 'epochs'?"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    assert named in capsys.readouterr().err


def test_a_method_that_no_backbone_carries_is_refused() -> None:
    class Impossible(Right):
        name = "impossible"
        needs = frozenset({"sound"})

    with pytest.raises(UserError, match="needs a backbone with sound"):
        check_method(Impossible)
