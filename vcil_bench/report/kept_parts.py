"""Parts of a report that are kept for the next one: JSON values in a file, by a hash of what each is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vcil_bench.common.files import write_atomically


class KeptParts:
    """Values of the last report that are still true in this one."""

    def __init__(self, path: Path | None = None) -> None:
        """Read them from a file; there are none where it is missing, or nothing of ours.

        Args:
            path: The file; None keeps nothing.
        """
        self._path = path
        self._now: dict[str, Any] = {}
        try:
            before = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        self._before: dict[str, Any] = before if isinstance(before, dict) else {}

    def get(self, made_of: Any, make: Callable[[], Any]) -> Any:
        """Return a value of the last report, or make it.

        Args:
            made_of: All that the value follows from, the code included, as plain data.
            make: Makes it, as plain data.
        """
        key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
        if key not in self._now:
            self._now[key] = self._before[key] if key in self._before else make()
        return self._now[key]

    def write(self, *, forget: bool) -> None:
        """Leave them for the next report.

        Args:
            forget: Whether to drop what was not asked for.
        """
        if self._path is not None:
            values = self._now if forget else self._before | self._now
            # Keys within a value keep their order, so that it is written as one that was made.
            write_atomically(self._path, json.dumps(dict(sorted(values.items()))).encode())
