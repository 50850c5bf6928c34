"""The stream of tasks: a protocol and a manifest joined into what a method may see at each step.

A method receives ``Task`` objects, which hold training videos only. Test videos stay with the stream, which
``run.loop`` asks for them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from .data.loader import Sample
from .data.manifest import DataError, Manifest
from .protocol import Protocol


@dataclass(frozen=True)
class Task:
    """What a method sees of one step.

    Attributes:
        index: Step, 0 for the base task.
        class_ids: Dataset ids of the new classes, in label order.
        class_names: Their names as the dataset writes them.
        num_old: Classes learnt before.
        train: Training videos: of this task, or of all tasks so far for a method with cumulative access.
    """

    index: int
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    num_old: int
    train: tuple[Sample, ...]

    @property
    def num_new(self) -> int:
        """Number of classes this task brings."""
        return len(self.class_ids)

    @property
    def num_seen(self) -> int:
        """Number of classes known once this task is learnt; its labels are ``num_old..num_seen-1``."""
        return self.num_old + self.num_new


class TaskStream:
    """The tasks of one protocol and seed over one manifest."""

    def __init__(self, protocol: Protocol, manifest: Manifest, seed: int) -> None:
        """Join class order and videos.

        Raises:
            DataError: Classes of protocol and data differ, or one has no training or test video.
        """
        self.class_names = class_names(protocol, manifest)
        self.tasks_by_id = protocol.tasks(seed)
        self.order = protocol.order(seed)
        label_of = {self.class_names[i]: label for label, i in enumerate(self.order)}
        self._videos: dict[str, dict[int, list[Sample]]] = {}
        for split in ("train", "test"):
            by_label: dict[int, list[Sample]] = defaultdict(list)
            for video in manifest.usable(split):
                label = label_of[video.label]
                path, span = str(manifest.root / video.path), video.span
                by_label[label].append(
                    Sample(video.id, path, label, len(span), sha256=video.facts.sha256, first=span.start)
                )
            for name, label in label_of.items():
                if label not in by_label:
                    raise DataError(
                        f"{manifest.root}: class {name!r} has no usable {split} video; a benchmark "
                        "without it would not be this protocol"
                    )
            self._videos[split] = by_label

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.tasks_by_id)

    def task(self, index: int, *, cumulative: bool = False) -> Task:
        """Return step ``index``; with ``cumulative`` its training videos include all earlier tasks'."""
        num_old = sum(len(ids) for ids in self.tasks_by_id[:index])
        ids = self.tasks_by_id[index]
        labels = range(0 if cumulative else num_old, num_old + len(ids))
        train = tuple(s for label in labels for s in self._videos["train"][label])
        names = tuple(self.class_names[i] for i in ids)
        return Task(index, tuple(ids), names, num_old, train)

    def test(self, index: int) -> list[Sample]:
        """Return the test videos of the classes that task ``index`` brings."""
        start = sum(len(ids) for ids in self.tasks_by_id[:index])
        labels = range(start, start + len(self.tasks_by_id[index]))
        return [s for label in labels for s in self._videos["test"][label]]


def class_names(protocol: Protocol, manifest: Manifest) -> list[str]:
    """Return the class names in id order, the protocol's or else the data's sorted, checked to agree.

    Raises:
        DataError: The data hold other classes than the protocol.
    """
    found = manifest.class_names()
    if not protocol.has_class_names:
        if len(found) != protocol.spec.classes.num:
            raise DataError(
                f"{manifest.root}: {len(found)} classes found, protocol {protocol.name!r} has "
                f"{protocol.spec.classes.num}"
            )
        return found
    names = protocol.class_names
    strange = sorted(set(found) - set(names))
    absent = sorted(set(names) - set(found))
    if strange or absent:
        which = f"not in the protocol: {strange[0]!r}" if strange else f"no video of: {absent[0]!r}"
        raise DataError(
            f"{manifest.root}: its classes are not those of protocol {protocol.name!r} "
            f"({len(found)} found, {len(names)} wanted; {which})"
        )
    return names
