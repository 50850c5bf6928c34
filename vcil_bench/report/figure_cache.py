"""Figures that are kept: one whose rows, records and drawing code did not change is not drawn again.

Drawing is most of a report's time. Beside the report lies a file that says of each figure what it was made of
and what its files hash to; one that was changed or is gone is drawn anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from vcil_bench import __version__
from vcil_bench.common.files import file_sha256, write_atomically
from vcil_bench.record import Record, has_predictions

from .style import SUFFIXES, save
from .tables import Row

NAME = ".figures.json"


class Kept:
    """The figures below a report's folder."""

    def __init__(self, out: Path) -> None:
        """Read what is known of the last report's; nothing, where its list is missing or no JSON."""
        self._out = out
        self._now: dict[str, dict[str, Any]] = {}
        try:
            before = json.loads((out / NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        self._before = before if isinstance(before, dict) else {}

    def draw(self, stem: Path, title: str, rows: Sequence[Row], make: Callable[[], Figure | None]) -> list[Path]:
        """Return a figure's files, drawn only where they are not there as they would be drawn.

        Args:
            stem: Path without extension, below the report's folder.
            title: Its heading.
            rows: The rows it shows.
            make: Draws it; None where there is nothing to draw.

        Returns:
            The files; none where there is nothing to draw.
        """
        name, source = stem.relative_to(self._out).as_posix(), _source(title, rows)
        files = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
        if all(file.is_file() for file in files):
            state = {"source": source, "files": [file_sha256(file) for file in files]}
            if self._before.get(name) == state:
                self._now[name] = state
                return files
        figure = make()
        if figure is None:
            return []
        save(figure, stem)
        self._now[name] = {"source": source, "files": [file_sha256(file) for file in files]}
        return files

    def write(self) -> None:
        """Write the list for the next report."""
        write_atomically(self._out / NAME, json.dumps(self._now, indent=1, sort_keys=True).encode())


def _source(title: str, rows: Sequence[Row]) -> str:
    """Return a hash of all that a figure is made of."""
    shown = [
        [
            row.method_and_origin,
            row.variant,
            row.backbone,
            row.readout,
            [_content(record) for record in row.complete],
        ]
        for row in rows
    ]
    return hashlib.sha256(json.dumps([_code(), title, shown]).encode()).hexdigest()


def _content(record: Record) -> str:
    # Predictions count by their hash, which the record holds, and by whether they are there.
    text = json.dumps([record.data, has_predictions(record)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _code() -> str:
    """Return a hash of what draws: this version's sources, and matplotlib's version."""
    digest = hashlib.sha256(f"{__version__} {mpl.__version__}".encode())
    package = resources.files("vcil_bench")
    for folder in (package, package / "report", package / "protocol"):
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith((".py", "style.yaml")):
                digest.update(file.read_bytes())
    return digest.hexdigest()
