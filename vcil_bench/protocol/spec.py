"""The closed schema of a protocol file: every key that there is, its type and its default.

What the types alone cannot say is checked in ``protocol``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the protocol comes from: the paper, its code and the commit that was read."""

    paper: str = ""
    code: str = ""
    commit: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Dataset adapter, its split, and the list that gives class ids their names.

    ``split`` is the number of an official split, ``official`` where there is but one, ``vclimb_10`` or
    ``vclimb_20`` for the vCLIMB authors' own (of ActivityNet followed by ``_trimmed`` or ``_untrimmed``), or for
    the ``folder`` adapter the CSV's file name.
    """

    name: str
    split: int | str = 1
    label_map: str | None = None


@dataclass(frozen=True, kw_only=True)
class OrderSpec:
    """How the class order comes about.

    ``numpy_shuffle`` shuffles 0..num-1 with numpy's legacy generator seeded by the protocol seed (TCD
    main.py); ``listed`` takes class names in order from ``file`` (in ``lists/``) or ``names``, the same for
    every seed; ``imported`` takes them from the authors' own file, which a user imports and whose git blob id
    is ``git_blob``.
    """

    kind: Literal["numpy_shuffle", "listed", "imported"]
    file: str | None = None
    names: list[str] | None = None
    git_blob: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassSpec:
    """Number of classes, their order and the order's stored hashes.

    ``names`` lists class names in id order; left out, they come from ``dataset.label_map`` or, for the
    ``folder`` adapter, from the data (sorted). ``order_sha256`` maps a seed (``all`` where none enters) to
    the SHA-256 of the comma-joined ids.
    """

    num: int
    order: OrderSpec
    names: list[str] | None = None
    order_sha256: dict[int | str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Classes per task, the base task first."""

    sizes: list[int]


@dataclass(frozen=True, kw_only=True)
class TestViews:
    """Views per test video whose scores are averaged: ``clips`` in time, ``crops`` in space.

    Two clips are TCD's ``twice_sample`` (segment middles and segment starts); 3, 5 or 10 crops are its
    ``test_crops``; 1 is the centre crop.
    """

    clips: Literal[1, 2] = 1
    crops: Literal[1, 3, 5, 10] = 1


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How a video becomes a clip of ``frames`` frames of ``size`` x ``size`` pixels.

    ``short_side`` is what test frames are resized to before cropping (default: ``size``). Training crops are
    ``multiscale`` (TCD) or the test-time ``center`` crop; ``flip`` mirrors half the training clips. ``sampling``
    has one value, which protocols write out so that another one can be told from it.
    """

    frames: int
    size: int
    sampling: Literal["segment"] = "segment"
    short_side: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    train_crop: Literal["multiscale", "center"] = "multiscale"
    flip: bool = True
    test_views: TestViews = field(default_factory=TestViews)


@dataclass(frozen=True, kw_only=True)
class MemorySpec:
    """Exemplar budget: videos per class or in total, and frames kept of each (``all`` or a number).

    ``unit`` says what a sample of the dataset is, and so what is counted: a video, or an instance in a video.
    ``fill`` says how fewer frames than a clip has become a clip: ``repeat`` takes the nearest of them (TCD),
    ``interpolate`` blends the two beside each place.
    """

    unit: Literal["videos", "instances"] = "videos"
    per_class: int | None = None
    total: int | None = None
    frames: int | Literal["all"] = "all"
    fill: Literal["repeat", "interpolate"] = "repeat"


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """The headline metric and the further ones shown, by their names in ``vcil_bench.metrics``."""

    headline: str
    also: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ProtocolSpec:
    """The closed schema of a protocol file; ``memory`` absent means that no exemplars are allowed."""

    name: str
    version: int
    dataset: DatasetSpec
    classes: ClassSpec
    tasks: TaskSpec
    seeds: list[int]
    clip: ClipSpec
    metrics: MetricSpec
    title: str = ""
    source: Source = field(default_factory=Source)
    notes: str = ""
    memory: MemorySpec | None = None
