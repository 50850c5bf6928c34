"""Fill a frame store: in parallel, to be interrupted and gone on with at any time, its size told beforehand."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pebble import ProcessExpired, ProcessPool

from vcil_bench.storage import StorageError

from .frame_store import FrameStore, StoreError, usable
from .manifest import Manifest, Progress, Video
from .video import content_sha256, pictures
from .video_facts import VideoError

SAMPLED_VIDEOS, SAMPLED_FRAMES = 8, 6  # that an estimate decodes
LIMIT_S = 600.0  # several times what the longest videos of these datasets take
GB = 1e9


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


def estimate(manifests: Sequence[Manifest], store: FrameStore) -> Estimate:
    """Tell what the videos that are not stored yet will take, from some frames of a few of them."""
    todo = [(path, video) for path, video in _distinct(manifests) if not store.blob(video.sha256).is_file()]
    sizes: list[int] = []
    for path, video in todo[:: math.ceil(len(todo) / SAMPLED_VIDEOS) or 1]:
        wanted = np.unique(np.linspace(0, video.frames - 1, SAMPLED_FRAMES).astype(int)).tolist()
        try:
            sizes += [len(store.encode(picture)) for _, picture in pictures(path, wanted)]
        except VideoError:
            continue  # building names it
    frames = sum(len(store.numbers(video.frames)) for _, video in todo)
    expected = int(frames * np.mean(sizes)) if sizes else 0
    return Estimate(len(todo), expected, shutil.disk_usage(store.root).free, store.root)


def build(
    manifests: Sequence[Manifest],
    store: FrameStore,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    limit_s: float = LIMIT_S,
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
    videos = _distinct(manifests)
    left = iter(videos)
    built = Built()
    running: dict[Future[bool], Video] = {}
    refused: StorageError | None = None
    workers = workers or os.cpu_count() or 1
    # New processes and not forks, since the caller has threads.
    pool = ProcessPool(max_workers=workers, context=get_context("spawn"))
    try:
        while True:
            while refused is None and len(running) < 2 * workers and (entry := next(left, None)):
                path, video = entry
                running[pool.schedule(_store_video, args=(store, path, video), timeout=limit_s)] = video
            if not running:
                break
            for task in wait(running, return_when=FIRST_COMPLETED).done:
                video = running.pop(task)
                try:
                    if task.result():
                        built.made += 1
                    else:
                        built.kept += 1
                except StorageError as error:
                    refused = error  # what is running is waited for, so that nothing half-written stays
                except VideoError as error:
                    built.failed.append((video.id, str(error)))
                except TimeoutError:
                    built.failed.append((video.id, f"not decoded within {limit_s:g} s"))
                except ProcessExpired as error:
                    built.failed.append((video.id, f"its decoding ended the process ({error})"))
                if progress is not None:
                    progress(built.made + built.kept + len(built.failed), len(videos))
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()
    if refused is not None:
        raise StorageError(
            f"{refused}; {built.made + built.kept} of {len(videos)} videos are stored and stay: make room, or "
            "give another folder (--store DIR), and give the same command again"
        )
    return built


def _distinct(manifests: Sequence[Manifest]) -> list[tuple[Path, Video]]:
    """Return the usable videos by where they lie, each content once."""
    found = {video.sha256: (m.root / video.path, video) for m in manifests for video in usable(m)}
    return list(found.values())


def _store_video(store: FrameStore, path: Path, video: Video) -> bool:
    """Store one video unless it is there and whole, and tell whether that was needed.

    Raises:
        VideoError: The video is not the one that was prepared.
        StorageError: It cannot be written.
    """
    if store.is_whole(video.sha256):
        return False
    try:
        found = content_sha256(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from error
    if found != video.sha256:
        raise VideoError(f"{path}: has changed since it was prepared; prepare its dataset again")
    wanted = store.numbers(video.frames).tolist()
    store.write(video.sha256, pictures(path, frozenset(wanted)), video.frames)
    return True
