"""Trackers: what they are told, that they change nothing, and that a wrong one is refused before any work."""

from __future__ import annotations

import importlib.util
import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up_records import record_data

from vcil_bench import record, trackers

QUICK = ["epochs=2", "epochs_first=2", "batch_size=4"]
MODULE = """
CALLS = []


class Notes:
    def __init__(self, run_id, folder, config):
        CALLS.append(("open", run_id, config["lr"]))

    def scalars(self, values, step):
        CALLS.append((step, dict(values)))

    def close(self):
        CALLS.append("closed")


class Half:
    def scalars(self, values, step): ...
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "my_notes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_notes:Notes"
    sys.modules.pop("my_notes", None)


def test_a_tracker_is_told_what_the_record_holds(notes: str, tiny: Any, tmp_path: Path) -> None:
    assert tiny.run("finetune", tmp_path / "r", "--set", *QUICK, f"tracker={notes}") == 0
    (path,) = (tmp_path / "r").glob("*/finetune/*.json")
    found = record.load(path)
    calls = sys.modules["my_notes"].CALLS
    assert calls[0] == ("open", found.data["run_id"], found.data["config"]["lr"]["value"])
    assert calls[-1] == "closed"
    told = [values for _, values in calls[1:-1] if "loss/cross_entropy" in values]
    kept = [loss["cross_entropy"] for step in found.data["steps"] for loss in step["losses"]]
    assert [values["loss/cross_entropy"] for values in told] == kept
    assert [step for step, values in calls[1:-1] if "loss/cross_entropy" in values] == list(range(1, 7))
    accuracies = [(step, v["accuracy/cnn"]) for step, v in calls[1:-1] if "accuracy/cnn" in v]
    totals = found.data["test_videos"]
    expected = [sum(s["correct"]["cnn"]) / sum(totals[: i + 1]) for i, s in enumerate(found.data["steps"])]
    assert accuracies == list(enumerate(expected, start=1))


def test_a_tracker_changes_neither_variant_nor_counts(notes: str, tiny: Any, tmp_path: Path) -> None:
    assert tiny.run("finetune", tmp_path / "with", "--set", *QUICK, f"tracker={notes}") == 0
    assert tiny.run("finetune", tmp_path / "without", "--set", *QUICK) == 0
    (one,) = (tmp_path / "with").glob("*/finetune/*.json")
    (two,) = (tmp_path / "without").glob("*/finetune/*.json")
    assert one.name == two.name
    steps = [[(s["correct"], s["losses"]) for s in record.load(p).data["steps"]] for p in (one, two)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tensorbord", "did you mean 'tensorboard'?"),
        ("no_such_module:Name", "cannot be loaded (ModuleNotFoundError"),
        ("json:Nothing", "cannot be loaded (AttributeError"),
        ("my_notes:Half", "has no method close"),
    ],
)
def test_a_wrong_tracker_is_one_line(
    name: str, wanted: str, notes: str, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run("finetune", tmp_path / "r", "--set", f"tracker={name}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert wanted in line
    assert not (tmp_path / "r").exists() or not list((tmp_path / "r").glob("*/*/*.json"))


def test_tensorboard_events_hold_the_losses(tiny: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert tiny.run("finetune", tmp_path / "r", "--set", *QUICK, "tracker=tensorboard") == 0
    (events,) = (tmp_path / "r").glob("*/finetune/*/tracking/events*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loaded = EventAccumulator(str(events.parent))
    loaded.Reload()
    (path,) = (tmp_path / "r").glob("*/finetune/*.json")
    kept = [loss["cross_entropy"] for s in record.load(path).data["steps"] for loss in s["losses"]]
    assert [e.value for e in loaded.Scalars("loss/cross_entropy")] == pytest.approx(kept)


def test_names_and_numbers_after_a_task() -> None:
    data = record_data(correct=((4,), (2, 1)), totals=(4, 2))
    assert trackers.task_scalars(data["steps"][:1], data["test_videos"]) == {
        "classes_seen": 2,
        "accuracy/cnn": 1.0,
        "forgetting/cnn": 0.0,
        "accuracy/cnn/task_1": 1.0,
        "correct/cnn/task_1": 4,
    }
    assert trackers.task_scalars(data["steps"], data["test_videos"]) == {
        "classes_seen": 3,
        "accuracy/cnn": 0.5,
        "forgetting/cnn": 0.5,
        "accuracy/cnn/task_1": 0.5,
        "correct/cnn/task_1": 2,
        "accuracy/cnn/task_2": 0.5,
        "correct/cnn/task_2": 1,
    }


def test_a_package_that_is_not_there_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in trackers.TRACKERS:
        with pytest.raises(trackers.TrackerError):
            trackers.find(name)


RUN_ID = "made_up/alpha/default-s1"
LOSSES = {1: {"loss/cross_entropy": 1.5}, 2: {"loss/cross_entropy": 0.75}}
TASKS = {
    1: {"classes_seen": 2, "accuracy/cnn": 1.0, "correct/cnn/task_1": 4},
    2: {"classes_seen": 3, "accuracy/cnn": 0.5, "correct/cnn/task_1": 2, "correct/cnn/task_2": 1},
}
CONFIG = {"lr": 0.1, "schedule": None, **{f"key_{i}": i for i in range(120)}}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a network, and a home that nobody else has."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX, f"a tracker calls {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path / "results/made_up/alpha/default-s1/tracking"


def tell(name: str, folder: Path) -> None:
    """Hand a tracker what a run of two tasks of an epoch each does."""
    tracker = trackers.find(name)(RUN_ID, folder, CONFIG)
    for step in (1, 2):
        tracker.scalars(LOSSES[step], step)
        tracker.scalars(TASKS[step], step)
    tracker.close()


def wandb_records(path: Path) -> Any:
    """Read the file of an offline run, a log as LevelDB writes it: blocks of records (crc, length, type)."""
    from wandb.proto import wandb_internal_pb2

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


@pytest.mark.filterwarnings("ignore")  # of the tools, about themselves
class TestOffline:
    """The stores that W&B and MLflow keep on disk hold what was told, under the same names."""

    def test_wandb(self, offline: Path) -> None:
        wandb = pytest.importorskip("wandb")
        tell("wandb", offline)
        wandb.teardown()  # as the end of the process does: all is on disk then
        (file,) = offline.glob("wandb/offline-run-*/run-*.wandb")
        stored = list(wandb_records(file))
        (run,) = [each.run for each in stored if each.WhichOneof("record_type") == "run"]
        assert (run.display_name, run.run_group, run.project, run.host) == (
            *(RUN_ID, "made_up/alpha/default", "vcil-bench"),
            "-",
        )
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert {key: config[key] for key in CONFIG} == CONFIG
        rows = [
            {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in each.history.item}
            for each in stored
            if each.WhichOneof("record_type") == "history"
        ]
        told = [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]
        assert told == [
            row for step in (1, 2) for row in (LOSSES[step] | {"epoch": step}, TASKS[step] | {"task": step})
        ]

    def test_mlflow(self, offline: Path) -> None:
        pytest.importorskip("mlflow")
        from mlflow import MlflowClient

        tell("mlflow", offline)
        client = MlflowClient(tracking_uri=f"sqlite:///{offline / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("made_up")
        (run,) = client.search_runs([experiment.experiment_id])
        assert (run.info.run_name, run.info.status, run.data.tags["run_id"]) == (RUN_ID, "FINISHED", RUN_ID)
        assert run.data.params == {key: str(value) for key, value in CONFIG.items()}
        for series in (LOSSES, TASKS):
            for name in series[2]:
                told = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                assert told == [(step, series[step][name]) for step in (1, 2) if name in series[step]]

    def test_tensorboard(self, offline: Path) -> None:
        pytest.importorskip("tensorboard")
        tell("tensorboard", offline)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        loaded = EventAccumulator(str(offline))
        loaded.Reload()
        for series in (LOSSES, TASKS):
            for name in series[2]:
                told = [(e.step, e.value) for e in loaded.Scalars(name)]
                assert told == [(step, series[step][name]) for step in (1, 2) if name in series[step]]
