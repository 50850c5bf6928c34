"""Figures that are kept: one whose rows, records and drawing code did not change is not drawn again.

Drawing is most of a report's time. Beside the report lies a file that says of each figure what it was made of
and what its files hash to; one that was changed or is gone is drawn anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

import vcil_bench
from vcil_bench.common import cpu_cores
from vcil_bench.common.files import code_sha256, file_sha256, write_atomically
from vcil_bench.data.prepare.process_pool import in_processes
from vcil_bench.record import Record, has_predictions

from .style import SUFFIXES, save
from .tables import Row

NAME = ".figures.json"
WORTH_A_PROCESS = 20  # figures that take longer than a process takes to start
LIMIT_S = 600.0  # for a figure


Make = Callable[[], Figure | None]


@dataclass
class Asked:
    """A figure that was asked for.

    Attributes:
        name: Its place below the report's folder, without extension.
        stem: Its path without extension.
        source: A hash of all that it is made of.
        make: Draws it; to be pickled where processes draw.
        suffixes: Of its files.
        files: Its files; none where there was nothing to draw, or before ``Kept.draw``.
        done: Whether that has been found out.
    """

    name: str
    stem: Path
    source: str
    make: Make
    suffixes: Sequence[str]
    files: list[Path] = field(default_factory=list)
    done: bool = False


class Kept:
    """The figures below a report's folder."""

    def __init__(self, out: Path) -> None:
        """Read what is known of the last report's; nothing, where its list is missing or no JSON."""
        self._out = out
        self._now: dict[str, dict[str, Any]] = {}
        self._asked: list[Asked] = []
        self._contents: dict[Path, str] = {}
        try:
            before = json.loads((out / NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        self._before = before if isinstance(before, dict) else {}

    def ask(
        self, stem: Path, title: str, rows: Sequence[Row], make: Make, suffixes: Sequence[str] = SUFFIXES
    ) -> Asked:
        """Ask for a figure; it is there already if its files are as they would be drawn.

        Args:
            stem: Path without extension, below the report's folder.
            title: Its heading.
            rows: The rows it shows.
            make: Draws it; returns None where there is nothing to draw.
            suffixes: Of the files that are wanted.
        """
        name = stem.relative_to(self._out).as_posix()
        asked = Asked(name, stem, self._source(title, rows), make, suffixes)
        files = [stem.with_name(stem.name + suffix) for suffix in suffixes]
        if all(file.is_file() for file in files):
            state = {"source": asked.source, "files": [file_sha256(file) for file in files]}
            if self._before.get(asked.name) == state:
                self._now[asked.name] = state
                asked.files, asked.done = files, True
        self._asked.append(asked)
        return asked

    def draw(self, moved: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Draw what was asked for and is not there yet, much of it in processes, one per core.

        Args:
            moved: Told how many of how many are drawn.
        """
        todo = [asked for asked in self._asked if not asked.done]
        workers = min(cpu_cores.allowed(), len(todo) // WORTH_A_PROCESS)
        if workers > 1:
            jobs = in_processes(
                [(number, asked.make, asked.stem, asked.suffixes) for number, asked in enumerate(todo)],
                _draw_job,
                workers=workers,
                limit_s=LIMIT_S,
            )
            results = ((number, future.result()) for (number, *_), future in jobs)
        else:
            results = (
                (number, _draw(asked.make, asked.stem, asked.suffixes)) for number, asked in enumerate(todo)
            )
        for done, (number, drawn) in enumerate(results, start=1):
            asked = todo[number]
            asked.done = True
            if drawn:
                asked.files = [file for file, _ in drawn]
                self._now[asked.name] = {"source": asked.source, "files": [digest for _, digest in drawn]}
            moved(done, len(todo))

    def write(self, *, forget: bool = True) -> None:
        """Write the list for the next report.

        Args:
            forget: Whether to drop what was not asked for.
        """
        names = {asked.name for asked in self._asked}
        others = {} if forget else {name: state for name, state in self._before.items() if name not in names}
        write_atomically(self._out / NAME, json.dumps(others | self._now, indent=1, sort_keys=True).encode())

    def _source(self, title: str, rows: Sequence[Row]) -> str:
        """Return a hash of all that a figure is made of."""
        shown = [
            [
                row.method_and_origin,
                row.variant,
                row.backbone,
                row.readout,
                [self._content(record) for record in row.complete],
            ]
            for row in rows
        ]
        return hashlib.sha256(json.dumps([_code(), title, shown]).encode()).hexdigest()

    def _content(self, record: Record) -> str:
        """Return the hash of a record, which several figures show."""
        if record.path not in self._contents:
            self._contents[record.path] = _content_hash(record)
        return self._contents[record.path]


def _draw_job(job: tuple[int, Make, Path, Sequence[str]]) -> list[tuple[Path, str]]:
    _, make, stem, suffixes = job
    return _draw(make, stem, suffixes)


def _draw(make: Make, stem: Path, suffixes: Sequence[str]) -> list[tuple[Path, str]]:
    """Draw a figure and return its files with their hashes; none where there is nothing to draw."""
    figure = make()
    return [(file, file_sha256(file)) for file in save(figure, stem, suffixes)] if figure is not None else []


def _content_hash(record: Record) -> str:
    """Return a hash of what a record says; predictions count by their hash, and by whether they are there."""
    text = json.dumps([record.data, has_predictions(record)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _code() -> str:
    """Return a hash of what draws: this version's sources, and matplotlib's version."""
    package = Path(vcil_bench.__file__).parent
    files = [
        file
        for folder in (package, package / "report", package / "protocol")
        for file in sorted(folder.iterdir())
        if file.name.endswith((".py", "style.yaml", "labels.yaml"))
    ]
    return code_sha256(files, vcil_bench.__version__, mpl.__version__)
