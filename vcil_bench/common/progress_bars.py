"""Progress bars of long work: one bar a piece of work, taken away when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def bar(progress: Progress, text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar and give what moves it, called as ``move(done, total)``."""
    task = progress.add_task(text, total=None)
    yield lambda done, total: progress.update(task, completed=done, total=total)
    progress.remove_task(task)
