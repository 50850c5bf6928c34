"""What a check found: the line of the doctor's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Result = Literal["ok", "failed", "lacking", "skipped", "note"]
RESULTS: tuple[Result, ...] = get_args(Result)


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        check: Name of the check, which ``--only`` takes.
        what: What was looked at.
        result: ``ok``, ``failed``, ``lacking`` (not there, and needed by some runs alone), ``skipped`` (this
            machine cannot be asked), or ``note`` (a fact).
        figure: What was measured or found, with its unit; where it failed, why; where it is lacking, what to do.
    """

    check: str
    what: str
    result: Result
    figure: str = ""
