"""Estimate of what a grid will take: hours per run, from records of this kind of device or from a trial.

An estimate says what it was made from: a record of the same run on the same GPU and a trial of 20 steps are not
worth the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from vcil_bench.protocol.budget import allowed_videos
from vcil_bench.record import Record
from vcil_bench.run.plan import Plan
from vcil_bench.run.time_left import Work

from .experiments import Experiment
from .scheduler import Cell


@dataclass(frozen=True)
class Estimate:
    """What one run of an experiment takes.

    Attributes:
        seconds: Training and testing together.
        basis: What it was made from.
        disk: Bytes of saved states while it runs; None where unknown. They are deleted when it is finished.
    """

    seconds: float
    basis: str
    disk: int | None = None


@dataclass(frozen=True)
class Exemplars:
    """Exemplars allowed once all classes are learnt; ``frames`` is None where all frames of a video are kept."""

    videos: int
    frames: int | None
    bytes: int | None


@dataclass(frozen=True)
class Need:
    """What an experiment of a grid needs.

    Attributes:
        experiment: The experiment.
        cells: Its runs, one a seed.
        estimate: Of one run; None where nothing is known.
    """

    experiment: Experiment
    cells: list[Cell]
    estimate: Estimate | None = None

    @property
    def todo(self) -> int:
        """Runs that are left to do."""
        return sum(cell.status is None for cell in self.cells)

    @property
    def plan(self) -> Plan | None:
        """The plan its runs share; None where it is impossible."""
        return self.cells[0].plan


@dataclass(frozen=True)
class Device:
    """Where runs will be: the model of a processor or GPU, and ``cpu``, ``cuda`` or ``mps``."""

    name: str
    kind: str


def needs(
    cells: Sequence[Cell],
    records: Sequence[Record],
    device: Device | None,
    trials: Mapping[Experiment, Estimate],
) -> list[Need]:
    """Sort cells by experiment, each with an estimate: of its trial, or from records.

    Args:
        cells: Of a grid.
        records: Of the results folder.
        device: Where runs will be; None if it is not known, as on a cluster, upon which records of any serve.
        trials: Estimates that trials gave.
    """
    by_experiment: dict[Experiment, list[Cell]] = {}
    for cell in cells:
        by_experiment.setdefault(cell.experiment, []).append(cell)
    made = []
    for experiment, members in by_experiment.items():
        plan = members[0].plan
        known = None if plan is None else from_records(plan, records, device)
        trial = trials.get(experiment)
        if trial is not None and known is not None:  # what a run saves does not depend on the device
            trial = dataclasses.replace(trial, disk=known.disk)
        made.append(Need(experiment, members, trial or known))
    return made


def from_records(plan: Plan, records: Sequence[Record], device: Device | None) -> Estimate | None:
    """Estimate a run from finished ones on its protocol and backbone.

    Taken are, of those there are, runs on the same model before runs on another one of the kind, and the same
    variant before another one of the method.

    Returns:
        None where there is none like it.
    """
    like = [
        record
        for record in records
        if record.complete
        and record.data["method"]["name"] == plan.method.name
        and record.data["protocol"]["fingerprint"] == plan.protocol.fingerprint
        and record.data["weights"]["name"] == plan.backbone.name
        and record.data["options"]["precision"]["value"] == plan.options.precision
        and (device is None or record.data["environment"]["device_type"] == device.kind)
    ]
    here = [r for r in like if device is not None and r.data["environment"]["device"] == device.name]
    for members in (here, like):
        if not members:
            continue
        of_it = [r for r in members if r.data["variant"] == plan.variant]
        chosen = of_it or [r for r in members if r.data["variant"] == members[0].data["variant"]]
        what = "records of it" if of_it else f"records of its variant {chosen[0].data['variant']}"
        models = " and ".join(sorted({r.data["environment"]["device"] for r in chosen}))
        return _mean(chosen, f"{what} on {models}{'' if members is here else ', not on this device'}")
    return None


def from_trial(base_s: float, test_s: float, work: Sequence[Work], plan: Plan, basis: str) -> Estimate:
    """Estimate a run from its first task: later ones train by their videos, exemplars included.

    Args:
        base_s: Seconds of training that the base task takes.
        test_s: Seconds that testing a video takes.
        work: The videos of every step.
        plan: The run; keys ``epochs`` and ``epochs_first`` of its config tell how many epochs later tasks have.
        basis: What the seconds were made from.
    """
    first, later = (getattr(plan.config, key, None) for key in ("epochs_first", "epochs"))
    share = later / first if isinstance(first, int) and isinstance(later, int) and first else 1.0
    seconds, seen = 0.0, 0
    for number, (step, size) in enumerate(zip(work, plan.protocol.spec.tasks.sizes, strict=True)):
        kept = allowed_videos(plan.protocol.spec.memory, seen) if plan.method.uses_memory else 0
        videos = step.train + (kept if number else 0)
        seconds += base_s * videos / max(1, work[0].train) * (share if number else 1.0) + test_s * step.test
        seen += size
    return Estimate(seconds, basis)


def exemplars(plan: Plan) -> Exemplars | None:
    """Return what a run may keep once all classes are learnt; None for a method without exemplars."""
    budget = plan.protocol.spec.memory
    if not plan.method.uses_memory or budget is None:
        return None
    videos = allowed_videos(budget, plan.protocol.spec.classes.num)
    if not isinstance(budget.frames, int):
        return Exemplars(videos, None, None)
    frames = videos * budget.frames
    return Exemplars(videos, frames, frames * 3 * plan.protocol.spec.clip.size**2)


def _mean(records: Sequence[Record], basis: str) -> Estimate:
    seconds = [
        sum(step["costs"]["train_s"] + step["costs"]["eval_s"] for step in r.data["steps"]) for r in records
    ]
    return Estimate(fmean(seconds), basis, max(_states(r) for r in records))


def _states(record: Record) -> int:
    """Return the bytes of what a run saves to resume: a state after a task, one inside it with its optimiser's.

    An optimiser holds two numbers of 4 bytes for each trainable one at most (Adam).
    """
    return max(
        2 * step["costs"]["state_bytes"] + 8 * step["costs"]["trainable"] for step in record.data["steps"]
    )
