"""Archives that are published in pieces: their pieces in order, read as one stream."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import FetchError

if TYPE_CHECKING:
    from typing_extensions import Buffer


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Return the pieces of an archive by the number that ends their names.

    Raises:
        FetchError: One is missing between the others, or there twice.
    """
    pieces = sorted(paths, key=lambda path: path.name)
    for number, path in enumerate(pieces):
        match = re.search(r"(\d+)$", path.name)
        assert match is not None  # by the pattern that chose them
        if int(match[1]) != number:
            lacking = path.name[: match.start()] + str(number).zfill(len(match[1]))
            what = "is not there" if int(match[1]) > number else f"is there twice: {path}"
            raise FetchError(f"{path.parent}: piece {lacking} {what}; download all pieces into one folder")
    return pieces


class Joined(io.RawIOBase):
    """The bytes of several files, one behind the other."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Open them one at a time, as they are read."""
        self._paths = iter(paths)
        self._file: io.BufferedReader | None = None

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a buffer with the next bytes; 0 at the end."""
        while True:
            if self._file is not None:
                count = self._file.readinto(buffer)
                if count:
                    return count
                self._file.close()
            path = next(self._paths, None)
            if path is None:
                self._file = None
                return 0
            self._file = path.open("rb")

    def close(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()
        super().close()
