"""What is installed is the whole harness under one name, and a tree that is not installed works, too."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from tiny_dataset import Tiny

ROOT = Path(__file__).parents[1]
SOURCES = ("vcil_bench", "methods", "protocols")


def can_make_wheels() -> bool:
    """Tell whether setuptools is here, in a version that needs nothing else to make a wheel."""
    try:
        return tuple(map(int, metadata.version("setuptools").split(".")[:2])) >= (70, 1)
    except metadata.PackageNotFoundError:
        return False


def installed_name(path: Path) -> str:
    """Return where a file of the tree lies once installed."""
    inside = path.relative_to(ROOT).as_posix()
    return inside if inside.startswith("vcil_bench/") else f"vcil_bench/{inside}"


def source_files() -> dict[str, Path]:
    """Return every file of the packages that must be installed, by its place there."""
    return {
        installed_name(path): path
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name != "README.md"
    }


def copy_tree(target: Path) -> Path:
    """Copy what a build needs, without leftovers of earlier builds."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, target / folder, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, target)
    return target


def run(folder: Path, *command: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Run Python elsewhere with ``folder`` before all else that is installed."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=where,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )


def check_it_works(folder: Path, tiny: Tiny, where: Path) -> None:
    """List the methods and run one with the package in ``folder``."""
    where.mkdir()
    code = "import vcil_bench, vcil_bench.methods.stpr as m; print(vcil_bench.__file__); print(m.__file__)"
    done = run(folder, "-c", code, where=where)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(folder)) for line in done.stdout.splitlines()), done.stdout
    done = run(folder, "-m", "vcil_bench", "list", "methods", where=where)
    assert done.returncode == 0, done.stderr
    assert "cannot be used" not in done.stdout
    assert {"finetune", "joint", "stpr", "zero_shot"} <= {line.split()[0] for line in done.stdout.splitlines()}
    arguments = [str(tiny.protocol), *tiny.arguments(where / "results"), "--seed", "1"]
    done = run(folder, "-m", "vcil_bench", "run", "zero_shot", *arguments, where=where)
    assert done.returncode == 0, done.stderr
    assert len(list((where / "results").glob("*/*/*.json"))) == 1


def test_every_package_is_listed() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    there = {
        installed_name(path).removesuffix("/__init__.py").replace("/", ".")
        for folder in SOURCES
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize("name", ["methods.stpr", "protocols"])
def test_bare_folder_names_are_no_packages(name: str) -> None:
    done = run(ROOT, "-c", f"import {name}", where=ROOT)
    assert done.returncode == 1
    bare = name.partition(".")[0]
    assert f"ImportError: '{bare}' is installed as 'vcil_bench.{bare}'" in done.stderr


@pytest.mark.slow
def test_tree_that_is_not_installed_works(tiny: Tiny, tmp_path: Path) -> None:
    check_it_works(copy_tree(tmp_path / "tree"), tiny, tmp_path / "elsewhere")


@pytest.mark.slow
@pytest.mark.skipif(not can_make_wheels(), reason="building offline needs setuptools 70.1 or newer")
def test_wheel_holds_everything_and_works(tiny: Tiny, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = run(tmp_path, *build, str(tmp_path / "dist"), str(tree), where=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "vcil-bench = vcil_bench.cli:main" in archive.read(entry_points).decode()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"vcil_bench"}
    assert set(source_files()) - names == set()
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    done = run(tmp_path, *install, where=tmp_path)
    assert done.returncode == 0, done.stderr
    check_it_works(site, tiny, tmp_path / "elsewhere")
