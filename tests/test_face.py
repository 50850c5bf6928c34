"""``import vcil_bench`` reads results and protocols without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made_up_records import record_data

import vcil_bench
from vcil_bench import record

ROOT = Path(__file__).parents[1]


def test_records_of_a_folder_give_their_metrics() -> None:
    records = vcil_bench.load_records(ROOT / "results/reference")
    wanted = ("synthetic_3x4/stpr/default", 1000)
    (stpr,) = (r for r in records if (r.data["run_id"].rpartition("-s")[0], r.data["seed"]) == wanted)
    assert stpr.complete
    correct = [sum(step["correct"]["text"]) for step in stpr.data["steps"]]
    seen = [sum(stpr.data["test_videos"][: i + 1]) for i in range(len(correct))]
    by_hand = sum(c / n for c, n in zip(correct, seen, strict=True)) / len(correct)
    assert stpr.metric("average_incremental_accuracy", "text") == pytest.approx(by_hand, rel=1e-12)


def test_a_damaged_record_is_named_and_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "made_up/alpha"
    folder.mkdir(parents=True)
    record.save(folder / "default-s1.json", record_data())
    (folder / "default-s2.json").write_text("{", encoding="utf-8")
    with pytest.warns(UserWarning, match="default-s2.json: corrupt record"):
        records = vcil_bench.load_records(tmp_path)
    assert [r.path.name for r in records] == ["default-s1.json"]


def test_a_protocol_gives_its_tasks() -> None:
    loaded = vcil_bench.load_protocol("tcd_ucf101_10x5")
    assert [len(task) for task in loaded.tasks(1000)] == [51, 10, 10, 10, 10, 10]


def test_neither_imports_torch() -> None:
    code = (
        "import sys, vcil_bench\n"
        "assert 'numpy' not in sys.modules\n"
        "vcil_bench.load_protocol('synthetic_3x4')\n"
        "assert vcil_bench.load_records('results')[0].complete\n"
        "import vcil_bench.report.tables, vcil_bench.report.papers  # which a run imports before it begins\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("module", ["tables", "papers"])
def test_the_table_of_a_run_needs_no_pandas(module: str) -> None:
    code = f"import sys, vcil_bench.report.{module}\nassert 'pandas' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
