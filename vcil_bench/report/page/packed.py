"""Packed parts of the page: base64 of raw deflate, which a browser unpacks by itself, a third of what they were.

The bytes follow from the content and from zlib, other versions of which may pack the same content otherwise.
"""

from __future__ import annotations

import base64
import zlib

LEVEL = 9


def pack(content: bytes) -> str:
    """Return bytes as text of letters, digits, ``+``, ``/`` and ``=``."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return base64.b64encode(packer.compress(content) + packer.flush()).decode()
