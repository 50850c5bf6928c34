"""The files of a run beside its record: what each is named, who may write them, what is cleared away when.

STEM.json STEM.npz                         record and predictions, which stay
STEM.ckpt.safetensors                      state after a task, until the run is finished
STEM.phase-N.safetensors                   state inside a task, until the task is
.STEM.<ending>.xxxxxxxx                    a file on its way to one of these names
STEM.lock                                  while a process works on the run
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

from vcil_bench import record as records
from vcil_bench.common.files import UNFINISHED, Busy, lock_path, locked, remove
from vcil_bench.training.resume import phase_files


def unfinished(path: Path) -> list[Path]:
    """Return the folders in which killed processes were writing a run's files, or a picture.

    Args:
        path: The record, or a picture.
    """
    kinds = r"(json|npz|ckpt\.safetensors|phase-\d+\.safetensors|svg|png)"
    name = re.compile(rf"\.{re.escape(path.stem)}\.{kinds}{UNFINISHED}")
    hidden = path.parent.glob(f".{glob.escape(path.stem)}.*")
    return sorted(place for place in hidden if name.fullmatch(place.name))


def saved_states(record: Path) -> list[Path]:
    """Return the states that a run which was cut off resumes from."""
    checkpoint = records.checkpoint_path(record)
    return [*phase_files(record), *([checkpoint] if checkpoint.exists() else [])]


def leftovers(record: Path) -> list[Path]:
    """Return what a finished run has no use for."""
    return [*unfinished(record), *saved_states(record)]


def clear_finished(record: Path) -> None:
    """Delete what a run left that was killed between its last task and its end, unless it is worked on again.

    Args:
        record: Of a run that was found to be complete.

    Raises:
        StorageError: A file cannot be deleted.
    """
    if not leftovers(record) and not lock_path(record).exists():
        return
    try:
        with locked(record):  # and a lock that a killed process has left is removed with it
            if record.exists() and records.load(record).complete:
                for path in leftovers(record):
                    remove(path)
    except Busy:
        return
