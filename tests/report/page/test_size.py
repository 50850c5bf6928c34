"""Size of the page: 720 runs stay below twelve megabytes, the reference records below two."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed_page import content
from predicted_records import write_run

from vcil_bench import protocol as protocols
from vcil_bench.record import Record, load_all
from vcil_bench.report import page, papers, table_text
from vcil_bench.report.table_file import built_in
from vcil_bench.report.tables import groups

PROTOCOLS = (
    *("tcd_ucf101_10x5", "tcd_ucf101_5x10", "tcd_ucf101_2x25", "tcd_hmdb51_5x5", "tcd_hmdb51_1x25"),
    *("tcd_ssv2_10x9", "tcd_ssv2_5x18", "vclimb_ucf101_10", "vclimb_ucf101_20", "kinetics400_40x10_seeded"),
    *("synthetic_3x4", "synthetic_6x4"),
)
EPOCHS = 50
ROOT = Path(__file__).parents[3]


def fill(data: Any, rng: np.random.Generator) -> None:
    """Give a record what long runs have: settings, libraries, costs and losses of many epochs."""
    data["config"] = {f"setting_{i}": {"value": i / 7, "origin": "default"} for i in range(30)}
    libraries = {f"library_{i}": f"1.{i}.0+some.build" for i in range(20)}
    data["environment"] |= libraries
    data["sessions"] = [{"started": "2025-01-01T00:00:00Z", "environment": data["environment"]}] * 2
    for step in data["steps"]:
        for key in ("train_s", "eval_s", "data_wait_s"):
            step["costs"][key] = float(rng.random()) * 1000
        step["costs"]["memory"] |= {"videos": step["classes_seen"], "bytes": 6_021_120 * step["classes_seen"]}
        losses = rng.random((EPOCHS, 2)).tolist()
        phase = f"task {step['step'] + 1}"
        step["losses"] = [{"phase": phase, "epoch": e + 1, "ce": a, "kd": b} for e, (a, b) in enumerate(losses)]


@pytest.mark.slow
def test_seven_hundred_runs_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)  # of 1440 files takes minutes on a busy disk
    rng = np.random.default_rng(0)
    records = []
    for name in PROTOCOLS:
        loaded = protocols.load(name)
        spec = json.loads(json.dumps(loaded.expanded()))
        del spec["classes"]["orders"]
        section = {"name": name, "label": name, "fingerprint": loaded.fingerprint, "spec": spec}
        kind = "synthetic" if name.startswith("synthetic") else "real"
        for method in range(20):
            for seed in (1, 2, 3):
                path = write_run(
                    tmp_path,
                    f"method_{method:02}",
                    seed,
                    skill=0.2 + 0.035 * method,
                    sizes=loaded.spec.tasks.sizes,
                    per_class=10,
                    protocol=section,
                    data={"kind": kind},
                )
                data = json.loads(path.read_text(encoding="utf-8"))
                fill(data, rng)
                records.append(Record(path, data))
    html = page.build(records, [], groups(records), [], reported=built_in())
    assert len(html.encode()) < 12_000_000
    stored = content(html)
    kinds = Counter(run["outcomes"]["cnn"]["kind"] if run["outcomes"] else "none" for run in stored["runs"])
    assert kinds.total() == 720
    assert all(kinds[kind] > 50 for kind in ("predictions", "classes", "none"))
    for group in stored["groups"]:
        assert len(group["pairs"][group["metrics"][0]]) == 190
    assert sum(bool(group["published"]) for group in stored["groups"]) > 5


@pytest.mark.slow
def test_the_page_of_the_reference_records_is_below_two_megabytes() -> None:
    records, errors = load_all(ROOT / "results/reference")
    assert not errors
    assert len(records) >= 210
    tables = [page.PaperTable(**table_text.as_plain(table)) for table in papers.tables(records)]
    html = page.build(records, [], groups(records), tables, reported=built_in())
    assert len(html.encode()) < 2_000_000
