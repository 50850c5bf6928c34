"""A request to stop, by Ctrl-C or by a scheduler: heard from a run's first moment and never forgotten.

A signal that raises wherever Python happens to be is lost in an import or a destructor, and costs what was
trained since the last saved state. So the request is kept, raised at once where nothing would be lost, and else
followed at the next place where it can be.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the process was asked to stop; nothing else touches the handlers of these signals.

    Attributes:
        asked: Whether it was.
    """

    def __init__(self) -> None:
        self.asked = False
        self._held_back = 0
        self._even_twice = False
        self._process = os.getpid()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen; SIGINT and SIGTERM raise KeyboardInterrupt at once unless they are held back.

        Only a main thread can listen; in others signals do what they did.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held_back(self, *, even_twice: bool = False) -> Iterator[None]:
        """Only note a request; whoever holds it back looks at ``asked``, or calls ``follow``, soon.

        Args:
            even_twice: A second Ctrl-C is no more than the first. ``torchrun`` passes on what the terminal has
                sent already, and ends by itself what takes too long.
        """
        before = self._even_twice
        self._held_back += 1
        self._even_twice = even_twice
        try:
            yield
        finally:
            self._held_back -= 1
            self._even_twice = before

    def ask(self) -> None:
        """Note a request that came by no signal; the next ``follow`` raises it."""
        self.asked = True

    def follow(self) -> None:
        """Raise a request that was held back, or that was raised where Python drops exceptions.

        Raises:
            KeyboardInterrupt: The process was asked to stop.
        """
        if self.asked:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a terminal's Ctrl-C reaches workers as well; the process that made them ends them
        again = self.asked and number == signal.SIGINT and not self._even_twice
        self.asked = True
        if again:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a third one ends what even this one does not
        if again or not self._held_back:
            raise KeyboardInterrupt
