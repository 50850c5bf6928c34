"""Entries for same_numbers.yaml: prints the modules whose code differs from a commit's, with both hashes.

For a change that moves no number, not by its last bit. Runs made with either version are the evidence; without
them the records are made anew. ``python tools/same_numbers.py COMMIT``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from vcil_bench.identity import METHODS, NUMERIC_MODULES, source_digest

ROOT = Path(__file__).parents[1]


def changed(commit: str) -> list[dict[str, object]]:
    """Return an entry per numeric module, or built-in method, that is not as it was at a commit."""
    files = {name: _file(name) for name in sorted(NUMERIC_MODULES)}
    files |= {f"{METHODS}.{path.stem}": path for path in sorted((ROOT / "methods").glob("[!_]*.py"))}
    entries: list[dict[str, object]] = []
    for name, path in files.items():
        shown = subprocess.run(
            ["git", "show", f"{commit}:{path.relative_to(ROOT)}"], cwd=ROOT, capture_output=True, check=False
        )
        if shown.returncode:  # it is new since
            continue
        versions = [source_digest(shown.stdout.decode()), source_digest(path.read_text(encoding="utf-8"))]
        if versions[0] != versions[1]:
            entries.append({"module": name, "versions": versions, "why": "", "shown": ""})
    return entries


def _file(name: str) -> Path:
    place = ROOT.joinpath(*name.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


if __name__ == "__main__":
    sys.stdout.write(yaml.safe_dump(changed(sys.argv[1]), sort_keys=False, width=100))
