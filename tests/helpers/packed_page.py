"""The packed parts of a page, read and written without the package's code."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

import pytest

PART = re.compile(r'(<script type="text/plain" id="(data|plotting)">)(.*?)(</script>)', re.DOTALL)


def unpacked(text: str) -> bytes:
    """Return what a packed text was: base64 of raw deflate."""
    return zlib.decompress(base64.b64decode(text, validate=True), -15)


def content(page: str) -> dict[str, Any]:
    """Return the data that a page holds, as a browser reads them."""
    (packed,) = [match[3] for match in PART.finditer(page) if match[2] == "data"]
    return json.loads(unpacked(packed), parse_constant=lambda name: pytest.fail(f"no browser reads {name}"))


def with_content(page: str, data: Any) -> str:
    """Return a page with other data."""
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(json.dumps(data).encode()) + packer.flush()
    text = base64.b64encode(packed).decode()
    return PART.sub(lambda match: match[1] + (text if match[2] == "data" else match[3]) + match[4], page)


def readable(page: str) -> str:
    """Return a page with all that is packed in it written out, to be searched."""
    return PART.sub(lambda match: match[1] + unpacked(match[3]).decode() + match[4], page)
