"""Batches of clips: decoding in worker processes, uint8 until the device, every draw from a keyed stream.

One loader serves all epochs of a training phase, so workers start once and decode across epoch borders.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vcil_bench.protocol import ClipSpec
from vcil_bench.randomness import numpy_stream

from . import clips as clip_rules
from .video import VideoError, read_frames

Item = tuple[int, int]  # (epoch, position in the sample list), or one of the next two in the epoch's place
VIEWS, PLAIN = -1, -2  # the protocol's test views; one centre crop of one clip


@dataclass(frozen=True)
class Sample:
    """A labelled video.

    Attributes:
        id: Name within the dataset.
        path: The file.
        label: Position of its class in the class order; what a network's outputs are indexed by.
        frames: Frames that can be decoded.
        stored: Of an exemplar, the frames that were kept, ascending; no others are ever decoded. None for all.
    """

    id: str
    path: Path
    label: int
    frames: int
    stored: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Batch:
    """Clips on the device.

    Attributes:
        clips: [B, T, 3, S, S] uint8; test batches have views in front of time, [B, V, T, 3, S, S].
        labels: [B] int64, positions in the class order.
    """

    clips: Tensor
    labels: Tensor


@dataclass
class LoaderClock:
    """Seconds spent waiting for data, which tells whether decoding limits a run."""

    waited: float = field(default=0.0)


class _Clips(Dataset[tuple[Tensor, int]]):
    """Decodes one clip for an ``Item``."""

    def __init__(self, samples: Sequence[Sample], spec: ClipSpec, decoder: str, seed: int, stage: str) -> None:
        self.samples = samples
        self.spec = spec
        self.decoder = decoder
        self.key = (seed, "clip", stage)

    def __getitem__(self, item: Item) -> tuple[Tensor, int]:
        epoch, position = item
        sample = self.samples[position]
        spec = self.spec
        if epoch >= 0:
            rng = numpy_stream(*self.key, epoch, sample.id)
            frames = read_frames(sample.path, self._indices(sample, rng), self.decoder)
            return clip_rules.training_clip(frames, spec, rng), sample.label
        frames = read_frames(sample.path, self._indices(sample, None), self.decoder)
        if epoch == PLAIN:
            return clip_rules.test_clips(frames, spec, crops=1)[0], sample.label
        clips = clip_rules.test_clips(frames, spec, spec.test_views.crops)
        if spec.test_views.clips == 2:
            starts = clip_rules.segment_starts(sample.frames, spec.frames)
            frames = read_frames(sample.path, starts, self.decoder)
            clips = torch.cat([clips, clip_rules.test_clips(frames, spec, spec.test_views.crops)])
        return clips, sample.label  # [clips * crops, T, 3, S, S]

    def _indices(self, sample: Sample, rng: np.random.Generator | None) -> NDArray[np.int64]:
        """Return the frames of a clip; an exemplar has only those that were stored (TCD ops/dataset.py)."""
        if sample.stored is not None:
            return clip_rules.spread_indices(sample.stored, self.spec.frames)
        return clip_rules.segment_indices(sample.frames, self.spec.frames, rng)


class ClipLoader:
    """Makes batches of training clips and of test views, on the device."""

    def __init__(self, spec: ClipSpec, *, decoder: str, workers: int, device: torch.device, seed: int) -> None:
        """Remember what every batch of a run has in common.

        Args:
            spec: The protocol's clip section.
            decoder: Decoder name, see ``data.video``.
            workers: Worker processes; 0 decodes in this one.
            device: Where batches go.
            seed: The run seed, part of every draw's key.
        """
        self.spec = spec
        self.clock = LoaderClock()
        self._decoder = decoder
        self._workers = workers
        self._device = device
        self._seed = seed

    def training(
        self, samples: Sequence[Sample], epochs: int, batch_size: int, stage: str, *, drop_last: bool = False
    ) -> Iterator[Batch]:
        """Yield the batches of all epochs one after the other, each epoch in its own shuffled order.

        With ``drop_last`` an incomplete last batch is left out, unless it would be the only one.
        """
        per_epoch = batches_per_epoch(len(samples), batch_size, drop_last=drop_last)

        def plan() -> Iterator[list[Item]]:
            for epoch in range(epochs):
                order = numpy_stream(self._seed, "shuffle", stage, epoch).permutation(len(samples))
                for start in range(0, per_epoch * batch_size, batch_size):
                    yield [(epoch, int(i)) for i in order[start : start + batch_size]]

        return self._batches(samples, plan(), stage)

    def views(self, samples: Sequence[Sample], batch_size: int) -> Iterator[Batch]:
        """Yield the test views of the samples in order; clips are [B, V, T, 3, S, S]."""
        return self._in_order(samples, batch_size, VIEWS)

    def plain(self, samples: Sequence[Sample], batch_size: int) -> Iterator[Batch]:
        """Yield one clip a sample in order, the middle frames' centre crop; clips are [B, T, 3, S, S]."""
        return self._in_order(samples, batch_size, PLAIN)

    def _in_order(self, samples: Sequence[Sample], batch_size: int, kind: int) -> Iterator[Batch]:
        plan = (
            [(kind, i) for i in range(start, min(start + batch_size, len(samples)))]
            for start in range(0, len(samples), batch_size)
        )
        return self._batches(samples, plan, "views")

    def _batches(self, samples: Sequence[Sample], plan: Iterator[list[Item]], stage: str) -> Iterator[Batch]:
        on_cuda = self._device.type == "cuda"
        loader = DataLoader(
            _Clips(samples, self.spec, self._decoder, self._seed, stage),
            batch_sampler=_Plan(list(plan)),
            num_workers=self._workers,
            pin_memory=on_cuda,
        )
        batches = iter(loader)
        while True:
            start = time.perf_counter()
            try:
                pair = next(batches, None)
            except VideoError as error:
                # A worker process sends its whole traceback as the message, the cause last.
                raise VideoError(str(error).strip().splitlines()[-1].split("VideoError: ")[-1]) from None
            self.clock.waited += time.perf_counter() - start
            if pair is None:
                return
            clips, labels = pair
            yield Batch(
                clips.to(self._device, non_blocking=on_cuda),
                labels.to(self._device, non_blocking=on_cuda),
            )


def batches_per_epoch(num_samples: int, batch_size: int, *, drop_last: bool) -> int:
    """Return the number of batches that ``ClipLoader.training`` makes of an epoch of at least one sample."""
    assert num_samples > 0
    return max(1, num_samples // batch_size) if drop_last else -(-num_samples // batch_size)


class _Plan(list[list[Item]]):
    """A list of batches that serves as a batch sampler."""
