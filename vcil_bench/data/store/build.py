"""Frame store: fills it in parallel; resumes after an interruption."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pebble import ProcessExpired

from vcil_bench.common.files import StorageError
from vcil_bench.data.manifest import Manifest, Video
from vcil_bench.data.prepare import Progress
from vcil_bench.data.prepare.process_pool import in_processes
from vcil_bench.data.video import content_sha256, pictures
from vcil_bench.data.video.facts import VideoError

from .frame_store import FrameStore, StoreError, usable

SAMPLED_VIDEOS, SAMPLED_FRAMES = 8, 6  # that an estimate decodes
STORE_LIMIT_S = 600.0  # several times what the longest videos of these datasets take
GB = 1e9

Entry = tuple[Path, Video]  # where a video lies, and what is known of it


@dataclass
class Built:
    """What became of the videos.

    Attributes:
        made: Stored now.
        kept: Stored before, and whole.
        failed: Id and problem of those that cannot be stored.
    """

    made: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Estimate:
    """What a store will take.

    Attributes:
        videos: Videos not stored yet.
        bytes: What they will take, extrapolated from a few of them.
        free: What is free where the store lies.
        root: The store's folder.
    """

    videos: int
    bytes: int
    free: int
    root: Path

    def __str__(self) -> str:
        """Say it in a line."""
        needed, free = self.bytes / GB, self.free / GB
        return f"{self.videos} videos to store take about {needed:.2f} GB, {free:.1f} GB are free"

    def check(self) -> None:
        """Refuse a store that does not fit.

        Raises:
            StoreError: Names what it takes, what there is, and the ways out.
        """
        if self.bytes > self.free:
            raise StoreError(
                f"{self.root}: {self}; give a folder on another disk (--store DIR) or keep fewer "
                "frames of a video (--store-frames 64)"
            )


def estimate(manifests: Sequence[Manifest], store: FrameStore, *, limit_s: float = STORE_LIMIT_S) -> Estimate:
    """Tell what the videos that are not stored yet will take, from some frames of a few of them."""
    todo = [entry for entry in _distinct(manifests) if not store.blob(entry[1].facts.sha256).is_file()]
    some = todo[:: math.ceil(len(todo) / SAMPLED_VIDEOS) or 1]
    sizes: list[int] = []
    for _, sampled in in_processes(some, _sample, store, limit_s=limit_s):
        try:
            sizes += sampled.result()
        except (VideoError, TimeoutError, ProcessExpired):
            continue  # building names it
    frames = sum(len(store.numbers(video.facts.frames)) for _, video in todo)
    expected = int(frames * np.mean(sizes)) if sizes else 0
    return Estimate(len(todo), expected, shutil.disk_usage(store.root).free, store.root)


def build(
    manifests: Sequence[Manifest],
    store: FrameStore,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    limit_s: float = STORE_LIMIT_S,
) -> Built:
    """Store all usable training and test videos that are not there yet, or not whole.

    Args:
        manifests: Splits of a dataset; a video in several is stored once.
        store: Where to.
        workers: Processes that decode; None for one per core.
        progress: Told how many videos are done, and of how many.
        limit_s: Seconds that one video may take before it is given up.

    Returns:
        What became of them.

    Raises:
        StorageError: A file cannot be written, as on a full disk. What is stored by then stays.
    """
    _sweep(store)
    videos = _distinct(manifests)
    built = Built()
    refused: StorageError | None = None

    def wanted() -> Iterator[Entry]:
        for entry in videos:
            if refused is not None:
                return  # what is running is waited for, so that nothing half-written stays
            yield entry

    for (_, video), made in in_processes(wanted(), _store_video, store, workers=workers, limit_s=limit_s):
        try:
            if made.result():
                built.made += 1
            else:
                built.kept += 1
        except StorageError as error:
            refused = error
        except VideoError as error:
            built.failed.append((video.id, str(error)))
        except TimeoutError:
            built.failed.append((video.id, f"not decoded within {limit_s:g} s"))
        except ProcessExpired as error:
            built.failed.append((video.id, f"its decoding ended the process ({error})"))
        if progress is not None:
            progress(built.made + built.kept + len(built.failed), len(videos))
    if refused is not None:
        raise StorageError(
            f"{refused}; {built.made + built.kept} of {len(videos)} videos are stored and stay: make room, or "
            "give another folder (--store DIR), and give the same command again"
        )
    return built


def _sweep(store: FrameStore) -> None:
    """Delete what builders left that were killed while they wrote; a file of one that lives is younger."""
    for path in store.root.glob("??/.*.frames.*"):
        with suppress(FileNotFoundError):  # swept by another builder, or whole by now
            if time.time() - path.stat().st_mtime > 2 * STORE_LIMIT_S:
                path.unlink()


def _distinct(manifests: Sequence[Manifest]) -> list[Entry]:
    """Return the usable videos by where they lie, each content once."""
    found = {video.facts.sha256: (m.root / video.path, video) for m in manifests for video in usable(m)}
    return list(found.values())


def _sample(store: FrameStore, entry: Entry) -> list[int]:
    """Return what some frames of a video take."""
    path, video = entry
    wanted = np.unique(np.linspace(0, video.facts.frames - 1, SAMPLED_FRAMES).astype(int)).tolist()
    return [len(store.encode(picture)) for _, picture in pictures(path, wanted)]


def _store_video(store: FrameStore, entry: Entry) -> bool:
    """Store one video unless it is there and whole, and tell whether that was needed.

    Raises:
        VideoError: The video is not the one that was prepared.
        StorageError: It cannot be written.
    """
    path, video = entry
    if store.is_whole(video.facts.sha256):
        return False
    try:
        found = content_sha256(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from error
    if found != video.facts.sha256:
        raise VideoError(f"{path}: has changed since it was prepared; prepare its dataset again")
    wanted = store.numbers(video.facts.frames).tolist()
    store.write(video.facts.sha256, pictures(path, frozenset(wanted)), video.facts.frames)
    return True
