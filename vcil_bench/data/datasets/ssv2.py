"""Something-Something V2: the official JSON lists, whose templates are the class names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .base import Adapter, DatasetError, Listed
from .published import Published
from .tree import Finder, Tree

# Names of the lists in the first release of the data and in the one of today's publisher.
_LABELS = ("something-something-v2-labels.json", "labels.json")
_LISTS = {
    "train": ("something-something-v2-train.json", "train.json"),
    "test": ("something-something-v2-validation.json", "validation.json"),
}


class SomethingV2(Adapter):
    """Something-Something V2; the official validation videos are the test, since test labels are not public."""

    name = "ssv2"
    layout = (
        "something-something-v2-labels.json, -train.json and -validation.json (or labels.json, train.json, "
        "validation.json), at the top or in labels/ or annotations/, and <id>.webm in "
        "20bn-something-something-v2/, in videos/ or at the top, or folders of frames <id>/ in "
        "20bn-something-something-v2-frames/, rawframes/ or frames/"
    )
    published = {"official": Published(classes=174, train=(168913,), test=(24777,))}

    def splits(self, root: Path) -> list[str]:
        """Return the single official split."""
        self._list(root, _LABELS)
        return ["official"]

    def list_videos(self, root: Path, split: str) -> list[Listed]:
        """Return the training videos, then the official validation videos as ``test``."""
        if split not in self.splits(root):
            raise self._no_split(root, split)
        labels_file = self._list(root, _LABELS)
        labels = {label: label for label in _read_json(labels_file, dict)}
        bases = (
            "20bn-something-something-v2/",
            "videos/",
            "",
            "20bn-something-something-v2-frames/",
            "rawframes/",
            "frames/",
        )
        finder = Finder(Tree(root), bases, (".webm", ".mp4"))
        videos = []
        for part, names in _LISTS.items():
            path = self._list(root, names)
            for number, entry in enumerate(_read_json(path, list), start=1):
                try:
                    video, label = entry["id"], re.sub(r"[\[\]]", "", entry["template"])
                    if not isinstance(video, str) or "\0" in video:
                        raise TypeError
                except (TypeError, KeyError):
                    raise DatasetError(
                        f"{path}, video {number}: {str(entry)[:80]} has no id and template"
                    ) from None
                if label not in labels:
                    raise DatasetError(
                        f"{path}, video {video!r}: template {label!r} is none of the {len(labels)} labels in "
                        f"{labels_file}"
                    )
                videos.append(Listed(video, finder.path(video), labels[label], part, ""))
        if not finder.found:
            raise self._nothing_there(root, videos)
        return videos

    def _list(self, root: Path, names: tuple[str, ...]) -> Path:
        self._check_root(root)
        for folder in (root, root / "labels", root / "annotations"):
            for name in names:
                if (folder / name).is_file():
                    return folder / name
        raise self._refuse(root, f"{' or '.join(names)} is not there")


def _read_json(path: Path, kind: type) -> Any:
    """Return the content of a JSON list.

    Raises:
        DatasetError: The file is damaged or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON ({error}); fetch the official file again") from error
    if not isinstance(content, kind):
        raise DatasetError(f"{path}: holds no {kind.__name__}, as the official file does; fetch that again")
    return content
