"""What is printed cannot steer the terminal it is printed on, wherever its text comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_up_records import record_data
from tiny_dataset import Tiny

from vcil_bench import record as records
from vcil_bench.common.terminal_text import shown

STEERING = "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J\r\x08\u202eturned\u2028\ud800"


def test_what_steers_a_terminal_is_written_out() -> None:
    said = shown(STEERING)
    assert said.encode()  # no half character is left
    assert all(one.isprintable() for one in said)
    assert json.loads(f'"{said}"') == STEERING
    assert "\\u001b[31mred" in said


@pytest.mark.parametrize("text", ["plain", "Vidéos 走路 🙂 ± ↑ –", "a\tb\nc", "", "\u00a0", "شير"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_nothing_that_records_or_arguments_say_reaches_a_terminal_raw(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paper = STEERING.removesuffix("\ud800")
    data = record_data(status="partial", method="own")
    data["method"] |= {"paper": paper, "file": f"/nowhere/{paper}.py"}  # type: ignore[typeddict-item]
    path = records.record_path(tmp_path, "made_up", "own", "default", 1)
    records.save(path, data)
    path.with_name(f"{paper[:20]}-s1.json").write_text("{", encoding="utf-8")
    assert tiny.main("list", "methods", "--results", tmp_path) == 0
    assert tiny.main("report", "--results", tmp_path, "--out", tmp_path / "out") == 1
    assert tiny.main("show", paper) == 2
    assert tiny.main(paper) == 2
    assert tiny.main("run", "zero_shot", tiny.protocol, "--set", f"weights={paper}") == 2
    said = capsys.readouterr()
    text = said.out + said.err
    assert "\\u001b[31mred" in text
    assert all(one.isprintable() or one in "\n\t\u00a0" for one in text)
