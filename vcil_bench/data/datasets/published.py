"""Published list sizes: compares a dataset's lists with them.

A result on other videos is another result, even where every file decodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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

    def differences(self, listed: Sequence[tuple[str, str]]) -> list[str]:
        """Say in what lists differ from the published ones, nothing where they do not.

        Args:
            listed: Class and split of every video.
        """
        per_class = Counter(listed)
        counts = Counter(split for _, split in listed)
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
                count = per_class[odd[0], split]
                differences.append(f"class {odd[0]!r} has {count} {split} videos, published are {each}")
        if len(labels) != self.classes:
            differences.append(f"{len(labels)} classes listed, published are {self.classes}")
        return differences

    def verdict(self, listed: Sequence[tuple[str, str]]) -> str:
        """Return ``differences`` in one line: ``lists as published: ...`` or ``LISTS DIFFER: ...``."""
        differences = self.differences(listed)
        if differences:
            return f"LISTS DIFFER: {'; '.join(differences)}"
        counts = Counter(split for _, split in listed)
        return f"lists as published: {counts['train']} train / {counts['test']} test"
