"""Tells whether a record still speaks of the protocol and the method as they are now.

Imports neither torch nor a method, so that reports can mark stale rows.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from .common.errors import UserError
from .common.files import file_sha256
from .protocol import Protocol
from .protocol import load as load_protocol
from .record import Record

if TYPE_CHECKING:
    from .registry import Entry


def reasons(record: Record, protocol: Protocol | None = None, entry: Entry | None = None) -> list[str]:
    """Return why a record is stale, an empty list if it is not.

    Args:
        record: The record.
        protocol: The protocol as it is now; None loads it by the record's name and overrides.
        entry: The method as found now; None looks at the source file alone.
    """
    found = []
    now = _fingerprint(record, protocol)
    if now is not None and now != record.data["protocol"]["fingerprint"]:
        found.append("the protocol changed")
    method = record.data["method"]
    if entry is not None:
        hashes = {"": entry.sha256, **entry.bases}
    else:
        path = _source(record)
        hashes = {"": _sha256(path)} | {name: _sha256(_built_in(name)) for name in method["bases"]}
    for name, old in {"": method["sha256"], **method["bases"]}.items():
        if hashes.get(name) not in (None, old):
            found.append(f"{name or 'the method file'} changed")
    return found


def _fingerprint(record: Record, protocol: Protocol | None) -> str | None:
    """Return today's fingerprint of a record's protocol; None if the protocol cannot be found any more."""
    if protocol is not None:
        try:
            return protocol.fingerprint
        except UserError:  # its class order is no longer there
            return None
    stored = record.data["protocol"]
    if stored["origin"].startswith("protocols/"):
        return _of_built_in(stored["name"], json.dumps(stored["overrides"]))
    try:
        return load_protocol(stored["origin"], stored["overrides"]).fingerprint
    except UserError:
        return None


@functools.cache  # a report asks for the same few protocols once per record
def _of_built_in(name: str, overrides: str) -> str | None:
    try:
        return load_protocol(name, json.loads(overrides)).fingerprint
    except UserError:
        return None


def _source(record: Record) -> Path:
    """Return where a record's method file lies on this machine, whether or not it is there."""
    method = record.data["method"]
    return _built_in(method["file"]) if method["origin"] == "built-in" else Path(method["file"])


def _built_in(name: str) -> Path:
    """Return where a file of the built-in methods lies, or of the harness, whose classes methods build on."""
    with (
        resources.as_file(resources.files("vcil_bench.methods")) as methods,
        resources.as_file(resources.files("vcil_bench")) as harness,
    ):
        return methods / name if (methods / name).is_file() else harness / name


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None
