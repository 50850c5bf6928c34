"""What a user sees: one line for every mistake, nothing lost by it, and quick answers where no work is done."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tiny_dataset import PROTOCOL, Tiny

from vcil_bench.cli import main

ERROR = "vcil-bench: error: "


@pytest.fixture(scope="module")
def results(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one finished run, which no mistake may change."""
    folder = tmp_path_factory.mktemp("results")
    assert tiny.run("zero_shot", folder) == 0
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Hash every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(tiny: Tiny, capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 2) -> str:
    """Run a command that must end in an error of one line and return its message.

    Args:
        tiny: Runs it.
        capsys: Captures it.
        arguments: The command.
        code: Its exit code.
    """
    capsys.readouterr()
    assert tiny.main(*arguments) == code
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line]
    assert lines[-1].startswith(ERROR)
    assert len(lines) == 1, printed.err
    return lines[-1].removeprefix(ERROR)


def changed(tmp_path: Path, **changes: object) -> Path:
    """Write the tiny protocol with some sections changed."""
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(PROTOCOL | changes), encoding="utf-8")
    return path


def ucf101(root: Path) -> Path:
    """Make an UCF101 root with one class of two real clips' names and no true video."""
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (root / "Archery").mkdir()
    for part, group in (("train", "g08"), ("test", "g01")):
        name = f"Archery/v_Archery_{group}_c01.avi"
        (lists / f"{part}list01.txt").write_text(f"{name}\r\n", encoding="utf-8")
        (root / name).write_bytes(b"RIFF")
    return root


# What is typed after `run`, and what the error must say: the value, what is allowed, a way out.
MISTAKES = {
    "no equals sign": (["--set", "eval_batch"], ["'eval_batch'", "key=value"]),
    "given twice": (["--set", "eval_batch=2", "--set", "eval_batch=3"], ["'eval_batch'", "twice"]),
    "given twice with a space": (["--set", "eval_batch=2", "eval_batch =3"], ["'eval_batch", "twice"]),
    "not YAML": (["--set", "template=[a"], ["template=[a", "YAML"]),
    "config key": (["--set", "tempate=a {}"], ["tempate", "did you mean 'template'", "run options: backbone"]),
    "run option": (["--set", "eval_bach=2"], ["eval_bach", "did you mean 'eval_batch'"]),
    "protocol key": (["--set", "protocol.clip.frmes=4"], ["'frmes'", "did you mean 'frames'", "short_side"]),
    "no protocol section": (["--set", "protocol.clip=4"], ["clip", "mapping"]),
    "config type": (["--set", "template=3"], ["template", "3", "text"]),
    "config value": (["--set", "template=none"], ["template", "'none'", "{}"]),
    "config format": (["--set", "template='{} {who}'"], ["template", "{} {who}"]),
    "protocol name": (["--set", "protocol.name=../elsewhere"], ["name", "'../elsewhere'"]),
    "option type": (["--set", "eval_batch=many"], ["eval_batch", "'many'", "whole number"]),
    "option range": (["--set", "eval_batch=0"], ["eval_batch", "0", "at least 1"]),
    "workers": (["--set", "workers=-1"], ["workers", "-1", "0 or more"]),
    "share": (["--set", "max_missing=2"], ["max_missing", "2", "between 0 and 1"]),
    "precision": (["--set", "precision=bf61"], ["'bf61'", "did you mean 'bf16'", "fp32, tf32, bf16"]),
    "decoder": (["--set", "decoder=ffmpeg"], ["'ffmpeg'", "auto, pyav, decord"]),
    "backbone": (["--set", "backbone=clip_tinny"], ["'clip_tinny'", "did you mean 'clip_tiny'", "clip_vit_b16"]),
    "frame size": (["--set", "backbone=clip_vit_b16"], ["224", "64", "protocol.clip.size=224"]),
    "weights": (["--set", "weights=no.safetensors"], ["'no.safetensors'", "random"]),
    "sizes": (["--set", "protocol.tasks.sizes=[2,1]"], ["[2, 1]", "classes.num = 4"]),
    "metric": (
        ["--set", "protocol.metrics.headline=final_acuracy"],
        ["did you mean 'final_accuracy'", "known:"],
    ),
    "seed": (["--seed", "7"], ["7", "its seeds: 1, 2", "protocol.seeds=[7]"]),
    "seed is text": (["--seed", "first"], ["'first'", "all"]),
    "device": (["--device", "gpu"], ["'gpu'", "auto, cpu, cuda"]),
    "absent device": (["--device", "cuda:99"], ["'cuda:99'", "this machine has: cpu"]),
    "unusable device": (["--device", "meta"], ["'meta'", "this machine has: cpu"]),
    "unknown argument": (["--gpu"], ["--gpu", "--help"]),
}


@pytest.mark.parametrize(
    "mistake",
    MISTAKES,
)
def test_mistake_in_a_run_is_one_line_and_changes_nothing(
    tiny: Tiny, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    typed, wanted = MISTAKES[mistake]
    results = shutil.copytree(results, tmp_path / "results")
    before = contents(tmp_path)
    base = ["run", "zero_shot", tiny.protocol, "--data", tiny.root, "--results", results, "--device", "cpu"]
    if not any("backbone" in text for text in typed):
        base += ["--set", "backbone=clip_tiny"]
    message = refused(tiny, capsys, *base, *typed)
    assert [text for text in wanted if text not in message] == [], message
    assert contents(tmp_path) == before


def test_absent_cuda_is_said(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(tiny, capsys, "run", "stpr", "synthetic_3x4", "--device", "cuda", "--results", tmp_path)
    assert "'cuda' is not there; this machine has: cpu" in message


@pytest.mark.parametrize(
    ("method", "protocol", "wanted"),
    [
        (
            "stpl",
            "synthetic_3x4",
            ["'stpl'", "did you mean 'stpr'", "finetune, hce, icarl, joint", "path of a .py file"],
        ),
        ("nowhere.py", "synthetic_3x4", ["'nowhere.py'"]),
        ("stpr", "tcd_ucf101_10x", ["did you mean 'tcd_ucf101_10x5'", "synthetic_3x4", ".yaml file"]),
        ("stpr", "nowhere.yaml", ["'nowhere.yaml'"]),
        ("stpr", "vclimb_kinetics400_10", ["class lists", "git blob", "kinetics400_40x10_seeded"]),
        ("stpr", "tcd_ssv2_10x9", ["'ssv2'", "--data ROOT", "-train.json"]),
        ("stpr", "tcd_ucf101_10x5", ["--data ROOT", "ucfTrainTestlist"]),
    ],
)
def test_what_cannot_be_run_is_one_line(
    tiny: Tiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
    protocol: str,
    wanted: list[str],
) -> None:
    results = tmp_path / "results"
    message = refused(tiny, capsys, "run", method, protocol, "--device", "cpu", "--results", results)
    assert [text for text in wanted if text not in message] == [], message
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name: [tiny", ["line 1", "malformed YAML"]),
        ("name: a\nname: b\n", ["line 2", "'name' is given twice"]),
        ("- name\n", ["mapping", "list"]),
        ("{}", ["missing key 'name'", "allowed keys: name, version"]),
        ("naem: a\n", ["'naem'", "did you mean 'name'"]),
        ("\x00", ["malformed YAML"]),
        ("? [a]\n: b\n", ["line 1", "malformed YAML"]),
        pytest.param(
            "name: 2020-99-99\n",
            ["malformed YAML"],
        ),
    ],
)
def test_malformed_protocol_file_is_named(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, wanted: list[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    for command in (["run", "zero_shot", path, "--results", tmp_path / "results"], ["show", path]):
        message = refused(tiny, capsys, *command)
        assert message.startswith(str(path))
        assert [part for part in wanted if part not in message] == [], message


class TestData:
    """Folders that are not what the protocol needs."""

    def refused(
        self,
        tiny: Tiny,
        capsys: pytest.CaptureFixture[str],
        results: Path,
        protocol: str | Path,
        root: Path,
        *more: str,
    ) -> str:
        return refused(
            tiny,
            capsys,
            *("run", "zero_shot", protocol, "--data", root, "--results", results, "--device", "cpu", *more),
        )

    def test_missing_folder(self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = tmp_path / "nowhere"
        message = self.refused(
            tiny, capsys, tmp_path / "results", tiny.protocol, root, "--set", "backbone=clip_tiny"
        )
        assert f"no folder '{root}'" in message
        assert "a CSV with columns path" in message
        assert not root.exists()

    def test_other_dataset(self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = ucf101(tmp_path / "ucf")
        message = self.refused(
            tiny, capsys, tmp_path / "results", tiny.protocol, root, "--set", "backbone=clip_tiny"
        )
        assert f"'{root}' does not look like dataset 'folder'" in message
        message = self.refused(tiny, capsys, tmp_path / "results", "tcd_ucf101_10x5", tiny.root)
        assert f"'{tiny.root}' does not look like dataset 'ucf101'" in message
        assert "ucfTrainTestlist/trainlist01.txt is not there" in message

    def test_unsound_files(self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = ucf101(tmp_path / "ucf")
        message = self.refused(
            tiny, capsys, tmp_path / "results", "tcd_ucf101_10x5", root, "--set", "weights=random"
        )
        assert "1 of 1 train videos" in message
        assert "v_Archery_g08_c01" in message

    def test_other_number_of_classes(
        self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        protocol = changed(
            tmp_path,
            classes={"num": 5, "order": {"kind": "numpy_shuffle"}},
            tasks={"sizes": [3, 1, 1]},
        )
        message = self.refused(
            tiny, capsys, tmp_path / "results", protocol, tiny.root, "--set", "backbone=clip_tiny"
        )
        assert f"{tiny.root}: 4 classes found, protocol 'tiny_2x1' has 5" in message

    def test_other_classes(self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        names = ["blue", "green", "red", "yellow"]
        order = {"kind": "numpy_shuffle"}
        protocol = changed(tmp_path, classes={"num": 4, "names": names, "order": order})
        message = self.refused(
            tiny, capsys, tmp_path / "results", protocol, tiny.root, "--set", "backbone=clip_tiny"
        )
        assert "not in the protocol: 'white'" in message
        assert "4 found, 4 wanted" in message

    def test_class_without_test_video(
        self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = tiny.copy(tmp_path / "data")
        table = root / "videos.csv"
        lines = table.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not (line.startswith("red/") and line.endswith("test"))]
        table.write_text("\n".join(kept) + "\n", encoding="utf-8")
        arguments = ["run", "zero_shot", tiny.protocol, *tiny.arguments(tmp_path / "results"), "--data", root]
        message = refused(tiny, capsys, *arguments)
        assert "class 'red' has no usable test video" in message

    def test_half_of_the_videos_missing(
        self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = tiny.copy(tmp_path / "data")
        for name in ("red", "white"):
            for video in (root / name).iterdir():
                video.unlink()
        message = self.refused(
            tiny, capsys, tmp_path / "results", tiny.protocol, root, "--set", "backbone=clip_tiny"
        )
        assert "6 of 12 train videos" in message
        assert "red/0.mp4: missing" in message
        assert f"vcil-bench prepare folder {root}" in message
        assert "max_missing=" in message

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("path,label,split\n", ["no column 'class'", "path, label, split"]),
            ("path,class,split\nred/0.mp4,red,trian\n", ["line 2", "'trian'", "did you mean 'train'"]),
            ("path,class,split\n../0.mp4,red,train\n", ["line 2", "'../0.mp4'", "not below the root"]),
            ("path,class,split\n", ["empty"]),
        ],
    )
    def test_malformed_list(
        self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, wanted: list[str]
    ) -> None:
        root = tmp_path / "data"
        root.mkdir()
        (root / "videos.csv").write_text(text, encoding="utf-8")
        for command in (
            ["run", "zero_shot", tiny.protocol, *tiny.arguments(tmp_path / "results"), "--data", root],
            ["prepare", "folder", root],
        ):
            message = refused(tiny, capsys, *command)
            assert str(root / "videos.csv") in message
            assert [part for part in wanted if part not in message] == [], message

    def test_list_that_is_not_text(self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = tmp_path / "data"
        root.mkdir()
        (root / "videos.csv").write_bytes(b"path,class,split\ncaf\xe9.mp4,red,train\n")
        message = refused(tiny, capsys, "prepare", "folder", root)
        assert str(root / "videos.csv") in message


class TestResultsFolder:
    """Records and folders that cannot be read or written."""

    def test_corrupt_record_of_the_same_run(
        self, tiny: Tiny, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = shutil.copytree(results, tmp_path / "results")
        path = folder / "tiny_2x1" / "zero_shot" / "backbone=clip_tiny-s1.json"
        path.write_bytes(path.read_bytes()[:100])
        before = contents(folder)
        message = refused(
            tiny, capsys, "run", "zero_shot", tiny.protocol, *tiny.arguments(folder), "--seed", "1"
        )
        assert str(path) in message
        assert "corrupt record" in message
        assert contents(folder) == before

    def test_report_names_a_corrupt_record_and_shows_the_others(
        self, tiny: Tiny, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = shutil.copytree(results, tmp_path / "results")
        path = folder / "tiny_2x1" / "zero_shot" / "bad-s2.json"
        path.write_text("{", encoding="utf-8")
        before = contents(folder)
        arguments = ["report", "--results", folder, "--out", tmp_path / "reports"]
        message = refused(tiny, capsys, *arguments, code=1)
        assert str(path) in message
        assert "zero_shot" in (tmp_path / "reports" / "tiny_2x1" / "table.md").read_text(encoding="utf-8")
        assert contents(folder) == before

    def test_results_below_a_file(self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "file"
        file.write_text("mine", encoding="utf-8")
        arguments = tiny.arguments(file / "results")
        message = refused(tiny, capsys, "run", "zero_shot", tiny.protocol, *arguments)
        assert str(file / "results") in message
        assert "choose another folder" in message
        assert file.read_text(encoding="utf-8") == "mine"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_results_without_the_right_to_write(
        self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "results"
        folder.mkdir(mode=0o555)
        message = refused(tiny, capsys, "run", "zero_shot", tiny.protocol, *tiny.arguments(folder))
        assert f"{folder}: cannot write there" in message

    def test_report_without_results_or_place(
        self, tiny: Tiny, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        nowhere = tmp_path / "nowhere"
        message = refused(tiny, capsys, "report", "--results", nowhere, "--out", tmp_path / "reports")
        assert str(nowhere) in message
        assert not nowhere.exists()
        file = tmp_path / "file"
        file.touch()
        message = refused(tiny, capsys, "report", "--results", results, "--out", file / "reports")
        assert str(file / "reports") in message


def test_refused_force_moves_nothing_aside(
    tiny: Tiny, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = shutil.copytree(results, tmp_path / "results")
    before = contents(results)
    nowhere = tmp_path / "nowhere"
    refused(
        tiny,
        capsys,
        *("run", "zero_shot", tiny.protocol, *tiny.arguments(results), "--data", nowhere, "--force"),
    )
    assert contents(results) == before


def test_no_empty_line_before_an_error(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.run("zero_shot", tmp_path / "results", "--data", tmp_path / "nowhere") == 2
    assert capsys.readouterr().err.startswith(ERROR)


def test_clip_without_weights_and_network_says_what_to_fetch(
    tiny: Tiny,
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    protocol = changed(tmp_path, clip={"frames": 4, "size": 224})
    results = tmp_path / "results"
    started = time.monotonic()
    message = refused(
        tiny,
        capsys,
        *("run", "zero_shot", protocol, "--data", tiny.root, "--results", results, "--device", "cpu"),
    )
    assert time.monotonic() - started < 10  # open_clip's own retries would take minutes
    assert "clip_vit_b16" in message
    assert "open_clip_model.safetensors" in message
    assert str(cache / "weights" / "clip_vit_b16.safetensors") in message
    assert "--set weights=FILE" in message
    assert contents(results) == {}


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], ["COMMAND", "--help"]),
        (["rnu"], ["'rnu'", "--help"]),
        (["list", "method"], ["'method'", "backbones"]),
        (["run", "stpr"], ["PROTOCOL"]),
        (["show", "sptr"], ["'sptr'", "did you mean 'stpr'", "list"]),
        (["show", "nowhere.py"], ["'nowhere.py'"]),
        (["prepare", "ucf", "."], ["'ucf'", "did you mean 'ucf101'", "known: ucf101, hmdb51"]),
        (["prepare", "ucf101", "nowhere"], ["no folder 'nowhere'", "ucfTrainTestlist"]),
        (["prepare", "ssv2", "."], ["'ssv2'", "labels.json"]),
        (["report", "--results", "x" * 5000], ["--results", "xxx", "long"]),
        (["report", "--out", "/".join(["y" * 250] * 20)], ["--out", "yyy", "long"]),
        (["prepare", "folder", "z" * 5000], ["zzz", "long"]),
    ],
)
def test_mistake_in_another_command_is_one_line(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], arguments: list[str], wanted: list[str]
) -> None:
    message = refused(tiny, capsys, *arguments)
    assert [text for text in wanted if text not in message] == [], message


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("methods", ["finetune", "joint", "stpr", "zero_shot"]),
        ("protocols", ["synthetic_3x4", "tcd_ucf101_10x5", "vclimb_kinetics400_10"]),
        ("datasets", ["folder", "hmdb51", "synthetic", "ucf101"]),
        ("backbones", ["clip_tiny", "clip_vit_b16"]),
        ("tables", ["stpr_components", "hce_tcd", "vclimb"]),
    ],
)
def test_list(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, names: list[str]
) -> None:
    assert tiny.main("list", what, "--results", tmp_path) == 0
    printed = capsys.readouterr()
    first = [line.split()[0] for line in printed.out.splitlines()]
    assert set(names) <= set(first)
    assert printed.err == ""


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("zero_shot", ["readouts: text", "template =", "on synthetic_*"]),
        ("tcd_ucf101_10x5", ["fingerprint: ", "tasks with seed 1000:", "ApplyEyeMakeup"]),
        ("vclimb_kinetics400_10", ["tasks: ", "class lists"]),
        ("ucf101", ["real", "ucfTrainTestlist"]),
        ("clip_tiny", ["provides: adapters, maps, projection, slots, text"]),
        ("options", ["precision = fp32", "micro_batch = null", "protocol.KEY=VALUE"]),
        ("metrics", ["backward_forgetting: BWF, lower is better", "forgetting_rate"]),
        ("stpr_components", ["+A_b+FSSD    stpr --set moe=false", "grid --table stpr_components"]),
        ("vclimb_frames", ["protocol.memory.frames=4"]),
    ],
)
def test_show(tiny: Tiny, capsys: pytest.CaptureFixture[str], name: str, wanted: list[str]) -> None:
    assert tiny.main("show", name) == 0
    printed = capsys.readouterr()
    assert [text for text in wanted if text not in printed.out] == []
    assert printed.err == ""


def test_show_a_protocol_file(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.main("show", tiny.protocol) == 0
    assert "tasks with seed 2:" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["list", "protocols"]])
def test_quick_commands_import_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys, time\nstarted = time.process_time()\nfrom vcil_bench.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(time.process_time() - started, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, torch_imported = done.stdout.splitlines()[-1].split()
    assert torch_imported == "False"
    assert float(seconds) < 1


def test_verbose_says_where_an_error_came_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "nothing of that name", "--verbose"]) == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback")
    assert last.startswith(ERROR)


def test_process_ends_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vcil_bench", "run", "stpr", "synthetic_3x5", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{ERROR}unknown protocol 'synthetic_3x5' (did you mean 'synthetic_3x4'?)")


def test_reader_that_closes_early_is_no_error(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m vcil_bench show tcd_ucf101_2x25 | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "name: tcd_ucf101_2x25\n"
    assert done.stderr == ""


class TestPrepareFolder:
    """A folder of one's own may hold CSVs that are no splits."""

    @pytest.fixture
    def root(self, tiny: Tiny, tmp_path: Path) -> Path:
        """The tiny clips with two CSVs of something else, one of them first by name."""
        root = tiny.copy(tmp_path / "own")
        (root / "annotations.csv").write_text("video,age\na,3\n", encoding="utf-8")
        (root / "z.csv").write_bytes(b"\xff\xfe\x00")
        return root

    def test_what_is_no_split_is_named_and_the_others_are_prepared(
        self, root: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert tiny.main("prepare", "folder", root) == 0
        said = capsys.readouterr()
        assert "split videos.csv: 4 classes" in said.out
        assert str(root / "annotations.csv") in said.err
        assert str(root / "z.csv") in said.err

    def test_one_split_may_be_chosen(self, root: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
        assert tiny.main("prepare", "folder", root, "--split", "videos.csv") == 0
        said = capsys.readouterr()
        assert "split videos.csv: 4 classes" in said.out
        assert "annotations.csv" not in said.out + said.err
        for name in ("annotations.csv", "nowhere.csv"):
            assert name in refused(tiny, capsys, "prepare", "folder", str(root), "--split", name)

    def test_without_any_split_the_folder_is_refused(
        self, root: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (root / "videos.csv").unlink()
        assert tiny.main("prepare", "folder", root) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 3
        assert "annotations.csv" in said[-1]
