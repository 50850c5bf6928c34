"""Exactness and honesty of the frame reader on real files; ``VCIL_BENCH_REAL_CLIPS`` names their folder."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from clip_factory import decode_all

from vcil_bench.data import video
from vcil_bench.data.clips import segment_indices
from vcil_bench.data.store.frame_store import FrameStore
from vcil_bench.data.video import count_frames, probe, read_frames

REAL = Path(os.environ.get("VCIL_BENCH_REAL_CLIPS", "nowhere"))


def _real(folder: str) -> Path:
    path = REAL / folder
    if not path.is_dir():
        pytest.skip(f"no real clips at {path} (set VCIL_BENCH_REAL_CLIPS)")
    return path


def _facts(folder: Path) -> list[dict[str, str]]:
    with (folder / "facts.csv").open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if (folder / row["path"]).is_file()]


def test_real_hmdb51_frames_equal_a_full_decode() -> None:
    clips = sorted((_real("clips") / "hmdb51").glob("*.avi"))
    assert clips
    for path in clips:
        everything = decode_all(path)
        frames = len(everything)
        assert count_frames(path) == frames
        centres = [frames * (2 * k + 1) // 16 for k in range(8)]
        wanted = [*random.Random(0).sample(range(frames), 12), *centres, frames - 1, 0]
        assert np.array_equal(read_frames(path, wanted), everything[wanted])
        facts = probe(path)
        assert facts.problem is None
        assert facts.claimed == frames + 1  # packed B-frames


@pytest.mark.slow
def test_real_clips_have_the_known_number_of_frames() -> None:
    folder = _real("clips")
    rows = _facts(folder)
    assert rows
    for row in rows:
        facts = probe(folder / row["path"])
        assert (facts.frames, facts.problem) == (int(row["frames"]), None), row["path"]
        assert (facts.width, facts.height) == (int(row["w"]), int(row["h"]))


def test_real_windows_are_healthy() -> None:
    folder = _real("windows20")
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with ThreadPoolExecutor(2) as pool:
        for row, facts in zip(rows, pool.map(lambda row: probe(folder / row["path"]), rows), strict=True):
            assert (facts.frames, facts.problem) == (int(row["frames"]), None), row["path"]


@pytest.mark.slow
def test_real_files_give_the_frames_of_a_full_decode() -> None:
    """Every decodable file, whole: pictures are compared by their hash, for some are long."""
    folders = [_real(name) for name in ("clips", "odd")]
    files = [folder / row["path"] for folder in folders for row in _facts(folder) if row["ok"] == "1"]
    with (_real("windows20") / "manifest.csv").open(newline="") as stream:
        files += [_real("windows20") / row["path"] for row in csv.DictReader(stream)]
    assert len(files) > 100
    for path in files:
        with av.open(str(path)) as container:
            hashes = [hash(_upright(frame).tobytes()) for frame in container.decode(video=0)]
        frames = len(hashes)
        assert count_frames(path) == frames
        assert [hash(picture.tobytes()) for _, picture in video.pictures(path)] == hashes, path
        rng = random.Random(path.name)
        wanted = [*(rng.randrange(frames) for _ in range(6)), frames - 1, 0]
        assert [hash(picture.tobytes()) for picture in read_frames(path, wanted)] == [
            hashes[i] for i in wanted
        ], path


def _upright(frame: av.VideoFrame) -> np.ndarray:
    return np.rot90(frame.to_ndarray(format="rgb24", threads=1), frame.rotation // 90)


# Run in a process of its own: only a process can be stopped when a decoder hangs.
_LIMIT_S = 20
_VISIT = """
import json, sys
from vcil_bench.data.video import VideoError, probe, read_frames
for path in map(str.rstrip, iter(sys.stdin.readline, "")):
    try:
        facts = probe(path)
        shape = read_frames(path, [0, facts.frames // 2, facts.frames - 1]).shape
        assert shape == (3, facts.height, facts.width, 3), shape
        answer = [facts.frames, facts.problem]
    except VideoError as error:
        assert path in str(error)
        answer = [0, str(error)]
    print(json.dumps([path, *answer]), flush=True)
"""


def test_real_odd_files_give_frames_or_a_video_error() -> None:
    folder = _real("odd")
    rows = {str(folder / row["path"]): row for row in _facts(folder)}
    answers = []
    with subprocess.Popen(
        [sys.executable, "-c", _VISIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as visitor:
        assert visitor.stdin is not None
        assert visitor.stdout is not None
        assert visitor.stderr is not None
        for path in rows:
            limit = threading.Timer(_LIMIT_S, visitor.kill)
            limit.start()
            print(path, file=visitor.stdin, flush=True)
            line = visitor.stdout.readline()
            limit.cancel()
            assert line, f"{path}: no answer within {_LIMIT_S} s, or a crash"
            answers.append(json.loads(line))
        visitor.stdin.close()
        assert visitor.stderr.read() == ""
    lossy = {"made_truncated_half.avi": 49, "made_garbage_in_middle.avi": 99}
    for path, frames, problem in answers:
        name = Path(path).name
        if name in lossy:
            assert frames == lossy[name]
            assert problem, name
        elif rows[path]["ok"] == "1":
            assert (frames, problem) == (int(rows[path]["frames"]), None), name
        else:
            assert problem, name


def test_real_turned_clips_agree_with_decord() -> None:
    folder = _real("odd")
    pytest.importorskip("decord", reason="decord is not installed")
    for degrees in (0, 90, 180, 270):
        path = folder / f"real_decord_video_{degrees}.mov"
        ours, theirs = read_frames(path, [0, 2]), read_frames(path, [0, 2], decoder="decord")
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() < 1


@pytest.mark.slow
def test_the_frame_store_changes_real_pixels_as_little_as_is_said(tmp_path: Path) -> None:
    """The PSNR that README and ``data/frame_store.py`` state, over eight frames of every clip."""
    store = FrameStore(tmp_path)
    ratios = []
    for row in _facts(_real("clips")):
        path = REAL / "clips" / row["path"]
        frames = count_frames(path)
        indices = segment_indices(frames, 8)
        pixels = read_frames(path, indices)
        store.write("0" * 64, enumerate(pixels), len(pixels))
        error = pixels.astype(np.float64) - store.read("0" * 64, range(len(pixels)))
        ratios.append(10 * np.log10(255**2 / np.square(error).mean().clip(1e-9)))
    assert len(ratios) == 43
    assert np.mean(ratios) == pytest.approx(43.8, abs=1)
    assert min(ratios) == pytest.approx(37.9, abs=1)
