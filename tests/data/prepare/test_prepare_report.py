"""What prepare reports beside the manifest: short and doubled videos, statistics, the verdict on the lists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from dataset_factory import table, video

from vcil_bench.data.datasets import adapter
from vcil_bench.data.datasets.published import Published
from vcil_bench.data.manifest import Manifest, manifest_path
from vcil_bench.data.prepare import prepare
from vcil_bench.data.prepare.report import statistics, statistics_lines, summary, summary_lines

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def odd(tmp_path: Path) -> Manifest:
    """Prepare copies in one class, in two, and in train and test, and videos of one, two and three frames."""
    root = tmp_path / "odd"
    rows = [
        "1.avi,a,train,",
        "2.avi,a,train,",
        "3.avi,b,train,",
        "4.avi,b,test,",
        "5.avi,a,test,",
        "6.avi,a,test,",
    ]
    table(root, *rows, "gone.avi,b,test,", "7.avi,b,unused,")
    for number in (1, 2, 3, 7):
        video(root / f"{number}.avi", frames=5)
    for number, frames in ((4, 1), (5, 2), (6, 3)):
        video(root / f"{number}.avi", frames, first=number * 10)
    return prepare(adapter("folder"), root, "videos.csv")


def test_short_videos_are_named_and_kept(odd: Manifest) -> None:
    assert summary(odd)["short"] == [
        {"id": "4.avi", "split": "test", "frames": 1},
        {"id": "5.avi", "split": "test", "frames": 2},
    ]
    assert [v.id for v in odd.usable("test")] == ["4.avi", "5.avi", "6.avi"]


def test_copies_are_named_with_their_classes_and_splits(odd: Manifest) -> None:
    found = summary(odd)
    assert found["duplicates"] == [
        {"ids": ["1.avi", "2.avi", "3.avi"], "labels": ["a", "b"], "splits": ["train"]}
    ]
    assert found["identical_files_in_train_and_test"] == []
    assert (found["missing"], found["left_out"]) == (1, [{"id": "gone.avi", "problem": "missing"}])
    assert found["lists"] is None


def test_statistics_count_usable_videos_and_their_sizes(odd: Manifest) -> None:
    found = statistics(odd)
    assert found["usable_per_class"] == {
        "a": {"train": 2, "test": 2, "unused": 0},
        "b": {"train": 1, "test": 1, "unused": 1},
    }
    test = found["splits"]["test"]
    assert test["videos"] == 3
    assert test["frames"] == {
        "min": 1,
        "max": 3,
        "mean": 2.0,
        "quantiles": {"5": 1.1, "25": 1.5, "50": 2.0, "75": 2.5, "95": 2.9},
    }
    assert (test["fps"], test["sizes"], test["codecs"]) == ({"25": 3}, {"96x48": 3}, {"mpeg4": 3})
    path = manifest_path("folder", odd.root, "videos.csv").with_suffix(".statistics.json")
    assert json.loads(path.read_text(encoding="utf-8")) == found


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (
            [("a", "train")] * 3 + [("b", "train")] * 3 + [("b", "test"), ("a", "test")],
            "published: 6 train / 2 test",
        ),
        (
            [("a", "train")] * 2 + [("b", "train")] * 3 + [("b", "test"), ("a", "test")],
            "LISTS DIFFER: 5 train videos listed, published are 6 or 8; class 'a' has 2 train .* are 3",
        ),
        ([("a", "train")] * 3, "3 train videos listed, .* 0 test videos .* 1 classes listed, published are 2"),
        ([], "0 classes listed"),
    ],
)
def test_lists_are_compared_with_the_published_counts(listed: list[tuple[str, str]], said: str) -> None:
    published = Published(classes=2, train=(6, 8), test=(2,), train_per_class=3)
    videos = [*listed, ("c", "unused")]
    assert re.search(said, published.verdict(videos))
    assert bool(published.differences(videos)) != said.startswith("published")


def test_the_report_judges_the_lists_of_a_published_dataset(tmp_path: Path) -> None:
    root = tmp_path / "hmdb"
    video(root / "sword/A_sword_f_0.avi")
    (root / "testTrainMulti_7030_splits").mkdir()
    (root / "testTrainMulti_7030_splits/sword_test_split1.txt").write_text(
        "A_sword_f_0.avi 1\n", encoding="utf-8"
    )
    prepare(adapter("hmdb51"), root, "1")
    report = manifest_path("hmdb51", root, "1").with_suffix(".report.json")
    lists = json.loads(report.read_text(encoding="utf-8"))["lists"]
    assert lists.startswith("LISTS DIFFER: 1 train videos listed, published are 3570; class 'sword' has 1 train")


def test_the_lines_tell_the_worst_first_and_not_too_much(odd: Manifest) -> None:
    (odd.root / "2.avi").write_bytes(b"")
    found = summary(prepare(adapter("folder"), odd.root, "videos.csv"))
    said = list(summary_lines(found, 1))
    assert said == [
        "train: 2 usable, 1 left out",
        "test: 3 usable, 1 left out",
        "unused: 1 usable, 0 left out",
        "missing: 1 of those left out",
        f"left out: 2.avi: {odd.root}/2.avi: the file is empty (0 bytes)",
        "... and 1 more, all in the report",
        "short: 4.avi: 1 frames (test)",
        "... and 1 more, all in the report",
        "the same file: 1.avi, 3.avi, though their classes differ (a, b)",
        "test videos that share a group with a training video: not checked, the list has no groups",
    ]


def test_the_statistics_fit_in_a_line_a_split(odd: Manifest) -> None:
    assert statistics_lines(statistics(odd)) == [
        "train: 1 to 2 videos a class; 5 to 5 frames, median 5; 96x48; 25 fps; 0.0 MB",
        "test: 1 to 2 videos a class; 1 to 3 frames, median 2; 96x48; 25 fps; 0.0 MB",
    ]
