"""ActivityNet's instances: maps their seconds to frames and tells which untrimmed videos stay, as vCLIMB does.

Source: ojedaf/vCLIMB_Benchmark @ 05c14f4a, utils/icarl_dataset_frames_selfsup_v2.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_FRAMES = 8  # an interval of fewer is no sample there
_VIDEO = re.compile(r"v_[A-Za-z0-9_-]{11}")
_KEYS = {"t_start", "t_end", "video_duration", "filename", "fps", "video_frames"}


@dataclass(frozen=True)
class Instance:
    """An annotated instance of a class.

    Attributes:
        video: Name of the video, ``v_`` and its YouTube id.
        start: Seconds at which the instance begins.
        end: Seconds at which it ends; not always after ``start``, nor inside the video.
        duration: Seconds of the whole video.
        fps: Frames per second of the authors' folders of frames.
    """

    video: str
    start: float
    end: float
    duration: float
    fps: float


class NoVideoLeft(ValueError):
    """A class of which no video stays.

    Attributes:
        label: The class, by number or name.
        co: The coverage that none exceeds.
    """

    def __init__(self, label: int | str, co: float) -> None:
        """Say what a video would need to stay."""
        super().__init__(
            f"class {label!r} is left without an untrimmed video: none has instances of this class alone, "
            f"one of them longer than {co:g} of the video"
        )
        self.label = label
        self.co = co


def read_instance(item: Any) -> Instance | None:
    """Return the instance that an item of the authors' lists says, six texts by name; None where it is none."""
    if not isinstance(item, dict) or item.keys() != _KEYS:
        return None
    if not all(isinstance(text, str) for text in item.values()) or not _VIDEO.fullmatch(item["filename"]):
        return None
    try:
        numbers = [float(item[key]) for key in ("t_start", "t_end", "video_duration", "fps")]
    except ValueError:
        return None
    if not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
        return None
    return Instance(item["filename"], *numbers)


def interval_frames(t_start: float, t_end: float, fps: float, num_frames: int) -> range:
    """Return the frames of an interval, cut at the last one of the video.

    ``round(t * fps)`` rounds a half to the even number, as Python does; the frame at ``t_end`` is left out.

    Args:
        t_start: Seconds.
        t_end: Seconds; where it is not after ``t_start`` there are no frames.
        fps: Frames per second of this copy of the video.
        num_frames: Frames that the video has.

    Returns:
        0-based frames, perhaps none.
    """
    # Cut before it is rounded: a product may be infinite, which no integer is.
    first, stop = (round(min(max(float(t) * float(fps), 0.0), num_frames)) for t in (t_start, t_end))
    return range(first, max(first, stop))


def untrimmed_rows(
    video: Sequence[int | str] | NDArray[np.int64],
    label: Sequence[int] | NDArray[np.int64],
    t_start: Sequence[float] | NDArray[np.float64],
    t_end: Sequence[float] | NDArray[np.float64],
    duration: Sequence[float] | NDArray[np.float64],
    co: float = 0.0,
) -> list[int]:
    """Pick the instance under which a whole video is one sample, and leave out videos that are not of one class.

    Instances are gone through class by class, in a class as they come. Of a video's the one with the largest
    coverage counts, ``(t_end - t_start) / duration``, the first of equals; coverage is not cut to 0..1.

    Args:
        video: Of each instance, which video it is of.
        label: Its class, counted in the order in which classes are learnt.
        t_start: Where it begins, in seconds.
        t_end: Where it ends.
        duration: Length of its video.
        co: A video stays if its largest coverage is above this, and all its instances are of one class.

    Returns:
        The rows of the instances that stay, class by class, in a class by where a video comes first.

    Raises:
        NoVideoLeft: A class would be left without a video; a ``ValueError``.
    """
    with np.errstate(over="ignore"):  # times are finite, a coverage may be infinite
        coverage = (np.asarray(t_end) - np.asarray(t_start)) / np.asarray(duration)
    labels = np.asarray(label)
    rows_of: dict[int | str, list[int]] = {}
    for row in np.argsort(labels, kind="stable").tolist():
        rows_of.setdefault(video[row], []).append(row)
    kept = []
    for rows in rows_of.values():
        largest = max(rows, key=lambda row: coverage[row])
        if coverage[largest] > co and len(set(labels[rows].tolist())) == 1:
            kept.append(largest)
    empty = set(labels.tolist()) - set(labels[kept].tolist())
    if empty:
        raise NoVideoLeft(min(empty), co)
    return kept


def untrimmed_instances(names: Sequence[str], instances: Sequence[Instance]) -> list[int]:
    """Return ``untrimmed_rows`` of instances whose classes are given by name.

    Args:
        names: The class of each instance.
        instances: In the order of the list.

    Raises:
        NoVideoLeft: A class would be left without a video; names it.
    """
    known = list(dict.fromkeys(names))
    number = {name: label for label, name in enumerate(known)}
    try:
        return untrimmed_rows(
            [i.video for i in instances],
            [number[name] for name in names],
            [i.start for i in instances],
            [i.end for i in instances],
            [i.duration for i in instances],
        )
    except NoVideoLeft as error:
        raise NoVideoLeft(known[int(error.label)], error.co) from None
