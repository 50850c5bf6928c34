"""Reuse of finished records: tells whether one is the very run that is asked for, which then need not run."""

from __future__ import annotations

from collections.abc import Callable

from vcil_bench import identity
from vcil_bench import record as records
from vcil_bench.data.manifest import Manifest

from .files import clear_finished, saved_states
from .plan import Plan, StaleRecord

# Parts that a plan alone does not know: they need the data's files or the weights.
LOADED_PARTS = {"class_order", "data", "frame_store", "weights"}


def finished(plan: Plan, seed: int, manifest: Manifest | None, say: Callable[[str], None]) -> bool:
    """Tell whether a seed needs no work; what a finished run has left beside its record is cleared away.

    Args:
        plan: The run.
        seed: Of the class order.
        manifest: Of data that were given on the command line.
        say: Takes the lines a user reads.

    Raises:
        StaleRecord: The record is complete, but not of this run.
        RecordError: It is corrupt.
    """
    path = plan.path(seed)
    if not path.exists():
        return False
    record = records.load(path)
    if not record.complete:
        return False
    if changed := _changed(record, plan, seed, manifest):
        raise StaleRecord(path, changed)
    clear_finished(path)
    say(f"seed {seed}: finished before, {path}")
    if not records.has_predictions(record):
        say(
            f"warning: its predictions, {records.predictions_path(path)}, are gone: the record counts, but "
            "reports lack its confusions and paired comparisons; put the file back, or run anew with --force"
        )
    return True


def outdated_states(plan: Plan, seed: int, manifest: Manifest | None) -> list[str]:
    """Return the parts in which the saved states of a run that was cut off are not of the run asked for.

    Args:
        plan: The run.
        seed: Of the class order.
        manifest: Of the data, as far as known.

    Returns:
        Names of parts, for which the run would refuse the states; none where no state is saved.

    Raises:
        RecordError: The record is corrupt.
    """
    path = plan.path(seed)
    if not path.exists() or not saved_states(path):
        return []
    return _changed(records.load(path), plan, seed, manifest)


def _changed(record: records.Record, plan: Plan, seed: int, manifest: Manifest | None) -> list[str]:
    """Return the parts in which a record is not of the run asked for, as far as these are known."""
    asked_for = known_parts(plan, seed, manifest)
    unknown = LOADED_PARTS - asked_for.keys()
    return identity.differences(record.data["identity"], asked_for, ignoring=unknown | identity.MACHINE_PARTS)


def known_parts(plan: Plan, seed: int, manifest: Manifest | None) -> dict[str, str]:
    """Return the parts of a run that are known before it begins."""
    run_seed = seed if plan.options.run_seed is None else plan.options.run_seed
    known = plan.parts | identity.parts({}, run_seed=run_seed)
    return known if manifest is None else known | identity.parts({}, data=manifest.sha256)
