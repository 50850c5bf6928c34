"""Contract checks of a method, one function each: training, prediction, exemplars, resuming, seeds, backbones.

A check raises ``Broken`` with what is wrong and what to do, or lets through what the method's own code raises.
``check_method`` turns either into a line that names the place in the author's file.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vcil_bench.common.errors import UserError
from vcil_bench.method import MemoryUse, Method
from vcil_bench.nets.backbones import BACKBONES, backbone
from vcil_bench.nets.backbones.base import Backbone
from vcil_bench.nets.trunk import Trunk
from vcil_bench.protocol import MemorySpec
from vcil_bench.protocol.budget import allowed_videos, exceeds_budget
from vcil_bench.registry import check_class, find

from .float64 import double_precision
from .small_data import SmallData
from .small_runs import ONE_EACH, SHRINKING, Learnt, SmallRuns, State

PROTOCOL = "synthetic_check"  # recipes for the embedded data, synthetic_*, hold here
SIZES = (2, 1)  # classes per task
OTHER_SEED = 999


class Broken(Exception):
    """A promise that a method does not keep.

    Attributes:
        problem: What is wrong.
        advice: What to do.
        call: The function of the method to look at.
        attribute: The attribute of the method to look at, where there is one.
    """

    def __init__(self, problem: str, advice: str, call: str, attribute: str | None = None) -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice
        self.call = call
        self.attribute = attribute


class NotApplicable(Exception):
    """A check that has nothing to look at in this method; says why."""


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: The check's.
        outcome: ``ok``, ``failed`` or ``skipped``.
        text: Of a failed check what is wrong and what to do, of a skipped one why; else may be empty.
        where: File and line to look at, where known.
    """

    name: str
    outcome: Literal["ok", "failed", "skipped"]
    text: str = ""
    where: str | None = None

    def __str__(self) -> str:
        """Return the line that a user reads."""
        outcome = self.outcome.upper() if self.outcome == "failed" else self.outcome
        where = f"{self.where}: " if self.where else ""
        return f"{self.name:32} {outcome:8} {where}{self.text}".rstrip()


@dataclasses.dataclass(frozen=True)
class Check:
    """A check and what it builds on.

    Attributes:
        name: The function's name.
        function: Takes the subject; returns what is worth telling.
        needs: Checks that must have passed, since this one would fail for the same reason.
        advice: What to do where the method's code raises.
    """

    name: str
    function: Callable[[Subject], str | None]
    needs: tuple[str, ...]
    advice: str


CHECKS: list[Check] = []


def _check(advice: str, needs: tuple[str, ...] = ()) -> Callable[[Callable[[Subject], str | None]], Any]:
    """Register a check."""

    def register(function: Callable[[Subject], str | None]) -> Callable[[Subject], str | None]:
        CHECKS.append(Check(function.__name__, function, needs, advice))
        return function

    return register


class Subject:
    """A method to be checked, and the trainings that several checks look at, each made once."""

    def __init__(
        self, cls: type[Method], on: str | None, config: Mapping[str, Any] | None, folder: Path
    ) -> None:
        """Choose the backbone and a quick config.

        Args:
            cls: The method.
            on: The backbone; None takes the embedded sibling of the method's own.
            config: Config values that win over the quick ones.
            folder: For videos and states.

        Raises:
            UserError: The backbone is unknown or lacks what the method needs, or the config is none of the
                method's.
        """
        self.cls = cls
        self.file = Path(inspect.getfile(cls))
        self.config_values = quick_values(cls) | dict(config or {})
        self.needs = cls.needs_with(cls.resolve_config(PROTOCOL, self.config_values)[0])
        self.backbone = _chosen_backbone(cls, on, self.needs)
        self.data = SmallData(_empty(folder / "videos"))
        self.trunk = loaded(self.backbone)
        self.pretrained = [p.detach().clone() for p in _pretrained(self.trunk)]
        self.runs = self.runs_with()
        self._folder = folder
        self._folders = 0

    def runs_with(
        self,
        budget: MemorySpec = SHRINKING,
        trunk: Trunk | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> SmallRuns:
        """Return runs with another budget or backbone, or with other config values."""
        values = self.config_values | dict(config or {})
        changed, _ = self.cls.resolve_config(PROTOCOL, values)
        return SmallRuns(self.cls, changed, trunk or self.trunk, budget)

    def tasks(self, sizes: Sequence[int] = SIZES, videos: Sequence[int] | None = None) -> list[Any]:
        """Return tasks of so many classes, with so many training videos per class."""
        given = () if videos is None else (videos,)
        return self.data.tasks(sizes, *given, cumulative=self.cls.data_access == "cumulative")

    def folder(self) -> Path:
        """Return a new folder."""
        self._folders += 1
        return _empty(self._folder / str(self._folders))

    @functools.cached_property
    def clips(self) -> Tensor:
        """Test clips of all classes learnt [B, T, 3, S, S] uint8."""
        return self.runs.clips(self.data.test(sum(SIZES)))

    @functools.cached_property
    def learnt(self) -> Learnt:
        """The method after two tasks."""
        return self.runs.learn_all(self.tasks())

    @functools.cached_property
    def scores(self) -> dict[str, Tensor]:
        """What it predicts for the test clips."""
        return {
            name: matrix.clone() for name, matrix in self.runs.predict(self.learnt.method, self.clips).items()
        }


def loaded(chosen: Backbone) -> Trunk:
    """Load a backbone: its own weights where they ship with the package, else random ones."""
    return chosen.load(None if chosen.name == chosen.embedded_sibling else "random")


def quick_values(cls: type[Method]) -> dict[str, Any]:
    """Return config values that make a training short, as far as the Config has such keys.

    Keys whose names say epochs become 2, ``batch_size`` becomes 4: then a task has at least two batches.
    """
    batches = {"batch_size": 4} if any(f.name == "batch_size" for f in dataclasses.fields(cls.Config)) else {}
    return short_epochs(cls, 2) | batches


def short_epochs(cls: type[Method], number: int) -> dict[str, int]:
    """Return so many epochs for every key of the Config whose name says epochs."""
    keys = [field.name for field in dataclasses.fields(cls.Config)]
    return {key: number for key in keys if re.search(r"(^|_)epochs($|_)", key)}


@_check("give every key a default, and describe it in the Config's docstring")
def declares_itself(subject: Subject) -> None:
    """Class attributes are of the right kind, every Config key is described, recipes fit the Config."""
    cls = subject.cls
    check_class(cls)
    texts = " ".join(base.__doc__ or "" for base in cls.Config.__mro__)
    for field in dataclasses.fields(cls.Config):
        if not re.search(rf"\b{field.name}\b", texts):
            advice = "say in the Config's docstring what it is and where its default comes from"
            raise Broken(f"the Config key {field.name!r} is not described", advice, "Config")
    for pattern, _ in cls.all_recipes():
        cls.resolve_config(pattern.replace("*", "x"), {})


@_check(
    "__init__ takes config and context, and hands both to super().__init__",
    ("declares_itself",),
)
def constructs(subject: Subject) -> None:
    """The method is made from its config and a context."""
    subject.runs.construct()


@_check("make structure from task.num_new and task.class_names alone; videos are for learn", ("constructs",))
def grows(subject: Subject) -> None:
    """Two tasks are added without a look at their videos, and the structure depends on nothing else."""
    structures = []
    for seed in (1, OTHER_SEED):
        method = subject.runs.construct(seed)
        for task in subject.tasks():
            subject.runs.grow(method, task)
        structures.append({name: tensor.shape for name, tensor in method.state_dict().items()})
    changed = _changed(*structures)
    if changed:
        advice = "names and shapes may depend on the config and the tasks only, or a run cannot be resumed"
        raise Broken(f"{changed[0]!r} is different when grow is replayed", advice, "grow")


@_check("", ("grows",))
def learns(subject: Subject) -> None:
    """Two tasks are learnt; losses and state stay finite."""
    for name, tensor in subject.learnt.states[-1].items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise Broken(f"{name!r} is not finite after two tasks", "lower the rate, or clip gradients", "learn")


@_check("", ("learns",))
def makes_structure_in_grow(subject: Subject) -> None:
    """Learning neither makes nor reshapes parameters and buffers."""
    if subject.learnt.reshaped:
        name = subject.learnt.reshaped[0]
        advice = "make it in grow, which is replayed when a run is resumed"
        raise Broken(f"learn made, dropped or reshaped {name!r}", advice, "learn", name)


@_check("", ("makes_structure_in_grow",))
def trains_what_requires_gradients(subject: Subject) -> None:
    """Every parameter that requires a gradient is another one after learning."""
    idle = _idle(subject, subject.learnt, SIZES)
    if idle:  # in a task of one class the cross-entropy among its classes is zero
        sizes = (*SIZES[:-1], 2)
        idle = _idle(subject, subject.runs.learn_all(subject.tasks(sizes)), sizes)
    if idle:
        advice = "give it to the optimiser, or call requires_grad_(False) on it"
        raise Broken(f"{idle[0]!r} requires gradients, but learn left it as it was", advice, "learn", idle[0])


def _idle(subject: Subject, learnt: Learnt, sizes: Sequence[int]) -> list[str]:
    """Return the names of parameters that require a gradient and are as grown after tasks of so many classes."""
    fresh = subject.runs.construct()
    for task in subject.tasks(sizes):
        subject.runs.grow(fresh, task)
    before, after = fresh.state_dict(), learnt.states[-1]
    return [
        name
        for name, parameter in learnt.method.named_parameters()
        if parameter.requires_grad and parameter.numel() and torch.equal(before[name], after[name])
    ]


@_check("", ("learns",))
def leaves_the_process_as_found(subject: Subject) -> None:
    """Working directory, default dtype and device, gradient mode and threads are as they were."""
    if subject.runs.changed:
        change = subject.runs.changed[0]
        raise Broken(change, "put it back before the call returns", change.partition(" ")[0])


@_check("", ("learns",))
def leaves_the_backbone_alone(subject: Subject) -> None:
    """The pretrained weights are neither trained nor stored with the method."""
    frozen = _pretrained(subject.trunk)
    same = all(torch.equal(a, b) for a, b in zip(frozen, subject.pretrained, strict=True))
    if not same or any(p.requires_grad or p.grad is not None for p in frozen):
        advice = "train a network of context.backbone.network(...), not the backbone's own weights"
        raise Broken("the backbone's weights were trained or made to require gradients", advice, "learn")
    held = {p.data_ptr() for p in frozen if p.numel()}
    for name, tensor in subject.learnt.method.state_dict().items():
        if tensor.numel() and tensor.data_ptr() in held:
            advice = "use the backbone through self.context; what is assigned to self is stored in every state"
            raise Broken(f"{name!r} is the backbone's own tensor", advice, "__init__")


@_check("", ("makes_structure_in_grow",))
def scores_every_class(subject: Subject) -> None:
    """``predict`` gives, per readout, one float32 score for every clip and class seen."""
    scores, readouts = subject.runs.predict(subject.learnt.method, subject.clips), subject.cls.readouts
    if not isinstance(scores, dict) or set(scores) != set(readouts):
        given = list(scores) if isinstance(scores, dict) else type(scores).__name__
        advice = "return a dict with one tensor per name in readouts"
        raise Broken(f"predict gave {given}, readouts are {list(readouts)}", advice, "predict")
    shape = (len(subject.clips), sum(SIZES))
    for name, matrix in scores.items():
        kind = f"{tuple(matrix.shape)} {matrix.dtype}" if isinstance(matrix, Tensor) else type(matrix).__name__
        if not isinstance(matrix, Tensor) or tuple(matrix.shape) != shape or matrix.dtype != torch.float32:
            advice = "one row per clip, one column per class seen, the head outside context.autocast()"
            raise Broken(f"readout {name!r} is {kind}, it must be {shape} torch.float32", advice, "predict")


@_check("", ("scores_every_class",))
def scores_are_finite(subject: Subject) -> None:
    """No score is infinite or NaN."""
    for name, matrix in subject.scores.items():
        if not matrix.isfinite().all():
            advice = "look for a division by zero, a logarithm of 0, an empty mean"
            raise Broken(f"readout {name!r} is not finite", advice, "predict")


@_check("", ("scores_are_finite",))
def predict_changes_nothing(subject: Subject) -> None:
    """Predicting twice gives the same, and leaves state, mode and random generators as they were."""
    method = subject.learnt.method
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    modes, draws = [m.training for m in method.modules()], _random_states()
    scores = subject.runs.predict(method, subject.clips)
    changed = [n for n, tensor in method.state_dict().items() if not torch.equal(tensor, before[n])]
    if changed:
        advice = "predict must not learn; move the update to learn"
        raise Broken(f"predict changed {changed[0]!r}", advice, "predict", changed[0])
    if modes != [m.training for m in method.modules()]:
        raise Broken("predict changed the training mode", "leave the mode alone: it is evaluation", "predict")
    if not _same(draws, _random_states()):
        raise Broken("predict drew from a global random generator", "predict must not draw", "predict")
    if not _same(scores, subject.scores):
        advice = "predict must depend on the clips and the state alone"
        raise Broken("predict gave other scores for the same clips", advice, "predict")


@_check("what grow makes must fit the state dict it is given", ("predict_changes_nothing",))
def state_dict_is_complete(subject: Subject) -> None:
    """A new instance with the state dict predicts the same: nothing is kept beside parameters and buffers."""
    method = subject.learnt.method
    twin = subject.runs.restored(subject.learnt.states[-1], subject.tasks(), subject.folder(), seed=OTHER_SEED)
    try:
        same = _same(subject.runs.predict(twin, subject.clips), subject.scores)
    except Exception as error:  # noqa: BLE001  # the twin lacks what predict needs
        same, problem = False, f"a restored instance cannot predict ({type(error).__name__}: {error})"
    else:
        problem = "a restored instance predicts something else"
    if not same:
        name = _other_attribute(method, twin)
        kept = f"; {name} is kept outside parameters and buffers" if name else ""
        advice = "register what lasts from task to task: nn.Parameter, register_buffer, ExemplarMemory"
        raise Broken(problem + kept, advice, "learn", name and name.removeprefix("self."))


@_check("", ("state_dict_is_complete",))
def predict_takes_each_clip_alone(subject: Subject) -> None:
    """A clip's scores are the same whatever other clips are in its batch."""
    with double_precision():
        try:
            together, apart = _together_and_apart(subject, loaded(subject.backbone))
            tolerance = 1e-8
        except (RuntimeError, TypeError):  # code that names float32 cannot run in float64
            together = None
    if together is None:
        together, apart = _together_and_apart(subject, subject.trunk)
        tolerance = 1e-3
    for name, matrix in together.items():
        difference = (torch.cat([scores[name] for scores in apart]) - matrix).abs().max()
        if difference > tolerance * matrix.abs().max().clamp(min=1):
            advice = "no statistics over the batch in predict, no sorting of clips against each other"
            raise Broken(f"readout {name!r} of a clip depends on the clips beside it", advice, "predict")


@_check("", ("learns",))
def keeps_exemplars_within_budget(subject: Subject) -> None:
    """``memory_use`` is true, and never more than the protocol allows."""
    budget, num_seen = SHRINKING, 0
    for size, use, kept in zip(SIZES, subject.learnt.uses, subject.learnt.exemplars, strict=True):
        num_seen += size
        if not isinstance(use, MemoryUse):
            raise Broken(f"memory_use gave {use!r}", "return a MemoryUse", "memory_use")
        if use.videos < len(kept):
            advice = "return self.memory.use()"
            raise Broken(f"memory_use tells of {use.videos} of {len(kept)} exemplars", advice, "memory_use")
        if use.videos and not subject.cls.uses_memory:
            advice = "set uses_memory = True, so that protocols without exemplars refuse the method at once"
            raise Broken("exemplars are kept but not declared", advice, "learn")
        if exceeds_budget(budget, use, num_seen):
            advice = "keep them in vcil_bench.memory.ExemplarMemory, which holds the budget"
            raise Broken(
                f"{use.videos} videos with {use.frames} frames are kept after {num_seen} classes, the budget is "
                f"{allowed_videos(budget, num_seen)} videos of {budget.frames} frames",
                advice,
                "learn",
            )


@_check("", ("predict_changes_nothing",))
def repeats_with_the_same_seed(subject: Subject) -> None:
    """Another run with the same seed ends in the same state, bit for bit."""
    again = subject.runs.learn_all(subject.tasks())
    for index, (states, losses) in enumerate(
        zip(
            zip(subject.learnt.states, again.states, strict=True),
            zip(subject.learnt.losses, again.losses, strict=True),
            strict=True,
        )
    ):
        _refuse_difference(
            f"with the same seed task {index + 1} ended in another",
            "draw from torch's global generator, which is seeded before every call, or from a generator with "
            "a fixed seed; loop over lists, not sets",
            *states,
            *losses,
        )


@_check("", ("state_dict_is_complete", "repeats_with_the_same_seed"))
def resumes_between_tasks(subject: Subject) -> None:
    """A run resumed from the state after the first task learns the second bit for bit the same."""
    learnt = subject.learnt
    resumed = subject.runs.resume(learnt.states[0], subject.tasks(), subject.folder())
    _refuse_difference(
        "resumed between two tasks, the second ended in another",
        "what learn takes from the tasks before must be a parameter or a buffer",
        learnt.states[-1],
        resumed.states[-1],
        learnt.losses[-1],
        resumed.losses[-1],
    )


@_check("", ("resumes_between_tasks",))
def resumes_inside_a_task(subject: Subject) -> str:
    """Stopped twice while it trains, a run resumes from the saved step and ends bit for bit the same."""
    learnt = subject.learnt
    long = [index for index, batches in enumerate(learnt.batches) if batches > 1]
    if not long:
        raise NotApplicable("no task takes two training batches")
    at = long[-1]
    batches = learnt.batches[at]
    stops = [batches // 2, max(1, (batches - batches // 2) // 2)]
    before = learnt.states[at - 1] if at else None
    resumed = subject.runs.resume_with_stops(before, subject.tasks()[: at + 1], subject.folder(), stops)
    _refuse_difference(
        "stopped and resumed while training, the task ended in another",
        "what learn carries from one training step to the next must be a parameter or a buffer; in a resumed "
        "run the loop skips the steps that were done",
        learnt.states[at],
        resumed.states[-1],
        learnt.losses[at],
        resumed.losses[-1],
    )
    return f"stopped at 2 of {batches} batches of task {at + 1}"


@_check("one class with one video leaves nothing to contrast, and no variance", ("scores_are_finite",))
def learns_tasks_of_one_class(subject: Subject) -> None:
    """Tasks of one class with one video are learnt, and scores stay finite."""
    sizes = (2, 1, 1)
    runs = subject.runs_with(ONE_EACH)
    learnt = runs.learn_all(subject.tasks(sizes, (1, 1, 1, 1)))
    for name, matrix in runs.predict(learnt.method, subject.clips).items():
        if not matrix.isfinite().all():
            advice = "one class with one video leaves nothing to contrast, and no variance"
            raise Broken(f"readout {name!r} is not finite after tasks of one class", advice, "learn")


@_check("a batch may hold one clip: keep its dimension, and take no variance over it", ("learns",))
def learns_a_last_batch_of_one(subject: Subject) -> None:
    """The last batch of an epoch may hold a single clip."""
    keys = {field.name for field in dataclasses.fields(subject.cls.Config)}
    if "batch_size" not in keys:
        raise NotApplicable("the Config has no key batch_size to make batches small with")
    small = {"batch_size": 2, "drop_last": False}
    runs = subject.runs_with(config={key: value for key, value in small.items() if key in keys})
    learnt = runs.learn_all(subject.tasks(videos=(2, 1, 2, 0)))
    for name, tensor in learnt.states[-1].items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            advice = "a batch may hold one clip: take no variance over it"
            raise Broken(f"{name!r} is not finite after batches of one clip", advice, "learn")


@_check("name what the method needs of a backbone in `needs` (text, adapters, maps)", ("scores_are_finite",))
def runs_on_its_backbones(subject: Subject) -> str:
    """Every backbone that ships with the package and provides what ``needs`` names carries the method."""
    works = []
    for name, other in BACKBONES.items():
        if not subject.needs <= other.provides:
            continue
        if name not in (other.embedded_sibling, subject.backbone.name):
            continue
        if name != subject.backbone.name:
            runs = subject.runs_with(trunk=loaded(other))
            learnt = runs.learn_all(subject.tasks()[:1])
            for readout, matrix in runs.predict(learnt.method, runs.clips(subject.data.test(SIZES[0]))).items():
                if not matrix.isfinite().all():
                    advice = "name what the method needs of a backbone in `needs`"
                    raise Broken(f"readout {readout!r} is not finite on {name}", advice, "predict")
        works.append(name)
    fits = [name for name, other in BACKBONES.items() if subject.needs <= other.provides]
    return f"ran on {', '.join(works)}; fits {', '.join(fits)}"


def check_method(
    method: type[Method] | str | Path,
    backbone: str | None = None,
    *,
    config: Mapping[str, Any] | None = None,
) -> list[CheckResult]:
    """Check a method against the contract, on small data that are made for it.

    Args:
        method: The class, its name, or a ``.py`` file.
        backbone: On which; None takes the embedded sibling of the method's own.
        config: Config values; the others are those of ``quick_values``, and else the recipe's for embedded
            data.

    Returns:
        The outcome of every check, in the order of ``CHECKS``.

    Raises:
        UserError: There is no such method, backbone or config key, or they do not fit together.
    """
    return list(results(method, backbone, config=config))


def results(
    method: type[Method] | str | Path,
    backbone: str | None = None,
    *,
    config: Mapping[str, Any] | None = None,
) -> Iterator[CheckResult]:
    """Yield the outcomes of ``check_method`` as they come."""
    cls = method if isinstance(method, type) else find(str(method)).cls
    assert cls is not None
    with tempfile.TemporaryDirectory(prefix="vcil-bench-check-") as folder:
        subject = Subject(cls, backbone, config, Path(folder))
        with _threads(subject.backbone.threads):
            passed: set[str] = set()
            for check in CHECKS:
                result = run_check(check, subject, passed)
                if result.outcome == "ok":
                    passed.add(check.name)
                yield result


def run_check(check: Check, subject: Subject, passed: set[str]) -> CheckResult:
    """Run one check, if those it builds on have passed.

    Args:
        check: The check.
        subject: The method.
        passed: Names of the checks that have passed.
    """
    left = [name for name in check.needs if name not in passed]
    if left:
        return CheckResult(check.name, "skipped", f"until {left[0]} is ok")
    try:
        told = check.function(subject)
    except NotApplicable as reason:
        return CheckResult(check.name, "skipped", str(reason))
    except Broken as broken:
        where = _line_of(subject, broken.call, broken.attribute)
        return CheckResult(check.name, "failed", f"{broken.problem}; {broken.advice}", where)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever the method's code raises
        problem = (str(error).strip().splitlines() or [""])[0]
        text = f"{type(error).__name__}: {problem}" if problem else type(error).__name__
        return CheckResult(
            check.name, "failed", f"{text}; {check.advice}" if check.advice else text, _raised_at(subject, error)
        )
    return CheckResult(check.name, "ok", told or "")


def _chosen_backbone(cls: type[Method], on: str | None, needs: frozenset[str]) -> Backbone:
    """Return the backbone to check a method on.

    Raises:
        UserError: It lacks what the method needs.
    """
    chosen = backbone(on if on is not None else backbone(cls.backbone_for(PROTOCOL)[0]).embedded_sibling)
    lacking = sorted(needs - chosen.provides)
    if lacking:
        fits = [name for name, other in BACKBONES.items() if needs <= other.provides]
        raise UserError(
            f"method {cls.name!r} needs a backbone with {', '.join(lacking)}, {chosen.name!r} has none; "
            f"those that fit: {', '.join(fits) or 'none'}"
        )
    return chosen


def _pretrained(trunk: Any) -> list[Tensor]:
    """Return the pretrained weights of a backbone."""
    return list(trunk.model.parameters())


def _together_and_apart(subject: Subject, trunk: Trunk) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Predict the test clips in one batch, and each in its own."""
    runs = subject.runs_with(trunk=trunk)
    twin = runs.restored(subject.learnt.states[-1], subject.tasks(), subject.folder())
    together = runs.predict(twin, subject.clips)
    return together, [runs.predict(twin, clip[None]) for clip in subject.clips]


def _refuse_difference(
    problem: str, advice: str, state: State, other: State, losses: Sequence[Any], other_losses: Sequence[Any]
) -> None:
    """Refuse two trainings that are not the same bit for bit.

    Raises:
        Broken: Names the first parameter or buffer that differs, or the losses.
    """
    for name, tensor in state.items():
        if not torch.equal(tensor, other[name]):
            raise Broken(f"{problem} {name!r}", advice, "learn")
    if losses != other_losses:
        raise Broken(f"{problem} loss", advice, "learn")


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names whose values differ, sorted."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Tell whether two mappings hold equal tensors."""
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def _random_states() -> dict[str, Tensor]:
    """Return the state of every global random generator."""
    _, words, position, *_ = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor([*map(int, words), int(position)]),
        "python": torch.tensor(random.getstate()[1]),
    }


def _other_attribute(method: Method, twin: Method) -> str | None:
    """Return, as ``self.name``, a plain attribute of a method or of its parts that its twin has not the same."""
    parts = dict(twin.named_modules())
    for path, module in method.named_modules():
        theirs = vars(parts[path]) if path in parts else {}
        for name, value in vars(module).items():
            if name.startswith("_") and name in vars(torch.nn.Module()):
                continue
            if name not in theirs or _differ(value, theirs[name]):
                return ".".join(filter(None, ("self", path, name)))
    return None


def _differ(a: Any, b: Any) -> bool:
    """Tell whether two plain values differ; what is neither plain nor a tensor counts as equal."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return not torch.equal(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) != len(b) or any(_differ(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() != b.keys() or any(_differ(value, b[key]) for key, value in a.items())
    if isinstance(a, (bool, int, float, str, set, type(None))) or isinstance(b, type(None)):
        return type(a) is not type(b) or a != b
    return False


def _line_of(subject: Subject, call: str, attribute: str | None) -> str | None:
    """Return the line of the method's file to look at: where an attribute is set, or where a function begins."""
    text = subject.file.read_text(encoding="utf-8").splitlines()
    patterns = [rf"\bdef {re.escape(call)}\b", rf"\bclass {re.escape(subject.cls.__name__)}\b"]
    if attribute is not None:
        name = re.escape(attribute.partition(".")[0])
        patterns = [rf"self\.{name}\b(?!\.\w+\()", rf"""register_buffer\(["']{name}["']""", *patterns]
    for pattern in patterns:
        for number, line in enumerate(text, start=1):
            if re.search(pattern, line):
                return f"{subject.file.name}, line {number}"
    return None


def _raised_at(subject: Subject, error: BaseException) -> str | None:
    """Return the last line of the method's file that an exception went through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(subject.file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{subject.file.name}, line {line}" if line is not None else None


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let torch use the number of threads that serves a backbone."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
