"""The Makefile is a thin skin: what it would run, without running it; and the slow, real thing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clip_factory import barcode_video

from vcil_bench import protocol, record

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def _make(*arguments: str, folder: Path = ROOT) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, check=True, env=environment
    )
    return " ".join(done.stdout.split())


def test_bench_is_stpr_on_the_embedded_clips_with_all_seeds() -> None:
    assert "vcil-bench run 'stpr' 'synthetic_3x4' --seed 'all' --device 'auto'" in _make("-n", "bench")


def test_bench_passes_its_variables_on() -> None:
    line = _make(
        *("-n", "bench", "METHOD=a/b.py", "PROTOCOL=tcd_ucf101_10x5", "SEED=1000", "DATA=/data/ucf 101"),
        *("SET=lr=0.1 fssd=false", "DEVICE=cuda:1", "FORCE=1"),
    )
    for part in (
        "run 'a/b.py' 'tcd_ucf101_10x5' --seed '1000' --device 'cuda:1'",
        "--data '/data/ucf 101'",
        "--set lr=0.1 fssd=false",
        "--force",
    ):
        assert part in line


def test_grid_runs_what_is_named_or_a_papers_table() -> None:
    assert "grid 'a,b' 'synthetic_3x4' --seeds 'all'" in _make("-n", "grid", "METHODS=a,b")
    table = ("-n", "grid", "TABLE=stpr_components")
    whole = _make(*table, "DATA=ucf101=/a hmdb51=/b")
    assert "grid 'all' 'all' --table 'stpr_components' --seeds 'all'" in whole
    assert "--data ucf101=/a hmdb51=/b" in whole
    assert "grid 'stpr' 'all' --table" in _make(*table, "METHOD=stpr")  # which is also the default
    assert "grid 'all' 'p,q' --table" in _make(*table, "PROTOCOLS=p,q")


def test_test_runs_pytest_and_setup_makes_its_own_environment(tmp_path: Path) -> None:
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    plan = _make("-n", "test", folder=tmp_path)
    assert "-m venv .venv" in plan
    assert "-c constraints.txt -e '.[dev]'" in plan
    assert plan.index("-m venv .venv") < plan.index("-m pytest")


def test_help_names_every_target_a_user_calls() -> None:
    text = _make("help")
    for target in ("bench", "test", "test-all", "lint", "report", "check", "clean", "help", "tiny-clip"):
        assert re.search(rf"make {target}\b", text), target


def test_pins_satisfy_the_ranges() -> None:
    from packaging.requirements import Requirement

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    block = (ROOT / "setup.cfg").read_text().split("install_requires =")[1].split("[options.extras")[0]
    for line in filter(None, map(str.strip, block.splitlines())):
        need = Requirement(line)
        assert pins[need.name.lower().replace("_", "-")] in need.specifier


@pytest.mark.slow
def test_one_task_of_ucf101_on_the_real_architecture(tmp_path: Path) -> None:
    """UCF101's layout, one clip a class and split, the base task of 51 classes, ViT-B/16 without its weights."""
    names = protocol.load("tcd_ucf101_10x5").class_names
    root = tmp_path / "ucf101"
    barcode_video(tmp_path / "clip.avi", 10)
    for part, group in (("train", "g08"), ("test", "g01")):
        lines = []
        for number, name in enumerate(names, start=1):
            file = f"{name}/v_{name}_{group}_c01.avi"
            (root / "UCF-101" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "clip.avi", root / "UCF-101" / file)
            lines.append(f"{file} {number}" if part == "train" else file)
        lists = root / "ucfTrainTestlist"
        lists.mkdir(exist_ok=True)
        (lists / f"{part}list01.txt").write_text("\r\n".join(lines) + "\r\n")
    command = [sys.executable, "-m", "vcil_bench"]
    subprocess.run([*command, "prepare", "ucf101", str(root)], check=True, cwd=ROOT)
    sets = ["weights=random", "max_tasks=1", "epochs_first=1", "batch_size=8", "protocol.clip.frames=1"]
    run = ["run", "stpr", "tcd_ucf101_10x5", "--data", str(root), "--seed", "1000", "--set", *sets]
    subprocess.run([*command, *run, "--results", str(tmp_path / "r")], check=True, cwd=ROOT)
    (path,) = (tmp_path / "r").glob("*/stpr/*.json")
    found: Any = record.load(path).data
    assert found["status"] == "partial"
    assert found["weights"]["source"] == "random"
    assert found["steps"][0]["classes_seen"] == 51
    assert found["steps"][0]["costs"]["parameters"] > 149_000_000
    assert 0 <= found["steps"][0]["correct"]["text"][0] <= found["test_videos"][0] == 51
