"""Evidence that was altered: each record is left out and named, and the others' report stays as it was."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_records import record_data
from tiny_dataset import Tiny

from vcil_bench import record as records
from vcil_bench.cli import main
from vcil_bench.record import Record, RecordError
from vcil_bench.report import build, page, papers, table_text, tables

REAL = Path(__file__).parents[1] / "results/reference/synthetic_3x4/icarl/default-s1000.json"
Path_ = tuple[str | int, ...]

NUMBERS = [math.nan, math.inf, 10**17, -(10**400)]
WRONG: dict[str, list[Any]] = {
    "text": [None, 7, True, ["a"], {"a": 1}],
    "optional text": [7, False, ["a"]],
    "whole": [None, "7", True, 1.5, [1], *NUMBERS],
    "count": [None, "7", True, 1.5, [1], -1, *NUMBERS],
    "seed": [None, "7", True, 1.5, -1, 2**32, *NUMBERS],
    "amount": ["7", [1], -1.5, *NUMBERS],
    "mapping": [None, 7, "text", [1]],
    "list": [None, 7, "text", {"a": 1}],
    "free": [*NUMBERS, "\ud800"],
}
FIELDS: dict[Path_, str] = {
    **dict.fromkeys([("schema",), ("protocol", "version")], "whole"),
    **{(key,): "text" for key in ("run_id", "status", "started", "variant")},
    **{(key,): "optional text" for key in ("reason", "finished")},
    **dict.fromkeys([("seed",), ("run_seed",), ("protocol", "seeds", 0)], "seed"),
    **{(key,): "list" for key in ("class_order", "class_names", "classes_per_task", "test_videos", "steps")},
    **{
        (key,): "mapping"
        for key in ("protocol", "method", "data", "weights", "config", "options", "environment")
    },
    ("sessions",): "list",
    ("sessions", 0): "mapping",
    ("sessions", 0, "environment"): "mapping",
    **{("protocol", key): "text" for key in ("name", "label", "title", "fingerprint", "origin")},
    **{("protocol", key): "mapping" for key in ("overrides", "dataset", "metrics", "spec")},
    **dict.fromkeys([("protocol", "dataset", "name"), ("protocol", "metrics", "headline")], "text"),
    **dict.fromkeys([("protocol", "seeds"), ("protocol", "metrics", "also")], "list"),
    **{("method", key): "text" for key in ("name", "paper", "data_access", "origin", "file")},
    ("method", "readouts"): "list",
    ("method", "readouts", 0): "text",
    ("identity",): "mapping",
    ("identity", "protocol"): "text",
    **{("data", key): "text" for key in ("kind", "dataset", "manifest_sha256")},
    **{("data", key): "list" for key in ("left_out", "verified")},
    **{("data", "verified", 0, key): "text" for key in ("level", "check", "text")},
    **{("weights", key): "text" for key in ("name", "source", "sha256", "pretraining")},
    **{(key, "lr", "origin"): "text" for key in ("config",)},
    ("config", "lr"): "mapping",
    ("config", "lr", "value"): "free",
    ("environment", "torch"): "text",
    ("class_order", 0): "count",
    ("class_names", 0): "text",
    ("classes_per_task", 0): "count",
    ("test_videos", 0): "count",
    ("steps", 0): "mapping",
    ("steps", 1, "step"): "count",
    ("steps", 1, "classes_seen"): "count",
    ("steps", 1, "correct"): "mapping",
    ("steps", 1, "correct", "cnn"): "list",
    ("steps", 1, "correct", "cnn", 0): "count",
    ("steps", 1, "costs"): "mapping",
    **{("steps", 1, "costs", key): "amount" for key in ("train_s", "eval_s", "data_wait_s")},
    **{("steps", 1, "costs", key): "count" for key in ("parameters", "trainable", "state_bytes")},
    **{("steps", 1, "costs", "memory", key): "count" for key in ("videos", "frames", "bytes")},
    ("steps", 1, "losses"): "list",
    ("steps", 1, "losses", 0): "mapping",
    ("predictions", "sha256"): "text",
}
# What is of the right type and contradicts the rest.
CONTRADICTING: dict[str, tuple[Path_, Any]] = {
    "a count above its total": (("steps", 1, "correct", "cnn"), [10**6, 0]),
    "a count too few": (("steps", 1, "correct", "cnn"), [1]),
    "a readout without counts": (("method", "readouts"), ["cnn", "other"]),
    "a readout twice": (("method", "readouts"), ["cnn", "cnn"]),
    "no readout": (("method", "readouts"), []),
    "a readout that leaves its folder": (("method", "readouts"), ["../../x"]),
    "no seeds": (("protocol", "seeds"), []),
    "an unknown metric": (("protocol", "metrics", "also"), ["fame"]),
    "a class too few": (("class_order",), [0, 1]),
    "a name too few": (("class_names",), ["a"]),
    "tasks that do not add up": (("classes_per_task", 0), 11),
    "no steps in a complete record": (("steps",), []),
    "steps that are texts": (("steps",), ["a", "b", "c", "d", "e"]),
    "another step": (("steps", 1, "step"), 3),
    "other classes": (("steps", 1, "classes_seen"), 3),
    "an unknown status": (("status",), "done"),
    "an unknown kind of data": (("data", "kind"), "imagined"),
    "sessions that are numbers": (("sessions",), [1]),
    "losses that are texts": (("steps", 1, "losses"), "text"),
    "losses that are lists": (("steps", 1, "losses"), [[1]]),
    "a loss that is a list": (("steps", 1, "losses", 0, "distillation"), [1]),
    "a budget that is a text": (("protocol", "spec", "memory"), "all"),
    "nested too deeply": (("environment", "torch"), json.loads("[" * 200 + "]" * 200)),
    "another place": (("variant",), "default"),
}
RAW: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "half": lambda text: text[: len(text) // 2],
    "the last byte gone": lambda text: text.rstrip()[:-1],
    "a byte flipped": lambda text: text[:99] + bytes([text[99] ^ 0x80]) + text[100:],
    "a bracket flipped": lambda text: b"[" + text[1:],
    "zeros": lambda text: bytes(len(text)),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "a list of records": lambda text: b"[" + text + b"]",
    "a key twice": lambda text: text.replace(b'"status"', b'"status": "failed", "status"', 1),
    "a count twice": lambda text: text.replace(b'"cnn": [', b'"cnn": [0], "cnn": [', 1),
    "5000 digits": lambda text: re.sub(rb'"train_s": [\d.]+', b'"train_s": ' + b"7" * 5000, text, count=1),
    "400 digits": lambda text: re.sub(rb'"trainable": \d+', b'"trainable": ' + b"7" * 400, text, count=1),
    "1e999": lambda text: re.sub(rb'"train_s": [\d.]+', b'"train_s": 1e999', text, count=1),
    "nested 10,000 deep": lambda text: text.replace(b'"reason": null', b'"reason": ' + b"[" * 10_000, 1),
    "nested and closed": lambda text: text.replace(
        b'"overrides": {}', b'"overrides": {"a": ' + b"[" * 900 + b"]" * 900 + b"}", 1
    ),
}


def _with(data: Any, path: Path_, value: Any) -> Any:
    """Return a record with one value changed."""
    changed = copy.deepcopy(data)
    tree = changed
    for key in path[:-1]:
        tree = tree[key]
    assert path[-1] in tree if isinstance(tree, dict) else len(tree)
    tree[path[-1]] = value
    return changed


def _short() -> Any:
    """Return a run's record with few of its losses, findings and settings, to be altered many times."""
    data = json.loads(REAL.read_text(encoding="utf-8"))
    for step in data["steps"]:
        del step["losses"][1:]
    del data["data"]["verified"][1:]
    data["config"] = {"lr": data["config"]["lr"]}
    data["options"] = {key: data["options"][key] for key in ("backbone", "precision")}
    return data


# Every run writes these; one that lacks any is no record of a run.
NEEDED: list[Path_] = [
    ("environment", "torch"),
    ("environment", "command"),
    ("options", "precision"),
    ("options", "backbone"),
    ("protocol", "spec"),
    ("data", "root"),
    ("steps", 1, "costs", "train_s"),
    ("steps", 1, "costs", "memory"),
]


@pytest.mark.parametrize("path", NEEDED, ids=lambda path: ".".join(map(str, path)))
def test_a_record_that_lacks_what_every_run_writes_is_refused(path: Path_, tmp_path: Path) -> None:
    whole = _short()
    tree = whole
    for key in path[:-1]:
        tree = tree[key]
    del tree[path[-1]]
    (tmp_path / "r.json").write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(RecordError, match=f"inconsistent record .*{path[-1]}"):
        records.load(tmp_path / "r.json")


def _altered() -> Iterator[tuple[str, bytes]]:
    """Yield every alteration by name, each of a record of its own variant."""
    whole, number = _short(), 0
    for path, value in (
        *((path, value) for path, kind in FIELDS.items() for value in WRONG[kind]),
        *CONTRADICTING.values(),
    ):
        number += 1
        # Numbers of 400 digits and NaN are what Python's own JSON writes and reads.
        yield (
            f"altered{number}",
            json.dumps(_with(whole | {"variant": f"altered{number}"}, path, value)).encode(),
        )
    for change in RAW.values():
        number += 1
        before = json.dumps(whole | {"variant": f"altered{number}"}).encode()
        yield f"altered{number}", change(before)


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("status", ["partial", pytest.param("complete", marks=pytest.mark.slow)])  # with figures
def test_every_altered_record_is_left_out_and_named_and_the_report_of_the_others_unchanged(
    status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    sound = records.record_path(results, "made_up", "alpha", "default", 1)
    records.save(sound, record_data(status=status))
    arguments = ["report", "--results", str(results), "--out", str(out)]
    assert main(arguments) == 0
    before = _tree(out)
    capsys.readouterr()

    bad = {}
    for variant, content in _altered():
        path = records.record_path(results, "synthetic_3x4", "icarl", variant, 1000)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        bad[path] = content
    assert len(bad) >= 75
    assert main(arguments) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == len(bad)
    assert [path for path in bad if not any(f"{path}:" in line for line in said)] == []
    after = _tree(out)
    assert after.keys() == before.keys()
    # Beside the pages, only what a report notes of the files it has read.
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"index.html", "index.md", ".records.json"}
    # The page says it in its menu, its counts and a section, and nothing else differs.
    notice = (
        rb' *(<section id="unreadable".*?</section>|<a href="#unreadable".*?</a>|<li>[^\n]*unreadable</li>)\n'
    )
    assert re.sub(notice, b"", after["index.html"], flags=re.DOTALL) == before["index.html"]
    assert after["index.md"].partition(b"\n# Left out\n")[0] == before["index.md"]
    assert main(["list", "methods", "--results", str(results)]) == 0


def _places(tree: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the place of every value, of lists that of the first entry."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from _places(value, (*path, key))


@pytest.mark.parametrize(
    "values", [(None, ["a"]), pytest.param((7, True, "text", {"a": 1}), marks=pytest.mark.slow)], ids=len
)
def test_whatever_a_value_becomes_a_record_is_refused_or_can_be_drawn(
    values: tuple[Any, ...], tmp_path: Path
) -> None:
    whole = _short()
    assert set(FIELDS) <= set(_places(whole)) | {
        ("steps", 1, *path[2:]) for path in FIELDS if path[0] == "steps"
    }
    path, drawn = tmp_path / "r.json", []
    for place in _places(whole):
        for value in values:
            path.write_text(json.dumps(_with(whole, place, value)), encoding="utf-8")
            try:
                found = records.load(path)
            except RecordError:
                continue
            drawn.append(Record(tmp_path / f"{len(drawn)}.json", found.data))
    grouped = tables.groups(drawn)
    made = papers.tables(drawn)
    assert page.build(drawn, [], grouped, [page.PaperTable(**table_text.as_plain(table)) for table in made])
    for group in grouped:
        assert tables.markdown(group)
        assert len(tables.frame(group))


def test_a_record_that_cannot_be_drawn_is_named_and_the_others_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for method in ("alpha", "beta"):
        paths.append(records.record_path(tmp_path / "results", "made_up", method, "default", 1))
        records.save(paths[-1], record_data(method=method, status="partial"))
    whole = page.build

    def fails(found: Any, *rest: Any, **named: Any) -> str:
        if any(r.data["method"]["name"] == "beta" for r in found):
            raise ZeroDivisionError("of beta")
        return whole(found, *rest, **named)

    monkeypatch.setattr(page, "build", fails)
    written = build.write(tmp_path / "results", tmp_path / "out")
    assert written.records == 1
    (error,) = written.errors
    assert isinstance(error, build.DrawingError)
    assert error.path == paths[1]
    assert "ZeroDivisionError: of beta" in str(error)
    assert paths[1].relative_to(tmp_path).as_posix() in (tmp_path / "out/index.html").read_text(encoding="utf-8")


def test_what_is_no_record_s_fault_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("alpha", "beta"):
        path = records.record_path(tmp_path / "results", "made_up", method, "default", 1)
        records.save(path, record_data(method=method, status="partial"))

    whole = page.build

    def fails(found: Any, *rest: Any, **named: Any) -> str:
        if len(found) > 1:
            raise ZeroDivisionError
        return whole(found, *rest, **named)

    monkeypatch.setattr(page, "build", fails)
    with pytest.raises(ZeroDivisionError):
        build.write(tmp_path / "results", tmp_path / "out")


@pytest.fixture(scope="module")
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one complete record."""
    folder = tmp_path_factory.mktemp("finished")
    assert tiny.run("zero_shot", folder) == 0
    (path,) = folder.glob("*/*/*.json")
    return path


@pytest.mark.parametrize("name", ["5000 digits", "400 digits", "a key twice", "nested and closed", "half"])
def test_neither_run_nor_grid_ends_in_a_traceback(
    name: str, finished: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, results = finished.read_bytes(), finished.parents[2]
    try:
        finished.write_bytes(RAW[name](whole))
        assert tiny.run("zero_shot", results) == 2
        assert str(finished) in capsys.readouterr().err
        given = ["--data", f"folder={tiny.root}", "--results", results, "--seeds", "1", "--gpus", "none"]
        chosen = ["--set", "backbone=clip_tiny", "--skip-impossible"]
        tiny.main("grid", "zero_shot", tiny.protocol, *given, *chosen)
        assert str(finished) in "".join(capsys.readouterr().out.split())
    finally:
        finished.write_bytes(whole)


def test_a_record_whose_predictions_are_gone_is_finished_with_a_warning(
    finished: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    npz = records.predictions_path(finished)
    content = npz.read_bytes()
    try:
        npz.unlink()
        assert tiny.run("zero_shot", finished.parents[2]) == 0
        said = capsys.readouterr()
        assert str(npz) in said.out + said.err
    finally:
        npz.write_bytes(content)
