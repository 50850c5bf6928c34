"""Clips a second from videos and from a frame store, through the whole loader, and what the reader itself costs.

Run ``python benchmarks/loading.py FOLDER ...`` with folders of videos of one kind each; the table goes to
``benchmarks/loading.md``. Clips are those of training on ``tcd_ucf101_10x5``. Rounds alternate between the ways,
so that a busy machine slows them alike; the ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from tabulate import tabulate

from vcil_bench import protocol
from vcil_bench.data.frame_store import FrameStore
from vcil_bench.data.loader import ClipLoader, Sample
from vcil_bench.data.video import content_sha256, pictures, probe, read_frames
from vcil_bench.randomness import numpy_stream

PROTOCOL = "tcd_ucf101_10x5"
BATCH, CLIPS = 4, 24


def bare_decode(path: str, indices: Sequence[int]) -> None:
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


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def reader_ratio(samples: Sequence[Sample], rounds: int) -> float:
    """Return the rate of ``read_frames`` in that of a bare forward decode of the same frames."""
    ratios = []
    for number in range(rounds):
        bare = ours = 0.0
        for sample in samples:
            rng = numpy_stream(number, sample.id)
            indices = np.sort(rng.choice(sample.frames, 8)).tolist()
            ours += seconds(lambda s=sample, i=indices: read_frames(s.path, i))  # type: ignore[misc]
            bare += seconds(lambda s=sample, i=indices: bare_decode(s.path, i))  # type: ignore[misc]
        ratios.append(bare / ours)
    return median(ratios)


def clips_a_second(
    samples: Sequence[Sample], store: FrameStore | None, workers: int, clips: int, seed: int
) -> float:
    """Return the rate of the whole loader once its workers run."""
    spec, device = protocol.load(PROTOCOL).spec.clip, torch.device("cpu")
    loader = ClipLoader(spec, decoder="auto", workers=workers, device=device, seed=seed, store=store)
    warm_up = 3 * max(workers, 1) * BATCH  # more than what workers hold ready when the clock starts
    batches = loader.training(samples, 1_000_000, BATCH, "benchmark", drop_last=True)
    for _ in range(warm_up // BATCH):
        next(batches)
    spent = seconds(lambda: [next(batches) for _ in range(clips // BATCH)])
    batches.close()  # type: ignore[attr-defined]
    return clips / spent


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for folder in options.folders:
        samples = []
        with tempfile.TemporaryDirectory() as root:
            store = FrameStore(root)
            for path in sorted(p for p in folder.iterdir() if p.is_file()):
                facts = probe(path)
                samples.append(Sample(path.name, str(path), 0, facts.frames, sha256=content_sha256(path)))
                store.write(samples[-1].sha256, pictures(path), facts.frames)
            ratio = reader_ratio(samples, options.rounds)
            for workers in options.workers:
                rates = [
                    (
                        clips_a_second(samples, None, workers, CLIPS, number),
                        clips_a_second(samples, store, workers, 5 * CLIPS, number),
                    )
                    for number in range(options.rounds)
                ]
                video, stored = (median(r[way] for r in rates) for way in (0, 1))
                print(folder.name, workers, rates, flush=True)
                gain = median(b / a for a, b in rates)
                rows.append(
                    [folder.name, workers, f"{video:.1f}", f"{stored:.0f}", f"{gain:.1f}", f"{ratio:.2f}"]
                )
    heads = [
        "videos",
        "workers",
        "decoding, clips/s",
        "store, clips/s",
        "store / decoding",
        "reader / bare PyAV",
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, PyAV {av.__version__}, torch {torch.__version__}"
    text = f"""# Clips from videos and from a frame store

{tabulate(rows, heads, tablefmt="github")}

Medians of {options.rounds} rounds. {machine}.

Made by `python benchmarks/loading.py {" ".join(folder.name for folder in options.folders)}`.
"""
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
