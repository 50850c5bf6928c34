"""How many videos the publishers' lists hold, so that a list cut short or of another release is noticed.

A result on other videos is another result, even where every file decodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Published:
    """Counts of one split.

    Attributes:
        classes: Number of classes.
        train: Videos listed for training; several where more than one official list circulates.
        test: Likewise for testing.
        train_per_class: Training videos of every class, where they are the same for all.
        test_per_class: Likewise for testing.
    """

    classes: int
    train: tuple[int, ...]
    test: tuple[int, ...]
    train_per_class: int | None = None
    test_per_class: int | None = None

    def verdict(self, listed: Iterable[tuple[str, str]]) -> str:
        """Compare lists with the published ones.

        Args:
            listed: Class and split of every video.

        Returns:
            One line: ``lists as published: ...`` or ``LISTS DIFFER: ...``.
        """
        per_class = Counter(listed)
        counts: Counter[str] = Counter()
        for (_, split), count in per_class.items():
            counts[split] += count
        labels = sorted({label for label, split in per_class if split in ("train", "test")})
        differences = []
        for split, wanted, each in (
            ("train", self.train, self.train_per_class),
            ("test", self.test, self.test_per_class),
        ):
            if counts[split] not in wanted:
                published = " or ".join(map(str, wanted))
                differences.append(f"{counts[split]} {split} videos listed, published are {published}")
            odd = [label for label in labels if each is not None and per_class[label, split] != each]
            if odd:
                found = per_class[odd[0], split]
                differences.append(f"class {odd[0]!r} has {found} {split} videos, published are {each}")
        if len(labels) != self.classes:
            differences.append(f"{len(labels)} classes listed, published are {self.classes}")
        if differences:
            return f"LISTS DIFFER: {'; '.join(differences)}"
        return f"lists as published: {counts['train']} train / {counts['test']} test"
