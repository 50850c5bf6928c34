"""Durations in words: ``40 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``; for what is estimated or measured."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60, 3600, 86400


def in_words(seconds: float) -> str:
    """Return a duration, two units at most, as exact as its size deserves."""
    whole = max(0, round(seconds))
    if whole < 2 * MINUTE:
        return f"{whole} s"
    minutes = round(whole / MINUTE)
    if minutes < HOUR // MINUTE:
        return f"{minutes} min"
    if whole < DAY:
        hours, rest = divmod(minutes, HOUR // MINUTE)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, rest = divmod(round(whole / HOUR), DAY // HOUR)
    return f"{days} d {rest} h" if rest else f"{days} d"
