"""vCLIMB's lists: stores and reads them after ``prepare vclimb --pickle``.

Class order and videos are two files, since every look at a protocol reads the order and only a listing needs the
hundreds of thousands of videos.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vcil_bench.common.errors import UserError
from vcil_bench.common.files import cache_dir, write_atomically

_SCHEMA = 1


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
        text = json.dumps({**source, name: content}, ensure_ascii=False, indent=1) + "\n"
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
        if (content["schema"], content["git_blob"]) == (_SCHEMA, git_blob):
            return content[name]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ImportedError(
        f"{path}: damaged, or written by another version; import {file} again: "
        f"vcil-bench prepare vclimb --pickle {file}"
    )
