"""Journal of the facts of a dataset's files, so that an unchanged file is read once.

It is appended to as videos are read, so that a ``prepare`` that is killed keeps what it has. It
belongs to a root, not to a split: the official splits of a dataset share their files.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

import av

from vcil_bench.common.files import StorageError
from vcil_bench.data.video.facts import Facts

SCHEMA = 2
DECODER = f"av {av.__version__}"  # another version may count other frames


def unchanged(old: Facts, state: os.stat_result) -> bool:
    """Tell whether a file is the one that was read.

    Of a folder only its own time is looked at, which changes with every frame that comes or goes: a look at
    every frame would cost millions of ``stat`` calls.
    """
    same_size = stat.S_ISDIR(state.st_mode) or old.bytes == state.st_size
    return same_size and old.mtime_ns == state.st_mtime_ns


class Journal:
    """The facts of a root's files, one JSON line each, the newest last.

    A journal of another schema or decoder is started anew; a line that was cut off when the process was killed
    only means that its file is read again.

    Attributes:
        known: Facts by path relative to the root.
    """

    def __init__(self, path: Path) -> None:
        self.known: dict[str, Facts] = {}
        self._path = path
        self._header = json.dumps({"schema": SCHEMA, "decoder": DECODER}).encode()
        self._mode = "wb"
        self._torn = False
        self._file: IO[bytes] | None = None
        if path.is_file():
            with path.open("rb") as file:
                if next(file, b"").rstrip(b"\n") == self._header:
                    self._mode = "ab"
                    self.known.update(self._entries(file))

    def _entries(self, file: IO[bytes]) -> Iterator[tuple[str, Facts]]:
        for line in file:
            self._torn = not line.endswith(b"\n")
            try:
                path, values = json.loads(line)
                facts = Facts(*values)
            except (ValueError, TypeError):
                continue
            yield path, facts

    def add(self, path: str, facts: Facts) -> None:
        """Append the facts of a file, so that they outlive this process.

        Raises:
            StorageError: The journal cannot be written.
        """
        self.known[path] = facts
        values = [getattr(facts, name) for name in Facts.__slots__]
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open(self._mode)
                if self._mode == "wb":
                    self._file.write(self._header + b"\n")
                elif self._torn:
                    self._file.write(b"\n")
            self._file.write(json.dumps([path, values], ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(f"{self._path}: cannot be written ({error.strerror or error})")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:  # a line that did not fit before does not fit now
                raise self._unwritable(error) from error
