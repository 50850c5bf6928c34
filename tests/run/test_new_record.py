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
    assert _places(made_up) == _places(real)


# Where keys follow from what is run, or nothing is made up; of the protocol written out is made up what is read.
FREE = (
    *("config", "options", "protocol.overrides", "protocol.spec", "steps.correct", "steps.losses", "identity"),
    *("predictions", "data.verified"),
)


def _places(tree: Any, path: str = "") -> set[str]:
    """Return the place of every key, of lists that of their first entry's."""
    if path.removeprefix(".") in FREE:
        return {path}
    if isinstance(tree, list):
        return _places(tree[0], path) if tree else {path}
    entries = tree.items() if isinstance(tree, dict) else ()
    return {path}.union(*(_places(value, f"{path}.{key}") for key, value in entries))
