"""Docstrings of configuration dataclasses: what is said of a key is said once."""

from __future__ import annotations

from dataclasses import dataclass

from vcil_bench.common.docstrings import docstrings, explained


@dataclass
class Base:
    """What all share.

    Attributes:
        rate: Of anything.
        size: Of a batch,
            in videos.

    Stated:
        alone: Said in a section of its own.
    """

    rate: float = 1.0
    size: int = 1
    alone: int = 1


@dataclass
class Derived(Base):
    """One of them.

    Attributes:
        rate, alone: Its own.
    """

    rate: float = 2.0


def test_what_a_class_says_of_a_key_its_bases_do_not_repeat() -> None:
    (derived, first), (base, second) = docstrings(Derived)
    assert (derived, base) == (Derived, Base)
    assert explained(Derived, first) == explained(Derived)
    kept = explained(Base, second)
    assert kept.summary == "What all share."
    assert kept.sections == [("Attributes:", {("size",): "Of a batch, in videos."})]
    assert kept.prose == []
