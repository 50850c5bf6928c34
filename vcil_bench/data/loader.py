"""Batches of clips: decoding in worker processes, uint8 until the device, every draw from a keyed stream.

One loader serves all epochs of a training phase, so workers start once and decode across epoch borders.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vcil_bench.protocol import ClipSpec
from vcil_bench.randomness import numpy_stream

from . import clips as clip_rules
from .video import VideoError, read_frames

Item = tuple[int, int]  # (epoch, position in the sample list); epoch -1 asks for the test views


@dataclass(frozen=True)
class Sample:
    """A labelled video.

    Attributes:
        id: Name within the dataset.
        path: The file.
        label: Position of its class in the class order; what a network's outputs are indexed by.
        frames: Frames that can be decoded.
    """

    id: str
    path: Path
    label: int
    frames: int


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
            indices = clip_rules.segment_indices(sample.frames, spec.frames, rng)
            frames = read_frames(sample.path, indices, self.decoder)
            return clip_rules.training_clip(frames, spec, rng), sample.label
        views = [clip_rules.segment_indices(sample.frames, spec.frames)]
        if spec.test_views.clips == 2:
            views.append(clip_rules.segment_starts(sample.frames, spec.frames))
        clips = [
            clip_rules.test_clips(read_frames(sample.path, v, self.decoder), spec, spec.test_views.crops)
            for v in views
        ]
        return torch.cat(clips), sample.label  # [clips * crops, T, 3, S, S]


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

    def training(self, samples: Sequence[Sample], epochs: int, batch_size: int, stage: str) -> Iterator[Batch]:
        """Yield the batches of all epochs one after the other, each epoch in its own shuffled order."""

        def plan() -> Iterator[list[Item]]:
            for epoch in range(epochs):
                order = numpy_stream(self._seed, "shuffle", stage, epoch).permutation(len(samples))
                for start in range(0, len(order), batch_size):
                    yield [(epoch, int(i)) for i in order[start : start + batch_size]]

        return self._batches(samples, plan(), stage)

    def views(self, samples: Sequence[Sample], batch_size: int) -> Iterator[Batch]:
        """Yield the test views of the samples in order; clips are [B, V, T, 3, S, S]."""
        positions = range(len(samples))
        plan = (
            [(-1, i) for i in positions[start : start + batch_size]]
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


class _Plan(list[list[Item]]):
    """A list of batches that serves as a batch sampler."""
