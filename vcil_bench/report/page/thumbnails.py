"""Thumbnails on the page: the middle frame of the test videos that runs name, as small pictures inside it.

The embedded clips are drawn anew. Those of other data are shown on request alone, since licences differ, and
where their folder is on this machine.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcil_bench.common.errors import UserError
from vcil_bench.common.files import write_atomically
from vcil_bench.record import Record

if TYPE_CHECKING:
    from vcil_bench.data.datasets import Listed

SIZE = 64  # pixels of the longer side
QUALITY = 50
LARGEST = 3_000_000  # characters of all
_ADDRESS = re.compile(r"data:image/webp;base64,[A-Za-z0-9+/]+={0,2}")


@dataclass
class Thumbnails:
    """Makes thumbnails, and keeps those made before.

    Attributes:
        of_others: Whether videos that are not the embedded clips have some.
        notes: Why some are missing, once a report has asked for them.
    """

    of_others: bool = False
    notes: list[str] = field(default_factory=list)
    _kept: dict[str, str] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)

    @contextmanager
    def kept_in(self, path: Path) -> Iterator[None]:
        """Take thumbnails of last time from a file, and leave there those that were asked for."""
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            self._kept |= {key: url for key, url in before.items() if _ADDRESS.fullmatch(url)}
        except (OSError, ValueError, AttributeError, TypeError):  # none there, or none of ours
            pass
        self._asked.clear()
        yield
        write_atomically(
            path, json.dumps({key: self._kept[key] for key in sorted(self._asked)}, indent=1).encode()
        )

    def of(self, runs: Sequence[tuple[Record, Sequence[str]]]) -> dict[str, str]:
        """Return ``data:`` addresses by video.

        Args:
            runs: Records, and the names of their test videos. What two datasets call alike has the picture of
                the first.
        """
        self.notes.clear()
        made: dict[str, str] = {}
        missing: Counter[str] = Counter()
        left = LARGEST
        for record, names in runs:
            places = self._places(record)
            for name in names:
                if name in made or name not in places:
                    continue
                url = self._url(places[name])
                if url is None:
                    missing[record.data["data"]["dataset"]] += 1
                elif len(url) <= left:
                    made[name] = url
                    left -= len(url)
        self.notes += [
            f"thumbnails: {number} videos of {name} cannot be read" for name, number in missing.items()
        ]
        return made

    def _places(self, record: Record) -> dict[str, _Clip | _File]:
        """Return where the pictures of a run's videos come from."""
        data = record.as_written.data["data"]
        if data["kind"] == "synthetic":
            return _clips() if PurePath(data["root"]).name.endswith(_clips_folder()) else {}
        if not self.of_others or record.origin is not None or not Path(data["root"]).is_dir():
            return {}
        return _listed(data["dataset"], data["root"], data["split"])

    def _url(self, place: _Clip | _File) -> str | None:
        key = place.key
        self._asked.add(key)
        if key not in self._kept:
            picture = place.picture()
            if picture is None:
                self._asked.discard(key)
                return None
            self._kept[key] = _encoded(picture)
        return self._kept[key]


@dataclass(frozen=True)
class _Clip:
    """An embedded clip."""

    class_id: int
    index: int

    @property
    def key(self) -> str:
        return f"{_clips_folder()}/{self.class_id}/{self.index}"

    def picture(self) -> Image.Image:
        from vcil_bench.data.synthetic import clip_frames

        frames: NDArray[np.uint8] = clip_frames("test", self.class_id, self.index)
        return Image.fromarray(frames[len(frames) // 2])


@dataclass(frozen=True)
class _File:
    """A video of a dataset: a file, a folder of frames, or a part of one."""

    root: str
    listed: Listed

    @property
    def key(self) -> str:
        """A hash, which names no folder; of a file that is there as it is now."""
        path = Path(self.root, self.listed.path)
        version = path.stat().st_mtime_ns if path.exists() else 0
        part = self.listed.interval
        said = (str(path), part and (part.start, part.end), version)
        return hashlib.sha256(repr(said).encode()).hexdigest()[:32]

    def picture(self) -> Image.Image | None:
        """Return the middle one of the frames that a run uses, None where it can use none."""
        from vcil_bench.data.manifest import Video
        from vcil_bench.data.video import VideoError, probe, read_frames

        path = Path(self.root, self.listed.path)
        as_listed = {key.name: getattr(self.listed, key.name) for key in fields(self.listed)}
        try:
            video = Video(**as_listed, facts=probe(path))
            if video.problem is not None:
                return None
            return Image.fromarray(read_frames(path, [video.span[len(video.span) // 2]])[0])
        except VideoError:
            return None


def _encoded(picture: Image.Image) -> str:
    scale = SIZE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


@cache
def _clips_folder() -> str:
    from vcil_bench.data.synthetic import FOLDER_NAME

    return FOLDER_NAME


@cache
def _clips() -> dict[str, _Clip | _File]:
    from vcil_bench.data.synthetic import CLASS_NAMES, CLIPS_PER_CLASS, class_slug

    return {
        f"videos/test/{class_slug(name)}/{index:02d}.mp4": _Clip(class_id, index)
        for class_id, name in enumerate(CLASS_NAMES)
        for index in range(CLIPS_PER_CLASS["test"])
    }


@cache
def _listed(dataset: str, root: str, split: str) -> dict[str, _Clip | _File]:
    """Return the places of a dataset's videos; none where its folder does not hold it any more."""
    from vcil_bench.data.datasets import adapter

    try:
        videos = adapter(dataset).list_videos(Path(root), split)
    except UserError:
        return {}
    return {video.id: _File(root, video) for video in videos}
