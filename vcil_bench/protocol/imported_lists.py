"""vCLIMB's lists: stores and reads them after ``prepare vclimb --pickle``.

Class order and videos are two files, since every look at a protocol reads the order and only a listing needs the
hundreds of thousands of videos. Each carries a hash of its content: a changed time would move a sample unseen.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from vcil_bench.common.errors import UserError
from vcil_bench.common.files import cache_dir, write_atomically

_SCHEMA = 2


class ImportedError(UserError):
    """An imported list that was damaged since."""


def folder(file: str, git_blob: str) -> Path:
    """Return where a list lies whose source is a file with a git blob id."""
    return cache_dir() / "imported" / f"{Path(file).stem}-{git_blob[:8]}"


def is_imported(file: str, git_blob: str) -> bool:
    """Tell whether a list was imported; its order is written last."""
    return (folder(file, git_blob) / "order.json").is_file()


def write(file: str, git_blob: str, tasks: list[list[str]], videos: dict[str, dict[str, list[Any]]]) -> Path:
    """Store a list and return its folder.

    Args:
        file: Name of the source.
        git_blob: Its git blob id.
        tasks: Class names, task by task, in label order.
        videos: Items by part (``train``, ``val``, perhaps ``test``) and class.
    """
    target = folder(file, git_blob)
    source = {"schema": _SCHEMA, "file": file, "git_blob": git_blob}
    for name, content in (("videos", videos), ("order", tasks)):
        about = {**source, "sha256": _sha256(content)}
        text = json.dumps({**about, name: content}, ensure_ascii=False, indent=1) + "\n"
        write_atomically(target / f"{name}.json", text.encode())
    return target


def read_tasks(file: str, git_blob: str) -> list[list[str]]:
    """Return the class names of an imported list, task by task.

    Raises:
        ImportedError: The stored file is damaged.
    """
    return _read(file, git_blob, "order")


def read_videos(file: str, git_blob: str) -> dict[str, dict[str, list[Any]]]:
    """Return the items of an imported list by part and class.

    Raises:
        ImportedError: The stored file is damaged.
    """
    return _read(file, git_blob, "videos")


def _read(file: str, git_blob: str, name: str) -> Any:
    path = folder(file, git_blob) / f"{name}.json"
    try:
        content = json.loads(path.read_bytes())
        stored = (content["schema"], content["git_blob"], content["sha256"])
        if stored == (_SCHEMA, git_blob, _sha256(content[name])):
            return content[name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ImportedError(
        f"{path}: damaged, or written by another version; import {file} again: "
        f"vcil-bench prepare vclimb --pickle {file}"
    )


def _sha256(content: Any) -> str:
    """Return the hash of a list, whatever spaces and line ends its file has."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
