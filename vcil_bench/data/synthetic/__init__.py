"""The embedded dataset: small real .mp4 files of moving shapes, rendered on the user's machine.

A fresh clone must run from end to end with nothing to download, through the same files, decoder and
manifest as a real dataset. The 24 classes are 6 objects x 4 motions, built so that time matters:

* One frame does not tell the motion. The canvas is a torus and the start is uniform on it, so the
  position is uniform in every frame of every motion; size, shade, rotation, speed and background
  are drawn without regard to the motion. A clip played backwards is a clip of the opposite class.
  Only the order of the frames tells the direction. (Each frame is encoded on its own as well.)
* Training and test clips share no random draw, and their backgrounds come from different families.
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
VERSION = 1
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

CLIPS_PER_CLASS: dict[str, int] = {"train": 20, "test": 10}
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "train": ("gradient", "stripes", "checker", "noise"),
    "test": ("radial", "waves", "dots", "patches"),
}
NUM_FRAMES = 16
FPS = 12
SPEED = (1.6, 3.0)  # pixels a frame: 24 to 45 px over a clip, 3.2 to 6 px between 8 sampled frames
RADIUS = (7.0, 11.0)  # pixels
MAX_ANGLE = 0.2  # radians
CRF = "18"

MANIFEST = "manifest.csv"
MANIFEST_COLUMNS = ("path", "class", "split", "group")

_SEED = 20240607
_SPLIT_IDS = {"train": 0, "test": 1}


def class_slug(name: str) -> str:
    """Return a class name as a folder name."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def trajectory(rng: np.random.Generator, motion: str) -> drawing.Array:
    """Draw the positions of an object that moves steadily over the torus.

    Args:
        rng: The clip's generator.
        motion: One of ``MOTIONS``.

    Returns:
        Positions [16, 2] as (x, y) in pixels, in [0, 64).
    """
    start = rng.uniform(0, drawing.SIZE, 2)
    step = rng.uniform(*SPEED) * np.array(drawing.MOTIONS[motion])
    path = (start + np.arange(NUM_FRAMES)[:, None] * step).astype(np.float32)
    # Modulo last: rounding to float32 can otherwise end on 64 itself.
    return path % drawing.SIZE


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
    canvas = drawing.background(rng, family)
    mask = drawing.object_mask(
        shape,
        centres=trajectory(rng, motion),
        radius=rng.uniform(*RADIUS),
        angle=rng.uniform(-MAX_ANGLE, MAX_ANGLE),
    )
    return drawing.to_uint8(drawing.paint(canvas, mask, drawing.shade(rng, colour)))


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
