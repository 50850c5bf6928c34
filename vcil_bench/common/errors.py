"""The exceptions that a user or a method may cause, so that the command line can tell them from a defect.

Everything that a wrong command, a missing dataset, a bad YAML or a broken video can trigger derives from
``UserError``; the command line prints its message in one line and exits with code 2. Training that a method
cannot continue ends a run as failed. Any other exception is a programming error and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended, for whoever started it."""

    DONE = 0
    FAILED = 1  # a run, which may go better when it is tried again; or a check found a fault
    REFUSED = 2  # the user's input cannot be used
    FAILED_FOR_GOOD = 3  # a run, which would fail alike every time
    STOPPED = 130  # by Ctrl-C or SIGTERM; the same command resumes


class UserError(ValueError):
    """An input that cannot be used; the message names the value, the allowed ones and the way out."""


class TrainingError(RuntimeError):
    """Training that cannot continue, such as a loss that is no longer a number."""


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest allowed name, or an empty string if none is near."""
    cutoff = 0.6 if len(value) < 5 else 0.7  # one slip is a third of a short name
    close = difflib.get_close_matches(value, list(allowed), n=1, cutoff=cutoff)
    return f" (did you mean '{close[0]}'?)" if close else ""
