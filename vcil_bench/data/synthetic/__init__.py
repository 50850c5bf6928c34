"""The embedded dataset: small real .mp4 files of moving shapes, rendered on the user's machine.

A fresh clone must run from end to end with nothing to download, through the same files, decoder and
manifest as a real dataset. The 24 classes are 6 objects x 4 motions, built so that time matters:

* Only the order of the frames tells the direction. The object goes along the named way, at a pace that changes,
  and weaves across it by half of that way or more, there and back; a clip played backwards is one of the
  opposite class. What is left without the order is the axis, since a path is longer than wide, and what a place
  near the border says of the way that is left from there: places without order tell half of the motions, the
  first place alone less than half. (Each frame is encoded on its own as well.)
* Clips of one class differ in size, angle, shade, place, length and pace of the path, background and light; some
  have a smaller object of another kind on a path of its own, some a post in front.
* Training and test clips share no random draw; their backgrounds come from different families. Shades lie around
  the named colours, in test clips further away, so that most are unlike any of training.
* Every clip is drawn by its own generator, keyed by (split, class, index): a clip is the same
  whatever else is rendered before it.
"""

from __future__ import annotations

import csv
import errno
import re
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vcil_bench.common.errors import UserError
from vcil_bench.common.files import StorageError, check_writable

from . import drawing

# Raise it with every change of the drawn data; it enters the folder name, so old and new never mix.
VERSION = 2
FOLDER_NAME = f"synthetic-motion-v{VERSION}"

OBJECTS: tuple[tuple[str, str], ...] = (
    ("red", "square"),
    ("blue", "circle"),
    ("green", "triangle"),
    ("yellow", "star"),
    ("purple", "cross"),
    ("white", "ring"),
)
MOTIONS: tuple[str, ...] = tuple(drawing.MOTIONS)
CLASS_NAMES: tuple[str, ...] = tuple(
    f"a {colour} {shape} moving {motion}" for colour, shape in OBJECTS for motion in MOTIONS
)
# Of the objects that are in the way: colours and shapes that no class has.
OTHER_COLOURS = tuple(colour for colour in drawing.COLOURS if colour not in dict(OBJECTS))
OTHER_SHAPES = tuple(shape for shape in drawing.SHAPES if shape not in dict(OBJECTS).values())

CLIPS_PER_CLASS: dict[str, int] = {"train": 24, "test": 10}
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "train": ("gradient", "stripes", "checker", "noise"),
    "test": ("radial", "waves", "dots", "patches"),
}
# How far, in RGB, shades lie from the named colour, and background colours from grey.
OBJECT_SHIFT: dict[str, tuple[float, float]] = {"train": (0.0, 0.06), "test": (0.09, 0.15)}
BACKGROUND_SHIFT: dict[str, tuple[float, float]] = {"train": (0.0, 0.05), "test": (0.08, 0.12)}
NUM_FRAMES = 16
FPS = 12
LENGTH = (20.0, 30.0)  # of a path along its direction, in pixels
WEAVE = (0.5, 0.9)  # width of the weaving as a share of the length
PACE = 0.6  # the speed varies by at most this share
BORDER = 0.0  # least distance of an object's centre from the border, in pixels
RADIUS = (6.0, 11.0)  # pixels
MAX_ANGLE = 0.3  # radians
LIGHT = (0.75, 1.1)  # of the first and of the last frame
OTHER_RADIUS = (3.5, 5.5)
OTHER_SHARE = 0.5  # of clips, with an object of another kind
POST_SHARE = 0.5  # of clips, with a post in front
CRF = "18"

MANIFEST = "manifest.csv"
MANIFEST_COLUMNS = ("path", "class", "split", "group")

_SEED = 20240607
_SPLIT_IDS = {"train": 0, "test": 1}


def class_slug(name: str) -> str:
    """Return a class name as a folder name."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def trajectory(rng: np.random.Generator, motion: str) -> drawing.Array:
    """Draw the positions of an object that goes one way and weaves across it.

    Args:
        rng: The clip's generator.
        motion: One of ``MOTIONS``.

    Returns:
        Positions [16, 2] as (x, y) in pixels, at least ``BORDER`` from the border.
    """
    along, across = np.array(drawing.MOTIONS[motion]), np.abs(drawing.MOTIONS[motion][::-1])
    time = np.linspace(0, 1, NUM_FRAMES)
    length = rng.uniform(*LENGTH)
    progress = time + rng.uniform(-PACE, PACE) * np.sin(2 * np.pi * time) / (2 * np.pi) - 0.5
    # A triangle wave: as often at one place as at any other, and in the same places going and coming.
    weaving = (2 * np.abs(2 * time - 1) - 1) * rng.choice([-1, 1]) * rng.uniform(*WEAVE) / 2
    path = length * (progress[:, None] * along + weaving[:, None] * across)
    margin = BORDER - path.min(0), drawing.SIZE - BORDER - path.max(0)
    return (path + rng.uniform(*margin)).astype(np.float32)


def clip_frames(split: str, class_id: int, index: int) -> NDArray[np.uint8]:
    """Draw one clip as it is before encoding.

    Args:
        split: ``train`` or ``test``.
        class_id: Position of the class in ``CLASS_NAMES``.
        index: Number of the clip within its split and class, from 0.

    Returns:
        RGB frames [16, 64, 64, 3].
    """
    rng = np.random.default_rng([_SEED, VERSION, _SPLIT_IDS[split], class_id, index])
    colour, shape = OBJECTS[class_id // len(MOTIONS)]
    motion = MOTIONS[class_id % len(MOTIONS)]
    family = BACKGROUNDS[split][rng.integers(len(BACKGROUNDS[split]))]
    canvas = drawing.background(rng, family, BACKGROUND_SHIFT[split])
    if rng.random() < OTHER_SHARE:
        other = drawing.object_mask(
            OTHER_SHAPES[rng.integers(len(OTHER_SHAPES))],
            centres=trajectory(rng, MOTIONS[rng.integers(len(MOTIONS))]),
            radius=rng.uniform(*OTHER_RADIUS),
            angle=rng.uniform(-MAX_ANGLE, MAX_ANGLE),
        )
        paint = drawing.shade(rng, OTHER_COLOURS[rng.integers(len(OTHER_COLOURS))], OBJECT_SHIFT[split])
        canvas = drawing.paint(canvas, other, paint)
    mask = drawing.object_mask(
        shape,
        centres=trajectory(rng, motion),
        radius=rng.uniform(*RADIUS),
        angle=rng.uniform(-MAX_ANGLE, MAX_ANGLE),
    )
    frames = drawing.paint(canvas, mask, drawing.shade(rng, colour, OBJECT_SHIFT[split]))
    if rng.random() < POST_SHARE:
        frames = drawing.paint(frames, drawing.post_mask(rng), drawing.muted(rng, BACKGROUND_SHIFT[split]))
    first, last = rng.uniform(*LIGHT, 2)
    light = np.linspace(first, last, NUM_FRAMES)
    return drawing.to_uint8(frames * light[:, None, None, None])


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Encode RGB frames [T, H, W, 3] as an h264 yuv420p .mp4."""
    with av.open(str(path), "w") as container:
        # Key frames only: a predicted frame keeps a faint trail of where the object was, and would
        # give the direction away. One thread: every run then writes the same file.
        options = {"crf": CRF, "g": "1", "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def is_complete(root: Path) -> bool:
    """Return whether ``root`` holds the data; the manifest arrives with all clips or not at all."""
    return (root / MANIFEST).is_file()


def render(root: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the dataset, or leave it alone if it is there.

    Writes ``root/videos/<split>/<class_slug>/<nn>.mp4`` and ``root/manifest.csv`` with the columns
    path (relative to ``root``), class, split and group (unique per video). Everything is made in a
    sibling folder and renamed, so that an interrupted or a second simultaneous run never leaves
    half a dataset.

    Args:
        root: Target folder; use one whose name ends in ``FOLDER_NAME``.
        progress: Called as ``progress(done, total)`` after each clip.

    Raises:
        UserError: If ``root`` exists, is not empty and is not a rendered dataset, or cannot be written.
    """
    if is_complete(root):
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} exists but is not the embedded dataset: move it away or name another folder")
    check_writable(root.parent)
    scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp's 0700 would keep others from reading a shared data folder
        _render_into(scratch, progress)
        try:
            scratch.rename(root)
        except OSError as error:
            # Another run may have finished the same data meanwhile; its copy is as good as ours.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not is_complete(root):
                raise
    except OSError as error:  # PyAV's among them
        raise StorageError(f"{root}: cannot be rendered ({error.strerror or error})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _render_into(folder: Path, progress: Callable[[int, int], None] | None) -> None:
    total = len(CLASS_NAMES) * sum(CLIPS_PER_CLASS.values())
    rows: list[tuple[str, str, str, str]] = []
    for split, count in CLIPS_PER_CLASS.items():
        for class_id, name in enumerate(CLASS_NAMES):
            slug = class_slug(name)
            (folder / "videos" / split / slug).mkdir(parents=True)
            for index in range(count):
                path = f"videos/{split}/{slug}/{index:02d}.mp4"
                write_video(folder / path, clip_frames(split, class_id, index))
                rows.append((path, name, split, f"{split}-{slug}-{index:02d}"))
                if progress is not None:
                    progress(len(rows), total)
    with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(MANIFEST_COLUMNS)
        writer.writerows(rows)
