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

SCHEMA = 3
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
        hung_s: Seconds that a decoder was given, by the path of the file it hung on.
    """

    def __init__(self, path: Path) -> None:
        self.known: dict[str, Facts] = {}
        self.hung_s: dict[str, float] = {}
        self._path = path
        self._header = json.dumps({"schema": SCHEMA, "decoder": DECODER}).encode()
        self._mode = "wb"
        self._torn = False
        self._file: IO[bytes] | None = None
        if path.is_file():
            with path.open("rb") as file:
                if next(file, b"").rstrip(b"\n") == self._header:
                    self._mode = "ab"
                    for entry in self._entries(file):
                        self._keep(*entry)

    def _entries(self, file: IO[bytes]) -> Iterator[tuple[str, Facts, float | None]]:
        for line in file:
            self._torn = not line.endswith(b"\n")
            try:
                path, values, hung_s = json.loads(line)
                facts = Facts(*values)
            except (ValueError, TypeError):
                continue
            yield path, facts, hung_s

    def _keep(self, path: str, facts: Facts, hung_s: float | None) -> None:
        self.known[path] = facts
        self.hung_s.pop(path, None)
        if hung_s is not None:
            self.hung_s[path] = hung_s

    def add(self, path: str, facts: Facts, hung_s: float | None = None) -> None:
        """Append the facts of a file, so that they outlive this process.

        Args:
            path: Of the file, relative to the root.
            facts: What reading it gave.
            hung_s: Seconds that its decoder was given, where it hung.

        Raises:
            StorageError: The journal cannot be written.
        """
        self._keep(path, facts, hung_s)
        values = [getattr(facts, name) for name in Facts.__slots__]
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open(self._mode)
                if self._mode == "wb":
                    self._file.write(self._header + b"\n")
                elif self._torn:
                    self._file.write(b"\n")
            self._file.write(json.dumps([path, values, hung_s], ensure_ascii=False).encode() + b"\n")
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
