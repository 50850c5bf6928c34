"""Preparing many videos: in processes, with decoders that hang or crash, and going on after a kill."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dataset_factory import table, video

from vcil_bench.cli import main
from vcil_bench.common.files import StorageError
from vcil_bench.common.progress_lines import ProgressLines
from vcil_bench.data import prepare as preparing
from vcil_bench.data.datasets import adapter
from vcil_bench.data.manifest import Manifest, manifest_path
from vcil_bench.data.prepare import prepare
from vcil_bench.data.prepare.journal import Journal
from vcil_bench.data.prepare.read_facts import POOL_FROM_VIDEOS, facts_of, hang_message, read_all, unread
from vcil_bench.data.video.facts import Facts

MANY = POOL_FROM_VIDEOS + 12


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def many_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make more videos than are decoded in this process."""
    root = tmp_path_factory.mktemp("many")
    video(root / "0.avi", frames=5)
    for number in range(1, MANY):
        shutil.copy(root / "0.avi", root / f"{number}.avi")
    return table(root, *(f"{n}.avi,a,{'test' if n % 2 else 'train'}," for n in range(MANY)))


def prepared(root: Path, **options: float) -> Manifest:
    return prepare(adapter("folder"), root, "videos.csv", **options)  # type: ignore[arg-type]


# What stands in for a decoder runs in another process, which finds it by this module's name.


def hang_on_one(path: str) -> Facts:
    if path.endswith("/17.avi"):
        time.sleep(600)
    return facts_of(path)


def crash_on_one(path: str) -> Facts:
    if path.endswith("/17.avi"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return facts_of(path)


def slow(path: str) -> Facts:
    time.sleep(0.05)
    return facts_of(path)


def test_processes_find_what_one_process_finds(many_files: Path) -> None:
    manifest = prepared(many_files, workers=2)
    assert [v.facts.frames for v in manifest.videos] == [5] * MANY
    alone = facts_of(str(many_files / "0.avi"))
    assert {
        (v.facts.sha256, v.facts.claimed, v.facts.width, v.facts.height, v.facts.fps, v.facts.codec)
        for v in manifest.videos
    } == {(alone.sha256, alone.claimed, 96, 48, 25.0, "mpeg4")}


def test_no_process_is_started_for_a_few_videos_or_for_none(
    many_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(many_files, workers=2)
    monkeypatch.setattr("vcil_bench.data.prepare.process_pool.ProcessPool", None)
    assert len(prepared(many_files).usable("train")) == MANY / 2
    assert len(list(read_all([str(many_files / "0.avi")], facts_of, limit_s=1))) == 1


def test_a_decoder_that_hangs_is_killed_and_its_video_named(
    many_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "facts_of", hang_on_one)
    start = time.monotonic()
    manifest = prepared(many_files, workers=2, limit_s=0.5)
    assert time.monotonic() - start < 30
    assert {v.id: v.facts.problem for v in manifest.left_out()} == {
        "17.avi": "the decoder hung for 0.5 s and was given up"
    }
    assert multiprocessing.active_children() == []
    monkeypatch.setattr(preparing, "read_all", lambda paths, *_, **__: iter([] if not paths else [None]))
    assert prepared(many_files, limit_s=0.5) == manifest  # it would hang again


def test_a_few_large_videos_are_worth_processes(many_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcil_bench.data.prepare.read_facts.POOL_FROM_BYTES", 1)
    (read,) = read_all([str(many_files / "17.avi")], hang_on_one, limit_s=0.5)
    assert read.hung
    assert read.facts.problem == "the decoder hung for 0.5 s and was given up"


@pytest.mark.slow
def test_another_limit_is_another_try_at_a_decoder_that_hung(
    many_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "facts_of", hang_on_one)
    prepared(many_files, workers=2, limit_s=0.5)
    monkeypatch.setattr(preparing, "facts_of", facts_of)
    assert prepared(many_files, limit_s=5).left_out() == []


def test_a_decoder_that_crashes_costs_its_video_alone(many_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "facts_of", crash_on_one)
    problems = {v.id: str(v.facts.problem) for v in prepared(many_files, workers=2).left_out()}
    assert problems == {"17.avi": f"the decoder crashed (exit code {-signal.SIGSEGV})"}


def start(root: Path, script: Path, guard: str = "__name__ == '__main__'") -> subprocess.Popen[bytes]:
    """Prepare a root in another process, slowly."""
    code = (
        "import sys; from pathlib import Path; from vcil_bench.data import prepare; "
        "from vcil_bench.data.datasets import adapter; import test_read_facts as here; "
        "prepare.facts_of = here.slow; "
        "prepare.prepare(adapter('folder'), Path(sys.argv[1]), 'videos.csv', workers=2)"
    )
    script.write_text(f"if {guard}:\n    {code}\n", encoding="utf-8")
    paths = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    with script.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(script), str(root)], env={**os.environ, "PYTHONPATH": paths}, stderr=log
        )


@pytest.mark.slow
def test_two_that_prepare_at_once_read_every_video_once(many_files: Path, tmp_path: Path) -> None:
    processes = [start(many_files, tmp_path / f"{number}.py") for number in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    journal = manifest_path("folder", many_files, "videos.csv").with_name("facts.jsonl")
    assert len(journal.read_bytes().splitlines()) == 1 + MANY


def test_a_killed_prepare_goes_on_where_it_was(many_files: Path, tmp_path: Path) -> None:
    root = many_files
    process = start(root, tmp_path / "prepare.py")
    journal = manifest_path("folder", root, "videos.csv").with_name("facts.jsonl")
    wait_for(lambda: journal.is_file() and len(journal.read_bytes().splitlines()) > 10)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not manifest_path("folder", root, "videos.csv").exists()
    kept = set(Journal(journal).known)
    assert 10 <= len(kept) < MANY

    read: list[str] = []

    def note(path: str) -> Facts:
        read.append(Path(path).name)
        return facts_of(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "facts_of", note)
        patch.setattr("vcil_bench.data.prepare.read_facts.POOL_FROM_VIDEOS", MANY)
        manifest = prepared(root)
    assert set(read) == {f"{n}.avi" for n in range(MANY)} - kept
    assert len(read) == len(set(read))
    assert [v.facts.frames for v in manifest.videos] == [5] * MANY


def wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_script_without_a_guard_is_told_so(many_files: Path, tmp_path: Path) -> None:
    process = start(many_files, tmp_path / "script.py", guard="True")
    try:
        wait_for(lambda: "below if __name__ == '__main__'" in (tmp_path / "script.log").read_text("utf-8"))
    finally:
        process.terminate()
        process.wait()


def test_the_command_prepares_without_torch(many_files: Path) -> None:
    code = (
        "import sys; from vcil_bench.cli import main; "
        "code = main(['prepare', 'folder', sys.argv[1], '--workers', '2', '--limit', '30']); "
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(many_files)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 False"
    assert f"train: {MANY // 2} usable, 0 left out" in done.stdout
    assert "5 to 5 frames, median 5; 96x48; 25 fps" in done.stdout
    assert f"the same file in train and test: 0.avi, 1.avi, 2.avi, 3.avi and {MANY - 4} more" in done.stdout


@pytest.mark.parametrize(("option", "value"), [("--workers", "0"), ("--limit", "-1")])
def test_numbers_that_make_no_sense_are_refused(
    many_files: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "folder", str(many_files), option, value]) == 2
    assert f"{option} {float(value):g}" in capsys.readouterr().err.replace(".0 ", " ")


def test_a_dataset_without_a_folder_is_refused_with_its_layout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "kinetics400"]) == 2
    assert "vcil-bench prepare kinetics400 ROOT; it should hold: kinetics-400_train" in capsys.readouterr().err


# --- the journal

SOME = Facts(frames=3, width=96, height=48, fps=25.0, codec="mpeg4", bytes=9, mtime_ns=1, sha256="0" * 64)


def test_a_line_cut_off_in_the_journal_costs_one_video(tmp_path: Path) -> None:
    path = tmp_path / "new/facts.jsonl"
    with Journal(path) as journal:
        for name in ("a", "b"):
            journal.add(name, SOME)
    path.write_bytes(path.read_bytes()[:-20])
    with Journal(path) as journal:
        assert journal.known == {"a": SOME}
        journal.add("c", SOME)
    assert Journal(path).known == {"a": SOME, "c": SOME}


def test_the_newest_line_of_a_video_counts(tmp_path: Path) -> None:
    for problem in (None, "damaged"):
        with Journal(tmp_path / "facts.jsonl") as journal:
            journal.add("a", Facts(problem=problem))
    assert Journal(tmp_path / "facts.jsonl").known == {"a": Facts(problem="damaged")}


def test_the_limit_of_a_decoder_that_hung_is_kept_until_the_video_is_read(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    with Journal(path) as journal:
        journal.add("a", Facts(problem="in any words"), 0.5)
        journal.add("b", SOME)
    with Journal(path) as journal:
        assert journal.hung_s == {"a": 0.5}
        journal.add("a", SOME)
        assert journal.hung_s == {}
    assert Journal(path).hung_s == {}


@pytest.mark.parametrize("header", ['{"schema": 1, "decoder": "av 1"}', ""])
def test_a_journal_of_another_version_is_started_anew(tmp_path: Path, header: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f'{header}\n["a", [1]]\n', encoding="utf-8")
    with Journal(path) as journal:
        assert journal.known == {}
        journal.add("b", SOME)
    assert Journal(path).known == {"b": SOME}


def test_an_unchanged_damaged_file_is_not_decoded_again(many_files: Path, tmp_path: Path) -> None:
    root = table(tmp_path / "own", "0.avi,a,train,", "1.avi,a,test,")
    whole = (many_files / "0.avi").read_bytes()
    (root / "0.avi").write_bytes(whole[: int(len(whole) * 0.97)])
    before = prepared(root)
    assert before.videos[0].facts.problem is not None
    assert before.videos[0].facts.sha256 != ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "facts_of", None)
        assert prepared(root) == before


# --- progress without a terminal


def test_lines_tell_count_rate_and_time_left() -> None:
    now, said = [0.0], []
    watch = ProgressLines("ucf101", said.append, clock=lambda: now[0])
    watch(900, 1000)
    now[0] = 9.9
    watch(901, 1000)
    assert said == []
    now[0] = 10.0
    watch(910, 1000)
    now[0] = 20.0
    watch(915, 1000)
    assert said == [
        "ucf101: 910 of 1000, 91.0/s, 0 min 01 s to go",
        "ucf101: 915 of 1000, 0.5/s, 2 min 50 s to go",
    ]


def test_a_decoder_that_hangs_on_one_of_a_few_videos_does_not_stop_the_rest(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.mp4", "b.mp4", "c.mp4")]
    for path in paths:
        Path(path).write_bytes(b"x")

    def read(path: str) -> Facts:
        if path.endswith("b.mp4"):
            threading.Event().wait()
        return unread(path, "read")

    problems = {path: (facts.problem, hung) for path, facts, hung in read_all(paths, read, limit_s=0.2)}
    assert [problems[path] for path in paths] == [("read", False), (hang_message(0.2), True), ("read", False)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_journal_on_a_full_disk_is_one_line() -> None:
    """Also when it is closed, which tries to write the line again."""
    with (
        pytest.raises(StorageError, match="/dev/full: cannot be written"),
        Journal(Path("/dev/full")) as journal,
    ):
        journal.add("a", SOME)
