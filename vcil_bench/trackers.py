"""Trackers: where the scalars of a run go while it trains, beside the record: TensorBoard, W&B, MLflow.

Off by default. ``--set tracker=tensorboard``, ``wandb`` or ``mlflow`` writes below the results, and nothing goes
over a network unless the tool's own environment variables say so; ``tracker=package.module:Name`` hands the same
scalars to a class of yours. A tracker sees what the record will hold anyway and has no say in the run.

Names are the same in all of them and stay: after every epoch ``loss/TERM``, by epochs of the whole run; after
every task ``accuracy/READOUT`` and ``forgetting/READOUT`` over all classes seen, ``accuracy/READOUT/task_J`` and
``correct/READOUT/task_J`` of each task so far, and ``classes_seen``, by tasks. Both count from 1.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .common.errors import UserError, did_you_mean
from .metrics import accuracy_matrix, backward_forgetting
from .record_schema import Step

LOSS = "loss/"  # how names begin that are logged by epoch; all others are by task


class TrackerError(UserError):
    """A tracker that cannot be loaded."""


class Tracker(Protocol):
    """What a tracker must be: made once per seed, told scalars, closed at the end.

    The class is called as ``Name(run_id, folder, config)``: the run's id, a folder of its own below the
    results, and the resolved config with options (plain values).
    """

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take scalars by name, see above: losses after each epoch, counts and accuracies after each task."""

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
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

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


class WeightsAndBiases:
    """Writes a run of Weights & Biases offline; ``wandb sync`` sends it, ``WANDB_MODE=online`` does so at once.

    Project ``vcil-bench`` (or ``WANDB_PROJECT``); runs are named by their run id and grouped without the seed.
    Of the machine it is told nothing: neither code nor host nor output.
    """

    def __init__(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin a run; a resumed one begins another of the same name."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to the makers, when it fails
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "vcil-bench"),
            name=run_id,
            group=run_id.rpartition("-s")[0],
            config=dict(config),
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                disable_code=True,
                silent=True,
                host="-",  # or it looks the name up
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        self._run.define_metric("epoch", hidden=True)
        self._run.define_metric("task", hidden=True)
        self._run.define_metric(f"{LOSS}*", step_metric="epoch")
        for names in ("accuracy/*", "forgetting/*", "correct/*", "classes_seen"):
            self._run.define_metric(names, step_metric="task")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log scalars over epochs or tasks."""
        by_epoch = all(name.startswith(LOSS) for name in values)
        self._run.log({**values, "epoch" if by_epoch else "task": step})

    def close(self) -> None:
        """Write the rest."""
        self._run.finish()


class MLflow:
    """Writes a run of MLflow, into a database of its own below the results or to ``MLFLOW_TRACKING_URI``.

    Experiment: the protocol's label; the run is named by its run id, which is the tag ``run_id``, too.
    """

    def __init__(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin a run; a resumed one begins another of the same name."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        folder.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
        self._client = MlflowClient(tracking_uri=uri)
        name = run_id.partition("/")[0]
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            experiment = known.experiment_id
        else:
            place = None if "MLFLOW_TRACKING_URI" in os.environ else (folder / "artifacts").absolute().as_uri()
            experiment = self._client.create_experiment(name, artifact_location=place)
        run = self._client.create_run(experiment, run_name=run_id, tags={"run_id": run_id})
        self._id = run.info.run_id
        params = [Param(key, str(value)) for key, value in config.items()]
        for start in range(0, len(params), 100):  # as many as it takes at once
            self._client.log_batch(self._id, params=params[start : start + 100])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log scalars over epochs or tasks."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self._client.log_batch(
            self._id, metrics=[Metric(name, float(value), now, step) for name, value in values.items()]
        )

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)


TRACKERS: dict[str, tuple[str, type[Any]]] = {  # by name: the package that it needs, and its class
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", MLflow),
}


def task_scalars(steps: Sequence[Step], totals: Sequence[int]) -> dict[str, float]:
    """Return what a tracker is told after a task.

    Args:
        steps: The record's steps so far, the task's last.
        totals: Test videos of all tasks.
    """
    last, seen = steps[-1], totals[: len(steps)]
    values: dict[str, float] = {"classes_seen": last["classes_seen"]}
    for readout, counts in last["correct"].items():
        matrix = accuracy_matrix([step["correct"][readout] for step in steps], seen)
        values[f"accuracy/{readout}"] = sum(counts) / sum(seen)
        values[f"forgetting/{readout}"] = float(backward_forgetting(matrix))
        for task, (count, total) in enumerate(zip(counts, seen, strict=True), start=1):
            values[f"accuracy/{readout}/task_{task}"] = count / total
            values[f"correct/{readout}/task_{task}"] = count
    return values


def find(name: str | None) -> type[Any]:
    """Return the tracker's class.

    Args:
        name: None, one of ``TRACKERS``, or ``package.module:Name``.

    Raises:
        TrackerError: There is none of that name, its package is not installed, or it lacks a method.
    """
    if name is None:
        return NoTracker
    if name in TRACKERS:
        package, tracker = TRACKERS[name]
        if importlib.util.find_spec(package) is None:
            raise TrackerError(f"tracker={name} needs the package {package}: pip install {package}")
        return tracker
    module, colon, attribute = name.partition(":")
    if not colon:
        raise TrackerError(
            f"tracker: {name!r} is none of {', '.join(TRACKERS)}{did_you_mean(name, TRACKERS)}, nor of the form "
            "package.module:Name (a class of yours)"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise TrackerError(
            f"tracker: {name!r} cannot be loaded ({type(error).__name__}: {error}); give one of "
            f"{', '.join(TRACKERS)}, or package.module:Name of a class that can be imported from here"
        ) from error
    lacking = [m for m in ("scalars", "close") if not callable(getattr(found, m, None))]
    if lacking:
        raise TrackerError(f"tracker: {name!r} has no method {', '.join(lacking)}")
    return found
