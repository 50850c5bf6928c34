"""A new method works as it is written, as a file and as a package; what would not work is refused."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from vcil_bench import record, registry
from vcil_bench.cli import main
from vcil_bench.testing.scaffold import class_name


def test_a_new_method_passes_every_check_and_runs(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-method", "motion_bank", "--out", str(tmp_path)]) == 0
    path = tmp_path / "motion_bank.py"
    assert f"vcil-bench check {path}" in capsys.readouterr().out
    assert main(["check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines[:-1]} == {"ok"}
    assert tiny.run(path, tmp_path / "results", "--set", "epochs=1", "batch_size=4", "workers=0") == 0
    (written,) = (tmp_path / "results").glob("*/motion_bank/*.json")
    assert [step["costs"]["memory"]["videos"] for step in record.load(written).data["steps"]] == [2, 3, 4]


def test_nothing_of_the_template_is_left_in_a_name(tmp_path: Path) -> None:
    assert main(["new-method", "a2_motion", "--package", "--out", str(tmp_path)]) == 0
    for path in tmp_path.rglob("*"):
        assert "new_method" not in path.name
        if path.is_file():
            text = path.read_text(encoding="utf-8").lower()
            assert "new_method" not in text.replace("vcil-bench new-method", "")
            assert "newmethod" not in text
    assert class_name("a2_motion") == "A2Motion"


def test_a_package_declares_its_method_where_the_harness_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-method", "motion_bank", "--package", "--out", str(tmp_path)]) == 0
    root = tmp_path / "vcil-bench-motion-bank"
    assert str(root) in capsys.readouterr().out
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    (reference,) = project["project"]["entry-points"][registry.GROUP].values()
    assert list(project["project"]["entry-points"][registry.GROUP]) == ["motion_bank"]
    module, _, cls = reference.partition(":")
    monkeypatch.syspath_prepend(str(root))
    method = getattr(importlib.import_module(module), cls)
    registry.check_class(method)
    assert method.name == "motion_bank"
    workflow = yaml.safe_load((root / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": "pytest"}


@pytest.mark.slow
def test_a_package_can_be_installed_and_its_own_test_passes(tmp_path: Path) -> None:
    assert main(["new-method", "motion_bank", "--package", "--out", str(tmp_path)]) == 0
    root, site = tmp_path / "vcil-bench-motion-bank", tmp_path / "site"
    alone = ["--no-deps", "--no-build-isolation", "--quiet"]  # what it needs is here
    install = [sys.executable, "-m", "pip", "install", *alone, "--target", str(site), str(root)]
    subprocess.run(install, check=True)
    around = os.environ | {"PYTHONPATH": str(site)}

    def output(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=root, env=around, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (line,) = [line for line in output("vcil_bench", "list", "methods").splitlines() if "motion_bank" in line]
    assert line.split()[1] == "installed"
    assert "1 passed" in output("pytest", "-q", "-p", "no:cacheprovider", "tests")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("MotionBank", "such as 'motionbank'"),
        ("motion-bank", "such as 'motion_bank'"),
        ("2stream", "such as 'my_method'"),
        ("", "lower-case letters"),
        ("../escape", "such as 'escape'"),
        ("lambda", "no word of Python"),
        ("stpr", "'stpr' is taken by a method that is built-in"),
        ("torch", "is that of a Python module"),
        ("json", "is that of a Python module"),
        ("motion.py", "such as 'motion'"),
    ],
)
@pytest.mark.parametrize("kind", [[], ["--package"]], ids=["file", "package"])
def test_names_that_no_method_can_have_are_refused(
    name: str, told: str, kind: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-method", name, *kind, "--out", str(tmp_path / "folder")]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [[], ["--package"]], ids=["file", "package"])
def test_what_is_there_is_not_overwritten(
    kind: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["new-method", "motion_bank", *kind, "--out", str(tmp_path)]
    assert main(command) == 0
    (source,) = tmp_path.rglob("motion_bank.py")
    source.write_text("my work", encoding="utf-8")
    assert main(command) == 2
    assert "--out DIR" in capsys.readouterr().err
    assert source.read_text(encoding="utf-8") == "my work"
