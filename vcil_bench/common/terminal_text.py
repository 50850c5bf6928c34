"""Terminal text: escapes control characters in whatever is printed."""

from __future__ import annotations

import builtins
import unicodedata
from typing import TextIO

# Beside control characters, halves of characters, which no terminal takes, and what would end a line or turn
# the direction of what follows.
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def shown(text: str) -> str:
    r"""Return text, what steers a terminal written out as in JSON (``\u001b``); lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one in "\n\t" or not _steers(one) else _written(one) for one in text)


def print(*texts: object, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print as Python does, what steers a terminal written out."""
    builtins.print(shown(" ".join(map(str, texts))), file=file, end=end, flush=flush)


def _steers(one: str) -> bool:
    return unicodedata.category(one) in _UNSEEN or unicodedata.bidirectional(one) in _TURNING


def _written(one: str) -> str:
    return f"\\u{ord(one):04x}"  # all of them lie below 2**16
