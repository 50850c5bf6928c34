"""Intervals of videos: which frames they have, that no others are ever decoded, and what is told of odd ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_factory import barcode_frame, barcode_video, read_barcodes
from PIL import Image

from vcil_bench.common.errors import TrainingError
from vcil_bench.data import loader as loader_module
from vcil_bench.data.clips import exemplar_indices, segment_indices, segment_starts
from vcil_bench.data.datasets import Listed
from vcil_bench.data.datasets.base import Interval
from vcil_bench.data.datasets.folder import Folder
from vcil_bench.data.loader import ClipLoader, Sample
from vcil_bench.data.manifest import DataError, Manifest, manifest_path
from vcil_bench.data.prepare import prepare
from vcil_bench.data.prepare import read_facts as fact_reader
from vcil_bench.data.prepare.report import statistics, summary, summary_lines
from vcil_bench.data.store.build import build
from vcil_bench.data.store.frame_store import FrameStore
from vcil_bench.data.video import VideoError
from vcil_bench.memory import ExemplarMemory
from vcil_bench.protocol import ClipSpec, MemorySpec, Protocol
from vcil_bench.protocol import spec as protocol_spec
from vcil_bench.record_schema import MemoryUse
from vcil_bench.stream import Task, TaskStream

pytestmark = pytest.mark.usefixtures("own_cache")

SIZE = 96  # frames are shown as they are, so that their barcodes can be read
SPEC = ClipSpec(frames=4, size=SIZE, train_crop="center", flip=False)
PROTOCOL = {
    "name": "parts",
    "version": 1,
    "dataset": {"name": "folder"},
    "classes": {"num": 2, "order": {"kind": "numpy_shuffle"}},
    "tasks": {"sizes": [1, 1]},
    "seeds": [1],
    "clip": {"frames": 4, "size": SIZE},
    "metrics": {"headline": "final_accuracy"},
}


class Parts(Folder):
    """A dataset whose list is given."""

    def __init__(self, listed: Sequence[Listed]) -> None:
        self.listed = list(listed)

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        return self.listed


def part(
    name: str,
    start: float,
    end: float,
    *,
    path: str = "one.mp4",
    label: str = "a",
    split: str = "train",
    **more: Any,
) -> Listed:
    """List an interval of a video of 100 frames at 25 a second, unless another is named."""
    given = {"duration": 4.0, **{k: more.pop(k) for k in ("duration", "fps", "min_frames") if k in more}}
    return Listed(name, path, label, split, path, interval=Interval(start, end, **given), **more)


LISTED = [
    part("a0", 1.0, 2.0),
    part("a1", 2.0, 2.4),
    part("b0", 2.8, 6.0, label="b"),
    part("b1", 1.0, 2.0, path="slow.mp4", label="b"),
    part("at", 0.0, 1.2, path="test.mp4", split="test"),
    part("bt", 1.2, 3.4, path="test.mp4", split="test", label="b"),
]
SPANS = {
    "a0": range(25, 50),
    "a1": range(50, 60),
    "b0": range(70, 100),  # cut at the end of the video
    "b1": range(12, 24),  # 12 frames a second
    "at": range(0, 30),
    "bt": range(30, 85),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make three videos whose frames carry 0, 200 and 400 and on."""
    folder = tmp_path_factory.mktemp("parts")
    for name, first, fps in (("one", 0, 25), ("test", 200, 25), ("slow", 400, 12)):
        barcode_video(folder / f"{name}.mp4", 100, width=SIZE, height=SIZE, first=first, fps=fps)
    return folder


def prepared(root: Path, listed: Sequence[Listed] = LISTED) -> Manifest:
    return prepare(Parts(listed), root, "parts")


def stream_of(manifest: Manifest, **changes: Any) -> TaskStream:
    return TaskStream(Protocol({**PROTOCOL, **changes}, "here"), manifest, 1)


def samples_of(manifest: Manifest) -> dict[str, Sample]:
    """Return all samples by name."""
    stream = stream_of(manifest)
    return {s.id: s for i in range(2) for s in (*stream.task(i).train, *stream.test(i))}


def clip_loader(spec: ClipSpec = SPEC, **changes: Any) -> ClipLoader:
    return ClipLoader(spec, decoder="auto", workers=0, device=torch.device("cpu"), seed=1, **changes)


def shown(clip: torch.Tensor) -> list[int]:
    """Return the numbers that the frames of a clip [T, 3, S, S] carry."""
    return read_barcodes(clip.permute(0, 2, 3, 1).numpy())


FIRST = {"one.mp4": 0, "test.mp4": 200, "slow.mp4": 400}
NUMBERS = {v.id: [FIRST[v.path] + frame for frame in SPANS[v.id]] for v in LISTED}


# --- which frames


def test_seconds_become_frames_by_the_rate_of_the_file(root: Path) -> None:
    manifest = prepared(root)
    assert {v.path: v.facts.fps for v in manifest.videos} == {"one.mp4": 25, "test.mp4": 25, "slow.mp4": 12}
    assert {v.id: v.span for v in manifest.videos} == SPANS
    assert {name: s.span for name, s in samples_of(manifest).items()} == SPANS
    assert manifest.left_out() == []


def test_a_folder_of_frames_is_counted_by_the_rate_of_its_list(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(90):
        picture = barcode_frame(number, SIZE, SIZE)
        Image.fromarray(picture).save(tmp_path / f"frames/img_{number + 1:05}.jpg", quality=95)
    listed = [
        part("known", 1.0, 2.0, path="frames", fps=30.0),
        part("b", 1.0, 2.0, path="frames", fps=15.0, label="b"),
        part("unknown", 1.0, 2.0, path="frames"),
        *(part(f"t{label}", 0.0, 1.0, path="frames", fps=30.0, label=label, split="test") for label in "ab"),
    ]
    manifest = prepared(tmp_path, listed)
    (sample,) = (s for s in samples_of(manifest).values() if s.id == "known")
    assert sample.span == range(30, 60)
    (batch,) = clip_loader().plain([sample], 1)
    assert shown(batch.clips[0]) == [33, 41, 48, 56]
    assert [v.span for v in manifest.videos[:2]] == [range(30, 60), range(15, 30)]
    ((name, problem),) = ((v.id, str(v.problem)) for v in manifest.left_out())
    assert (name, problem) == (
        "unknown",
        "the frame rate of its file is not known, so its seconds tell no frames",
    )


@pytest.mark.parametrize("stored", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_interval_is_all_that_is_decoded(root: Path, tmp_path: Path, stored: bool) -> None:
    manifest = prepared(root)
    store = None
    if stored:
        store = FrameStore(tmp_path)
        assert build([manifest], store, workers=1).made == 3  # a video once, however many intervals it has
    samples = samples_of(manifest)
    loader = clip_loader(store=store)
    seen: dict[str, set[int]] = {name: set() for name in samples}
    names = list(samples)
    numbered = [dataclasses.replace(s, label=i) for i, s in enumerate(samples.values())]
    for batch in loader.training(numbered, 60, 3, "task 1"):
        for clip, label in zip(batch.clips, batch.labels.tolist(), strict=True):
            seen[names[label]] |= set(shown(clip))
    for name, frames in SPANS.items():
        reachable = len(frames) - len(frames) % SPEC.frames  # segments of equal length leave the last frames out
        assert seen[name] == set(NUMBERS[name][:reachable])
    for batch in loader.plain(numbered, 1):
        name = names[int(batch.labels)]
        middle = segment_indices(len(SPANS[name]), SPEC.frames)
        assert shown(batch.clips[0]) == [NUMBERS[name][i] for i in middle]


def test_test_views_stay_inside(root: Path) -> None:
    samples = samples_of(prepared(root))
    views = dataclasses.replace(SPEC, test_views=protocol_spec.TestViews(clips=2))
    (batch,) = clip_loader(views).views([samples["bt"]], 1)
    wanted = [segment_indices(55, 4), segment_starts(55, 4)]
    assert [shown(clip) for clip in batch.clips[0]] == [[NUMBERS["bt"][i] for i in view] for view in wanted]


def test_a_file_that_got_shorter_is_named(root: Path) -> None:
    longer = Sample("v", str(root / "one.mp4"), 0, frames=40, first=80)
    with pytest.raises(VideoError, match=r"'v': .*only 100 frames can be decoded; 120 frames were counted"):
        list(clip_loader().plain([longer], 1))


# --- exemplars


@pytest.mark.parametrize("kept", [2, "all"])
def test_exemplars_keep_frames_of_their_interval_alone(root: Path, kept: Any) -> None:
    stream = stream_of(prepared(root))
    task = stream.task(0)
    label = stream.class_names[stream.order[0]]
    memory = ExemplarMemory(MemorySpec(per_class=2, frames=kept), SPEC)
    memory.grow(task)
    memory.store(task, {0: [1, 0]})
    samples = memory.samples()
    expected = {"a": ["a1", "a0"], "b": ["b1", "b0"]}[label]
    assert [s.id for s in samples] == expected
    for sample, batch in zip(samples, clip_loader().plain(samples, 1), strict=True):
        rule = exemplar_indices(sample.frames, 2).repeat(2) if kept == 2 else segment_indices(sample.frames, 4)
        assert shown(batch.clips[0]) == [NUMBERS[sample.id][i] for i in rule]
    frames = 4 if kept == 2 else sum(len(SPANS[name]) for name in expected)
    assert memory.use() == MemoryUse(videos=2, frames=frames, bytes=frames * 3 * SIZE**2)


def test_a_task_gives_no_reach_beyond_its_intervals(root: Path) -> None:
    samples = samples_of(prepared(root))
    wider = dataclasses.replace(samples["a0"], first=0, frames=100)
    later = dataclasses.replace(samples["a0"], first=50)
    loader = clip_loader()
    with loader.limited_to([samples["a0"]], list):
        list(loader.plain([samples["a0"]], 1))
        for other in (wider, later, samples["a1"]):
            with pytest.raises(TrainingError, match="is neither of the task nor in the exemplar memory"):
                list(loader.plain([other], 1))


def test_a_video_in_two_tasks_shares_no_frame_among_them(root: Path) -> None:
    stream = stream_of(prepared(root))
    tasks: list[Task] = [stream.task(i) for i in range(2)]
    spans = [{f for s in task.train if s.path.endswith("one.mp4") for f in s.span} for task in tasks]
    assert all(spans)
    assert spans[0].isdisjoint(spans[1])


# --- the frame store


def test_a_capped_store_gives_the_nearest_frame_of_the_interval(root: Path, tmp_path: Path) -> None:
    manifest = prepared(root)
    store = FrameStore(tmp_path, max_frames=5)
    build([manifest], store, workers=1)
    assert store.numbers(100).tolist() == [10, 30, 50, 70, 90]
    samples = samples_of(manifest)
    for name, wanted in {"a0": {30}, "a1": {50}, "b0": {70, 90}, "bt": {230, 250, 270}}.items():
        (batch,) = clip_loader(store=store).plain([samples[name]], 1)
        assert set(shown(batch.clips[0])) == wanted
    assert store.without_frames(manifest) == ["b1"]  # frames 12 to 23
    with pytest.raises(VideoError, match=r"'b1': .*no frame is kept of range\(12, 24\)"):
        list(clip_loader(store=store).plain([samples["b1"]], 1))
    assert FrameStore(tmp_path / "whole").without_frames(manifest) == []


def test_a_run_refuses_a_store_without_frames_of_an_interval(root: Path, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from vcil_bench.run.loop import _store

    manifest = prepared(root)
    build([manifest], FrameStore(tmp_path, max_frames=5), workers=1)
    plan: Any = SimpleNamespace(options=SimpleNamespace(store=True, store_dir=str(tmp_path)))
    with pytest.raises(DataError, match=r"keeps 5 frames of a video, none in 1 intervals of folder .first: b1"):
        _store(plan, manifest)


# --- the manifest


def test_a_file_is_read_once_for_all_its_intervals(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = fact_reader.probe

    def probe(path: Path) -> Any:
        read.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(fact_reader, "probe", probe)
    told: list[tuple[int, int]] = []
    prepare(Parts(LISTED), root, "parts", lambda done, total: told.append((done, total)))
    assert sorted(read) == ["one.mp4", "slow.mp4", "test.mp4"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert prepared(root, [part("other", 0.0, 1.0)]).videos[0].span == range(25)
    assert len(read) == 3  # nor for another list of intervals


def test_the_manifest_and_its_hash_cover_the_intervals(root: Path) -> None:
    manifest = prepared(root)
    changed = [dataclasses.replace(LISTED[0], interval=Interval(1.0, 2.04, 4.0)), *LISTED[1:]]
    same = [dataclasses.replace(LISTED[0], interval=Interval(1.001, 2.001, 9.0)), *LISTED[1:]]
    assert prepared(root, changed).sha256 != manifest.sha256
    assert prepared(root, same).sha256 == manifest.sha256  # the same frames
    prepared(root)
    _, line, *_ = manifest_path("folder", root, "parts").read_text(encoding="utf-8").splitlines()
    stored = json.loads(line)
    assert stored["interval"] == {"start": 1.0, "end": 2.0, "duration": 4.0, "fps": None, "min_frames": 1}
    assert (stored["span"], stored["frames"]) == ([25, 50], 100)


def test_of_whole_videos_neither_the_manifest_nor_its_hash_know_intervals(root: Path) -> None:
    listed = [Listed("w", "one.mp4", "a", "train", "g"), Listed("x", "gone.mp4", "a", "test", "g")]
    manifest = prepared(root, listed)
    digest = hashlib.sha256()
    for v in manifest.videos:
        line = [v.id, v.label, v.split, v.facts.frames, v.facts.sha256, v.facts.problem is None]
        digest.update(json.dumps(line).encode() + b"\n")
    assert manifest.sha256 == digest.hexdigest()
    _, line, _ = manifest_path("folder", root, "parts").read_text(encoding="utf-8").splitlines()
    assert list(json.loads(line))[:6] == ["id", "path", "label", "split", "group", "frames"]
    assert "intervals" not in summary(manifest)
    whole = dataclasses.replace(listed[0], interval=Interval(0.0, 4.0, 4.0))
    assert prepared(root, [whole]).videos[0].span == manifest.videos[0].span == range(100)


def test_what_is_left_out_is_named_with_its_reason(root: Path) -> None:
    listed = [
        *LISTED,
        part("short", 1.0, 1.2, min_frames=8),
        part("empty", 3.0, 1.0, min_frames=8),
        part("late", 4.5, 6.0, min_frames=8),
        part("rule", 0.0, 4.0, excluded="its video has two classes"),
        part("gone", 0.0, 4.0, path="gone.mp4"),
    ]
    manifest = prepared(root, listed)
    assert {v.id: v.problem for v in manifest.left_out()} == {
        "short": "1 to 1.2 s have 5 frames, fewer than 8",
        "empty": "3 to 1 s have 0 frames, fewer than 8",
        "late": "4.5 to 6 s have 0 frames, fewer than 8",
        "rule": "its video has two classes",
        "gone": "missing",
    }
    assert [v.id for v in manifest.usable("train")] == ["a0", "a1", "b0", "b1"]
    with pytest.raises(DataError, match="4 of 8 train videos of folder cannot be used"):
        manifest.check_complete(0.1)


def test_odd_intervals_are_counted(root: Path) -> None:
    listed = [
        *LISTED,  # one ends after its video, and the videos one.mp4 and test.mp4 have two classes
        part("again", 1.0, 2.0),
        part("and again", 1.0, 2.0),
        part("empty", 3.0, 1.0, min_frames=8),
        part("rule", 0.0, 4.0, excluded="a reason"),
    ]
    manifest = prepared(root, listed)
    found = summary(manifest)
    nothing = {"excluded": {}, "too_few_frames": 0, "repeat_another": 0}
    assert found["intervals"] == {
        "train": {
            "intervals": 8,
            "videos": 2,
            "end_after_the_video": 1,
            "do_not_end_after_they_begin": 1,
            "repeat_another": 2,
            "videos_of_several_classes": 1,
            "too_few_frames": 1,
            "excluded": {"a reason": 1},
        },
        "test": {
            **nothing,
            "intervals": 2,
            "videos": 1,
            "end_after_the_video": 0,
            "do_not_end_after_they_begin": 0,
            "videos_of_several_classes": 1,
        },
    }
    lines = list(summary_lines(found, 20))
    assert lines[3:5] == [
        "train intervals: 8 of 2 videos; 1 end after their video; 1 do not end after they begin; 2 repeat "
        "another one; 1 videos have several classes; 1 have too few frames and are left out; 1 left out: "
        "a reason",
        "test intervals: 2 of 1 videos; 1 videos have several classes",
    ]


def test_intervals_of_one_file_are_no_copies_and_their_lengths_are_what_counts(root: Path) -> None:
    manifest = prepared(root, [*LISTED, part("tiny", 0.0, 0.08)])
    found = summary(manifest)
    assert (found["duplicates"], found["identical_files_in_train_and_test"]) == ([], [])
    assert found["short"] == [{"id": "tiny", "split": "train", "frames": 2}]
    frames = statistics(manifest)["splits"]["test"]
    assert (frames["frames"]["min"], frames["frames"]["max"]) == (30, 55)
    assert frames["bytes"] == (root / "test.mp4").stat().st_size
    both = prepared(root, [*LISTED, part("shared", 0.0, 1.0, path="test.mp4")])
    assert summary(both)["identical_files_in_train_and_test"] == [["at", "shared"]]


def test_verification_tells_of_intervals(root: Path) -> None:
    from vcil_bench.verify.checks import verify

    listed = [*LISTED, part("rule", 0.0, 4.0, excluded="a reason")]
    protocol = Protocol(PROTOCOL, "here")
    for files in ("not opened", prepared(root, listed)):
        found = {(f.level, f.check): f.text for f in verify(protocol, [], listed, files)}
        assert re.match("test intervals: 2 of 1 videos", found["note", "intervals"])
        assert found["ok", "videos per task"] == "seed 1: train 4 = 2 + 2, test 2 = 1 + 1"
    assert found["ok", "files"] == "3 of 3 can be decoded in full"
    some = [*LISTED, part("gone0", 0.0, 1.0, path="gone.mp4"), part("gone1", 1.0, 2.0, path="gone.mp4")]
    found = {(f.level, f.check): f.text for f in verify(protocol, [], some, prepared(root, some))}
    assert found["note", "files"] == "3 of 4 can be decoded in full; left out: 1 (gone.mp4)"


def test_no_video_is_ever_copied_or_cut(root: Path, tmp_path: Path) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in root.iterdir())
    samples = samples_of(prepared(root))
    assert {Path(s.path).parent for s in samples.values()} == {root}
    list(clip_loader().plain(list(samples.values()), 4))
    assert sorted((p.name, p.stat().st_mtime_ns) for p in root.iterdir()) == before


@pytest.mark.slow
def test_these_tests_fail_where_the_place_of_an_interval_is_ignored(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loader_module.read_frames

    def from_the_beginning(path: str, indices: np.ndarray, decoder: str) -> np.ndarray:
        return real(path, indices - indices.min(), decoder)

    monkeypatch.setattr(loader_module, "read_frames", from_the_beginning)
    with pytest.raises(AssertionError):
        test_an_interval_is_all_that_is_decoded(root, tmp_path, stored=False)
