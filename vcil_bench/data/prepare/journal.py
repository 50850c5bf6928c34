"""Facts of one video, read from its file or its folder of frames, and the journal that keeps them.

The journal is appended to as videos are read, so that a ``prepare`` that is killed keeps what it has. It
belongs to a root, not to a split: the official splits of a dataset share their files.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import IO, Self

import av

from vcil_bench.common.files import StorageError
from vcil_bench.data.video import VideoError, content_sha256, probe

SCHEMA = 2
DECODER = f"av {av.__version__}"  # another version may count other frames


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found at a path.

    Attributes:
        frames: Frames that a forward decode yields; 0 where there are none.
        claimed: Frames that the container's header claims, or None.
        width: Width of the upright picture in pixels, 0 where nothing decodes.
        height: Its height.
        fps: Average frame rate, or None where it is not known.
        codec: FFmpeg's name of the codec, "" where nothing decodes.
        bytes: Size of the file, or of all that a folder of frames holds.
        mtime_ns: Modification time of the file or folder, to tell an unchanged one.
        sha256: Hash of the content; "" where it is missing or cannot be decoded at all.
        problem: Why the video is left out, or None.
    """

    frames: int = 0
    claimed: int | None = None
    width: int = 0
    height: int = 0
    fps: float | None = None
    codec: str = ""
    bytes: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    problem: str | None = None


def read_facts(path: str) -> Facts:
    """Decode a video in full and hash it; whatever is wrong with it is told in ``problem``.

    Args:
        path: A video file, or a folder of frames.
    """
    place = Path(path)
    frames, size, mtime, sha, problem = 0, 0, 0, "", None
    claimed, width, height, fps, codec = None, 0, 0, None, ""
    try:
        state = place.stat()
        is_folder = stat.S_ISDIR(state.st_mode)
        size, mtime = (0 if is_folder else state.st_size), state.st_mtime_ns
        found = probe(place)
        frames, claimed, problem = found.frames, found.claimed, found.problem
        width, height, fps, codec = found.width, found.height, found.fps, found.codec
        sha = content_sha256(place)
        if is_folder:
            size = sum(file.stat().st_size for file in place.iterdir())
    except FileNotFoundError:
        problem = "missing"
    except VideoError as error:
        problem = str(error)
    except OSError as error:
        problem = str(error.strerror)
    return Facts(frames, claimed, width, height, fps, intern(codec), size, mtime, sha, problem)


def unread(path: str, problem: str) -> Facts:
    """Return what is known of a video whose decoder was killed."""
    state = Path(path).stat()
    size = 0 if stat.S_ISDIR(state.st_mode) else state.st_size
    return Facts(bytes=size, mtime_ns=state.st_mtime_ns, problem=problem)


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
