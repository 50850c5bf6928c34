"""The recipe in CONTRIBUTING.md works as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vcil_bench import record

ROOT = Path(__file__).parent.parent


def test_the_method_of_the_recipe_runs(tiny: Any, tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- recipe:.*?-->\n```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    path = tmp_path / "nearest_text.py"
    path.write_text(block[1], encoding="utf-8")
    assert tiny.run(path, tmp_path / "results") == 0
    (written,) = (tmp_path / "results").glob("*/nearest_text/*.json")
    assert record.load(written).data["method"]["file"] == str(path)


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
