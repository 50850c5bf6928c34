"""Which frames an instance of ActivityNet has and which videos stay whole, against the authors' code."""

from __future__ import annotations

import random

import numpy as np
import pytest
from golden_files import golden

from vcil_bench.data.activitynet import MIN_FRAMES, interval_frames, untrimmed_rows

DATA = golden("vclimb_34")
INSTANCES = [DATA[key] for key in ("video", "label", "t_start", "t_end", "duration")]


def frames(row: int, t_start: float, t_end: float) -> range:
    """Return the frames of an interval of a row's video."""
    return interval_frames(t_start, t_end, DATA["fps"][row], int(DATA["video_num_frames"][DATA["video"][row]]))


def line(row: int, found: range) -> list[int]:
    """Return what was recorded of a sample: row, task, label, number of frames, first and last."""
    label = int(DATA["label"][row])
    task = int(label >= DATA["num_classes_task0"])
    if len(found) < MIN_FRAMES:
        return [row, task, label, 0, -1, -1]
    return [row, task, label, len(found), found[0], found[-1]]


def test_trimmed_instances_have_the_authors_frames() -> None:
    listing = np.argsort(DATA["label"], kind="stable").tolist()
    found = [line(row, frames(row, DATA["t_start"][row], DATA["t_end"][row])) for row in listing]
    assert found == DATA["trimmed_row_task_label_frames_first_last"].tolist()
    assert any(length == 0 for *_, length, _, _ in found)


@pytest.mark.parametrize("kind", ["untrimmed", "untrimmed_co"])
def test_untrimmed_videos_are_the_authors(kind: str) -> None:
    co = float(DATA["co_threshold_high"]) if kind == "untrimmed_co" else 0.0
    rows = untrimmed_rows(*INSTANCES, co=co)
    found = [line(row, frames(row, 0.0, DATA["duration"][row])) for row in rows]
    assert found == DATA[f"{kind}_row_task_label_frames_first_last"].tolist()


def test_a_class_without_a_video_is_refused() -> None:
    video, label, start, end, duration = INSTANCES
    alone = label != 0
    alone[np.flatnonzero(label == 0)[:1]] = True  # one instance, of a video with two classes from now on
    label, video = label[alone], video[alone]
    video[label == 0] = video[label == 1][0]
    with pytest.raises(ValueError, match=r"class 0 is left without an untrimmed video.*longer than 0 of"):
        untrimmed_rows(video, label, start[alone], end[alone], duration[alone])
    with pytest.raises(ValueError, match=r"is left without an untrimmed video.*longer than 10 of"):
        untrimmed_rows(*INSTANCES, co=10.0)


def test_rounding_is_to_the_even_frame_and_intervals_stay_in_the_video() -> None:
    assert interval_frames(0.5, 2.5, 1.0, 10) == range(0, 2)
    assert interval_frames(1.5, 3.5, 1.0, 10) == range(2, 4)
    assert interval_frames(1.0, 9.0, 10.0, 30) == range(10, 30)
    for nothing in ((5.0, 6.0), (2.0, 1.0), (1.0, 1.0)):
        assert len(interval_frames(*nothing, 10.0, 30)) == 0


def test_a_time_beyond_all_frames_is_the_end_of_the_video() -> None:
    assert interval_frames(0.0, 1.7e308, 30.0, 10) == range(0, 10)
    assert interval_frames(-1.7e308, 0.1, 30.0, 10) == range(0, 3)
    assert untrimmed_rows(["v"], [0], [-1.7e308], [1.7e308], [0.5]) == [0]


def test_frames_lie_in_the_video_and_grow_with_the_interval() -> None:
    draw = random.Random(1)
    for _ in range(2000):
        start, end, later = (draw.uniform(0, 20) for _ in range(3))
        fps, number = draw.choice([12.0, 24000 / 1001, 25.0, 30.0, 59.94]), draw.randrange(1, 400)
        found = interval_frames(start, end, fps, number)
        assert found.step == 1
        assert set(found) <= set(range(number))
        assert len(found) <= max(0.0, end - start) * fps + 1
        assert set(found) <= set(interval_frames(start, end + later, fps, number))


def test_the_videos_that_stay_do_not_depend_on_how_videos_are_named() -> None:
    names = [f"v_{number:011}" for number in INSTANCES[0]]
    assert untrimmed_rows(names, *INSTANCES[1:]) == untrimmed_rows(*INSTANCES)


def test_each_video_that_stays_comes_once_and_under_its_only_class() -> None:
    rows = untrimmed_rows(*INSTANCES)
    video, label, start, end, duration = INSTANCES
    assert len(set(video[rows])) == len(rows)
    assert label[rows].tolist() == sorted(label[rows])
    coverage = (end - start) / duration
    for row in rows:
        same = video == video[row]
        assert set(label[same]) == {label[row]}
        assert coverage[row] == coverage[same].max()
    gone = set(video) - set(video[rows])
    assert all(len(set(label[video == v])) > 1 or coverage[video == v].max() <= 0 for v in gone)
