"""Frame store: reads and writes a video's frames as JPEGs in one file.

A clip takes 8 frames of a video of some hundred, but reaching them means decoding what lies before; training
visits a video 30 to 60 times. JPEGs are independent of each other, so a visit decodes 8 and no more.

Files are named by the SHA-256 of the video, hence shared by all protocols, splits and runs, and written to a
temporary name and renamed, so that any number of processes may fill one store. Every JPEG has its checksum. The
frames of a clip are the same with and without a store that keeps all frames.

What it changes is the pixels. Quality 90 with halved chroma at the video's own size, over 43 real clips (UCF101,
HMDB51, Something-Something V2, Kinetics400 and others, 8 frames each): mean absolute error 1.15 / 0.95 / 1.37 of
255 (red, green, blue), PSNR 43.8 dB, 37.9 dB at worst. Full chroma would give 44.7 dB for 23 % more bytes.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from vcil_bench.common.errors import UserError
from vcil_bench.common.files import cache_dir, check_writable, locked, replacing, write_atomically
from vcil_bench.data.crops import Box
from vcil_bench.data.manifest import Manifest, Video
from vcil_bench.data.video.facts import VideoError

from . import jpeg

FORMAT = 2
LOOKED_AT = 8  # videos of a store that is opened
SETTING_UP_S = 60.0  # for another process to write the settings of a new store
_MAGIC = b"VCILFRM2"
_HEADER = struct.Struct("<8sIIII")  # magic, JPEGs, frames of the video, width, height
_INDEX = _HEADER.size + 4  # where the index begins, after the CRC-32 of settings, header and index
_ENTRY = np.dtype([("number", "<u4"), ("size", "<u4"), ("offset", "<u8"), ("crc", "<u4")])
_WAY_OUT = "run 'vcil-bench prepare DATASET ROOT --store {}' (again)"


class StoreError(UserError):
    """A frame store that is missing, made with other settings, or too large for its disk."""


class FrameStore:
    """A folder of decoded videos, ``<root>/<first two of the hash>/<hash>.frames``, and its settings."""

    def __init__(self, root: str | os.PathLike[str], quality: int = 90, max_frames: int | None = None) -> None:
        """Make a store, or go on with one that has the same settings.

        Args:
            root: Its folder.
            quality: JPEG quality, 1 to 100.
            max_frames: Frames to keep of a video, evenly spaced; None for all.

        Raises:
            StoreError: The folder holds a store with other settings.
            StorageError: The folder cannot be written.
        """
        self.root = Path(root)
        self.settings = _settings(quality, max_frames)
        check_writable(self.root)
        target = self.root / "store.json"
        with locked(target, wait_s=SETTING_UP_S):
            if not target.exists():
                write_atomically(target, json.dumps(self.settings, indent=2).encode() + b"\n")
        found = _read_settings(target)
        different = [key for key in self.settings if found.get(key) != self.settings[key]]
        if different:
            told = ", ".join(f"{key} {found.get(key)!r}, not {self.settings[key]!r}" for key in different)
            raise StoreError(
                f"{self.root}: holds a frame store with other settings ({told}); give another folder "
                "(--store DIR), the settings it has, or delete it"
            )

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Self:
        """Open a store to read from, with the settings it has.

        Raises:
            StoreError: There is none, another version of this package has made it, or its videos were stored
                with other settings than it says.
        """
        store = cls.__new__(cls)
        store.root = Path(root)
        store.settings = _read_settings(store.root / "store.json")
        # One that is damaged is told when it is read; several that do not fit were stored with other settings.
        some = list(itertools.islice(store.root.glob("??/*.frames"), LOOKED_AT))
        if some and not any(store._is_own(path) for path in some):
            told = ", ".join(f"{key} {value!r}" for key, value in store.settings.items())
            raise StoreError(
                f"{some[0]}: damaged, or not stored with the settings that stand in {store.root / 'store.json'} "
                f"({told}); put the true ones back, or {_WAY_OUT.format('NEW_FOLDER')}"
            )
        return store

    def describe(self) -> dict[str, Any]:
        """Return what made the pixels, for a record: the settings and a hash over them, and no path."""
        text = json.dumps(self.settings, sort_keys=True)
        return {**self.settings, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    @functools.cached_property
    def _crc(self) -> int:
        """CRC-32 of the settings, with which every file's own begins, so that it tells what made its pixels."""
        return zlib.crc32(json.dumps(self.settings, sort_keys=True).encode())

    def blob(self, sha256: str) -> Path:
        """Return the file of a video."""
        return self.root / sha256[:2] / f"{sha256}.frames"

    def missing(self, manifest: Manifest) -> list[str]:
        """Return the ids of the usable training and test videos that are not in the store."""
        return [v.id for v in usable(manifest) if not self.blob(v.facts.sha256).is_file()]

    def without_frames(self, manifest: Manifest) -> list[str]:
        """Return the ids of the usable training and test videos of whose part of a file no frame is kept."""
        if self.settings["max_frames"] is None:
            return []
        return [v.id for v in usable(manifest) if not _holds(v.span, self.numbers(v.facts.frames))]

    def numbers(self, frames: int) -> NDArray[np.int64]:
        """Return the ascending numbers of the frames that are kept of a video of so many."""
        most = self.settings["max_frames"]
        if most is None or frames <= most:
            return np.arange(frames)
        return ((np.arange(most) + 0.5) * frames / most).astype(np.int64)

    def encode(self, picture: NDArray[np.uint8]) -> bytes:
        """Return the JPEG of a uint8 RGB picture [height, width, 3]."""
        return jpeg.encode(picture, self.settings["quality"])

    def write(self, sha256: str, pictures: Iterator[tuple[int, NDArray[np.uint8]]], frames: int) -> int:
        """Store the frames of a video.

        Args:
            sha256: Hash of the video.
            pictures: Number and picture of each frame of ``numbers``, in order.
            frames: Frames of the video.

        Returns:
            The size of the file in bytes.

        Raises:
            StorageError: The file cannot be written; nothing of it is left behind.
        """
        index = np.zeros(len(self.numbers(frames)), _ENTRY)
        offset = _INDEX + index.nbytes
        with replacing(self.blob(sha256)) as temporary, temporary.open("r+b") as file:
            file.seek(offset)
            for place, (number, picture) in enumerate(pictures):
                content = self.encode(picture)
                index[place] = (number, len(content), offset, zlib.crc32(content))
                offset += file.write(content)
            height, width = picture.shape[:2]
            file.seek(0)
            head = _HEADER.pack(_MAGIC, len(index), frames, width, height) + index.tobytes()
            file.write(
                head[: _HEADER.size] + zlib.crc32(head, self._crc).to_bytes(4, "little") + head[_HEADER.size :]
            )
        return offset

    def _is_own(self, path: Path) -> bool:
        """Tell whether a file's index is as it was written, with the settings of this store."""
        try:
            _unpack(path.read_bytes(), self._crc)
        except (OSError, ValueError):
            return False
        return True

    def is_whole(self, sha256: str) -> bool:
        """Tell whether a video is stored and every byte of it is as it was written."""
        try:
            with self.blob(sha256).open("rb") as file:
                content = memoryview(file.read())
            _, _, _, index = _unpack(content, self._crc)
        except (OSError, ValueError):
            return False
        ends = index["offset"] + index["size"]
        return int(ends[-1]) == len(content) and all(
            zlib.crc32(content[start:end]) == crc
            for start, end, crc in zip(index["offset"], ends, index["crc"], strict=True)
        )

    def read(
        self,
        sha256: str,
        indices: Sequence[int] | NDArray[np.int64],
        window: Callable[[int, int], Box | None] = lambda width, height: None,
        within: range | None = None,
    ) -> NDArray[np.uint8]:
        """Read frames of a video; where not all are kept, the nearest that is.

        Args:
            sha256: Hash of the video.
            indices: 0-based frame numbers in any order, duplicates allowed.
            window: Says from width and height what to cut out of each; None for all of it. Cut while it is in
                the processor's cache, a picture costs a fifth less, and rows below are not decoded.
            within: The part of the video to which the nearest frame must belong; None for all of it.

        Returns:
            uint8 RGB [len(indices), height, width, 3], of the window.

        Raises:
            VideoError: The video is not in the store, is damaged there, or has no such frame, or none is kept of
                the part.
        """
        path = self.blob(sha256)
        wanted = np.asarray(indices)
        try:
            with path.open("rb", buffering=0) as file:
                head = file.read(1 << 14)  # reaches over the index of some 800 frames
                more = _INDEX + _ENTRY.itemsize * int.from_bytes(head[8:12], "little") - len(head)
                if more > os.fstat(file.fileno()).st_size:
                    raise ValueError("shorter than its index")
                frames, width, height, index = _unpack(head + file.read(more) if more > 0 else head, self._crc)
                if wanted.max() >= frames:
                    raise VideoError(
                        f"{path}: frame {wanted.max()} was asked for, but the stored video has {frames} frames"
                    )
                box = window(width, height) or Box(0, 0, width, height)
                pixels = np.empty((len(wanted), box.height, box.width, 3), np.uint8)
                picture = jpeg.room(height, width)
                done: dict[int, int] = {}
                places = _nearest(index["number"], wanted, range(frames) if within is None else within)
                if not len(places):
                    raise VideoError(f"{path}: no frame is kept of {within}; store more frames of a video")
                for slot, place in enumerate(places.tolist()):
                    if place in done:
                        pixels[slot] = pixels[done[place]]
                        continue
                    _, size, offset, crc = index[place].item()
                    file.seek(offset)
                    content = file.read(size)
                    if zlib.crc32(content) != crc:
                        raise ValueError(f"frame {place} is not what was written")
                    jpeg.decode(content, picture, box.top + box.height)
                    pixels[slot] = box.of(picture)
                    done[place] = slot
        except FileNotFoundError:
            raise VideoError(
                f"{path}: the video is not in the frame store; {_WAY_OUT.format(self.root)}"
            ) from None
        except OSError as error:
            raise VideoError(f"{path}: cannot be read ({error.strerror})") from error
        except VideoError:
            raise
        except ValueError as error:
            raise VideoError(f"{path}: damaged ({error}); {_WAY_OUT.format(self.root)}") from error
        return pixels


def default_root() -> Path:
    """Return where the store lies unless another place is named."""
    return cache_dir() / "frames"


def usable(manifest: Manifest) -> list[Video]:
    """Return the training and test videos that runs use."""
    return [*manifest.usable("train"), *manifest.usable("test")]


def _holds(span: range, kept: NDArray[np.int64]) -> bool:
    """Tell whether any of the frames that are kept is in a span."""
    return bool(np.any((kept >= span.start) & (kept < span.stop)))


def _unpack(content: bytes | memoryview, settings_crc: int) -> tuple[int, int, int, NDArray[np.void]]:
    """Return frames of the video, width, height and the index of a file that begins with ``content``.

    Raises:
        ValueError: It is not such a file, was damaged, or was stored with other settings.
    """
    if len(content) < _INDEX:
        raise ValueError("shorter than its header")
    magic, stored, frames, width, height = _HEADER.unpack_from(content)
    end = _INDEX + stored * _ENTRY.itemsize
    crc = zlib.crc32(content[_INDEX:end], zlib.crc32(content[: _HEADER.size], settings_crc))
    if magic != _MAGIC or len(content) < end or crc != int.from_bytes(content[_HEADER.size : _INDEX], "little"):
        raise ValueError("its index is not what was written")
    return frames, width, height, np.frombuffer(content, _ENTRY, stored, _INDEX)


def _nearest(numbers: NDArray[np.uint32], wanted: NDArray[np.int64], within: range) -> NDArray[np.int64]:
    """Return the places in ``numbers`` (ascending) of those nearest to ``wanted``, the earlier of two.

    Args:
        numbers: Frames that are kept.
        wanted: Frames that are asked for.
        within: The part of the video that the nearest must be of; nothing is returned where none is kept of it.
    """
    kept = numbers.astype(np.int64)
    first, stop = np.searchsorted(kept, (within.start, within.stop))
    if first == stop:
        return np.empty(0, np.int64)
    after = np.searchsorted(kept, wanted).clip(first, stop - 1)
    before = (after - 1).clip(min=first)
    return np.where(wanted - kept[before] <= kept[after] - wanted, before, after)


def _settings(quality: int, max_frames: int | None) -> dict[str, Any]:
    """Return all that the pixels of a store depend on."""
    return {
        "format": FORMAT,
        "quality": quality,
        "max_frames": max_frames,
        "decoder": f"pyav {av.__version__}",
        "codecs": "libavcodec " + ".".join(map(str, av.library_versions["libavcodec"])),
        "jpeg": jpeg.VERSION,
    }


def _read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a store.

    Raises:
        StoreError: There is no store, or it is of another format.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(
            f"{path.parent}: holds no frame store; make one with 'vcil-bench prepare DATASET ROOT --store "
            f"{path.parent}'"
        ) from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete it and run prepare --store again") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise StoreError(
            f"{path.parent}: a frame store of another format, this version reads {FORMAT}; give another folder"
        )
    return found
