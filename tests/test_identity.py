"""Identity: what makes records stale and refuses to resume is what can move a number, and nothing else."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_records import record_data
from tiny_dataset import Tiny

import vcil_bench
from vcil_bench import identity, registry
from vcil_bench import record as records
from vcil_bench.data.datasets import adapter
from vcil_bench.data.prepare import prepare
from vcil_bench.identity import ALWAYS, NUMERIC_MODULES, OTHER_MODULES, changed_since, code_of, source_digest
from vcil_bench.record import Record
from vcil_bench.run.plan import StaleRecord, make_plan
from vcil_bench.run.reuse import finished, known_parts

CLIP, RESNET = "vcil_bench.nets.backbones.clip", "vcil_bench.nets.backbones.resnet"
ON_BUILT_IN = (
    "from .zero_shot import ZeroShot, ZeroShotConfig\n\n\n"
    'class Mine(ZeroShot):\n    name = "mine"\n    paper = "none"\n    Config = ZeroShotConfig\n'
)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Forget the hashes of the harness, which otherwise stay while a process lives."""
    yield
    identity._harness_file.cache_clear()
    identity._harness_module.cache_clear()


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the harness's sources that may be changed."""
    copy = tmp_path / "vcil_bench"
    folders = shutil.ignore_patterns("tiny_*", "assets", "*.csv", "__pycache__")
    shutil.copytree(Path(vcil_bench.__file__).parent, copy, ignore=folders)
    monkeypatch.setattr(vcil_bench, "__path__", [str(copy)])
    return copy


def change(file: Path, old: str, new: str) -> None:
    """Replace a text that is there, as another commit would."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    identity._harness_file.cache_clear()
    identity._harness_module.cache_clear()


def record_of(method: str, backbone: str = RESNET) -> Record:
    """Make up a record with the code of today."""
    data = record_data(method=method, identity=code_of(f"vcil_bench.methods.{method}", backbone))
    data["method"] |= {"origin": "built-in", "file": f"{method}.py"}
    return Record(Path("r.json"), data)


class TestModules:
    """The two lists name every module that matters, and no other."""

    @staticmethod
    def reached(follow: frozenset[str]) -> set[str]:
        """Return the modules of the harness that built-in methods, backbones and every run import."""
        methods = [f"vcil_bench.methods.{path.stem}" for path in registry.methods_folder().glob("[!_]*.py")]
        folder = Path(vcil_bench.__file__).parent / "nets" / "backbones"
        backbones = [f"vcil_bench.nets.backbones.{path.stem}" for path in folder.glob("[!_]*.py")]
        todo, found = [*methods, *backbones, *ALWAYS], set()
        for name in todo:
            path = identity._file(name)
            if path is None or name in found or not name.startswith("vcil_bench."):
                continue
            found.add(name)
            if name in follow or name.startswith("vcil_bench.methods."):
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                todo += identity._read(path).imported(package)
        empty = {name for name in found if _says_nothing(name)}
        return {name for name in found - empty if not name.startswith("vcil_bench.methods.")}

    def test_every_listed_module_exists_and_stands_in_one_list(self) -> None:
        assert [name for name in NUMERIC_MODULES | OTHER_MODULES if identity._file(name) is None] == []
        assert NUMERIC_MODULES.isdisjoint(OTHER_MODULES)
        assert set(ALWAYS) <= NUMERIC_MODULES

    def test_every_module_that_a_built_in_method_can_reach_is_listed(self) -> None:
        reached = self.reached(NUMERIC_MODULES)
        assert sorted(reached - NUMERIC_MODULES - OTHER_MODULES) == [], "put each into one of the two lists"
        assert sorted((NUMERIC_MODULES | OTHER_MODULES) - reached) == [], "no method reaches these any more"

    def test_every_built_in_method_depends_on_its_backbone_the_data_and_the_evaluation(self) -> None:
        for name, entry in registry.find_all().items():
            assert entry.cls is not None
            code = code_of(entry.cls.__module__, CLIP)
            assert {f"vcil_bench.methods.{name}", CLIP, "vcil_bench.nets.clip", *ALWAYS} <= code.keys()
            assert {"vcil_bench.data.video.pyav", "vcil_bench.data.crops"} <= code.keys()


def _says_nothing(name: str) -> bool:
    path = identity._file(name)
    return path is not None and source_digest(path.read_text(encoding="utf-8")) == source_digest("")


class TestSource:
    """The hash of a source file."""

    TEXT = 'def f(x, rate=0.5):\n    return [x + rate, f"{x:.2f}"]\n'

    @pytest.mark.parametrize(
        "same",
        [
            "# a comment\n" + TEXT,
            '"""A docstring."""\n' + TEXT,
            TEXT.replace("    return", '    """Say\n    what."""\n    return'),
            TEXT.replace("[x + rate, ", "[\n        x\n        + rate,\n        "),
            TEXT.replace('f"{x:.2f}"', "f'{x:.2f}'"),
        ],
    )
    def test_comments_docstrings_and_layout_do_not_count(self, same: str) -> None:
        assert same != self.TEXT
        assert source_digest(same) == source_digest(self.TEXT)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("0.5", "0.25"),
            ("0.5", "'0.5'"),
            ("+", "-"),
            ("x + rate", "rate + x"),
            (".2f", ".3f"),
            ("(x,", "(x, *,"),
        ],
    )
    def test_everything_that_runs_counts(self, old: str, new: str) -> None:
        assert source_digest(self.TEXT.replace(old, new)) != source_digest(self.TEXT)

    def test_the_same_under_every_version_of_python(self) -> None:
        """Pinned: what a record says must hold where it is read."""
        text = (
            "type_of: int = 1\n@wrap\nasync def g(*a: int, b=None, **k) -> None:\n"
            "    async with h() as i:\n        return f'{i!r:>{b}} {a=}' 'x' u'y'\n"
            "class C[T]:\n    pass\n".replace("[T]", "(T)")
        )
        assert source_digest(text) == "ea20c4de95cfc0f8"


class TestHarnessCode:
    """A change of the harness makes stale what depends on it."""

    def test_nothing_is_stale_where_nothing_changed(self, harness: Path) -> None:
        assert changed_since(record_of("icarl")) == []

    @pytest.mark.parametrize(
        ("file", "old", "new", "module"),
        [
            ("losses.py", "dim=1", "dim=-1", "vcil_bench.losses"),
            ("memory.py", "return", "pass\n    return", "vcil_bench.memory"),
            ("nets/heads.py", "dim=1", "dim=-1", "vcil_bench.nets.heads"),
            ("training/optimisers.py", "momentum", "momentum_", "vcil_bench.training.optimisers"),
        ],
    )
    def test_what_methods_are_made_of_makes_their_records_stale(
        self, harness: Path, file: str, old: str, new: str, module: str
    ) -> None:
        """Not only the method's file and its bases: iCaRL's herding and losses are elsewhere."""
        icarl, zero_shot = record_of("icarl"), record_of("zero_shot", CLIP)
        change(harness / file, old, new)
        assert changed_since(icarl) == [module]
        assert identity.differences(icarl.data["identity"], code_of("vcil_bench.methods.icarl", RESNET))
        assert (changed_since(zero_shot) == []) == (
            module in {"vcil_bench.losses", "vcil_bench.memory", "vcil_bench.nets.heads"}
        )

    def test_what_moves_no_number_makes_nothing_stale_and_is_resumed(self, harness: Path) -> None:
        """Not whole folders byte for byte: a comment in the loader, code of prepare, the report or the CLI."""
        icarl = record_of("icarl")
        before = code_of("vcil_bench.methods.icarl", RESNET)
        change(harness / "data" / "loader.py", "from __future__", "# A comment.\nfrom __future__")
        change(harness / "data" / "clips.py", '"""\n\nfrom __future__', 'and more."""\n\nfrom __future__')
        for file in ("data/prepare/report.py", "report/tables.py", "cli/__init__.py", "data/manifest.py"):
            change(
                harness / file,
                "from __future__ import annotations\n",
                "from __future__ import annotations\nX = 1\n",
            )
        assert changed_since(icarl) == []
        assert code_of("vcil_bench.methods.icarl", RESNET) == before

    def test_the_backbone_that_is_not_used_does_not_count(self, harness: Path) -> None:
        on_clip, on_resnet = record_of("icarl", CLIP), record_of("icarl", RESNET)
        change(harness / "nets" / "tsm.py", "import torch\n", "import torch\nX = 1\n")
        assert (changed_since(on_clip), changed_since(on_resnet)) == ([], ["vcil_bench.nets.tsm"])
        change(harness / "nets" / "clip_blocks.py", "import torch\n", "import torch\nX = 1\n")
        assert changed_since(on_resnet) == ["vcil_bench.nets.tsm"]
        assert changed_since(on_clip) == ["vcil_bench.nets.clip_blocks"]

    def test_a_module_that_is_gone_has_changed(self, harness: Path) -> None:
        icarl = record_of("icarl")
        (harness / "losses.py").rename(harness / "loss_functions.py")
        change(harness / "memory.py", "return", "return")
        assert changed_since(icarl) == ["vcil_bench.losses"]


class TestPlugins:
    """Methods from elsewhere, whose code counts as a built-in's does."""

    def test_an_installed_method_counts_with_the_modules_of_its_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "site" / "my_method"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("from .parts.method import Mine as Mine\n", encoding="utf-8")
        (package / "losses.py").write_text("import numpy\n\nSCALE = 1\n", encoding="utf-8")
        (package / "unused.py").write_text("SCALE = 1\n", encoding="utf-8")
        (package / "parts").mkdir()
        (package / "parts" / "__init__.py").touch()
        method = "from vcil_bench.losses import nca_loss\nfrom ..losses import SCALE\nimport my_other\n"
        (package / "parts" / "method.py").write_text(method, encoding="utf-8")
        (tmp_path / "site" / "my_other.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        code = code_of("my_method.parts.method", RESNET)
        assert {name for name in code if name.startswith("my_")} == {
            "my_method.parts.method",
            "my_method.losses",
        }
        assert {"vcil_bench.losses", RESNET} <= code.keys()
        data = record_data(identity=code)
        data["method"] |= {"origin": "installed", "file": str(package / "parts" / "method.py")}
        record = Record(Path("r.json"), data)
        assert changed_since(record) == []
        (package / "losses.py").write_text("import numpy\n\nSCALE = 2.0\n", encoding="utf-8")
        assert changed_since(record) == ["my_method.losses"]
        monkeypatch.undo()
        assert changed_since(record) == []  # not installed here: nothing speaks against it

    def test_a_file_counts_with_what_lies_beside_it_and_is_imported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("my_helper", "numpy", "my_unused"):
            (tmp_path / f"{name}.py").write_text("SCALE = 1\n", encoding="utf-8")
        method = tmp_path / "mine.py"
        method.write_text("import numpy\n\nimport my_helper\nfrom .icarl import ICaRL\n", encoding="utf-8")
        assert not {"my_helper", "numpy"} & code_of(method, RESNET).keys()  # another numpy is imported
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "my_helper", raising=False)
        code = code_of(method, RESNET)
        assert {"mine.py", "my_helper", "vcil_bench.methods.icarl", "vcil_bench.losses"} <= code.keys()
        assert "my_unused" not in code

    def test_what_lies_beside_a_file_counts_also_where_the_path_goes_through_a_link(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, link = tmp_path / "real", tmp_path / "link"
        real.mkdir()
        link.symlink_to(real)
        (real / "my_linked_helper.py").write_text("SCALE = 1\n", encoding="utf-8")
        (real / "mine.py").write_text("import my_linked_helper\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(link))
        assert "my_linked_helper" in code_of(real / "mine.py", RESNET)

    def test_a_base_class_from_elsewhere_counts(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "lib").mkdir()
        monkeypatch.syspath_prepend(str(tmp_path / "lib"))
        base = tmp_path / "lib" / "my_base_elsewhere.py"
        base.write_text(
            "from vcil_bench.methods.zero_shot import ZeroShot\n\n\nclass Base(ZeroShot):\n    pass\n"
        )
        method = tmp_path / "mine.py"
        method.write_text(
            "import my_base_elsewhere\n\n\nclass Mine(my_base_elsewhere.Base):\n    name = 'mine'\n"
        )
        assert tiny.run(method, tmp_path / "r") == 0
        (path,) = tmp_path.glob("r/*/mine/*.json")
        assert {"mine.py", "my_base_elsewhere"} <= records.load(path).data["identity"].keys()

    def test_a_file_that_was_changed_is_refused_with_the_reason_as_a_field(
        self, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        method, results = tmp_path / "mine.py", tmp_path / "results"
        method.write_text(ON_BUILT_IN, encoding="utf-8")
        assert tiny.run(method, results) == 0
        (path,) = results.glob("*/*/*.json")
        method.write_text(f"# A comment.\n{ON_BUILT_IN}", encoding="utf-8")
        assert changed_since(records.load(path)) == []
        method.write_text(f"{ON_BUILT_IN}    scale = 2\n", encoding="utf-8")
        assert changed_since(records.load(path)) == ["mine.py"]
        capsys.readouterr()
        assert tiny.run(method, results) == 2
        assert "stale: mine.py changed" in capsys.readouterr().err
        settings = {"workers": 0, "backbone": "clip_tiny"}
        plan = make_plan(
            str(method), str(tiny.protocol), seed=1, assignments=settings, results=results, device="cpu"
        )
        with pytest.raises(StaleRecord) as caught:
            finished(plan, 1, None, print)
        assert (caught.value.path, caught.value.reasons) == (path, ["mine.py"])
        method.write_text("def broken(:\n", encoding="utf-8")
        assert changed_since(records.load(path)) == ["mine.py"]
        method.unlink()
        assert changed_since(records.load(path)) == []  # nothing speaks against it


@pytest.fixture(scope="module")
def results(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run on both seeds."""
    folder = tmp_path_factory.mktemp("results")
    assert tiny.run("zero_shot", folder, seed="all") == 0
    return folder


class TestRuns:
    """The identity of real runs."""

    @staticmethod
    def asked_for(tiny: Tiny, root: Path | None = None, **settings: Any) -> dict[str, str]:
        """Return what is known of a run before it begins."""
        settings = {"backbone": "clip_tiny"} | settings
        plan = make_plan(
            "zero_shot",
            str(tiny.protocol),
            seed=1,
            assignments=settings,
            results=tiny.protocol.parent,
            device="cpu",
        )
        return known_parts(plan, 1, prepare(adapter("folder"), root or tiny.root, "videos.csv"))

    def test_seeds_differ_in_nothing_else(self, results: Path) -> None:
        first, second = (records.load(path) for path in sorted(results.glob("*/*/*.json")))
        assert identity.differences(first.data["identity"], second.data["identity"]) == [
            "class_order",
            "run_seed",
        ]
        assert first.data["identity"].keys() > identity.PARTS
        assert changed_since(first) == []

    def test_where_videos_lie_and_how_fast_a_run_is_do_not_count(
        self, results: Path, tiny: Tiny, tmp_path: Path
    ) -> None:
        (path,) = results.glob("*/*/*-s1.json")
        saved = records.load(path).data["identity"]
        now = self.asked_for(tiny, root=tiny.copy(tmp_path / "copy"), eval_batch=3, threads=1)
        assert identity.differences(saved, now) == [
            "class_order",
            "frame_store",
            "weights",
            "device_kind",
            "torch_version",
        ]
        assert identity.differences(saved, now, ignoring=saved.keys() - now.keys()) == []

    @pytest.mark.parametrize(
        ("settings", "part"),
        [
            ({"template": "a {}"}, "config"),
            ({"precision": "bf16"}, "options"),
            ({"run_seed": 7}, "run_seed"),
            ({"protocol.memory.per_class": 2}, "protocol"),
        ],
    )
    def test_what_makes_another_experiment_counts(self, settings: dict[str, Any], part: str, tiny: Tiny) -> None:
        assert part in identity.differences(self.asked_for(tiny), self.asked_for(tiny, **settings))

    def test_other_videos_count(self, tiny: Tiny, tmp_path: Path) -> None:
        copy = tiny.copy(tmp_path / "copy")
        shutil.copy(copy / "red" / "0.mp4", copy / "red" / "1.mp4")
        assert identity.differences(self.asked_for(tiny), self.asked_for(tiny, root=copy)) == ["data"]

    def test_changed_protocol_is_refused_until_forced(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        protocol, results = tmp_path / "own.yaml", tmp_path / "results"
        text = tiny.protocol.read_text(encoding="utf-8")
        protocol.write_text(text, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        command = ["run", "zero_shot", "own.yaml", *tiny.arguments(results), "--seed", "1", "--set", "workers=0"]
        assert tiny.main(*command) == 0
        (path,) = results.glob("*/*/*.json")
        monkeypatch.chdir(results)
        assert changed_since(records.load(path)) == []
        protocol.write_text(text.replace("four colours", "a new title"), encoding="utf-8")
        assert changed_since(records.load(path)) == []
        protocol.write_text(text.replace("frames: 4\n  size", "frames: 3\n  size"), encoding="utf-8")
        assert changed_since(records.load(path)) == ["protocol"]
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        assert tiny.main(*command) == 2
        message = capsys.readouterr().err
        assert "stale: protocol changed" in message
        assert "--force" in message
        assert tiny.main(*command, "--force") == 0
        assert changed_since(records.load(path)) == []
        assert len(list(results.glob("*/*/superseded/*/*.json"))) == 1
        assert len(list(results.glob("*/*/superseded/*/*.npz"))) == 1


class TestDifferences:
    """Comparing two identities."""

    SAVED = {"protocol": "a", "config": "b", "vcil_bench.losses": "c"}

    @pytest.mark.parametrize(
        ("now", "ignoring", "names"),
        [
            (SAVED, [], []),
            (SAVED | {"config": "x"}, [], ["config"]),
            (SAVED | {"config": "x"}, ["config"], []),
            (SAVED | {"vcil_bench.memory": "d"}, [], ["vcil_bench.memory"]),
            ({"protocol": "a", "config": "b"}, [], ["vcil_bench.losses"]),
        ],
    )
    def test_names_every_part_that_differs_or_is_lacking(
        self, now: dict[str, str], ignoring: list[str], names: list[str]
    ) -> None:
        assert identity.differences(self.SAVED, now, ignoring) == names

    @pytest.mark.parametrize(
        ("names", "text"),
        [
            (["class_order"], "class order"),
            (["protocol", "my_method.losses"], "protocol, my_method.losses"),
            (["a.b", "a.c", "a.d", "a.e"], "a.b, a.c and 2 more"),
        ],
    )
    def test_is_told_in_few_words(self, names: list[str], text: str) -> None:
        assert identity.in_words(names) == text


class TestSameNumbers:
    """Versions of a module between which no number moved."""

    def test_a_record_of_either_version_is_not_stale(
        self, harness: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        icarl = record_of("icarl")
        before = code_of("vcil_bench.methods.icarl", RESNET)["vcil_bench.losses"]
        change(harness / "losses.py", "dim=1", "dim=-1")
        now = code_of("vcil_bench.methods.icarl", RESNET)["vcil_bench.losses"]
        assert changed_since(icarl) == ["vcil_bench.losses"]
        monkeypatch.setitem(identity._SAME, ("vcil_bench.losses", before), now)
        assert changed_since(icarl) == []
        change(harness / "losses.py", "dim=-1", "dim=-2")
        assert changed_since(icarl) == ["vcil_bench.losses"]

    def test_it_holds_for_that_module_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(identity._SAME, ("vcil_bench.losses", "a"), "b")
        for part in ("vcil_bench.memory", "config"):
            assert identity.differences({part: "a"}, {part: "b"}) == [part]
        assert identity.differences({"vcil_bench.losses": "a"}, {"vcil_bench.losses": "b"}) == []
        assert identity.differences({"vcil_bench.losses": "a"}, {}) == ["vcil_bench.losses"]

    def test_each_entry_is_of_a_module_that_counts_and_says_what_shows_it(self) -> None:
        known = identity.same_numbers()
        assert len({entry.module for entry in known}) == len(known), "add to the versions of the module's entry"
        for entry in known:
            assert entry.module in NUMERIC_MODULES or entry.module.startswith(f"{identity.METHODS}.")
            assert len(set(entry.versions)) == len(entry.versions) >= 2
            assert all(re.fullmatch(r"[0-9a-f]{16}", version) for version in entry.versions)
            assert entry.why
            assert entry.shown

    def test_a_list_whose_last_version_is_not_todays_is_dropped_or_gone_on_with(self) -> None:
        for entry in identity.same_numbers():
            path = identity._file(entry.module)
            assert path is not None
            assert entry.versions[-1] == source_digest(path.read_text(encoding="utf-8")), entry.module


def own(cls: Any) -> str:
    """Return the small network of a method's own kind."""
    return "clip_tiny" if cls.backbone_for("synthetic_3x4")[0].startswith("clip_") else "tsm_tiny"


def reference_records() -> list[Any]:
    folder = Path(vcil_bench.__file__).parents[1] / "results" / records.REFERENCE
    shipped, errors = records.load_all(folder)
    assert errors == []
    return shipped


def test_the_records_that_came_along_are_whole() -> None:
    shipped = reference_records()
    assert [record.path for record in shipped if not record.complete] == []
    assert [record.path for record in shipped if not records.has_predictions(record)] == []


@pytest.mark.parametrize("protocol", ["synthetic_3x4", "synthetic_6x4"])
def test_every_method_has_records_of_all_orders_and_the_bounds_on_both_networks(protocol: str) -> None:
    runs = Counter(
        (record.data["method"]["name"], record.data["weights"]["name"])
        for record in reference_records()
        if record.data["protocol"]["label"] == protocol and record.complete
        # A method as it is, or a bound on the other network with the recipe of that network's methods.
        if record.data["variant"] == "default" or record.chosen_backbone
    )
    methods = {name: entry.cls for name, entry in registry.find_all().items() if entry.origin == "built-in"}
    wanted = {name: 3 for name in methods}
    assert {name: count for (name, network), count in runs.items() if network == own(methods[name])} == wanted
    for bound in ("joint", "finetune", "replay"):
        assert (runs[bound, "clip_tiny"], runs[bound, "tsm_tiny"]) == (3, 3)


@pytest.mark.slow  # a gate for a release, not for every change on the way
def test_the_records_that_came_along_are_those_of_today() -> None:
    """Whoever changes what their numbers depend on makes them anew."""
    stale = {part for record in reference_records() for part in changed_since(record)}
    assert sorted(stale) == []
