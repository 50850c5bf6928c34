"""Trackers: where the scalars of a run go while it trains, beside the record.

Off by default. ``--set tracker=tensorboard`` writes TensorBoard events below the results;
``tracker=package.module:Name`` hands the same scalars to a class of yours, which is where Weights & Biases or
MLflow attach. A tracker sees what the record will hold anyway and has no say in the run.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from .common.errors import UserError


class TrackerError(UserError):
    """A tracker that cannot be loaded."""


class Tracker(Protocol):
    """What a tracker must be: made once per seed, told scalars, closed at the end.

    The class is called as ``Name(run_id, folder, config)``: the run's id, a folder of its own below the
    results, and the resolved config with options (plain values).
    """

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take scalars by name: losses per epoch (``loss/...``, step counts epochs of the whole run) and, after
        each task, accuracies (``accuracy/<readout>``, step counts tasks).
        """

    def close(self) -> None:
        """Finish; called when the seed's run ends, however it ends."""


class NoTracker:
    """Keeps nothing."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Forget."""

    def close(self) -> None:
        """Do nothing."""


class TensorBoard:
    """Writes TensorBoard events; ``tensorboard --logdir results`` shows all runs."""

    def __init__(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Open the event file.

        Raises:
            TrackerError: The package ``tensorboard`` is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrackerError(
                "tracker=tensorboard needs the package tensorboard: pip install tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("run", run_id)
        self._writer.add_text("config", "\n".join(f"    {k} = {v}" for k, v in config.items()))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


def find(name: str | None) -> type[Any]:
    """Return the tracker's class.

    Args:
        name: None, ``tensorboard``, or ``package.module:Name``.

    Raises:
        TrackerError: There is none of that name, or it lacks a method.
    """
    if name is None:
        return NoTracker
    if name == "tensorboard":
        return TensorBoard
    module, colon, attribute = name.partition(":")
    if not colon:
        raise TrackerError(
            f"tracker: {name!r} is neither tensorboard nor of the form package.module:Name (a class of yours)"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise TrackerError(
            f"tracker: {name!r} cannot be loaded ({type(error).__name__}: {error}); give tensorboard, or "
            "package.module:Name of a class that can be imported from here"
        ) from error
    lacking = [m for m in ("scalars", "close") if not callable(getattr(found, m, None))]
    if lacking:
        raise TrackerError(f"tracker: {name!r} has no method {', '.join(lacking)}")
    return found
