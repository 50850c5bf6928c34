"""Small datasets made in tests: videos of a few kilobytes, official lists, CSVs."""

from __future__ import annotations

from pathlib import Path

from clip_factory import barcode_video

HEADER = "path,class,split,group\n"


def video(path: Path, frames: int = 6, first: int = 0) -> Path:
    """Make a video of a few kilobytes, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return barcode_video(path, frames, first=first, width=96, height=48, codec="mpeg4")


def lines(path: Path, *content: str, end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in content).encode())


def table(root: Path, *rows: str, header: str = HEADER, name: str = "videos.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return root
