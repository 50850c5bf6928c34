"""A run that dies at any point: it ends in what an undisturbed run ends in, and leaves nothing else behind."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import forked
import pytest

from vcil_bench import record
from vcil_bench.common import files
from vcil_bench.run.files import leftovers
from vcil_bench.training import checkpoint
from vcil_bench.training.resume import PhaseSaver

CRASHED = 71
TWO_TASKS = ["protocol.tasks.sizes=[2,2]", "batch_size=4", "workers=0"]
STAYS = {".json", ".npz", ".pdf", ".svg", ".png"}  # of one run: its record and predictions, and its curve


def _run(
    tiny: Any, folder: Path, *more: str, epochs: int = 1, before: Callable[[], None] = lambda: None
) -> Callable[[], int]:
    def work() -> int:
        before()
        sets = [*TWO_TASKS, f"epochs={epochs}", f"epochs_first={epochs}", *more]
        return int(tiny.run("finetune", folder, "--set", *sets))

    return work


def _crash_at(point: int, *, after: bool) -> Callable[[], None]:
    """End the process without a word before or after its n-th renaming or deleting of a result, from 0."""

    def before() -> None:
        seen = 0

        def counting(act: Callable[..., None]) -> Callable[..., None]:
            def counted(*arguments: Any, **more: Any) -> None:
                nonlocal seen
                counts = "finetune" in str(arguments[0])  # what lies in the cache can be made again
                here, seen = counts and seen == point, seen + counts
                if here and not after:
                    os._exit(CRASHED)
                act(*arguments, **more)
                if here:
                    os._exit(CRASHED)

            return counted

        for name in ("rename", "replace", "unlink"):
            setattr(os, name, counting(getattr(os, name)))

    return before


def _outcome(folder: Path) -> tuple[Any, bytes]:
    (path,) = folder.glob("*/*/*.json")
    found = record.load(path)
    assert found.complete
    return [(step["correct"], step["losses"]) for step in found.data["steps"]], path.with_suffix(
        ".npz"
    ).read_bytes()


def _files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def whole(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, bytes]:
    """Return what an undisturbed run ends in; all is imported then, which no child need do again."""
    folder = tmp_path_factory.mktemp("whole")
    assert _run(tiny, folder)() == 0
    assert _files(folder) == sorted(STAYS)
    return _outcome(folder)


# After the last task, its state still there; after the record, the checkpoint still there.
TELLING = {(6, True), (10, True)}
POINTS = [
    pytest.param(n, after, marks=() if (n, after) in TELLING else pytest.mark.slow)
    for n in range(16)
    for after in (False, True)
]


@pytest.mark.parametrize(("point", "after"), POINTS)
def test_a_crash_at_any_point_changes_nothing(
    point: int, after: bool, tiny: Any, tmp_path: Path, whole: tuple[Any, bytes]
) -> None:
    crashing = _run(tiny, tmp_path / "r", before=_crash_at(point, after=after))
    assert forked.run(crashing, tmp_path / "out") == CRASHED
    assert forked.run(_run(tiny, tmp_path / "r"), tmp_path / "out") == 0, (tmp_path / "out").read_text()
    assert _outcome(tmp_path / "r") == whole
    assert _files(tmp_path / "r") == sorted(STAYS)


@pytest.mark.slow
def test_every_renaming_and_deleting_of_a_run_is_such_a_point(tiny: Any, tmp_path: Path) -> None:
    assert forked.run(_run(tiny, tmp_path / "a", before=_crash_at(15, after=True)), tmp_path / "out") == CRASHED
    assert forked.run(_run(tiny, tmp_path / "b", before=_crash_at(16, after=False)), tmp_path / "out") == 0


@pytest.mark.slow
def test_twenty_five_blows_at_random_moments_change_nothing(tiny: Any, tmp_path: Path) -> None:
    draw = random.Random(0)
    every = "checkpoint_minutes=0"
    assert forked.run(_run(tiny, tmp_path / "whole", every, epochs=40), tmp_path / "out") == 0
    for blow in range(25):
        number = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        with forked.running(_run(tiny, tmp_path / "cut", every, epochs=40), tmp_path / f"out{blow}") as child:
            before = _newest(tmp_path / "cut")
            child.until(lambda before=before: _newest(tmp_path / "cut") != before)  # type: ignore[misc]
            time.sleep(draw.uniform(0, 0.3))
            child.send(number)
            assert child.wait() in (130, -signal.SIGKILL), child.text()
    assert forked.run(_run(tiny, tmp_path / "cut", every, epochs=40), tmp_path / "out") == 0
    assert _outcome(tmp_path / "cut") == _outcome(tmp_path / "whole")
    assert _files(tmp_path / "cut") == sorted(STAYS)


def _newest(folder: Path) -> int:
    return max((p.stat().st_mtime_ns for p in folder.glob("*/*/*.safetensors")), default=0)


def _die_in_the_library_that_writes() -> None:
    """Let the process end while safetensors writes, which does so into a file of its own making."""

    def save_file(tensors: Any, filename: Path, metadata: Any) -> None:
        Path(filename).with_name(".tmpAbC123").touch()
        os._exit(CRASHED)

    checkpoint.save_file = save_file


def test_what_a_library_was_writing_is_cleared_away(tiny: Any, tmp_path: Path) -> None:
    crashing = _run(tiny, tmp_path / "r", before=_die_in_the_library_that_writes)
    assert forked.run(crashing, tmp_path / "out") == CRASHED
    assert ".tmpAbC123" in [path.name for path in (tmp_path / "r").rglob("*")]
    assert forked.run(_run(tiny, tmp_path / "r"), tmp_path / "out") == 0
    assert _files(tmp_path / "r") == sorted(STAYS)
    assert not [path for path in (tmp_path / "r").rglob(".*")]


def _die_after_a_step() -> None:
    """Let the process end without a word after its next step of training."""
    original = PhaseSaver.maybe_save

    def maybe_save(saver: PhaseSaver, *arguments: Any, **more: Any) -> None:
        original(saver, *arguments, **more)
        os._exit(CRASHED)

    PhaseSaver.maybe_save = maybe_save  # type: ignore[method-assign]


def test_every_session_that_trained_is_in_the_record(tiny: Any, tmp_path: Path) -> None:
    """The first saves its state, the second dies before it could, the third does all the rest."""
    for minutes in (0, 60):
        crashing = _run(tiny, tmp_path / "r", f"checkpoint_minutes={minutes}", before=_die_after_a_step)
        assert forked.run(crashing, tmp_path / "out") == CRASHED
    (path,) = (tmp_path / "r").glob("*/*/*.json")
    first = record.load(path).data["sessions"][0]
    data = json.loads(path.read_text())
    data["sessions"][0]["started"] = data["started"] = "2020-01-01T00:00:00Z"  # all began in one second
    data["sessions"][0]["environment"]["device"] = "another machine"
    path.write_text(json.dumps(data))
    assert forked.run(_run(tiny, tmp_path / "r"), tmp_path / "out") == 0
    ended = record.load(path).data
    assert len(ended["sessions"]) == 3
    assert ended["sessions"][0]["environment"]["device"] == "another machine"
    assert ended["sessions"][1]["environment"]["device"] == first["environment"]["device"]
    assert ended["started"] == "2020-01-01T00:00:00Z"


@pytest.mark.slow
def test_sessions_of_another_run_are_not_taken_over(tiny: Any, tmp_path: Path) -> None:
    """A record of what failed before its method was mended, say."""
    crashing = _run(tiny, tmp_path / "r", "checkpoint_minutes=60", before=_die_after_a_step)
    assert forked.run(crashing, tmp_path / "out") == CRASHED
    (path,) = (tmp_path / "r").glob("*/*/*.json")
    data = json.loads(path.read_text())
    data["identity"]["vcil_bench.losses"] = "0" * 16
    path.write_text(json.dumps(data))
    assert forked.run(_run(tiny, tmp_path / "r"), tmp_path / "out") == 0
    assert len(record.load(path).data["sessions"]) == 1


def test_what_lies_beside_a_finished_record_is_cleared_away(tiny: Any, tmp_path: Path) -> None:
    assert tiny.run("zero_shot", tmp_path / "r") == 0
    (path,) = (tmp_path / "r").glob("*/*/*.json")
    left = [
        path.with_name(f"{path.stem}{end}") for end in (".ckpt.safetensors", ".phase-2.safetensors", ".lock")
    ]
    left += [path.with_name(f".{path.stem}{end}.abcd_123") for end in (".json", ".phase-1.safetensors")]
    others = [path.with_name(f".{path.stem}0.json.abcd_123"), path.with_name(f"{path.stem}0.ckpt.safetensors")]
    for file in (*left, *others):
        file.touch()
    assert leftovers(path)
    assert tiny.run("zero_shot", tmp_path / "r") == 0
    assert [file for file in left if file.exists()] == []
    assert [file for file in others if not file.exists()] == []  # another seed's


def test_a_lock_that_is_removed_still_keeps_others_out(tmp_path: Path) -> None:
    """Each adds one to a number, many times; two at once would lose some."""
    number = tmp_path / "number.txt"
    number.write_text("0")

    def work() -> int:
        for _ in range(30):
            with files.locked(number, wait_s=60):
                value = int(number.read_text())
                time.sleep(0)
                number.write_text(str(value + 1))
        return 0

    children = [forked.Child(work, tmp_path / f"out{i}") for i in range(4)]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert number.read_text() == "120"
    assert not files.lock_path(number).exists()


def test_a_disk_that_cannot_lock_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS without its lock daemon answers."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(files.StorageError, match="No locks available"), files.locked(tmp_path / "a.json"):
        pass


def test_a_folder_in_the_place_of_a_checkpoint_is_one_line(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record.record_path(tmp_path, "tiny_2x1", "zero_shot", "backbone=clip_tiny", 1)
    record.checkpoint_path(path).mkdir(parents=True)
    assert tiny.run("zero_shot", tmp_path, "--force") == 2
    assert "cannot be deleted" in capsys.readouterr().err.splitlines()[-1]
