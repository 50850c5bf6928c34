"""A data set of tiny videos, six of each of four classes, on which a method trains in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcil_bench.data.loader import Sample
from vcil_bench.data.synthetic import write_video
from vcil_bench.stream import Task

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 40, 40), "white": (230, 230, 230)}
FRAMES = 8  # twice as many as a clip has, and an exemplar keeps
TRAIN, TEST = 4, 2  # videos per class


def draw_clip(colour: tuple[int, int, int], number: int, num_frames: int) -> list[NDArray[np.uint8]]:
    """Draw a bar that moves over a plain ground: frames [64, 64, 3].

    Args:
        colour: Of the ground, which is the class.
        number: Of the clip within its class, from 0; gives the bar's height and start.
        num_frames: Length of the clip, at most 12.
    """
    frames = []
    for t in range(num_frames):
        frame = np.full((64, 64, 3), colour, np.uint8)
        left = 4 * t + number
        frame[8 * number + 8 : 8 * number + 16, left : left + 8] = 0
        frames.append(frame)
    return frames


class SmallData:
    """The videos of four classes; a class's label is its place in ``COLOURS``."""

    def __init__(self, folder: Path) -> None:
        """Write the videos into an empty folder."""
        self._videos: list[list[Sample]] = []
        for label, (name, colour) in enumerate(COLOURS.items()):
            self._videos.append([])
            for number in range(TRAIN + TEST):
                path = folder / f"{name}_{number}.mp4"
                write_video(path, np.stack(draw_clip(colour, number, FRAMES)))
                self._videos[label].append(Sample(path.stem, str(path), label, FRAMES))

    def tasks(
        self, sizes: Sequence[int], videos: Sequence[int] = (TRAIN,) * len(COLOURS), *, cumulative: bool = False
    ) -> list[Task]:
        """Return tasks of the first classes.

        Args:
            sizes: Classes per task.
            videos: Training videos per class.
            cumulative: Whether a task's training videos include those of the tasks before.
        """
        tasks, num_old = [], 0
        for index, size in enumerate(sizes):
            new = range(num_old, num_old + size)
            labels = range(0 if cumulative else num_old, num_old + size)
            train = tuple(sample for label in labels for sample in self._videos[label][: videos[label]])
            names = tuple(list(COLOURS)[label] for label in new)
            tasks.append(Task(index, tuple(new), names, num_old, train))
            num_old += size
        return tasks

    def test(self, num_classes: int) -> list[Sample]:
        """Return the test videos of the first classes."""
        return [sample for videos in self._videos[:num_classes] for sample in videos[TRAIN:]]
