"""Batches of clips: decoding in worker processes, uint8 until the device, every draw from a keyed stream.

One loader serves a run. Its workers stay from pass to pass and decode across epoch borders; each batch is
divided among them, so that a pass does not begin with one worker decoding a whole batch. What the batches hold
is planned one batch at a time: the plan of 60 epochs of 160,000 videos would fill gigabytes.
"""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vcil_bench.common.errors import TrainingError, UserError
from vcil_bench.common.random_streams import numpy_stream
from vcil_bench.nets.parallel.batch_part import BatchPart
from vcil_bench.nets.parallel.team import Team
from vcil_bench.protocol import ClipSpec

from . import clips as clip_rules
from .crops import Box
from .store.frame_store import FrameStore
from .video import VideoError, read_frames, resolve_decoder
from .worker_pool import AHEAD, SHOWN, BatchMemory, Crew
from .worker_watchdog import Watch

Window = Callable[[int, int], Box | None]  # what to cut out of frames of a width and height, None for all
Drawn = tuple[NDArray[np.int64], np.random.Generator]  # frames of a clip, and what draws its crop
Item = tuple[int, int]  # (epoch, position in the sample list), or one of the next two in the epoch's place
VIEWS, PLAIN = -1, -2  # the protocol's test views; one centre crop of one clip


@dataclass(frozen=True, slots=True)
class Sample:
    """A labelled video, or a part of one; its frames count from 0, wherever in the file they begin.

    Attributes:
        id: Name within the dataset.
        path: The file, or the folder of its frames; text, since path objects take thrice the memory.
        label: Position of its class in the class order; what a network's outputs are indexed by.
        frames: Frames that it has; no others of the file are ever decoded.
        stored: Of an exemplar, the frames that were kept, ascending; no others are ever decoded. None for all.
        sha256: Hash of the file's content, by which a frame store knows it.
        first: Place of its frame 0 in the file.
        interpolated: Of an exemplar of which fewer frames were kept than a clip has: fill the clip by
            interpolation between them, not by repeating them.
    """

    id: str
    path: str
    label: int
    frames: int
    stored: tuple[int, ...] | None = None
    sha256: str = ""
    first: int = 0
    interpolated: bool = False

    @property
    def span(self) -> range:
        """Its frames as the file counts them."""
        return range(self.first, self.first + self.frames)


@dataclass(frozen=True, slots=True)
class Job:
    """Clips to be decoded by one worker, a part of a batch.

    Attributes:
        phase: Part of every draw's key.
        shape: Of what is decoded of a sample, [(V,) T, S, S, 3].
        place: Number of the first clip in memory.
        clips: Epoch (or ``VIEWS``, ``PLAIN``), position in the pass's list, and sample.
        second: The second clip of each, None for none.
    """

    phase: str
    shape: tuple[int, ...]
    place: int
    clips: list[tuple[int, int, Sample]]
    second: clip_rules.SecondClip | None


@dataclass(frozen=True)
class Batch:
    """Clips on the device.

    Attributes:
        clips: [B, T, 3, S, S] uint8; test batches have views in front of time, [B, V, T, 3, S, S]. In memory
            the colours of a pixel lie together. Where processes share a batch, this one's part, padded with its
            last clip to the same number for all.
        labels: [B] int64, positions in the class order; of the whole batch always.
        part: Which clips of the batch these are, where processes share it; None where they are all.
        second: A second clip of each, where the pass was asked for it; None else.
    """

    clips: Tensor
    labels: Tensor
    part: BatchPart | None = None
    second: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of clips, padding included."""
        return len(self.clips)


@dataclass(frozen=True)
class RowBatch:
    """Places of what a method holds itself, such as features; no clip is decoded for it.

    Attributes:
        rows: [B] int64 on the host, places in 0..N-1.
        part: The whole batch, where processes share a run: each computes all of it; None in a single process.
    """

    rows: Tensor
    part: BatchPart | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)


@dataclass
class LoaderClock:
    """Seconds spent waiting for data, which tells whether decoding limits a run."""

    waited: float = field(default=0.0)


class _Reach:
    """What is within a method's reach while it learns a task: the task's videos, and the exemplars it keeps."""

    def __init__(self, task: Sequence[Sample], kept: Callable[[], Iterable[Sample]]) -> None:
        self._task = {_content(sample) for sample in task}
        self._kept = kept

    def check(self, samples: Sequence[Sample]) -> None:
        """Refuse what is beyond it.

        Raises:
            TrainingError: Names the first such video.
        """
        others = [sample for sample in samples if _content(sample) not in self._task]
        if not others:
            return
        kept = {_content(sample): sample for sample in self._kept()}
        for sample in others:
            exemplar = kept.get(_content(sample))
            if exemplar is None:
                what = "is neither of the task nor in the exemplar memory"
            elif exemplar.stored is None or (sample.stored and set(sample.stored) <= set(exemplar.stored)):
                continue
            else:
                what = f"is an exemplar of which only the frames {list(exemplar.stored)} were kept"
            raise TrainingError(
                f"video {sample.id!r} {what}; keep videos of earlier tasks in vcil_bench.memory.ExemplarMemory, "
                'an attribute of the method, or declare data_access = "cumulative"'
            )


def _content(sample: Sample) -> tuple[str, str, str, range]:
    """Return what says which frames of which video a sample reads, from its file or from a frame store."""
    return sample.id, sample.path, sample.sha256, sample.span


class _Clips(Dataset["UserError | None"]):
    """Decodes the clips of a job, pixel by pixel, to their places in memory."""

    def __init__(
        self, spec: ClipSpec, decoder: str, store: FrameStore | None, seed: int, memory: Tensor, watch: Watch
    ) -> None:
        self.spec = spec
        self.decoder = decoder
        self.store = store
        self.seed = seed
        self.memory = memory
        self.watch = watch

    def __getitem__(self, job: Job) -> UserError | None:
        """Do a job; what is wrong with a video is returned: raised, it would arrive as a traceback's text."""
        places = _places(self.memory, job.shape)
        try:
            for place, (epoch, position, sample) in enumerate(job.clips, job.place):
                with self.watch.at(position):
                    self._fill(places[place], job.phase, epoch, sample, job.second)
        except UserError as error:
            return error.with_traceback(None)  # its frames would keep the workers alive
        return None

    def _fill(
        self, place: Tensor, phase: str, epoch: int, sample: Sample, second: clip_rules.SecondClip | None
    ) -> None:
        """Make what a pass wants of a sample [(V,) T, S, S, 3] in its place."""
        spec = self.spec
        if epoch >= 0:
            rng = numpy_stream(self.seed, "clip", phase, epoch, sample.id)
            drawn = self._indices(sample, rng), rng
            if second is None:
                self._training_clips(sample, [drawn], [place])
            else:
                other = numpy_stream(self.seed, "second clip", phase, epoch, sample.id)
                self._two_clips(sample, drawn, second, other, place)
            return
        frames = self._read(sample, self._indices(sample, None))
        if epoch == PLAIN:
            self._in_place(
                place, len(frames), lambda out: clip_rules.evaluation_crops(frames, spec, 1, out[None])
            )
            return
        crops = spec.test_views.crops
        clip_rules.evaluation_crops(frames, spec, crops, place[:crops])
        if spec.test_views.clips == 2:
            frames = self._read(sample, clip_rules.segment_starts(sample.frames, spec.frames))
            clip_rules.evaluation_crops(frames, spec, crops, place[crops:])

    def _two_clips(
        self,
        sample: Sample,
        first: Drawn,
        second: clip_rules.SecondClip,
        rng: np.random.Generator,
        place: Tensor,
    ) -> None:
        """Make a sample's clip and its second one [2, T, S, S, 3]."""
        stored = np.arange(sample.frames) if sample.stored is None else np.asarray(sample.stored)
        positions = second.positions(len(stored), self.spec.frames, rng)
        if positions is not None:
            self._training_clips(sample, [first, (stored[positions], rng)], list(place))
            return
        self._training_clips(sample, [first], [place[0]])
        place[1] = torch.tensor(clip_rules.BLANK, dtype=torch.uint8) if second.released else place[0]

    def _training_clips(self, sample: Sample, drawn: list[Drawn], places: list[Tensor]) -> None:
        """Make training clips [T, S, S, 3] of a video that is decoded once."""
        spec = self.spec

        def window(rng: np.random.Generator) -> Window:
            return lambda width, height: clip_rules.training_window(width, height, spec, rng)

        read = self._read_each(sample, [(indices, window(rng)) for indices, rng in drawn])
        for frames, (_, rng), place in zip(read, drawn, places, strict=True):
            self._in_place(place, len(frames), partial(clip_rules.training_pixels, frames, spec, rng))

    def _in_place(self, place: Tensor, frames: int, make: Callable[[Tensor], Any]) -> None:
        """Make a clip [T, S, S, 3] of its T frames, or of the fewer of an exemplar to interpolate."""
        if frames == len(place):
            make(place)
            return
        few = place.new_empty(frames, *place.shape[1:])
        make(few)
        place.copy_(clip_rules.interpolated(few, len(place)))

    def _read(self, sample: Sample, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return frames [T, H, W, 3]."""
        return self._read_each(sample, [(indices, lambda width, height: None)])[0]

    def _read_each(
        self, sample: Sample, wanted: list[tuple[NDArray[np.int64], Window]]
    ) -> list[NDArray[np.uint8]]:
        """Return each of some lists of frames [T, H, W, 3], of its window.

        Raises:
            VideoError: Names the video, the cause and the way out.
        """
        try:
            if self.store is not None:
                return [
                    self.store.read(sample.sha256, sample.first + indices, window, sample.span)
                    for indices, window in wanted
                ]
            places = sample.first + np.concatenate([indices for indices, _ in wanted])
            frames = read_frames(sample.path, places, self.decoder)
            read, start = [], 0
            for indices, window in wanted:
                part = frames[start : start + len(indices)]
                box = window(part.shape[2], part.shape[1])
                read.append(part if box is None else box.of(part))
                start += len(indices)
            return read
        except VideoError as error:
            way_out = (
                f"; {sample.span.stop} frames were counted: if it has changed since, prepare its dataset again "
                "(vcil-bench prepare DATASET ROOT)"
            )
            why = f"video {sample.id!r}: {error}{way_out if self.store is None else ''}"
            raise VideoError(why) from error

    def _indices(self, sample: Sample, rng: np.random.Generator | None) -> NDArray[np.int64]:
        """Return the frames of a clip; an exemplar has only those that were stored (TCD ops/dataset.py).

        Of one to interpolate they are fewer than the clip has.
        """
        if sample.stored is not None and sample.interpolated:
            return np.asarray(sample.stored)
        if sample.stored is not None:
            return clip_rules.spread_indices(sample.stored, self.spec.frames)
        return clip_rules.segment_indices(sample.frames, self.spec.frames, rng)


class ClipLoader:
    """Makes batches of training clips and of test views, on the device."""

    def __init__(
        self,
        spec: ClipSpec,
        *,
        decoder: str,
        workers: int,
        device: torch.device,
        seed: int,
        store: FrameStore | None = None,
        team: Team | None = None,
        limit_s: float = 120.0,
    ) -> None:
        """Remember what every batch of a run has in common.

        Args:
            spec: The protocol's clip section.
            decoder: Decoder name, see ``data.video``.
            workers: Worker processes; 0 decodes in this one, unless the decoder is not PyAV: one that hangs can
                only be ended together with its process.
            device: Where batches go.
            seed: The run seed, part of every draw's key.
            store: Read frames from here instead of from the videos.
            team: The processes that share every batch of ``training`` and ``plain``: each decodes its part of
                the clips, and has the labels of all.
            limit_s: Seconds that a worker may be at one video; then all are ended.
        """
        self.spec = spec
        self.clock = LoaderClock()
        self._team = team or Team()
        self._reach: list[_Reach] = []  # at most one; a list, since twins share it
        self._idle: list[Crew] = []  # likewise
        self._decoder = decoder
        self._store = store
        self._limit_s = limit_s
        may_hang = store is None and resolve_decoder(decoder) != "pyav"
        self._workers = max(workers, 1) if may_hang else workers
        self._device = device
        self._seed = seed

    def whole(self) -> ClipLoader:
        """Return a loader that gives every process all clips of a batch; its waiting counts as this one's."""
        twin = copy.copy(self)
        twin._team = Team()
        return twin

    def close(self) -> None:
        """End the workers."""
        self._idle.clear()

    @contextmanager
    def limited_to(self, task: Sequence[Sample], kept: Callable[[], Iterable[Sample]]) -> Iterator[None]:
        """Decode nothing but a task's videos and exemplars, and of these only the frames that were kept.

        Args:
            task: The task's videos.
            kept: Gives the exemplars that the method keeps at the moment.

        Raises:
            TrainingError: From ``training``, ``plain`` and ``views``, if they are asked for others.
        """
        self._reach.append(_Reach(task, kept))
        try:
            yield
        finally:
            self._reach.pop()

    def training(
        self,
        samples: Sequence[Sample],
        epochs: int,
        batch_size: int,
        phase: str,
        *,
        drop_last: bool = False,
        start: tuple[int, int] = (0, 0),
        second: clip_rules.SecondClip | None = None,
    ) -> Iterator[Batch]:
        """Yield the batches of all epochs one after the other, each epoch in its own shuffled order.

        Args:
            samples: The videos.
            epochs: Passes over them.
            batch_size: Videos per batch.
            phase: Part of every draw's key.
            drop_last: Leave out an incomplete last batch, unless it would be the only one.
            start: Epoch and batch of it to begin with; what follows is what an undisturbed run has there.
            second: Also decode a second clip of every video; the first is the same without it.
        """
        shuffled = self._shuffled(len(samples), epochs, batch_size, phase, drop_last=drop_last, start=start)
        plan = ([(epoch, position) for position in places.tolist()] for epoch, places in shuffled)
        self._check(samples)
        shape = min(batch_size, len(samples)), *(() if second is None else (2,))
        return self._batches(samples, plan, shape, phase, self._team, second)

    def rows(
        self,
        count: int,
        epochs: int,
        batch_size: int,
        phase: str,
        *,
        drop_last: bool = False,
        start: tuple[int, int] = (0, 0),
    ) -> Iterator[RowBatch]:
        """Yield batches of places in what a method holds itself, shuffled as ``training`` shuffles videos.

        Args:
            count: Number N of rows that it holds.
            epochs: Passes over them.
            batch_size: Rows per batch.
            phase: Part of every draw's key.
            drop_last: Leave out an incomplete last batch, unless it would be the only one.
            start: Epoch and batch of it to begin with.
        """
        for _, places in self._shuffled(count, epochs, batch_size, phase, drop_last=drop_last, start=start):
            total = len(places)
            part = BatchPart(0, total, total, self._team) if self._team.size > 1 else None
            yield RowBatch(torch.from_numpy(places), part)

    def _shuffled(
        self,
        count: int,
        epochs: int,
        batch_size: int,
        phase: str,
        *,
        drop_last: bool,
        start: tuple[int, int],
    ) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the epoch of every batch, and the places that are in it."""
        per_epoch = batches_per_epoch(count, batch_size, drop_last=drop_last)
        for epoch in range(start[0], epochs):
            order = numpy_stream(self._seed, "shuffle", phase, epoch).permutation(count)
            for number in range(start[1] if epoch == start[0] else 0, per_epoch):
                yield epoch, order[number * batch_size : (number + 1) * batch_size]

    def views(self, samples: Sequence[Sample], batch_size: int) -> Iterator[Batch]:
        """Yield the test views of the samples in order; clips are [B, V, T, 3, S, S]."""
        return self._in_order(samples, batch_size, VIEWS, Team())

    def plain(self, samples: Sequence[Sample], batch_size: int) -> Iterator[Batch]:
        """Yield one clip a sample in order, the middle frames' centre crop; clips are [B, T, 3, S, S]."""
        return self._in_order(samples, batch_size, PLAIN, self._team)

    def _check(self, samples: Sequence[Sample]) -> None:
        for reach in self._reach:
            reach.check(samples)

    def _in_order(self, samples: Sequence[Sample], batch_size: int, kind: int, team: Team) -> Iterator[Batch]:
        self._check(samples)
        plan = (
            [(kind, i) for i in range(start, min(start + batch_size, len(samples)))]
            for start in range(0, len(samples), batch_size)
        )
        views = self.spec.test_views
        shape = min(batch_size, len(samples)), *((views.clips * views.crops,) if kind == VIEWS else ())
        return self._batches(samples, plan, shape, "views", team)

    def _batches(
        self,
        samples: Sequence[Sample],
        plan: Iterator[list[Item]],
        shape: tuple[int, ...],
        phase: str,
        team: Team,
        second: clip_rules.SecondClip | None = None,
    ) -> Iterator[Batch]:
        """Yield what is planned; ``shape`` counts the samples of the largest batch, and the clips of each."""
        # A pass takes a number from torch's generator; what dropout draws depends on it.
        torch.empty((), dtype=torch.int64).random_()
        size, side = max(1, _share(shape[0], team.size)), self.spec.size
        sample_shape = (*shape[1:], self.spec.frames, side, side, 3)
        parts = max(1, min(self._workers, size))
        # Places of batches: those of which jobs are in work, and the one that is taken.
        places = 2 + (AHEAD * self._workers - 1) // parts if self._workers else 1
        place_bytes = size * math.prod(sample_shape)
        crew = self._crew(place_bytes, places)
        memory = crew.memory  # named apart from the crew, which ends when nothing names it
        in_work: deque[tuple[int, list[int]]] = deque()  # the batches': places and labels

        def jobs() -> Iterator[Job]:
            for batch in plan:
                taken = [number for number, _ in in_work]
                place = next(number for number in memory.free(place_bytes) if number not in taken)
                in_work.append((place, [samples[position].label for _, position in batch]))
                own = [(epoch, position, samples[position]) for epoch, position in _part(batch, team)]
                for part in range(parts):
                    start, end = (len(own) * n // parts for n in (part, part + 1))
                    yield Job(phase, sample_shape, place * size + start, own[start:end], second)

        def names(positions: Sequence[int]) -> str:
            return ", ".join(f"{samples[p].id!r} ({samples[p].path})" for p in positions) or "no video"

        crew.begin(jobs())
        while True:
            start = time.perf_counter()
            for _ in range(parts):
                done = crew.wait(names)
                if done is not True:
                    break
            self.clock.waited += time.perf_counter() - start
            if isinstance(done, UserError):
                del crew  # ends the workers
                raise done
            if not done:
                self._idle[:] = [crew]
                return
            place, told = in_work.popleft()
            last = self._workers and not in_work  # workers have jobs ahead
            if last:
                self._idle[:] = [crew]
                del crew
            spare = len(memory.free(place_bytes)) > places
            # Named nowhere here: its memory is lent for as long as the caller has it.
            yield self._batch(
                self._clips(
                    memory, place * place_bytes, (_share(len(told), team.size), *sample_shape), spare=spare
                ),
                told,
                team,
                second is not None,
            )
            if last:
                return

    def _batch(self, clips: Tensor, labels: list[int], team: Team, two: bool) -> Batch:
        """Make a batch of its clips [B, (V,) T, 3, S, S]; with two a sample, these are the views."""
        count = len(clips)
        part = BatchPart(team.rank * count, count, len(labels), team) if team.size > 1 else None
        first, second = (clips[:, 0], clips[:, 1]) if two else (clips, None)
        return Batch(first, self._on_device(torch.tensor(labels)), part, second)

    def _crew(self, place_bytes: int, places: int) -> Crew:
        """Return workers with room for batches of so many bytes: those that are idle, or new ones."""
        while self._idle:
            crew = self._idle.pop()
            if len(crew.memory.free(place_bytes)) >= places:
                return crew
            del crew  # ends the workers

        def work(memory: Tensor, watch: Watch) -> _Clips:
            return _Clips(self.spec, self._decoder, self._store, self._seed, memory, watch)

        shown = SHOWN if self._device.type == "cpu" else 0  # others get copies
        return Crew(work, self._workers, (places + shown) * place_bytes, self._limit_s)

    def _clips(self, memory: BatchMemory, start: int, shape: tuple[int, ...], *, spare: bool) -> Tensor:
        """Return the clips of a batch on the device: their memory where it can be spared, or a copy."""
        size = math.prod(shape)
        if spare and self._device.type == "cpu":
            return clip_rules.planes(memory.lend(start, size).view(shape))
        return clip_rules.planes(self._on_device(memory.bytes[start : start + size].view(shape)))

    def _on_device(self, shared: Tensor) -> Tensor:
        """Return a copy on the device; what it was made of may be written to when this returns."""
        if self._device.type == "cuda":
            return shared.pin_memory().to(self._device, non_blocking=True)
        return shared.clone().to(self._device)


def batches_per_epoch(num_samples: int, batch_size: int, *, drop_last: bool) -> int:
    """Return the number of batches that ``ClipLoader.training`` makes of an epoch of at least one sample."""
    assert num_samples > 0
    return max(1, num_samples // batch_size) if drop_last else -(-num_samples // batch_size)


def _part(batch: list[Item], team: Team) -> list[Item]:
    """Return what one of several processes decodes of a batch, the same number for each."""
    count = _share(len(batch), team.size)
    part = batch[team.rank * count : (team.rank + 1) * count]
    return part + batch[-1:] * (count - len(part))


def _share(clips: int, processes: int) -> int:
    """Return how many clips of a batch each of several processes decodes."""
    return -(-clips // processes)


def _places(memory: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Show memory as clips of a shape."""
    number = len(memory) // math.prod(shape)
    return memory[: number * math.prod(shape)].view(number, *shape)
