"""ActivityNet: lists a folder's videos or annotated instances as vCLIMB does, once its lists are imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vcil_bench.data.activitynet import MIN_FRAMES, Instance, NoVideoLeft, untrimmed_instances

from . import vclimb_import
from .base import Adapter, DatasetError, Interval, Listed
from .published import Published
from .tree import Finder, Tree

# All together, by subset, as the two releases are packed, and as frames are extracted.
_FOLDERS = (
    "",
    "videos/",
    "train/",
    "val/",
    "training/",
    "validation/",
    "train_val/",
    "v1-2/train/",
    "v1-2/val/",
    "v1-3/train_val/",
    "rawframes/",
    "frames/",
)
_TWO_CLASSES = "instances of several classes, which keep no untrimmed video in vCLIMB"
_NO_COVERAGE = "no instance with a length, without which vCLIMB keeps no untrimmed video"

Row = tuple[str, Instance]  # class and instance


class ActivityNet(Adapter):
    """ActivityNet 1.3 as vCLIMB uses it; a group is the video.

    ``trimmed`` splits list every annotated instance as an interval of its video, ``untrimmed`` ones every video
    once. The authors give no test list and report on the validation subset, which is the test here.
    """

    name = "activitynet"
    layout = (
        "v_<YouTube id>.mp4 (.mkv, .webm, or a folder of frames of that name, 30 a second), at the top or in "
        "videos/, train/, val/, rawframes/ or frames/; its lists come with 'vcil-bench prepare vclimb'"
    )
    published = {
        f"vclimb_{tasks}_{kind}": Published(classes=200, train=(train,), test=(test,))
        for tasks in (10, 20)
        for kind, train, test in (("trimmed", 15410, 7654), ("untrimmed", 10024, 4926))
    }

    def splits(self, root: Path) -> list[str]:
        """Return the splits whose lists were imported."""
        self._check_root(root)
        return vclimb_import.imported_splits(self.name)

    def without_split(self, root: Path) -> DatasetError:
        """Say which lists can be imported."""
        return DatasetError(f"{root}: no list of {self.name} is imported; {vclimb_import.ways_out(self.name)}")

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return the samples of a split, training samples first."""
        if split not in self.splits(root):
            way_out = vclimb_import.way_out(self.name, split) or f"; {vclimb_import.ways_out(self.name)}"
            raise self._no_split(root, split, way_out)
        rows: dict[str, list[Row]] = {"train": [], "test": []}
        for label, instance, part in vclimb_import.imported_videos(self.name, split):
            rows[part].append((label, instance))
        paths = _Paths(Tree(root))
        list_part = _untrimmed if split.endswith("_untrimmed") else _trimmed
        videos = [video for part, listed in rows.items() for video in list_part(listed, part, paths)]
        if not paths.found:
            raise self._nothing_there(root, videos)
        return videos


class _Paths:
    """Where the videos lie, and by which rate their frames are counted."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._finder = Finder(tree, _FOLDERS, (".mp4", ".mkv", ".webm"))
        self._known: dict[str, str] = {}

    @property
    def found(self) -> int:
        """Videos found so far."""
        return self._finder.found

    def of(self, instance: Instance) -> str:
        """Return the path of an instance's video."""
        if instance.video not in self._known:
            self._known[instance.video] = self._finder.path(instance.video)
        return self._known[instance.video]

    def fps(self, instance: Instance) -> float | None:
        """Return the list's frame rate for a folder of frames; None for a file, which has its own."""
        return instance.fps if self._tree.has_folder(self.of(instance)) else None


def _trimmed(rows: Sequence[Row], part: str, paths: _Paths) -> list[Listed]:
    """List every instance."""
    numbers: Counter[str] = Counter()
    videos = []
    for label, instance in rows:
        interval = Interval(
            instance.start, instance.end, instance.duration, paths.fps(instance), min_frames=MIN_FRAMES
        )
        name = f"{instance.video}_{numbers[instance.video]}"
        numbers[instance.video] += 1
        videos.append(Listed(name, paths.of(instance), label, part, instance.video, interval=interval))
    return videos


def _untrimmed(rows: Sequence[Row], part: str, paths: _Paths) -> list[Listed]:
    """List every video once, those that stay first."""
    instances = [instance for _, instance in rows]
    try:
        kept = untrimmed_instances([label for label, _ in rows], instances)
    except NoVideoLeft as error:
        raise DatasetError(f"{part} list: {error}") from error
    by_video: dict[str, list[int]] = {}
    for row, instance in enumerate(instances):
        by_video.setdefault(instance.video, []).append(row)
    stay = {instances[row].video for row in kept}
    videos = []
    for row in [*kept, *(same[0] for video, same in by_video.items() if video not in stay)]:
        label, instance = rows[row]
        why = None
        if instance.video not in stay:
            classes = {rows[other][0] for other in by_video[instance.video]}
            why = _TWO_CLASSES if len(classes) > 1 else _NO_COVERAGE
        interval = Interval(
            0.0, instance.duration, instance.duration, paths.fps(instance), min_frames=MIN_FRAMES
        )
        videos.append(
            Listed(
                instance.video,
                paths.of(instance),
                label,
                part,
                instance.video,
                interval=interval,
                excluded=why,
            )
        )
    return videos
