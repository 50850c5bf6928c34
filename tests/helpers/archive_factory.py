"""Archives made in tests, hostile ones too; rar by hand, since no free program writes it."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

Content = Mapping[str, bytes]


def zip_of(content: Content, modes: Mapping[str, int] | None = None) -> bytes:
    """Make a zip; ``modes`` are file types and rights, such as that of a link."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (modes or {}).get(name, 0o100644) << 16
            archive.writestr(info, data)
    return made.getvalue()


def tar_of(content: Content, mode: str = "w:gz", *more: tarfile.TarInfo) -> bytes:
    """Make a tar; ``more`` are members without content, such as links and devices."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return made.getvalue()


def rar_of(content: Content, links: Mapping[str, str] | None = None) -> bytes:
    """Make a rar of the fourth version that stores its members as they are."""

    def block(kind: int, flags: int, fields: bytes, data: bytes = b"") -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(fields)) + fields
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head + data

    members = [(name, data, 0o100644) for name, data in content.items()]
    members += [(name, target.encode(), 0o120777) for name, target in (links or {}).items()]
    made = b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6))
    for name, data, mode in members:
        written = name.replace("/", "\\").encode()
        fields = struct.pack(
            "<IIBIIBBHI", len(data), len(data), 3, zlib.crc32(data), 0, 20, 0x30, len(written), mode
        )
        made += block(0x74, 0x8000, fields + written, data)
    return made + block(0x7B, 0x4000, b"")


def write(path: Path, data: bytes) -> Path:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tree(root: Path, *, hidden: bool = False) -> dict[str, bytes]:
    """Return the files below a folder by path; those of ``.fetch`` only if asked for."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and (hidden or ".fetch" not in path.parts)
    }
