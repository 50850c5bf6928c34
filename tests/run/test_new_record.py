"""What a run writes into its record at the start, and that records made up for tests say nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_up_records import record_data

from vcil_bench import record


def test_a_made_up_record_has_the_sections_and_keys_of_a_run(tiny: Any, tmp_path: Path) -> None:
    assert tiny.run("zero_shot", tmp_path) == 0
    (path,) = tmp_path.glob("*/*/*-s1.json")
    real: dict[str, Any] = dict(record.load(path).data)
    made_up: dict[str, Any] = dict(record_data())
    assert made_up.keys() == real.keys()
    for section in ("protocol", "method", "data", "weights", "sessions", "steps"):
        ours, runs = made_up[section], real[section]
        keys = (ours.keys(), runs.keys()) if isinstance(ours, dict) else (ours[0].keys(), runs[0].keys())
        assert keys[0] <= keys[1], section
