"""The doctor: what it says of a machine, how checks fail, and the checks as far as a processor goes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pretended_device
import pytest
import torch
from pretended_device import pretending
from small_runs import ENTRIES

from vcil_bench.data.loader import Sample
from vcil_bench.doctor import checks, machine, report, requirements, setting, waits
from vcil_bench.doctor.checks import CHECKS, Check
from vcil_bench.doctor.outcome import Line
from vcil_bench.doctor.setting import Ended, Large, Setting
from vcil_bench.doctor.steady import SteadyClips


@pytest.fixture
def here(tiny: Any, tmp_path: Path) -> Setting:
    """What checks run on where there is no GPU."""
    small = (Large("clip_tiny", 3, 64, "fp32"), Large("tsm_tiny", 3, 64, "fp32"))
    return Setting("cpu", 0, tmp_path, str(tiny.protocol), 1, tiny.root, jobs=1, large=small)


def test_without_a_gpu_the_machine_is_described_and_every_check_skipped_by_name(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.main("doctor", "--json", "--results", tmp_path) == 0
    lines = [Line(**line) for line in json.loads(capsys.readouterr().out)]
    assert [line.check for line in lines if line.result == "skipped"] == list(CHECKS)
    facts = {line.what for line in lines if line.check == machine.NAME}
    assert {"software", "CUDA of torch", "cores", "memory", "decoder pyav", "weights clip_vit_b16"} <= facts
    assert {line.what for line in lines if line.result == "ok"} >= {"cache", "results"}


def test_a_gpu_that_is_asked_for_and_missing_is_an_error(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.main("doctor", "--gpu") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_unknown_check_is_an_error_that_names_those_there_are(
    tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.main("doctor", "--only", "bf17") == 2
    error = capsys.readouterr().err
    assert all(name in error for name in (machine.NAME, *CHECKS))
    assert tiny.main("doctor", "--list") == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [machine.NAME, *CHECKS]


def test_a_folder_that_cannot_be_written_fails(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert tiny.main("doctor", "--only", "machine", "--results", tmp_path / "file" / "results") == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed")]
    assert line.split()[1:3] == ["machine", "results"]


def test_a_line_that_fails_stands_in_the_table_and_gives_exit_code_1(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(setting: Setting) -> Iterator[Line]:
        yield Line("made_up", "one", "ok", "3 ms")
        yield Line("made_up", "two", "failed", "losses differ")

    monkeypatch.setitem(CHECKS, "made_up", Check("made_up", "a check", work, gpus=0))
    assert tiny.main("doctor", "--only", "made_up") == 1
    table = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert table[:2] == [["ok", "made_up", "one"], ["failed", "made_up", "two"]]


def test_a_check_that_needs_two_gpus_is_skipped_with_one(here: Setting) -> None:
    one = Setting("cuda", 1, here.folder)
    found = list(report.run([CHECKS["torchrun"], CHECKS["grid"]], one))
    assert [line.result for line in found] == ["skipped", "skipped"]


@pytest.mark.slow
def test_a_command_that_fails_is_a_line_with_its_last_word(here: Setting) -> None:
    found = here.run("finetune", lr=-1)
    line = checks._trained("bf16", "finetune", found)
    assert found.code == 2
    assert line.result == "failed"
    assert "lr" in line.figure


@pytest.mark.parametrize(("few", "number"), [(None, 5), (2, 2)])
def test_statistics_may_be_taken_of_a_few_samples(few: int | None, number: int) -> None:
    loader = SteadyClips(3, 1, torch.device("cpu"), 8, few=few)
    samples = [Sample(str(label), "", label, 8) for label in range(5)]
    (batch,) = loader.plain(samples, 2)
    assert batch.labels.tolist() == list(range(number))
    assert len(batch.clips) == number


def test_runs_that_differ_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {"one": [(["a"], 1), (["b"], 2)], "other": [(["a"], 1), (["b"], 3)]}
    monkeypatch.setattr(Ended, "outcome", property(lambda ended: outcomes[ended.output]))
    one, other = (Ended(0, 1.0, name, Path()) for name in outcomes)
    assert checks._same("strict", "x", one, one).result == "ok"
    assert checks._same("strict", "x", one, other).result == "failed"


SLIP = """
from vcil_bench.methods.finetune import Finetune

class Slip(Finetune):
    name = "slip"

    def logits(self, clips):
        found = super().logits(clips)
        found.sum().item()
        return found
"""


@pytest.mark.slow
def test_waits_are_told_by_line_and_those_of_steps_apart(
    here: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "_TORCH", (waits._TORCH, pretended_device.__file__))
    file, target = tmp_path / "slip.py", tmp_path / "waits.json"
    file.write_text(SLIP, encoding="utf-8")
    arguments = Setting("cuda", 1, tmp_path, here.protocol, 1, here.data).command(
        str(file), tmp_path, {"backbone": "clip_tiny", "batch_size": 4, "workers": 0}
    )
    with pretending():
        assert waits.main(target, arguments) == 0
    found = json.loads(target.read_text())
    assert found["in steps"] == {"slip.py:9": found["steps"]}
    assert found["elsewhere"].get("slip.py:9", 0) >= 1, str(found)


# The checks, on the processor.


def _all_well(lines: list[Line]) -> None:
    assert lines
    assert [line for line in lines if line.result != "ok"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bf16", "strict", "killed", "step", "large", "torchrun", "grid"])
def test_a_check_on_the_processor(here: Setting, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "bf16":
        assert {pair[0] for pair in checks.pairs()} == {n for n, e in ENTRIES.items() if e.cls is not None}
    if name in ("bf16", "strict"):  # a process each
        monkeypatch.setattr(checks, "pairs", lambda: [("tcd", "tsm_tiny"), ("zero_shot", "clip_tiny")])
        monkeypatch.setattr(checks.registry, "find_all", lambda: {n: ENTRIES[n] for n in ("tcd", "zero_shot")})
    if name == "killed":
        monkeypatch.setattr(checks, "TELLING", ("finetune",))
    if name == "step":
        monkeypatch.setattr(torch, "compile", lambda function, **more: function)
        monkeypatch.setitem(os.environ, "TORCHDYNAMO_DISABLE", "1")
    _all_well(list(report.run([CHECKS[name]], here)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp16", "micro_batch"])
def test_a_check_of_precision_or_parts(here: Setting, name: str) -> None:
    _all_well(list(report.run([CHECKS[name]], here)))


@pytest.mark.slow
def test_a_command_at_its_limit_may_end_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setting, "LIMIT_S", 3.0)
    lines = ["import pathlib, signal, sys, time"]
    lines += [
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(pathlib.Path(sys.argv[1]).write_text('told') and 3))"
    ]
    lines += ["time.sleep(60)"]
    ended = setting.start([str(tmp_path / "said")], tmp_path, ("-c", "\n".join(lines)))
    assert ended.code is None
    assert (tmp_path / "said").read_text(encoding="utf-8") == "told"


# What runs need beside the machine.


def _lines(tiny: Any, capsys: pytest.CaptureFixture[str], *more: str | Path) -> tuple[int, dict[str, Line]]:
    capsys.readouterr()
    code = tiny.main("doctor", "--only", "machine", "--json", *more)
    lines = [Line(**line) for line in json.loads(capsys.readouterr().out)]
    return code, {line.what: line for line in lines}


def test_weights_are_looked_for_where_they_may_lie(
    tiny: Any,
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requirements.huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setenv("VCIL_BENCH_CACHE", str(tmp_path))
    asked = ("--results", tmp_path, "--backbone", "clip_vit_b16", "clip_tiny")
    code, lines = _lines(tiny, capsys, *asked)
    assert code == 1
    assert lines["weights clip_tiny"].result == "ok"
    assert lines["weights clip_vit_b16"].result == "failed"
    file = tmp_path / "weights" / "clip_vit_b16.safetensors"
    assert str(file) in lines["weights clip_vit_b16"].figure
    assert "open_clip_model.safetensors" in lines["weights clip_vit_b16"].figure
    assert lines["weights tsm_resnet50"].result == "lacking"
    assert "timm/resnet50.tv_in1k" in lines["weights tsm_resnet50"].figure
    file.parent.mkdir()
    file.touch()
    code, lines = _lines(tiny, capsys, *asked)
    assert (code, lines["weights clip_vit_b16"].result) == (0, "ok")
    monkeypatch.setattr(requirements.huggingface_hub, "try_to_load_from_cache", lambda *where: "/".join(where))
    _, lines = _lines(tiny, capsys, "--results", tmp_path)
    assert lines["weights tsm_resnet34"].figure == "timm/resnet34.tv_in1k/model.safetensors"


def test_data_that_are_asked_for_must_be_there(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = _lines(tiny, capsys, "--results", tmp_path, "--data", f"folder={tiny.root}")
    assert (code, lines["folder, split videos.csv"].result) == (0, "ok")
    root = tiny.copy(tmp_path / "data")
    (root / "red/0.mp4").unlink()
    code, lines = _lines(tiny, capsys, "--results", tmp_path, "--data", f"folder={root}")
    assert (code, lines["folder, split videos.csv"].result) == (1, "failed")
    assert "red/0.mp4" in lines["folder, split videos.csv"].figure
    code, lines = _lines(tiny, capsys, "--results", tmp_path, "--data", f"ucf101={root}")
    assert (code, lines["ucf101"].result) == (1, "failed")
    for wrong in (["--data", "folder"], ["--data", "fodler=x"], ["--backbone", "clip_tinny"]):
        assert tiny.main("doctor", "--only", "machine", "--results", tmp_path, *wrong) == 2


def test_what_was_prepared_and_is_gone_is_lacking(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCIL_BENCH_CACHE", str(tmp_path / "cache"))
    code, lines = _lines(tiny, capsys, "--results", tmp_path)
    assert (code, lines["datasets"].result) == (0, "lacking")
    assert {line.result for what, line in lines.items() if what == "authors' lists"} == {"lacking"}
    root = tiny.copy(tmp_path / "data")
    assert tiny.main("prepare", "folder", root) == 0
    _, lines = _lines(tiny, capsys, "--results", tmp_path)
    assert lines["folder, prepared before"].result == "ok"
    root.rename(tmp_path / "elsewhere")
    _, lines = _lines(tiny, capsys, "--results", tmp_path)
    assert lines["folder, prepared before"].result == "lacking"
