"""What a report keeps for the next one: taken where nothing changed, made anew where anything did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predicted_records import write_run

from vcil_bench import record as records
from vcil_bench.record import RecordError, Sound, load_all
from vcil_bench.report import build
from vcil_bench.report.build import OUTCOMES, RECORDS, Wish
from vcil_bench.report.kept_parts import KeptParts


def test_a_value_is_made_once_and_forgotten_when_not_asked_for(tmp_path: Path) -> None:
    made: list[str] = []

    def making(name: str) -> Callable[[], Any]:
        return lambda: made.append(name) or {"name": name}

    file = tmp_path / "kept.json"
    for expected in (["a", "b"], ["a", "b"]):
        kept = KeptParts(file)
        assert [kept.get([name], making(name))["name"] for name in "aba"] == [*"aba"]
        assert made == expected
        kept.write(forget=True)
    kept = KeptParts(file)
    kept.get(["a"], making("a"))
    kept.write(forget=False)
    assert len(json.loads(file.read_text())) == 2
    kept.write(forget=True)
    assert len(json.loads(file.read_text())) == 1


@pytest.mark.parametrize("text", ["", "[", "[1]", "7"])
def test_a_file_that_is_none_of_ours_holds_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(text)
    assert KeptParts(tmp_path / "kept.json").get(["a"], lambda: 1) == 1


def test_a_record_is_checked_again_only_where_it_or_its_predictions_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_run(tmp_path, method, 1, skill=0.5) for method in ("alpha", "beta", "gamma")]
    checked: list[str] = []
    check = records.check_predictions
    monkeypatch.setattr(
        records, "check_predictions", lambda r: (checked.append(r.data["method"]["name"]), check(r))
    )
    first = Sound()
    before, _ = load_all(tmp_path, first)
    assert checked == ["alpha", "beta", "gamma"]
    again, errors = load_all(tmp_path, Sound(first.now))
    assert [r.data for r in again] == [r.data for r in before]
    assert (len(checked), errors) == (3, [])
    data = json.loads(paths[1].read_text())
    data["steps"][0]["costs"]["train_s"] += 1
    paths[1].write_text(json.dumps(data))
    paths[2].with_suffix(".npz").unlink()
    second = Sound(first.now)
    load_all(tmp_path, second)
    assert checked[3:] == ["beta"]  # gamma's are not there any more
    assert len(second.now) == 3


@pytest.mark.parametrize("what", ["count", "prediction", "key"])
def test_a_record_that_was_tampered_with_is_found_out(what: str, tmp_path: Path) -> None:
    path = write_run(tmp_path, "alpha", 1, skill=0.5)
    sound = Sound()
    load_all(tmp_path, sound)
    data = json.loads(path.read_text())
    if what == "count":
        data["steps"][0]["correct"]["cnn"][0] ^= 1
        path.write_text(json.dumps(data))
    elif what == "key":
        path.write_text(path.read_text().replace("{", '{"schema": 1, ', 1))
    else:
        arrays = dict(np.load(path.with_suffix(".npz")))
        arrays["top5/2/cnn"][0, 0] = (arrays["top5/2/cnn"][0, 0] + 1) % 6
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
    again = Sound(sound.now)
    read, errors = load_all(tmp_path, again)
    assert (read, len(errors)) == ([], 1)
    assert isinstance(errors[0], RecordError)
    assert again.now == set()


def test_the_second_report_is_the_first_byte_for_byte_and_reads_no_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("alpha", "beta"):
        for seed in (1, 2):
            write_run(tmp_path / "results", method, seed, skill=0.5)

    def files() -> dict[str, bytes]:
        out = tmp_path / "out"
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    wish = Wish(figures=False)
    build.write(tmp_path / "results", tmp_path / "out", wish)
    first = files()
    assert first[OUTCOMES] != b"{}"
    for module in (records, build.page.outcomes):
        monkeypatch.setattr(module, "read_predictions", lambda record: pytest.fail("read again"))
    build.write(tmp_path / "results", tmp_path / "out", wish)
    assert files() == first
    for name in (RECORDS, OUTCOMES):
        (tmp_path / "out" / name).unlink()
    monkeypatch.undo()
    build.write(tmp_path / "results", tmp_path / "out", wish)
    assert files() == first
