"""Clips a second from videos and from a frame store, through the whole loader, and what the reader itself costs.

Clips are those of training on ``tcd_ucf101_10x5``. Videos are made to resemble two datasets in what decoding
costs: picture size, length, codec and bytes. Files are in the operating system's memory, as those of a dataset
that it can hold are after the first epoch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median

import av
import torch
from common import Row, alternate, hand_over, ratio, seconds
from made_videos import KINETICS, UCF101, Kind, make

from vcil_bench import protocol
from vcil_bench.common.random_streams import numpy_stream
from vcil_bench.data.clips import segment_indices
from vcil_bench.data.loader import ClipLoader, Sample
from vcil_bench.data.store.frame_store import FrameStore
from vcil_bench.data.video import content_sha256, pictures, read_frames

PROTOCOL = "tcd_ucf101_10x5"
GOALS = {UCF101: 5, KINETICS: 20}
VIDEOS, COPIES, BATCH, ROUNDS = 6, 8, 16, 3
CLIPS = {UCF101: 128, KINETICS: 64}  # in a round from videos
STORED_CLIPS = 512  # in a round from the store


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
            for workers in (1, 2):
                rows.append(_loader(kind, samples, store, workers, goal))
    hand_over(rows)


def _samples(kind: Kind, folder: Path) -> list[Sample]:
    found = []
    for number in range(VIDEOS):
        path = make(kind, number, folder)
        found.append(Sample(path.name, str(path), 0, kind.frames, sha256=content_sha256(path)))
    return found


def _reader(kind: Kind, samples: Sequence[Sample], note: str) -> Row:
    """Compare reading frames with a bare forward decode of the same."""
    wanted = [segment_indices(s.frames, 8, numpy_stream("benchmark", s.id)).tolist() for s in samples]

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


def _loader(kind: Kind, samples: Sequence[Sample], store: FrameStore, workers: int, goal: float) -> Row:
    """Compare the loader's rates from videos and from the store, in turn."""
    clips = CLIPS[kind]
    samples = [replace(s, id=f"{s.id} {copy}") for copy in range(COPIES) for s in samples]  # for full batches
    rates = [
        (_rate(samples, None, workers, clips, number), _rate(samples, store, workers, STORED_CLIPS, number))
        for number in range(ROUNDS)
    ]
    video, stored = (median(rate[way] for rate in rates) for way in (0, 1))
    gain = median(b / a for a, b in rates)
    told = f"{workers} worker{'s' if workers > 1 else ''}"
    return Row(
        f"{kind.name}, {told}: the store's speed in that of decoding",
        f"{gain:.1f}",
        f">= {goal:g}",
        gain >= goal,
        f"{stored:.0f} and {video:.1f} clips/s; median of {ROUNDS} rounds in turn",
    )


def _rate(samples: Sequence[Sample], store: FrameStore | None, workers: int, clips: int, seed: int) -> float:
    """Return the clips a second of the whole loader once its workers run."""
    spec, device = protocol.load(PROTOCOL).spec.clip, torch.device("cpu")
    loader = ClipLoader(spec, decoder="auto", workers=workers, device=device, seed=seed, store=store)
    batches = loader.training(samples, 1_000_000, BATCH, "benchmark", drop_last=True)
    for _ in range(3 * workers):  # more than what workers hold ready when the clock starts
        next(batches)
    spent = seconds(lambda: [next(batches) for _ in range(clips // BATCH)])
    batches.close()  # type: ignore[attr-defined]
    return clips / spent


if __name__ == "__main__":
    main()
