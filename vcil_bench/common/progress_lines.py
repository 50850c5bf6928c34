"""Progress for a log file: a line now and then, where a terminal would show a bar."""

from __future__ import annotations

import time
from collections.abc import Callable


class ProgressLines:
    """Says every few seconds how many are done, how fast it goes and how long the rest will take."""

    def __init__(
        self,
        text: str,
        say: Callable[[str], None],
        *,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start counting time.

        Args:
            text: What is being done.
            say: Takes a line.
            every_s: Seconds between lines.
            clock: Gives the time in seconds.
        """
        self._text = text
        self._say = say
        self._every_s = every_s
        self._clock = clock
        self._last = (clock(), 0)

    def __call__(self, done: int, total: int) -> None:
        """Take note of progress."""
        now, (since, before) = self._clock(), self._last
        if now - since < self._every_s:
            return
        # Of the last interval only: what was known from before takes no time and tells nothing of the rest.
        rate = (done - before) / (now - since)
        minutes, seconds = divmod(round((total - done) / rate), 60)
        self._last = (now, done)
        self._say(f"{self._text}: {done} of {total}, {rate:.1f}/s, {minutes} min {seconds:02} s to go")
