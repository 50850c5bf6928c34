"""One file is one method, wherever it comes from; one that is broken says why and harms no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_dataset import Tiny

import vcil_bench.methods
from vcil_bench import registry
from vcil_bench.registry import MethodError

HEAD = """
from __future__ import annotations

from dataclasses import dataclass

import torch

from vcil_bench.method import Method


"""
CONFIG = """
@dataclass(frozen=True)
class Config:
    offset: float = 0.0


"""
CLASS = """
class Constant(Method):
    name = "constant"
    paper = "none: every video is of the first class"
    readouts = ("cnn",)
    Config = Config

    def grow(self, task):
        self.seen = task.num_seen

    def learn(self, task):
        pass

    def predict(self, clips):
        return {"cnn": torch.arange(self.seen, 0.0, -1.0).expand(len(clips), -1)}
"""
METHOD = HEAD + CONFIG + CLASS


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands in for the one of the built-in methods."""
    place = tmp_path / "methods"
    place.mkdir()
    monkeypatch.setattr(vcil_bench.methods, "__path__", [str(place), *vcil_bench.methods.__path__])
    loaded = set(sys.modules)
    yield place
    for name in set(sys.modules) - loaded:
        if name.startswith("vcil_bench.methods."):
            del sys.modules[name]
            vars(vcil_bench.methods).pop(name.rpartition(".")[2], None)


def test_built_in_methods_are_found_by_their_files() -> None:
    found = registry.find_all()
    files = {path.stem for path in registry.methods_folder().glob("[!_]*.py")}
    built_in = {name: entry for name, entry in found.items() if entry.origin == "built-in"}
    assert set(built_in) == files
    assert {entry.error for entry in built_in.values()} == {None}
    for name, entry in built_in.items():
        assert entry.file is not None
        assert entry.file.name == f"{name}.py"
        assert entry.distribution == "vcil-bench"


def test_file_dropped_into_the_folder_is_a_method(folder: Path) -> None:
    write(folder, "constant.py", METHOD)
    write(folder, "_helper.py", "raise RuntimeError('files with an underscore are not methods')\n")
    assert set(registry.find_all()) == {"constant"}
    entry = registry.find("constant")
    assert entry.origin == "built-in"
    assert entry.file == folder / "constant.py"


def test_broken_file_is_listed_with_its_reason_and_harms_no_other(
    folder: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "constant.py", METHOD)
    write(folder, "absent.py", "import os\n\nimport a_library_that_is_not_there\n")
    write(folder, "unfinished.py", "def f(:\n")
    assert tiny.main("list", "methods", "--results", tmp_path) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(lines) == {"absent", "constant", "unfinished"}
    assert (
        "cannot be used: ModuleNotFoundError: No module named 'a_library_that_is_not_there'" in lines["absent"]
    )
    assert lines["absent"].endswith("(line 3)")
    assert "SyntaxError" in lines["unfinished"]
    assert "line 1" in lines["unfinished"]
    with pytest.raises(MethodError, match=r"'absent'.*cannot be used.*a_library_that_is_not_there"):
        registry.find("absent")


def test_file_that_exits_harms_no_other(folder: Path) -> None:
    write(folder, "constant.py", METHOD)
    write(folder, "script.py", "import sys\n\nsys.exit('usage: script.py')\n")
    found = registry.find_all()
    assert found["constant"].error is None
    assert "usage: script.py" in str(found["script"].error)


FROZEN = "Config must be a frozen dataclass"
BROKEN = {
    "two classes": (METHOD + CLASS.replace("Constant", "Other"), "exactly one Method class.*Constant, Other"),
    "no class": (HEAD, "exactly one Method class.*none"),
    "abstract": (METHOD.replace("def learn", "def study"), "Constant does not define learn"),
    "no name": (METHOD.replace('    name = "constant"\n', ""), "no class attribute 'name'"),
    "wrong name": (METHOD.replace('"constant"', '"Constant-1"'), "'Constant-1' must be lower-case"),
    "name is no text": (METHOD.replace('"constant"', "1"), "name"),
    "no paper": (METHOD.replace("    paper =", "    source ="), "no class attribute 'paper'"),
    "no config": (METHOD.replace("    Config = Config\n", ""), "no class attribute 'Config'"),
    "readouts are text": (METHOD.replace('("cnn",)', '"cnn"'), "readouts must be a tuple"),
    "config not frozen": (METHOD.replace("(frozen=True)", ""), FROZEN),
    "config no dataclass": (
        METHOD.replace("@dataclass(frozen=True)\n", ""),
        FROZEN,
    ),
    "config key of a run option": (
        METHOD.replace("offset:", "workers:"),
        "'workers' is the name of a run option",
    ),
    "config key without default": (METHOD.replace(": float = 0.0", ": float"), "'offset'.*default"),
    "readout with markup": (METHOD.replace('("cnn",)', '("<img>",)'), "readouts.*'<img>'"),
    "readout that leaves its folder": (METHOD.replace('("cnn",)', '("../../x",)'), "readouts.*'../../x'"),
    "readout twice": (METHOD.replace('("cnn",)', '("cnn", "cnn")'), "readouts.*cnn"),
    "readout without a name": (METHOD.replace('("cnn",)', '("",)'), "readouts.*''"),
    "readout that is no text": (METHOD.replace('("cnn",)', "(1,)"), "readouts.*1"),
    "paper that is no text": (METHOD.replace('"none: every video is of the first class"', "7"), "paper.*7"),
    "data access": (
        METHOD.replace("    readouts", '    data_access = "everything"\n    readouts'),
        "data_access.*'everything'",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_breach_of_the_interface_is_named(tmp_path: Path, fault: str) -> None:
    text, reason = BROKEN[fault]
    path = write(tmp_path, "mine.py", text)
    with pytest.raises(MethodError, match=reason) as caught:
        registry.find(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("pretended", ["KeyboardInterrupt", "GeneratorExit", "SystemExit(0)", "BaseException"])
def test_whatever_is_raised_at_import_harms_no_other(pretended: str, folder: Path) -> None:
    write(folder, "quits.py", f"raise {pretended}\n")
    write(folder, "constant.py", METHOD)
    found = registry.find_all()
    assert found["quits"].cls is None
    assert pretended.partition("(")[0] in str(found["quits"].error)
    assert found["constant"].cls is not None


def test_ctrl_c_during_an_import_ends_it(folder: Path, request: pytest.FixtureRequest) -> None:
    # A job in the background of a script starts with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    write(folder, "slow.py", "import signal\n\nsignal.raise_signal(signal.SIGINT)\n")
    with pytest.raises(KeyboardInterrupt):
        registry.find_all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("name", "said"), [("gone.py", "no method file"), ("notes.txt", "is not a .py file")])
def test_what_is_no_method_file_is_refused_by_what_it_is(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(registry.MethodError, match=said):
        registry.from_file(tmp_path / name)


def test_imported_classes_do_not_count(tmp_path: Path) -> None:
    text = METHOD.replace("import torch\n", "import torch\n\nfrom .zero_shot import ZeroShot\n", 1)
    assert registry.find(str(write(tmp_path, "mine.py", text))).name == "constant"


def test_file_may_not_take_a_built_in_name(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.py", METHOD.replace('"constant"', '"stpr"'))
    with pytest.raises(MethodError, match=r"mine\.py.*'stpr'.*taken.*another name"):
        registry.find(str(path))


def test_path_of_a_built_in_is_the_built_in() -> None:
    path = registry.methods_folder() / "zero_shot.py"
    assert registry.find(str(path)) == registry.find("zero_shot")


def test_built_in_file_and_class_must_have_one_name(folder: Path) -> None:
    write(folder, "other.py", METHOD)
    entry = registry.find_all()["other"]
    assert entry.cls is None
    assert "'constant'" in str(entry.error)


def test_files_of_one_name_in_two_folders_are_two_methods(tmp_path: Path) -> None:
    first = registry.find(str(write(tmp_path / "a", "mine.py", METHOD)))
    second = registry.find(str(write(tmp_path / "b", "mine.py", METHOD.replace('"constant"', '"second"'))))
    assert (first.name, second.name) == ("constant", "second")
    assert first.cls is not None
    assert registry.find(str(tmp_path / "a" / "mine.py")).name == "constant"


def test_file_runs_and_is_listed_afterwards(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "mine.py", METHOD)
    results = tmp_path / "results"
    assert tiny.run(path, results, "--set", "offset=1") == 0
    (record,) = results.glob("*/*/*.json")
    method = json.loads(record.read_text(encoding="utf-8"))["method"]
    assert (method["name"], method["origin"], method["file"]) == ("constant", "file", str(path.resolve()))
    assert method["distribution"] is None
    capsys.readouterr()
    assert tiny.main("list", "methods", "--results", results) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("constant ")]
    assert f"[{path.resolve()}]" in line


def test_list_tells_of_recorded_files_without_importing_them(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "mine.py", METHOD)
    results = tmp_path / "results"
    assert tiny.run(path, results) == 0
    write(tmp_path, "mine.py", "raise SystemExit('imported')")
    capsys.readouterr()
    assert tiny.main("list", "methods", "--results", results) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("constant") and str(path) in line for line in lines)
    assert any(line.startswith("zero_shot ") for line in lines)


def test_outside_file_may_build_on_a_built_in(tiny: Tiny, tmp_path: Path) -> None:
    text = (
        "from .zero_shot import ZeroShot, ZeroShotConfig\n\n\n"
        'class Mine(ZeroShot):\n    name = "mine"\n    paper = "none"\n    Config = ZeroShotConfig\n'
    )
    path = write(tmp_path, "mine.py", text)
    entry = registry.find(str(path))
    assert entry.cls is not None
    assert issubclass(entry.cls, registry.find("zero_shot").cls or ())
    assert tiny.run(path, tmp_path / "results") == 0


class TestInstalled:
    """A method in a package of its own, found by its entry point."""

    @pytest.fixture
    def site(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A folder that is searched like site-packages."""
        folder = tmp_path / "site"
        folder.mkdir()
        monkeypatch.syspath_prepend(str(folder))
        yield folder
        for name in [name for name in sys.modules if name.startswith("my_")]:
            del sys.modules[name]

    def install(self, site: Path, module: str, text: str, *, name: str | None = None, point: str = "") -> None:
        """Write what an installer leaves behind: a module and its metadata."""
        write(site, f"{module}.py", text)
        info = site / f"{module}-1.2.dist-info"
        write(info, "METADATA", f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.2\n")
        write(info, "entry_points.txt", f"[{registry.GROUP}]\n{name or module} = {module}{point}\n")

    @pytest.mark.slow
    def test_runs_in_a_new_process_and_its_record_names_the_package(
        self, tiny: Tiny, tmp_path: Path, site: Path
    ) -> None:
        self.install(site, "my_constant", METHOD, name="constant", point=":Constant")
        results = tmp_path / "results"
        command = ["run", "constant", str(tiny.protocol), *tiny.arguments(results), "--seed", "1"]
        done = subprocess.run(
            [sys.executable, "-m", "vcil_bench", *command],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(site)},
        )
        assert done.returncode == 0, done.stderr
        (record,) = results.glob("*/*/*.json")
        method = json.loads(record.read_text(encoding="utf-8"))["method"]
        assert method["origin"] == "installed"
        assert (method["distribution"], method["version"]) == ("my-constant", "1.2")

    def test_list_names_packages_and_what_is_wrong_with_them(
        self, tiny: Tiny, tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.install(site, "my_constant", METHOD)  # the entry point may name the module, too
        self.install(site, "my_broken", "import a_library_that_is_not_there\n")
        self.install(site, "my_stpr", METHOD.replace('"constant"', '"stpr"'), name="stpr", point=":Constant")
        self.install(site, "my_typo", METHOD.replace('"constant"', '"typo"'), point=":Constnat")
        assert tiny.main("list", "methods", "--results", tmp_path / "results") == 0
        lines = capsys.readouterr().out.splitlines()

        def line(name: str) -> str:
            (found,) = [line for line in lines if line.startswith(f"{name} ")]
            return found

        assert "installed" in line("constant")
        assert "[my-constant 1.2]" in line("constant")
        assert "cannot be used: ModuleNotFoundError: No module named 'a_library_that" in line("my_broken")
        assert "Constnat" in line("my_typo")
        ours, theirs = sorted((line for line in lines if line.startswith("stpr")), key=lambda s: "cannot" in s)
        assert "built-in" in ours
        assert "cannot be used: the name 'stpr' is taken by a method that is built-in" in theirs

    def test_list_names_the_package_of_a_broken_method(
        self, tiny: Tiny, tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.install(site, "my_broken", "import a_library_that_is_not_there\n")
        assert tiny.main("list", "methods", "--results", tmp_path / "results") == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("my_broken ")]
        assert "my-broken 1.2" in line
