"""The interactive report: complete, inert whatever records say, and small."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up_pages import HOSTILE, fabricate, site
from made_up_records import record_data
from packed_page import PART, content, unpacked

from vcil_bench.common.config import parse_assignments
from vcil_bench.record import Record
from vcil_bench.report.page import PaperTable
from vcil_bench.report.page.command import command
from vcil_bench.report.page.document import SCRIPTS, _asset


def test_same_records_give_the_same_page() -> None:
    data = [record_data(seed=seed) for seed in (1, 2)] + [record_data(method="beta", status="failed")]
    assert site(*data) == site(*data)


def test_nothing_a_record_says_becomes_markup() -> None:
    data = record_data(method=HOSTILE, status="failed", reason=HOSTILE, class_names=[HOSTILE, "b", "c"])
    data["class_names"] = [HOSTILE, "b", "c"]
    table = PaperTable("t", HOSTILE, HOSTILE, [HOSTILE], [[{"ours": HOSTILE, "rest": HOSTILE}]], [["best"]])
    page = site(data, record_data(), errors=(HOSTILE,), tables=(table,))
    assert "<img" not in page.partition("// What the page shows")[0]
    assert page.count("</script>") == 3  # of packed parts too: nothing in them can end them
    assert "49" not in re.findall(r"<h3[^>]*>(.*?)</h3>", page)[0]
    stored = content(page)
    (run,) = [run for run in stored["runs"] if run["status"] == "failed"]
    assert run["reason"] == HOSTILE
    assert stored["pool"][run["method"]]["name"] == HOSTILE
    assert stored["pool"][run["class_names"]][0] == HOSTILE


def test_only_the_own_scripts_may_run_and_nothing_is_loaded() -> None:
    page = site(record_data())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert "default-src &#39;none&#39;" in policy
    assert policy.count("sha256-") == 2
    (library,) = [unpacked(match[3]) for match in PART.finditer(page) if match[2] == "plotting"]
    assert library.startswith(b"/**\n* plotly.js (basic - minified)")
    assert base64.b64encode(hashlib.sha256(library).digest()).decode() in html.unescape(policy)
    assert "unsafe-eval" not in policy
    assert "script-src &#39;unsafe-inline" not in policy
    own = PART.sub("", page)
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", own)
    assert not re.findall(r"<[a-z]+[^>]*\son[a-z]+=", own.partition("<script")[0])


def test_every_run_has_a_page_of_its_own() -> None:
    data = [record_data(seed=seed) for seed in (1, 2)]
    data += [
        record_data(seed=1),
        record_data(method="beta", status="partial", correct=[[3]]),
    ]  # a copy shares its id
    names = [run["id"] for run in content(site(*data))["runs"]]
    assert len(set(names)) == len(names) == 4
    assert {one["run_id"] for one in data} < set(names)


def test_a_run_holds_what_its_record_does() -> None:
    left_out = [{"id": "a/b.avi", "split": "test", "problem": "missing"}]
    data = record_data(data={"left_out": left_out}, method="alpha")
    data["steps"][0]["losses"] = [
        {"phase": "task 1", "epoch": 1, "ce": 0.123456},
        {"epoch": 2, "ce": 5e12},
    ]
    data["steps"][0]["costs"] |= {"train_s": 1.5, "memory": {"videos": 3, "frames": 9, "bytes": 27}}
    last = {"videos": 1, "frames": 2, "bytes": 6, "statistics_bytes": 8}
    data["steps"][1]["costs"] |= {"memory": last}  # type: ignore[typeddict-item]
    stored = content(site(data))
    (run,) = stored["runs"]
    assert stored["pool"][run["data"]]["left_out"] == left_out
    assert run["correct"] == {"cnn": [[4], [2, 1]]}
    assert run["losses"]["ce"] == [0.1235, 5e12]
    assert stored["groups"][0]["rows"][0]["memory"] == last | {"feature_frames": 0}
    kept = {"memory.videos": [3, 1], "memory.frames": [9, 2], "memory.bytes": [27, 6]}
    assert run["costs"].items() >= {"train_s": [1.5, 2.0], **kept}.items()
    assert run["values"]["cnn"] == {
        "average_incremental_accuracy": 75,
        "final_accuracy": 50,
        "backward_forgetting": 50,
        "final_task_mean": 50,
        "backward_forgetting_by_class": 50,
        "tcd_forgetting": 50,
        "max_forgetting": 50,
    }


def test_rows_are_means_of_finished_runs_and_say_what_is_missing() -> None:
    data = [record_data(seed=1), record_data(seed=2, correct=[[2], [2, 2]])]
    data += [record_data(seed=3, status="failed", reason="out of memory", correct=[[4]])]
    (group,) = content(site(*data))["groups"]
    (row,) = group["rows"]
    assert row["values"]["average_incremental_accuracy"] == pytest.approx([66.666667, 11.785113])
    assert (row["complete"], row["seeds"], row["incomplete"], len(row["runs"])) == (2, 3, True, 3)
    assert row["notes"] == ["2 of 3 seeds, 1 failed", "seed 3 failed: out of memory"]
    assert row["curve"]["seen"] == [2, 3]
    assert row["curve"]["accuracy"]["mean"] == [75, pytest.approx(58.333)]


def test_kinds_are_never_mixed() -> None:
    made = [
        record_data(method="a"),
        record_data(method="b", data={"kind": "synthetic"}),
        record_data(method="c", weights={"source": "random"}),
        record_data(method="d", protocol={"fingerprint": "e" * 64}),
    ]
    found = [(g["kind"], [row["method"] for row in g["rows"]]) for g in content(site(*made))["groups"]]
    assert sorted(found[:2]) == [("real", ["a"]), ("real", ["d"])]  # real data first
    assert found[2:] == [("random weights", ["c"]), ("synthetic", ["b"])]


def test_banner_where_all_data_are_synthetic() -> None:
    synthetic = record_data(data={"kind": "synthetic"})
    assert 'id="synthetic"' in site(synthetic)
    assert 'id="synthetic"' not in site(synthetic, record_data(method="beta"))
    assert 'id="synthetic"' not in site()


def test_paper_tables_and_unreadable_records_stand_on_the_page() -> None:
    table = PaperTable(
        "made",
        "A table",
        "A note.",
        ["Method", "5x2"],
        [
            [{"ours": "a | b", "rest": ""}, {"ours": "1.0", "rest": "3.0 (-2.0)"}],
            [{"ours": "b", "rest": ""}, {"ours": "2.0", "rest": ""}],
        ],
        [["best", "second"], ["", "best"]],
    )
    page = site(record_data(), errors=("results/a.json: corrupt",), tables=(table,))
    assert 'id="table-made"' in page
    assert (
        '<u>1.0</u> | <span class="rest">3.0 (-2.0)</span></td>' in page
    )  # what others published is not ours to mark
    assert "<b>2.0</b></td>" in page
    assert 'id="reported-tables"' not in page
    assert "<b>a | b</b></th>" in page  # a name is never taken apart
    assert "A note." in page
    assert "<li>results/a.json: corrupt</li>" in page


def test_columns_of_a_dataset_share_a_heading() -> None:
    cells = [{"ours": text, "rest": ""} for text in ("a", "none", "1.0", "2.0", "3.0")]
    headers, groups = ["method", "exemplars", "10x5", "5x10", "5x5"], ["", "", "UCF101", "UCF101", "HMDB51"]
    table = PaperTable("made", "A table", "", headers, [cells], [[""] * 5], groups=groups)
    page = site(record_data(), tables=(table,))
    (head,) = re.findall(r'id="table-made".*?<thead>(.*?)</thead>', page, re.DOTALL)
    lines = [re.findall(r"<th (.*?)>(.*?)</th>", line) for line in re.findall(r"<tr>(.*?)</tr>", head)]
    assert lines == [
        [
            *[('scope="col" rowspan="2"', name) for name in ("method", "exemplars")],
            ('scope="colgroup" colspan="2"', "UCF101"),
            ('scope="colgroup" colspan="1"', "HMDB51"),
        ],
        [('scope="col"', name) for name in ("10x5", "5x10", "5x5")],
    ]


def test_tables_of_reported_numbers_alone_are_folded_away() -> None:
    row = [{"ours": "a", "rest": ""}, {"ours": "", "rest": "3.0"}]
    table = PaperTable("made", "A table", "", ["Method", "5x2"], [row], [["", ""]], measured=False)
    page = site(record_data(), tables=(table,))
    folded = page[page.index('<details id="reported-tables">') :]
    assert 'id="table-made"' in folded
    assert "1 table)" in folded


@pytest.mark.parametrize(
    "value",
    [0.1, 1e-05, 3, True, None, "random", "", "null", "1e3", "a b'c", [1, 2.5], ["x", "y z"], {"k": 1e-7}],
)
def test_command_gives_the_settings_back(value: Any) -> None:
    data = record_data(
        protocol={"overrides": {"clip.frames": 4}},
        config={"lr": {"value": value, "origin": "command line"}, "b": {"value": 1, "origin": "recipe x"}},
        options={"precision": {"value": "bf16", "origin": "command line"}},
    )
    words = shlex.split(command(Record(Path("x.json"), data)))
    assert words[:6] == ["vcil-bench", "run", "/nowhere/alpha.py", "made_up", "--seed", "1"]
    assert words[6:8] == ["--data", "/nowhere"]
    assert words[8] == "--set"
    given = parse_assignments(words[9:])
    assert given == {"protocol.clip.frames": 4, "precision": "bf16", "lr": value}
    assert type(given["lr"]) is type(value)


def test_long_runs_keep_a_bounded_number_of_losses() -> None:
    data = record_data()
    for step in data["steps"]:
        step["losses"] = [{"phase": "s", "epoch": e, "a": 1.0, "b": 2.0} for e in range(1, 2001)]
    losses = content(site(data))["runs"][0]["losses"]
    assert losses["every"] == 17
    assert len(losses["a"]) + len(losses["b"]) <= 1000
    assert {
        step: max(e for s, e in zip(losses["step"], losses["epoch"], strict=True) if s == step)
        for step in (0, 1)
    } == {
        0: 2000,
        1: 2000,
    }


def test_half_a_surrogate_pair_can_be_written() -> None:
    site(record_data(status="failed", reason="\ud800"), errors=("\udcff",)).encode()


@pytest.mark.slow
def test_five_hundred_records_stay_small() -> None:
    large = site(*fabricate())
    assert len(content(large)["runs"]) == 504
    assert len(large.encode()) < 12_000_000


def test_scripts_share_a_scope_without_taking_each_others_names() -> None:
    names = [
        name
        for script in SCRIPTS
        for name in re.findall(
            r"^(?:async )?(?:function|const|let) (\w+)", _asset(f"page/{script}.js"), re.MULTILINE
        )
    ]
    assert len(names) > 100
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_page_imports_neither_torch_nor_a_method() -> None:
    code = "import sys, vcil_bench.report.page as s; print({'torch', 'vcil_bench.methods'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
