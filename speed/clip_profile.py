"""Where the time of a training clip from the frame store goes: its parts, timed where they are called.

A part's time is its own: what it calls of other parts is theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import simplejpeg

from vcil_bench.data import clips, loader
from vcil_bench.data.store import jpeg
from vcil_bench.data.store.frame_store import FrameStore

DECODING, RESIZING = "decoding JPEGs", "resizing"
PARTS: Mapping[str, list[tuple[Any, str]]] = {
    DECODING: [(simplejpeg, "decode_jpeg")],
    RESIZING: [(clips, "_resize")],
    "mirroring": [(clips, "training_pixels")],
    "opening, reading and checking files": [(FrameStore, "read")],
    "telling JPEGs where the window ends": [(jpeg, "decode")],
    "drawing frames and windows": [
        (loader, "numpy_stream"),
        (clips, "segment_indices"),
        (clips, "training_window"),
    ],
}


class Clock:
    """Seconds by part, each without those of the parts it calls."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._inner = [0.0]  # of the parts that are in work, what others took within

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same work, timed."""

        def wrapper(*given: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return work(*given, **named)
            finally:
                spent = time.perf_counter() - start
                self.seconds[part] += spent - self._inner.pop()
                self._inner[-1] += spent

        return wrapper


@contextmanager
def timed_parts() -> Iterator[Clock]:
    """Time the parts of all clips that this process makes meanwhile."""
    clock = Clock()
    with ExitStack() as patches:
        for part, places in PARTS.items():
            for owner, name in places:
                patches.enter_context(patch.object(owner, name, clock.timed(part, getattr(owner, name))))
        yield clock
