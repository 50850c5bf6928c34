"""The loader: the same batches wherever it starts and whoever shares them, and an end to what hangs."""

from __future__ import annotations

import ctypes
import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_dataset import Tiny

from vcil_bench.common.errors import TrainingError
from vcil_bench.common.random_streams import numpy_stream
from vcil_bench.data import loader as loader_module
from vcil_bench.data.clips import BLANK, SecondClip
from vcil_bench.data.datasets import adapter
from vcil_bench.data.loader import Batch, ClipLoader, Sample
from vcil_bench.data.prepare import prepare
from vcil_bench.data.store.build import build
from vcil_bench.data.store.frame_store import FrameStore
from vcil_bench.data.video import VideoError
from vcil_bench.data.worker_pool import BatchMemory
from vcil_bench.nets.parallel.batch_part import BatchPart
from vcil_bench.nets.parallel.team import Team
from vcil_bench.protocol import ClipSpec

SPEC = ClipSpec(frames=4, size=32)

# Of a machine with fewer cores than a test has workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def clip_loader(**changes: Any) -> ClipLoader:
    given = {"decoder": "auto", "workers": 0, "device": torch.device("cpu"), "seed": 1}
    return ClipLoader(changes.pop("spec", SPEC), **{**given, **changes})


@pytest.fixture(scope="module")
def samples(tiny: Tiny) -> list[Sample]:
    manifest = prepare(adapter("folder"), tiny.root, "videos.csv")
    videos = manifest.usable("train")
    return [
        Sample(v.id, str(tiny.root / v.path), label, v.facts.frames, sha256=v.facts.sha256)
        for label, v in enumerate(videos)
    ]


@pytest.fixture(scope="module")
def store(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    manifest = prepare(adapter("folder"), tiny.root, "videos.csv")
    made = FrameStore(tmp_path_factory.mktemp("store"))
    build([manifest], made, workers=1)
    return made


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.clips, other.clips)
        assert torch.equal(one.labels, other.labels)
        assert (one.second is None) == (other.second is None)
        assert one.second is None or other.second is None or torch.equal(one.second, other.second)


# --- what is in the batches


def test_shuffles_are_those_of_their_key(samples: list[Sample]) -> None:
    batches = list(clip_loader().training(samples, 2, 5, "task 1"))
    labels = [batch.labels.tolist() for batch in batches]
    orders = [numpy_stream(1, "shuffle", "task 1", epoch).permutation(12).tolist() for epoch in range(2)]
    assert labels == [order[start : start + 5] for order in orders for start in (0, 5, 10)]
    assert batches[0].clips.shape == (5, 4, 3, 32, 32)
    assert (batches[0].clips.dtype, batches[0].labels.dtype) == (torch.uint8, torch.int64)
    assert batches[0].clips.movedim(2, -1).is_contiguous()


def test_workers_change_nothing(samples: list[Sample]) -> None:
    alone = list(clip_loader().training(samples, 2, 5, "task 1"))
    assert_equal(list(clip_loader(workers=2).training(samples, 2, 5, "task 1")), alone)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("start", [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 1), (3, 0)])
def test_a_start_in_the_middle_gives_the_rest(
    samples: list[Sample], start: tuple[int, int], drop_last: bool
) -> None:
    per_epoch = 2 if drop_last else 3
    undisturbed = list(clip_loader().training(samples, 3, 5, "task 1", drop_last=drop_last))
    rest = clip_loader().training(samples, 3, 5, "task 1", drop_last=drop_last, start=start)
    assert_equal(list(rest), undisturbed[start[0] * per_epoch + start[1] :])


@pytest.mark.parametrize("processes", [2, 3, 5, 7])
def test_processes_share_a_batch(samples: list[Sample], processes: int) -> None:
    whole = list(clip_loader().training(samples, 1, 5, "task 1"))
    shares = [
        list(clip_loader(team=Team(rank, processes)).training(samples, 1, 5, "task 1"))
        for rank in range(processes)
    ]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert {len(part.clips) for part in parts} == {-(-len(batch.clips) // processes)}
        together = torch.cat([part.clips for part in parts])
        assert torch.equal(together[: len(batch.clips)], batch.clips)
        assert all(torch.equal(clip, batch.clips[-1]) for clip in together[len(batch.clips) :])
        assert all(torch.equal(part.labels, batch.labels) for part in parts)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("start", [(0, 1), (1, 2)])
def test_a_start_in_the_middle_gives_the_rest_from_workers(
    samples: list[Sample], start: tuple[int, int], workers: int
) -> None:
    undisturbed = list(clip_loader().training(samples, 3, 5, "task 1"))
    rest = clip_loader(workers=workers).training(samples, 3, 5, "task 1", start=start)
    assert_equal(list(rest), undisturbed[3 * start[0] + start[1] :])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_pass_takes_one_number_of_torchs_generator(samples: list[Sample], workers: int) -> None:
    loader = clip_loader(workers=workers)
    for _ in range(2):  # with new workers, and with those that are there
        torch.manual_seed(3)
        list(loader.training(samples, 2, 5, "task 1"))
        found = torch.rand(3)
        torch.manual_seed(3)
        torch.empty((), dtype=torch.int64).random_()
        assert torch.equal(found, torch.rand(3))


def test_whole_batches_and_views_are_not_shared(samples: list[Sample]) -> None:
    shared, alone = clip_loader(team=Team(1, 2)), clip_loader()
    assert_equal(list(shared.whole().training(samples, 1, 5, "x")), list(alone.training(samples, 1, 5, "x")))
    assert_equal(list(shared.views(samples, 5)), list(alone.views(samples, 5)))
    assert [len(batch.clips) for batch in shared.plain(samples, 5)] == [3, 3, 1]
    assert shared.whole().clock is shared.clock


def test_batches_are_planned_when_they_are_needed(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = 0
    original = numpy_stream

    def counted(*key: int | str) -> np.random.Generator:
        nonlocal planned
        planned += key[1] == "shuffle"
        return original(*key)

    monkeypatch.setattr(loader_module, "numpy_stream", counted)
    batches = clip_loader().training(samples, 100_000, 12, "task 1")
    next(batches)
    assert planned <= 2


def test_samples_are_slim(samples: list[Sample]) -> None:
    assert not hasattr(samples[0], "__dict__")


# --- two clips a sample

ALL, EIGHT = SecondClip(kept=-1), SecondClip(kept=8)


@pytest.fixture
def pixels_tell_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pixel be the number of its frame."""

    def numbered(path: str, indices: np.ndarray, decoder: str) -> np.ndarray:
        return np.broadcast_to(np.asarray(indices, np.uint8)[:, None, None, None], (len(indices), 48, 48, 3))

    monkeypatch.setattr(loader_module, "read_frames", numbered)


def frames_of(clips: torch.Tensor) -> list[list[int]]:
    return clips[..., 0, 0, 0].tolist()


@pytest.mark.parametrize("second", [ALL, EIGHT, SecondClip(kept=8, released=True)])
def test_a_second_clip_leaves_the_first_and_the_order_as_they_are(
    samples: list[Sample], second: SecondClip
) -> None:
    without = list(clip_loader().training(samples, 2, 5, "task 1"))
    both = list(clip_loader().training(samples, 2, 5, "task 1", second=second))
    assert all(batch.second is None for batch in without)
    assert_equal([dataclasses.replace(batch, second=None) for batch in both], without)
    for batch in both:
        assert batch.second is not None
        assert batch.second.shape == batch.clips.shape
        assert not torch.equal(batch.second, batch.clips)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_second_clips_are_the_same_from_workers_and_from_the_middle(samples: list[Sample], workers: int) -> None:
    alone = list(clip_loader().training(samples, 2, 5, "task 1", second=EIGHT))
    loader = clip_loader(workers=workers)
    assert_equal(list(loader.training(samples, 2, 5, "task 1", second=EIGHT)), alone)
    assert_equal(list(loader.training(samples, 2, 5, "task 1", second=EIGHT, start=(1, 1))), alone[4:])
    assert_equal(list(loader.training(samples, 1, 5, "x")), list(clip_loader().training(samples, 1, 5, "x")))


def test_processes_share_second_clips_as_they_do_the_first(samples: list[Sample]) -> None:
    whole = list(clip_loader().training(samples, 1, 5, "task 1", second=EIGHT))
    shares = [
        list(clip_loader(team=Team(rank, 2)).training(samples, 1, 5, "task 1", second=EIGHT)) for rank in (0, 1)
    ]
    for number, batch in enumerate(whole):
        together = torch.cat([share[number].second for share in shares])  # type: ignore[misc]
        assert batch.second is not None
        assert torch.equal(together[: len(batch.second)], batch.second)


@pytest.mark.usefixtures("pixels_tell_the_frame")
def test_a_second_clip_is_of_what_a_memory_would_keep(samples: list[Sample]) -> None:
    """Videos have 12 frames; of 8 that are kept, each of 4 segments has two."""
    kept = (0, 2, 3, 5, 6, 8, 9, 11)
    drawn: dict[SecondClip, set[tuple[int, ...]]] = {}
    for second in (EIGHT, SecondClip(8, released=True), ALL):
        batches = clip_loader().training(samples, 3, 12, "x", second=second)
        drawn[second] = {tuple(f) for b in batches if b.second is not None for f in frames_of(b.second)}
        assert len(drawn[second]) > 4
    for clip in drawn[EIGHT]:
        assert all(frame in kept[2 * k : 2 * k + 2] for k, frame in enumerate(clip))
    for clip in drawn[SecondClip(8, released=True)]:  # the same places, in the video's own frames
        assert all(frame in (2 * k, 2 * k + 1) for k, frame in enumerate(clip))
    for clip in drawn[ALL]:
        assert all(3 * k <= frame < 3 * k + 3 for k, frame in enumerate(clip))


@pytest.mark.usefixtures("pixels_tell_the_frame")
@pytest.mark.parametrize("released", [False, True])
def test_what_has_no_more_frames_than_are_kept_repeats_its_clip_or_has_a_blank_one(
    samples: list[Sample], released: bool
) -> None:
    exemplar = dataclasses.replace(samples[0], stored=(1, 4, 7, 10))
    short = dataclasses.replace(samples[1], frames=8)
    (batch,) = clip_loader().training([exemplar, short], 1, 2, "x", second=SecondClip(8, released))
    assert batch.second is not None
    if released:
        assert batch.second.movedim(2, -1).flatten(0, -2).unique(dim=0).tolist() == [[124, 116, 104]]
    else:
        assert torch.equal(batch.second, batch.clips)


@pytest.mark.usefixtures("pixels_tell_the_frame")
@pytest.mark.parametrize(
    ("stored", "repeated", "between"),
    [
        ((6,), [6, 6, 6, 6], [6, 6, 6, 6]),
        ((2, 8), [2, 2, 8, 8], [2, 4, 6, 8]),
        ((1, 4, 10), [1, 4, 4, 10], [1, 3, 6, 10]),
    ],
)
def test_few_stored_frames_are_repeated_or_interpolated(
    samples: list[Sample], stored: tuple[int, ...], repeated: list[int], between: list[int]
) -> None:
    kept = dataclasses.replace(samples[0], stored=stored)
    filled = dataclasses.replace(kept, interpolated=True)
    loader = clip_loader()
    for sample, frames in ((kept, repeated), (filled, between)):
        for (batch,) in (loader.training([sample], 1, 1, "x"), loader.plain([sample], 1)):
            assert frames_of(batch.clips) == [frames]


def test_interpolated_frames_are_those_of_the_crop_and_no_others_are_read(
    samples: list[Sample], store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    exemplar = dataclasses.replace(samples[0], stored=(2, 8))
    reads: list[list[int]] = []
    original = loader_module.read_frames

    def counted(path: str, indices: np.ndarray, decoder: str) -> np.ndarray:
        reads.append(list(indices))
        return original(path, indices, decoder)

    monkeypatch.setattr(loader_module, "read_frames", counted)
    for source in (None, store):
        of_two = clip_loader(store=source, spec=dataclasses.replace(SPEC, frames=2))
        (two,) = of_two.training([exemplar], 1, 1, "x")
        interpolated = dataclasses.replace(exemplar, interpolated=True)
        (four,) = clip_loader(store=source).training([interpolated], 1, 1, "x")
        assert torch.equal(four.clips[:, [0, 3]], two.clips)  # the same crop
        assert four.clips.unique(dim=1).shape[1] == 4
    assert reads == [[2, 8], [2, 8]]  # of the decoder; the other is the store


def test_a_blank_clip_is_nothing_behind_a_networks_normalisation() -> None:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert ((torch.tensor(BLANK) / 255 - mean) / std).abs().max() < 0.01


def test_two_clips_are_read_at_once(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    original = loader_module.read_frames

    def counted(path: str, indices: np.ndarray, decoder: str) -> np.ndarray:
        reads.append(len(indices))
        return original(path, indices, decoder)

    monkeypatch.setattr(loader_module, "read_frames", counted)
    list(clip_loader().training(samples, 1, 12, "x", second=EIGHT))
    assert reads == [8] * 12


def test_second_clips_come_from_a_store_as_well(samples: list[Sample], store: FrameStore) -> None:
    (batch,) = clip_loader(store=store).training(samples, 1, 12, "x", second=EIGHT)
    (decoded,) = clip_loader().training(samples, 1, 12, "x", second=EIGHT)
    assert batch.second is not None
    assert decoded.second is not None
    assert (batch.second.float() - decoded.second.float()).abs().mean() < 8  # JPEG


# --- workers


@pytest.fixture
def forked() -> None:
    """Skip where workers are started anew, which replaced functions do not reach."""
    if multiprocessing.get_start_method() != "fork":
        pytest.skip("workers are not forked here")


def workers_of(batches: Iterator[Batch] | list[Batch]) -> set[int]:
    """Return the workers of batches whose pixels are their decoders' process ids."""
    return set(torch.cat([batch.clips.flatten() for batch in batches]).unique().tolist())


@pytest.fixture
def pixels_tell_the_process(forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        loader_module, "read_frames", lambda *_: np.full((4, 48, 48, 3), os.getpid() % 256, np.uint8)
    )


@pytest.mark.usefixtures("pixels_tell_the_process")
def test_workers_stay_from_pass_to_pass(samples: list[Sample]) -> None:
    loader = clip_loader(workers=2)
    first = workers_of(loader.training(samples, 2, 4, "x"))
    assert len(first) == 2
    assert workers_of(loader.whole().training(samples, 1, 3, "y")) == first
    assert workers_of(loader.plain(samples, 4)) == first
    training = loader.training(samples[:8], 1, 4, "z")
    taken = [next(training), next(training)]  # whoever counts batches does not ask whether there are more
    assert workers_of(loader.plain(samples, 4)) == first == workers_of(taken)
    assert list(training) == []
    loader.close()
    assert _no_children()


@pytest.mark.usefixtures("pixels_tell_the_process")
def test_a_pass_within_a_pass_has_workers_of_its_own(samples: list[Sample]) -> None:
    loader = clip_loader(workers=1)
    outer = loader.training(samples, 2, 4, "x")
    taken = [next(outer)]
    within = workers_of(loader.plain(samples, 4))
    assert within.isdisjoint(workers_of(taken))
    assert workers_of([*taken, *outer]) == workers_of(taken)
    assert len(multiprocessing.active_children()) == 1  # one crew is kept


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_of_a_test_serve_training_as_well(samples: list[Sample], workers: int) -> None:
    loader, alone = clip_loader(workers=workers), clip_loader()
    with torch.inference_mode():
        list(loader.views(samples, 6))
    (batch,) = loader.training(samples, 1, 12, "x")
    assert not batch.clips.is_inference()
    assert_equal([batch], list(alone.training(samples, 1, 12, "x")))
    assert_equal(list(loader.training(samples, 1, 5, "x")), list(alone.training(samples, 1, 5, "x")))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pass_that_is_given_up_leaves_nothing_to_the_next(samples: list[Sample], workers: int) -> None:
    loader, alone = clip_loader(workers=workers), clip_loader()
    given_up = loader.training(samples, 3, 4, "x")
    next(given_up)
    given_up.close()
    assert_equal(list(loader.training(samples, 1, 5, "y")), list(alone.training(samples, 1, 5, "y")))


def test_passes_of_other_shapes_use_the_same_memory_or_more(samples: list[Sample]) -> None:
    spec = dataclasses.replace(SPEC, test_views=dataclasses.replace(SPEC.test_views, crops=3))
    loader, alone = clip_loader(spec=spec, workers=2), clip_loader(spec=spec)
    for name, given in (
        ("plain", (samples, 2)),
        ("views", (samples, 5)),
        ("training", (samples, 2, 4, "x")),
        ("plain", (samples[:1], 7)),
        ("plain", ([], 7)),
        ("views", (samples, 12)),
    ):
        assert_equal(list(getattr(loader, name)(*given)), list(getattr(alone, name)(*given)))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_that_are_kept_stay_as_they_are(samples: list[Sample], workers: int) -> None:
    spec = dataclasses.replace(SPEC, test_views=dataclasses.replace(SPEC.test_views, crops=3))
    loader = clip_loader(spec=spec, workers=workers)
    kept = [next(loader.training(samples, 2, 5, "x"))]  # of a pass that is given up
    for first in range(3):  # and of passes in other memory, in the same, and in some that is partly lent
        for number, batch in enumerate(loader.training(samples, 2, 4, "y")):
            if number in (first, 5):
                kept.append(batch)
        kept += list(loader.plain(samples, 3))[first : first + 1]
        kept += list(loader.views(samples, 2))[first : first + 1]
    expected = [(batch.clips.clone(), batch) for batch in kept]
    for _ in range(2):
        for ask in passes(loader, samples):
            for _ in ask():
                pass
    assert all(torch.equal(clips, batch.clips) for clips, batch in expected)
    alone = clip_loader(spec=spec)
    assert torch.equal(kept[0].clips, next(alone.training(samples, 2, 5, "x")).clips)
    assert torch.equal(kept[-1].clips, list(alone.views(samples, 2))[2].clips)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_loop_over_batches_copies_none(
    samples: list[Sample], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = 0
    original = BatchMemory.lend

    def counted(memory: BatchMemory, start: int, size: int) -> torch.Tensor:
        nonlocal lent
        lent += 1
        return original(memory, start, size)

    monkeypatch.setattr(BatchMemory, "lend", counted)
    loader = clip_loader(workers=workers)
    for batch in loader.training(samples, 4, 4, "x"):  # noqa: B007 - holds one while it gets the next
        pass
    assert lent == 12
    kept = list(loader.training(samples, 4, 4, "x"))
    assert lent < 12 + len(kept)


def test_memory_is_lent_while_anything_shows_it() -> None:
    memory = BatchMemory(40, workers=0)
    first, second = memory.lend(0, 10), memory.lend(20, 5)
    assert memory.free(10) == [1, 3]
    assert memory.free(20) == []
    assert memory.free(5) == [2, 3, 5, 6, 7]
    part = first[3:5].view(1, 2)
    memory.bytes[3] = 7
    assert part[0, 0] == 7
    del first
    assert memory.free(10) == [1, 3]
    del part, second
    assert memory.free(10) == [0, 1, 2, 3]


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_workers_that_died_between_passes_are_replaced(samples: list[Sample]) -> None:
    loader, alone = clip_loader(workers=2), clip_loader()
    list(loader.plain(samples, 5))
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    assert_equal(list(loader.plain(samples, 5)), list(alone.plain(samples, 5)))


@pytest.mark.usefixtures("forked")
def test_workers_decode_a_batch_together(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = multiprocessing.Barrier(3)
    original = loader_module.read_frames

    def together(*given: Any) -> np.ndarray:
        meeting.wait(60)  # one worker alone would wait in vain
        return original(*given)

    monkeypatch.setattr(loader_module, "read_frames", together)
    (batch,) = clip_loader(workers=3).plain(samples[:3], 3)
    monkeypatch.setattr(loader_module, "read_frames", original)
    assert_equal([batch], list(clip_loader().plain(samples[:3], 3)))


# --- what a method may see


def passes(loader: ClipLoader, samples: list[Sample]) -> list[Callable[[], Any]]:
    """Return every way of asking for clips; batches need not be taken."""
    return [
        lambda: loader.training(samples, 1, 5, "x"),
        lambda: loader.plain(samples, 5),
        lambda: loader.views(samples, 5),
        lambda: loader.whole().training(samples, 1, 5, "x"),
    ]


def test_a_task_and_its_exemplars_are_within_reach(samples: list[Sample]) -> None:
    exemplar = dataclasses.replace(samples[5], stored=(1, 4, 7))
    fewer, relabelled = (
        dataclasses.replace(exemplar, stored=(4,)),
        dataclasses.replace(samples[0], label=99, stored=(0, 1)),
    )
    loader = clip_loader()
    with loader.limited_to(samples[:4], lambda: [exemplar, samples[6]]):
        for ask in passes(loader, [*samples[:4], relabelled, exemplar, fewer, samples[6]]):
            ask()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"id": "other", "path": "other.mp4"},
            "video 'other' is neither of the task nor in",
        ),
        ({"path": "other.mp4"}, "is neither of the task nor in"),
        ({"sha256": "0" * 64}, "is neither of the task nor in"),
        ({"stored": None}, r"an exemplar of which only the frames \[1, 4, 7\] were kept"),
        ({"stored": (1, 2)}, r"an exemplar of which only the frames \[1, 4, 7\] were kept"),
    ],
)
def test_other_videos_and_frames_are_out_of_reach_until_the_task_is_learnt(
    samples: list[Sample], changes: dict[str, Any], message: str
) -> None:
    exemplar = dataclasses.replace(samples[5], stored=(1, 4, 7))
    loader, wanted = clip_loader(), [*samples[:4], dataclasses.replace(exemplar, **changes)]
    with loader.limited_to(samples[:4], lambda: [exemplar]):
        for ask in passes(loader, wanted):
            with pytest.raises(TrainingError, match=message):
                ask()
    for ask in passes(loader, wanted):
        ask()


def test_exemplars_are_those_of_the_moment(samples: list[Sample]) -> None:
    kept: list[Sample] = []
    loader = clip_loader()
    with loader.limited_to(samples[:4], lambda: kept):
        with pytest.raises(TrainingError):
            loader.plain(samples[4:5], 5)
        kept.append(samples[4])
        loader.plain(samples[4:5], 5)


# --- from the store


@pytest.mark.parametrize("workers", [0, 1])
def test_the_store_gives_the_same_frames_nearly(
    samples: list[Sample], store: FrameStore, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ClipSpec(frames=4, size=32, test_views=dataclasses.replace(SPEC.test_views, clips=2, crops=3))
    decoded, stored = (
        clip_loader(spec=spec),
        clip_loader(spec=spec, store=store, workers=workers, decoder="decord"),
    )
    ways = ("training", (samples, 1, 5, "x")), ("views", (samples, 5)), ("plain", (samples, 5))
    for name, given in ways:
        expected = list(getattr(decoded, name)(*given))
        with monkeypatch.context() as patch:
            patch.setattr(loader_module, "read_frames", None)
            found = list(getattr(stored, name)(*given))
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.labels, other.labels)
            assert one.clips.shape == other.clips.shape
            assert (one.clips.int() - other.clips.int()).abs().float().mean() < 4


def test_a_video_missing_in_the_store_is_named(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"video 'blue/0\.mp4': .*prepare DATASET ROOT --store"):
        list(clip_loader(store=FrameStore(tmp_path)).plain(samples, 5))


# --- what goes wrong


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_got_shorter_is_named(samples: list[Sample], workers: int) -> None:
    longer = Sample("v", samples[0].path, 0, frames=40)
    with pytest.raises(VideoError) as caught:
        list(clip_loader(workers=workers).plain([longer], 1))
    assert _no_children()
    told = str(caught.value)
    assert "\n" not in told
    for part in ("video 'v'", "only 12 frames can be decoded", "40 frames were counted", "vcil-bench prepare"):
        assert part in told


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_several_lines_arrives_whole(
    samples: list[Sample], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> np.ndarray:
        raise VideoError("one line: VideoError: of two\nand the other")

    monkeypatch.setattr(loader_module, "read_frames", refuse)
    with pytest.raises(VideoError) as caught:
        list(clip_loader(workers=workers).plain(samples[:1], 1))
    assert "one line: VideoError: of two\nand the other" in str(caught.value)
    assert _no_children()


def _hang(*_: Any) -> np.ndarray:
    time.sleep(600)
    raise AssertionError


def _hang_with_the_lock(*_: Any) -> np.ndarray:
    """Sleep as a library does that never gives Python's lock back: nothing else in the process goes on."""
    ctypes.PyDLL(None).sleep(600)
    raise AssertionError


def _die(*_: Any) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _no_children() -> bool:
    end = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.05)
    return not multiprocessing.active_children()


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("hang", [pytest.param(_hang, marks=pytest.mark.slow), _hang_with_the_lock])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_decoder_that_hangs_is_ended_and_named(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch, workers: int, hang: Callable[..., np.ndarray]
) -> None:
    original = loader_module.read_frames
    monkeypatch.setattr(
        loader_module, "read_frames", lambda path, *more: (hang if "red/1" in path else original)(path, *more)
    )
    batches = clip_loader(workers=workers, limit_s=1).plain(samples, 2)
    with pytest.raises(VideoError, match=r"not decoded within 1 s: 'red/1\.mp4' \(.*decoder=auto"):
        list(batches)
    assert _no_children()


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_slow_videos_are_waited_for(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    original = loader_module.read_frames

    def slow(*given: Any) -> np.ndarray:
        time.sleep(0.1)
        return original(*given)

    monkeypatch.setattr(loader_module, "read_frames", slow)
    many = samples * 5  # take longer together than one may
    assert len(list(clip_loader(workers=1, limit_s=5).plain(many, len(many)))) == 1
    assert len(many) * 0.1 > 5


@pytest.mark.usefixtures("forked")
def test_a_killed_worker_is_told_with_its_video(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "read_frames", _die)
    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(VideoError, match=r"a worker process died.*'blue/0\.mp4'.*--set workers=N"):
        list(clip_loader(workers=1).plain(samples, 12))
    assert signal.getsignal(signal.SIGCHLD) == before
    assert _no_children()


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("workers", "end"),
    [
        pytest.param(1, lambda: os._exit(0), id="exit 0 alone", marks=pytest.mark.slow),
        pytest.param(2, lambda: os._exit(0), id="exit 0", marks=pytest.mark.slow),
        pytest.param(2, lambda: os._exit(3), id="exit 3", marks=pytest.mark.slow),
        pytest.param(2, _die, id="kill"),
    ],
)
def test_a_worker_that_ends_in_the_middle_of_an_epoch_is_told_with_its_video(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch, workers: int, end: Callable[[], Any]
) -> None:
    original = loader_module.read_frames
    monkeypatch.setattr(
        loader_module, "read_frames", lambda path, *more: end() if "red/1" in path else original(path, *more)
    )
    taken = 0
    with pytest.raises(VideoError, match=r"a worker process died.*'red/1\.mp4'"):  # noqa: PT012 - counts
        for _ in clip_loader(workers=workers, limit_s=60).plain(samples, 2):
            taken += 1
    assert taken < 6
    assert _no_children()


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_other_decoders_never_run_in_this_process(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    def reader(*_: Any) -> np.ndarray:
        return np.tile(np.frombuffer(os.getpid().to_bytes(3, "little"), np.uint8), (4, 48, 48, 1))

    def process(loader: ClipLoader) -> int:
        (batch,) = loader.plain(samples[:1], 1)
        return int.from_bytes(batch.clips[0, 0, :, 0, 0].tolist(), "little")

    monkeypatch.setattr(loader_module, "read_frames", reader)
    assert process(clip_loader(decoder=decoder)) != os.getpid()
    assert process(clip_loader()) == os.getpid()


@pytest.mark.parametrize("drop_last", [False, True])
def test_rows_are_shuffled_as_videos_are_and_go_on_in_the_middle(drop_last: bool) -> None:
    def rows(**more: Any) -> list[list[int]]:
        found = clip_loader().rows(7, 2, 3, "phase", drop_last=drop_last, **more)
        return [batch.rows.tolist() for batch in found]

    per_epoch = 2 if drop_last else 3
    orders = [numpy_stream(1, "shuffle", "phase", epoch).permutation(7) for epoch in range(2)]
    whole = [order[3 * i : 3 * i + 3].tolist() for order in orders for i in range(per_epoch)]
    assert rows() == whole
    assert rows(start=(1, 1)) == whole[per_epoch + 1 :]


def test_every_process_has_all_rows_of_a_batch() -> None:
    alone, team = (list(clip_loader(team=team).rows(7, 1, 3, "phase")) for team in (Team(), Team(1, 2)))
    assert [batch.rows.tolist() for batch in team] == [batch.rows.tolist() for batch in alone]
    assert [batch.part for batch in alone] == [None] * 3
    assert [batch.part for batch in team] == [BatchPart(0, n, n, Team(1, 2)) for n in (3, 3, 1)]
