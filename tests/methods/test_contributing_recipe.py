"""The recipe in CONTRIBUTING.md works as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from vcil_bench import record

ROOT = Path(__file__).parents[2]


BLOCKS = re.findall(
    r"<!-- recipe:.*?-->\n```python\n(.*?)```",
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


def test_there_are_two_recipes() -> None:
    assert len(BLOCKS) == 2


PAIRS = list(zip(BLOCKS, ("clip_tiny", "tsm_tiny"), strict=True))


@pytest.mark.parametrize(("block", "on"), PAIRS, ids=["text", "replay"])
def test_the_method_of_the_recipe_runs(block: str, on: str, tiny: Any, tmp_path: Path) -> None:
    (name,) = re.findall(r'^    name = "(\w+)"', block, re.MULTILINE)
    path = tmp_path / f"{name}.py"
    path.write_text(block, encoding="utf-8")
    quick = ["epochs=1", "epochs_first=1", "batch_size=4"] if "epochs" in block else []
    run = ["run", path, tiny.protocol, "--data", tiny.root, "--results", tmp_path / "results"]
    assert tiny.main(*run, "--seed", "1", "--device", "cpu", "--set", f"backbone={on}", *quick) == 0
    (written,) = (tmp_path / "results").glob(f"*/{name}/*.json")
    found = record.load(written).data
    assert found["method"]["file"] == str(path)
    kept = [step["costs"]["memory"]["videos"] for step in found["steps"]]
    assert kept == ([2, 3, 4] if name == "naive_replay" else [0, 0, 0])


def test_named_files_and_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"`?make ([a-z-]+)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page} names make {target}"
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / link).exists(), f"{page} links to {link}"
        for path in re.findall(r"`((?:vcil_bench|methods|protocols|tests|results|reports)/[\w./]+)`", text):
            assert (ROOT / path).exists() or path.endswith("nearest_text.py"), f"{page} names {path}"
