"""One run: same seed same counts, resuming after a real kill, reuse, staleness, failure and locking."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import filelock
import forked
import pytest
from small_runs import ENTRIES, method_class
from small_runs import quick as quick_values

from vcil_bench import record
from vcil_bench.common.errors import ExitCode
from vcil_bench.nets.backbones import BACKBONES, backbone
from vcil_bench.run import loop
from vcil_bench.training import checkpoint

QUICK = ["epochs=2", "epochs_first=2", "batch_size=4"]


def _counts(folder: Path, method: str, seed: int = 1) -> list[Any]:
    (path,) = folder.glob(f"*/{method}/*-s{seed}.json")
    found = record.load(path)
    assert found.complete
    return [step["correct"] for step in found.data["steps"]]


def _predictions(folder: Path) -> bytes:
    (path,) = folder.glob("*/*/*-s1.npz")
    return path.read_bytes()


def test_same_seed_same_counts_other_seed_other_order(tiny: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert tiny.run("stpr", tmp_path / name, "--set", *QUICK) == 0
    assert _counts(tmp_path / "one", "stpr") == _counts(tmp_path / "two", "stpr")
    assert _predictions(tmp_path / "one") == _predictions(tmp_path / "two")
    assert tiny.run("zero_shot", tmp_path / "one", seed="all") == 0
    orders = [record.load(p).data["class_order"] for p in sorted((tmp_path / "one").glob("*/zero_shot/*.json"))]
    assert len(orders) == 2
    assert orders[0] != orders[1]


@pytest.mark.slow
def test_run_seed_changes_the_run_and_not_the_order(tiny: Any, tmp_path: Path) -> None:
    assert tiny.run("finetune", tmp_path, "--set", *QUICK) == 0
    assert tiny.run("finetune", tmp_path, "--set", *QUICK, "run_seed=7") == 0
    plain, other = (record.load(p) for p in sorted(tmp_path.glob("*/finetune/*.json")))
    assert plain.data["class_order"] == other.data["class_order"]
    assert {plain.data["run_seed"], other.data["run_seed"]} == {1, 7}
    assert plain.data["steps"][0]["losses"] != other.data["steps"][0]["losses"]


def test_workers_do_not_change_a_run(tiny: Any, tmp_path: Path) -> None:
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        assert tiny.run("finetune", folder, "--set", *QUICK, f"workers={workers}") == 0
    assert _predictions(tmp_path / "0") == _predictions(tmp_path / "2")
    losses = [record.load(next((tmp_path / w).glob("*/*/*.json"))).data["steps"] for w in ("0", "2")]
    assert [s["losses"] for s in losses[0]] == [s["losses"] for s in losses[1]]


@pytest.mark.slow  # crash points lie closer, and are tried at once
@pytest.mark.parametrize("after", [1, 2])
def test_killed_and_resumed_ends_in_the_same_counts(tiny: Any, tmp_path: Path, after: int) -> None:
    """A process that is killed with SIGKILL in the middle of the next task loses nothing."""
    slow = ["epochs=12", "epochs_first=2", "batch_size=2"]  # slow enough to be hit in the middle of a task
    assert tiny.run("stpr", tmp_path / "whole", "--set", *slow) == 0

    def again() -> int:
        return int(tiny.run("stpr", tmp_path / "cut", "--set", *slow))

    with forked.running(again, tmp_path / "out") as child:
        child.until(lambda: _tasks_done(tmp_path / "cut") >= after)
        child.send(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    # The record is written just after the checkpoint: a kill in between leaves it one task behind, or absent.
    partial = [record.load(p).data for p in (tmp_path / "cut").glob("*/stpr/*-s1.json")]
    assert partial or after == 1
    for data in partial:
        assert data["status"] == "partial"
        assert after - 1 <= len(data["steps"]) < 3
    assert forked.run(again, tmp_path / "out") == 0, (tmp_path / "out").read_text()
    assert _counts(tmp_path / "cut", "stpr") == _counts(tmp_path / "whole", "stpr")
    assert _predictions(tmp_path / "cut") == _predictions(tmp_path / "whole")
    assert not list((tmp_path / "cut").rglob("*.ckpt.safetensors"))


def _tasks_done(folder: Path) -> int:
    """Return how many tasks the run's checkpoint holds."""
    return max(
        (len(checkpoint.load(path).steps) for path in folder.glob("*/stpr/*.ckpt.safetensors")), default=0
    )


def test_a_checkpoint_of_another_run_is_refused(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _interrupt(tiny, tmp_path)
    (path,) = tmp_path.glob("*/finetune/*.ckpt.safetensors")
    saved = checkpoint.load(path)
    checkpoint.save(path, dataclasses.replace(saved, identity={"config": "other"}))
    assert tiny.run("finetune", tmp_path, "--set", *QUICK) == 2
    message = capsys.readouterr().err
    assert "another" in message
    assert "config" in message
    assert "--force" in message
    assert tiny.run("finetune", tmp_path, "--force", "--set", *QUICK) == 0


def test_a_damaged_checkpoint_is_named(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _interrupt(tiny, tmp_path)
    (path,) = tmp_path.glob("*/finetune/*.ckpt.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    assert tiny.run("finetune", tmp_path, "--set", *QUICK) == 2
    assert path.name in capsys.readouterr().err


def _interrupt(tiny: Any, folder: Path) -> None:
    """Leave a run after its first task, as Ctrl-C does."""
    from vcil_bench.run import loop

    def stop_at_second(self: Any, method: Any, step: int) -> None:
        if step == 1:
            raise KeyboardInterrupt
        original(self, method, step)

    original = loop._Run._step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_step", stop_at_second)
        assert tiny.run("finetune", folder, "--set", *QUICK) == 130


def test_predictions_that_are_gone_are_told_and_the_record_counts(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run("zero_shot", tmp_path) == 0
    (path,) = tmp_path.glob("*/*/*-s1.npz")
    path.unlink()
    capsys.readouterr()
    assert tiny.run("zero_shot", tmp_path) == 0
    assert f"{path}, are gone" in capsys.readouterr().err
    assert not path.exists()


def test_a_finished_record_is_reused_and_force_moves_it_aside(tiny: Any, tmp_path: Path) -> None:
    assert tiny.run("zero_shot", tmp_path) == 0
    (path,) = tmp_path.glob("*/zero_shot/*.json")
    before = path.read_bytes()
    assert tiny.run("zero_shot", tmp_path) == 0
    assert path.read_bytes() == before
    assert tiny.run("zero_shot", tmp_path, "--force") == 0
    (old,) = (path.parent / "superseded").glob("*/*.json")
    assert old.read_bytes() == before
    assert record.load(path).complete


def test_a_stale_record_is_refused_and_kept(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run("zero_shot", tmp_path) == 0
    (path,) = tmp_path.glob("*/zero_shot/*.json")
    data = json.loads(path.read_text())
    data["identity"]["vcil_bench.methods.zero_shot"] = "0" * 16
    path.write_text(json.dumps(data))
    before = path.read_bytes()
    assert tiny.run("zero_shot", tmp_path) == 2
    assert "stale" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_loss_that_is_not_a_number_fails_the_run_and_says_where(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run("finetune", tmp_path, "--set", *QUICK, "lr=1e30") == ExitCode.FAILED_FOR_GOOD
    error = capsys.readouterr().err
    assert "cross_entropy" in error
    assert "task 1" in error
    (path,) = tmp_path.glob("*/finetune/*.json")
    failed = record.load(path)
    assert failed.data["status"] == "failed"
    assert "cross_entropy" in str(failed.data["reason"])


def test_two_processes_do_not_run_one_seed(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "tiny_2x1" / "zero_shot" / "backbone=clip_tiny-s1.lock"
    lock.parent.mkdir(parents=True)
    with filelock.FileLock(lock):
        assert tiny.run("zero_shot", tmp_path) == 2
    said = capsys.readouterr().err
    assert "another process works on it" in said
    assert all(
        way_out in said for way_out in (f"delete {lock}", "wait for it", "another --seed or --results DIR")
    )


def test_videos_left_out_are_counted_in_the_record(tiny: Any, tmp_path: Path) -> None:
    root = tiny.copy(tmp_path / "data")
    (root / "red" / "0.mp4").unlink()
    arguments = ["--data", root, "--results", tmp_path / "r", "--seed", "1", "--device", "cpu"]
    sets = ["--set", "backbone=clip_tiny", "max_missing=0.2"]
    assert tiny.main("run", "zero_shot", tiny.protocol, *arguments, *sets) == 0
    (path,) = (tmp_path / "r").glob("*/*/*.json")
    left_out = record.load(path).data["data"]["left_out"]
    assert left_out == [{"id": "red/0.mp4", "split": "train", "problem": "missing"}]


@pytest.mark.slow
def test_stopping_after_some_tasks_is_gone_on_from(tiny: Any, tmp_path: Path) -> None:
    assert tiny.run("stpr", tmp_path / "whole", "--set", *QUICK) == 0
    assert tiny.run("stpr", tmp_path / "parts", "--set", *QUICK, "max_tasks=1") == 0
    (path,) = (tmp_path / "parts").glob("*/stpr/*-s1.json")
    assert record.load(path).data["status"] == "partial"
    assert len(record.load(path).data["steps"]) == 1
    assert tiny.run("stpr", tmp_path / "parts", "--set", *QUICK) == 0
    assert _counts(tmp_path / "parts", "stpr") == _counts(tmp_path / "whole", "stpr")


@pytest.mark.slow
def test_bf16_stays_close_to_fp32(tiny: Any, tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        assert tiny.run("stpr", folder, "--set", *QUICK, f"precision={precision}") == 0
        (path,) = folder.glob("*/stpr/*.json")
        losses.append(record.load(path).data["steps"][0]["losses"][0])
    exact, rough = losses
    assert exact["spatial"] != rough["spatial"]  # autocast was at work
    assert rough["spatial"] == pytest.approx(exact["spatial"], rel=0.05)


def test_force_leaves_a_running_seed_alone(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run("zero_shot", tmp_path) == 0
    (path,) = tmp_path.glob("*/zero_shot/*.json")
    before = path.read_bytes()
    with filelock.FileLock(path.with_suffix(".lock")):
        assert tiny.run("zero_shot", tmp_path, "--force") == 2
    assert "another process" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_named_data_are_checked_even_when_all_is_finished(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny.copy(tmp_path / "data")
    base = ["run", "zero_shot", tiny.protocol, "--seed", "1", "--results", tmp_path / "r", "--device", "cpu"]
    sets = ["--set", "backbone=clip_tiny"]
    assert tiny.main(*base, "--data", root, *sets) == 0
    assert tiny.main(*base, "--data", tmp_path / "nowhere", *sets) == 2
    assert "nowhere" in capsys.readouterr().err
    table = root / "videos.csv"
    table.write_text(table.read_text().replace("red/0.mp4,red,train", "red/0.mp4,red,unused"))
    assert tiny.main(*base, "--data", root, *sets) == 2
    assert "stale: data changed" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_goes_bad_during_a_run_is_one_line(
    tiny: Any, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    root = tiny.copy(tmp_path / "data")

    def damage_after_the_check(*_: Any) -> None:
        (root / "red" / "1.mp4").write_bytes(b"")

    monkeypatch.setattr(loop, "_store", damage_after_the_check)  # opened when the data are checked
    base = ["run", "finetune", tiny.protocol, "--seed", "1", "--results", tmp_path / "r", "--device", "cpu"]
    sets = ["--set", "backbone=clip_tiny", f"workers={workers}", *QUICK]
    assert tiny.main(*base, "--data", root, *sets) == 2
    last = capsys.readouterr().err.strip().splitlines()
    assert last[-1].startswith("vcil-bench: error:")
    assert "red/1.mp4" in last[-1]
    assert not any("Traceback" in line for line in last)


def test_a_file_where_a_folder_of_results_should_be_is_one_line(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny_2x1").write_text("in the way")
    assert tiny.run("zero_shot", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write there" in line


@pytest.mark.slow
def test_joint_is_above_finetune_on_the_embedded_clips(tmp_path: Path) -> None:
    from vcil_bench.cli import main

    scores = {}
    for method in ("finetune", "joint"):
        run = ["run", method, "synthetic_3x4", "--seed", "1000", "--device", "cpu"]
        assert main([*run, "--results", str(tmp_path)]) == 0
        (path,) = tmp_path.glob(f"*/{method}/*.json")
        scores[method] = record.load(path).metric("average_incremental_accuracy", "cnn")
    assert scores["joint"] > scores["finetune"]


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(ENTRIES))
def test_methods_complete_on_real_clips(method: str, tmp_path: Path) -> None:
    """Twenty classes of windows cut from real clips, through the folder adapter."""
    from vcil_bench.cli import main

    root = Path(os.environ.get("VCIL_BENCH_REAL_CLIPS", "nowhere")) / "windows20"
    if not root.is_dir():
        pytest.skip("the real clips are not on this machine (VCIL_BENCH_REAL_CLIPS)")
    cls = method_class(method)
    protocol = tmp_path / "windows20_10x2.yaml"
    protocol.write_text(
        "name: windows20_10x2\nversion: 1\ndataset: {name: folder, split: manifest.csv}\n"
        "classes: {num: 20, order: {kind: numpy_shuffle}}\ntasks: {sizes: [10, 5, 5]}\nseeds: [1000]\n"
        "clip: {frames: 8, size: 64}\nmemory: {per_class: 2, frames: 8}\n"
        "metrics: {headline: average_incremental_accuracy}\n"
    )
    quick = [f"{k}={json.dumps(v)}" for k, v in quick_values(cls).items() if k not in ("batch_size", "template")]
    run = ["run", method, str(protocol), "--data", str(root), "--device", "cpu"]
    sets = ["--set", f"backbone={BACKBONES[cls.backbone].embedded_sibling}", *quick]
    assert main([*run, "--results", str(tmp_path / "r"), *sets]) == 0
    (path,) = (tmp_path / "r").glob("*/*/*.json")
    found = record.load(path)
    assert found.complete
    assert found.data["data"]["kind"] == "real"
    assert len(found.data["data"]["left_out"]) == 0
    for step in found.data["steps"]:
        kept, allowed = step["costs"]["memory"], 2 * step["classes_seen"] if cls.uses_memory else 0
        if kept["feature_frames"]:  # of frames there may be as many, in more videos
            assert allowed < kept["videos"] <= kept["frames"] <= 8 * allowed
        else:
            assert kept["videos"] == allowed


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def learn(self, task): self.late = torch.nn.Linear(2, 2)", "made or reshaped in learn"),
        (
            "def predict(self, clips): self.texts += 1; return super().predict(clips)",
            "changed the method's state",
        ),
        ("def predict(self, clips): return super().predict(clips)['text']", "must give a dict"),
        ("def memory_use(self): return MemoryUse(videos=100)", "the protocol allows 2 videos"),
        ("def learn(self, task): import sys; sys.exit(0)", "ended Python with SystemExit: 0"),
        ("def predict(self, clips): raise SystemExit", "ended Python with SystemExit"),
        ("def grow(self, task): raise GeneratorExit", "ended Python with GeneratorExit"),
        ("def learn(self, task): torch.set_default_dtype(torch.float64)", "learn changed torch's default dtype"),
        (
            "def predict(self, clips): import os; os.chdir('/'); return {}",
            "predict changed the working directory",
        ),
        ("def memory_use(self): return None", "None"),
        ("def memory_use(self): return MemoryUse(videos=-1)", "-1"),
        ("def memory_use(self): return MemoryUse(bytes=1.5)", "1.5"),
        ("def predict(self, clips): return {'text': super().predict(clips)['text'].tolist()}", "list"),
        ("def predict(self, clips): return {'text': super().predict(clips)['text'].numpy()}", "ndarray"),
        ("def predict(self, clips): return {'text': super().predict(clips)['text'].to_sparse()}", "sparse"),
        ("def predict(self, clips): return {'text': super().predict(clips)['text'] > 0}", "bool"),
        ("def predict(self, clips): return {'text': super().predict(clips)['text'] * 1j}", "complex"),
        ("def predict(self, clips): return {'text': None}", "NoneType"),
        ("def predict(self, clips): return {'text': 1, 2: 3}", "'text', 2"),
    ],
)
def test_a_method_that_breaks_the_contract_fails_at_its_first_task(
    body: str, message: str, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cheat.py"
    path.write_text(
        "import torch\nfrom vcil_bench.method import MemoryUse\nfrom .zero_shot import ZeroShot\n\n\n"
        f"class Cheat(ZeroShot):\n    name = 'cheat'\n\n    {body}\n"
    )
    assert tiny.run(path, tmp_path / "r") == ExitCode.FAILED_FOR_GOOD
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    (written,) = (tmp_path / "r").glob("*/cheat/*.json")
    assert record.load(written).data["status"] == "failed"
    assert record.load(written).data["steps"] == []


def test_old_videos_that_bypass_the_memory_end_the_run(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hoarder.py"
    path.write_text(
        "from .zero_shot import ZeroShot\n\n\n"
        "class Hoarder(ZeroShot):\n    name = 'hoarder'\n    seen = ()\n\n"
        "    def learn(self, task):\n"
        "        self.seen += task.train\n"
        "        for _ in self.context.loader.training(self.seen, 1, 4, 'all'):\n            pass\n"
    )
    assert tiny.run(path, tmp_path / "r") == ExitCode.FAILED_FOR_GOOD
    assert "is neither of the task nor in the exemplar memory" in capsys.readouterr().err
    (written,) = (tmp_path / "r").glob("*/hoarder/*.json")
    found = record.load(written).data
    assert (found["status"], len(found["steps"])) == ("failed", 1)


def test_a_resumed_run_tells_its_history(tiny: Any, tmp_path: Path) -> None:
    _interrupt(tiny, tmp_path)
    (path,) = tmp_path.glob("*/finetune/*.json")
    first = record.load(path).data
    assert tiny.run("finetune", tmp_path, "--set", *QUICK) == 0
    after = record.load(path).data
    assert len(after["sessions"]) == 2
    assert after["sessions"][0] == first["sessions"][0]
    assert after["started"] == first["started"]


def test_weights_that_are_gone_are_named_even_when_all_is_finished(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({k: v.clone() for k, v in backbone("clip_tiny").load(None).model.state_dict().items()}, path)
    assert tiny.run("zero_shot", tmp_path / "r", "--set", f"weights={path}") == 0
    path.unlink()
    assert tiny.run("zero_shot", tmp_path / "r", "--set", f"weights={path}") == 2
    assert "no file" in capsys.readouterr().err.splitlines()[-1]
    save_file({k: v.clone() for k, v in backbone("clip_tiny").load("random").model.state_dict().items()}, path)
    assert tiny.run("zero_shot", tmp_path / "r", "--set", f"weights={path}") == 2
    assert "stale: weights changed" in capsys.readouterr().err.splitlines()[-1]


def test_a_tracker_that_ends_python_is_no_success(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "quitting_tracker.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert tiny.run("zero_shot", tmp_path / "r", "--set", "tracker=quitting_tracker:Tracker") == 1
    assert "ended by SystemExit" in capsys.readouterr().err


def test_a_worker_that_ends_itself_is_an_error(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vcil_bench.data.loader import _Clips

    monkeypatch.setattr(_Clips, "_fill", lambda *_: os._exit(0))
    assert tiny.run("zero_shot", tmp_path, "--set", "workers=1") == 2
    assert "a worker process died" in capsys.readouterr().err


def test_a_record_that_is_gone_is_written_again_where_nothing_is_left_to_learn(
    tiny: Any, tmp_path: Path
) -> None:
    assert tiny.run("zero_shot", tmp_path, "--set", "max_tasks=1") == 0
    (path,) = tmp_path.glob("*/zero_shot/*.json")
    path.unlink()
    assert tiny.run("zero_shot", tmp_path, "--set", "max_tasks=1") == 0
    assert len(record.load(path).data["steps"]) == 1


def test_files_go_where_they_were_asked_for_though_the_working_directory_changes(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data and results by relative paths; the method wanders off before its first clip is read."""
    (tmp_path / "elsewhere").mkdir()
    body = "def learn(self, task): import os; os.chdir('elsewhere'); 1 / 0"
    (tmp_path / "wanders.py").write_text(
        f"from .zero_shot import ZeroShot\n\n\nclass Wanders(ZeroShot):\n    name = 'wanders'\n\n    {body}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert tiny.run("wanders.py", Path("r")) == ExitCode.FAILED_FOR_GOOD
    assert Path.cwd() == tmp_path
    (path,) = tmp_path.glob("r/*/wanders/*.json")
    assert "learn changed the working directory" in str(record.load(path).data["reason"])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_curve_that_cannot_be_drawn_leaves_a_finished_run(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "tiny_2x1" / "zero_shot" / "backbone=clip_tiny.svg"
    picture.mkdir(parents=True)
    assert tiny.run("zero_shot", tmp_path) == 0
    assert str(picture) in capsys.readouterr().err
    (path,) = tmp_path.glob("*/*/*-s1.json")
    assert record.load(path).complete


def test_a_folder_whose_name_is_no_text_is_refused(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.main("run", "zero_shot", tiny.protocol, "--results", f"{tmp_path}/\udcff") == 2
    assert "UTF-8" in capsys.readouterr().err
