"""Clips a second from videos and from a frame store, through the whole loader, and where their time goes.

Clips are those of training on ``tcd_ucf101_10x5``. Videos are made to resemble two datasets in what decoding
costs: picture size, length, codec and bytes. Files are in the operating system's memory, as those of a dataset
that it can hold are after the first epoch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median

import av
import simplejpeg
import torch
from clip_profile import DECODING, RESIZING, timed_parts
from common import Row, alternate, hand_over, ratio, seconds
from made_videos import KINETICS, UCF101, Kind, make

from vcil_bench import protocol
from vcil_bench.common.random_streams import numpy_stream
from vcil_bench.data.clips import segment_indices
from vcil_bench.data.loader import Batch, ClipLoader, Sample
from vcil_bench.data.store import jpeg
from vcil_bench.data.store.frame_store import FrameStore
from vcil_bench.data.video import content_sha256, pictures, read_frames

PROTOCOL = "tcd_ucf101_10x5"
FRAMES = 8  # of its clips
GOALS = {UCF101: 5, KINETICS: 20}
VIDEOS, COPIES, BATCH, ROUNDS = 6, 8, 16, 3
CLIPS = {UCF101: 128, KINETICS: 64}  # in a round from videos
STORED_CLIPS = 512  # in a round from the store
BARE_ROUNDS = 25  # of a batch


def main() -> None:
    """Measure and hand over."""
    torch.set_num_threads(1)
    rows = []
    for kind, goal in GOALS.items():
        with tempfile.TemporaryDirectory() as folder:
            samples = _samples(kind, Path(folder))
            store = FrameStore(Path(folder) / "store")
            for sample in samples:
                store.write(sample.sha256, pictures(sample.path), sample.frames)
            size = mean(Path(sample.path).stat().st_size for sample in samples) / 1000
            rows.append(_reader(kind, samples, f"{kind}; {size:.0f} kB each"))
            samples = [
                replace(s, id=f"{s.id} {copy}") for copy in range(COPIES) for s in samples
            ]  # full batches
            for workers in (1, 2):
                rows += _loader(kind, samples, store, workers, goal)
            rows += _parts(kind, samples, store)
    hand_over(rows)


def _samples(kind: Kind, folder: Path) -> list[Sample]:
    found = []
    for number in range(VIDEOS):
        path = make(kind, number, folder)
        found.append(Sample(path.name, str(path), 0, kind.frames, sha256=content_sha256(path)))
    return found


def _reader(kind: Kind, samples: Sequence[Sample], note: str) -> Row:
    """Compare reading frames with a bare forward decode of the same."""
    wanted = [segment_indices(s.frames, FRAMES, numpy_stream("benchmark", s.id)).tolist() for s in samples]

    def all_by(read: Callable[[str, list[int]], object]) -> None:
        for sample, indices in zip(samples, wanted, strict=True):
            read(sample.path, indices)

    times = alternate(
        {"bare": partial(all_by, _bare_decode), "reader": partial(all_by, read_frames)}, 3 * ROUNDS
    )
    rate = ratio(times, "bare", "reader")
    alone = len(samples) / median(times["reader"])
    return Row(
        f"{kind.name}: the reader's speed in that of a bare forward decode",
        f"{rate:.2f}",
        ">= 0.9",
        rate >= 0.9,
        f"{note}; the reader alone gives {alone:.0f} clips/s",
    )


def _bare_decode(path: str, indices: list[int]) -> None:
    """Decode forward to the last of some frames and convert these, with nothing around it."""
    wanted = set(indices)
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                frame.to_ndarray(format="rgb24", threads=1)
            if number == max(indices):
                return


def _loader(kind: Kind, samples: Sequence[Sample], store: FrameStore, workers: int, goal: float) -> list[Row]:
    """Compare, in turn, the loader's rates from videos and from the store, and bare decodes of JPEGs."""
    rates, shares, contents = [], [], _jpegs(samples[:VIDEOS], store)
    with ProcessPoolExecutor(workers) as processes:
        _bare_rate(contents, processes, workers)  # starts them
        for number in range(ROUNDS):
            video, _ = _rate(samples, None, workers, CLIPS[kind], number)
            stored, share = _rate(samples, store, workers, STORED_CLIPS, number)
            bare = _bare_rate(contents, processes, workers)
            rates.append((video, stored, bare))
            shares.append(share)
    video, stored, bare = (median(rate[way] for rate in rates) for way in (0, 1, 2))
    gain, of_bare = median(b / a for a, b, _ in rates), median(b / c for _, b, c in rates)
    told = f"{kind.name}, {workers} worker{'s' if workers > 1 else ''}"
    return [
        Row(
            f"{told}: the store's speed in that of decoding",
            f"{gain:.1f}",
            f">= {goal:g}",
            gain >= goal,
            f"{stored:.0f} and {video:.1f} clips/s; median of {ROUNDS} rounds in turn",
        ),
        Row(
            f"{told}: the store's speed in that of bare JPEG decodes",
            f"{of_bare:.2f}",
            note=f"{bare:.0f} clips/s where as many processes decode the same JPEGs and do nothing else",
        ),
        Row(
            f"{told}: processor time of the process that trains",
            f"{median(shares):.1%}",
            note="of a core, while it takes clips from the store and does nothing with them",
        ),
    ]


def _rate(
    samples: Sequence[Sample], store: FrameStore | None, workers: int, clips: int, seed: int
) -> tuple[float, float]:
    """Return the clips a second of the whole loader once its workers run, and this process's share of a core."""
    batches = _batches(samples, store, workers, seed)
    for _ in range(3 * workers):  # more than what workers hold ready when the clock starts
        next(batches)
    busy = time.process_time()
    spent = seconds(lambda: _take(batches, clips // BATCH))
    busy = time.process_time() - busy
    batches.close()  # type: ignore[attr-defined]
    return clips / spent, busy / spent


def _batches(samples: Sequence[Sample], store: FrameStore | None, workers: int, seed: int) -> Iterator[Batch]:
    spec, device = protocol.load(PROTOCOL).spec.clip, torch.device("cpu")
    loader = ClipLoader(spec, decoder="auto", workers=workers, device=device, seed=seed, store=store)
    return loader.training(samples, 1_000_000, BATCH, "benchmark", drop_last=True)


def _take(batches: Iterator[Batch], number: int) -> None:
    """Take batches as training does, which holds one at a time."""
    for _ in range(number):
        next(batches)


def _jpegs(samples: Sequence[Sample], store: FrameStore) -> list[bytes]:
    """Return the JPEGs of a training clip of each sample, as the store has them."""
    return [
        store.encode(picture)
        for sample in samples
        for picture in read_frames(
            sample.path, segment_indices(sample.frames, FRAMES, numpy_stream("benchmark", sample.id))
        )
    ]


def _bare_jpeg_decode(contents: Sequence[bytes], repeats: int = 1) -> None:
    """Decode JPEGs whole, as fast as the store's decoder does it, with nothing around it."""
    height, width, *_ = simplejpeg.decode_jpeg_header(contents[0])
    picture = jpeg.room(height, width)
    for _ in range(repeats):
        for content in contents:
            simplejpeg.decode_jpeg(content, fastupsample=True, buffer=picture)


def _bare_rate(contents: Sequence[bytes], processes: Executor, number: int) -> float:
    """Return the clips a second of so many processes that each decode the JPEGs of some clips, repeated."""
    clips = len(contents) // FRAMES
    repeats = STORED_CLIPS // clips // number

    def decode() -> None:
        started = [processes.submit(_bare_jpeg_decode, contents, repeats) for _ in range(number)]
        for decoding in started:
            decoding.result()

    return number * repeats * clips / seconds(decode)


def _parts(kind: Kind, samples: Sequence[Sample], store: FrameStore) -> list[Row]:
    """Compare the loader in this process with a bare decode of the same JPEGs, and time its parts."""
    batches, contents = _batches(samples, store, 0, 0), _jpegs(samples[:BATCH], store)
    times = alternate(
        {"bare": partial(_bare_jpeg_decode, contents), "loader": partial(_take, batches, 1)}, BARE_ROUNDS
    )
    rate = ratio(times, "bare", "loader")
    with timed_parts() as clock:
        spent = seconds(lambda: _take(batches, BARE_ROUNDS))
    told = f"{kind.name}, in one process"
    parts = {**clock.seconds, "the rest: jobs, places, Python": spent - sum(clock.seconds.values())}
    return [
        Row(
            f"{told}: the store's speed in that of a bare JPEG decode",
            f"{rate:.2f}",
            ">= 0.9",
            rate >= 0.9,
            f"a clip in {1000 * median(times['loader']) / BATCH:.2f} ms, its JPEGs in "
            f"{1000 * median(times['bare']) / BATCH:.2f} ms. Resizing alone, torch's, takes "
            f"{parts[RESIZING] / parts[DECODING]:.0%} of the time of decoding; the other parts are below",
        ),
        *(
            Row(f"{told}: {part}", f"{took / spent:.1%}", note="of a clip's time")
            for part, took in parts.items()
        ),
    ]


if __name__ == "__main__":
    main()
