"""Trackers: what they are told, that they change nothing, and that a wrong one is refused before any work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vcil_bench import record

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
        ("tensorbord", "neither tensorboard nor of the form package.module:Name"),
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
