"""The form of a record, declared once: what a file must hold before anything reads a number from it.

Types are exact (``true`` is no number, a text no list); what is not declared may hold anything, since records of
later versions say more. What the types alone cannot say, such as counts that fit their totals, is checked in
``record``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

LARGEST_SEED = 2**32 - 1  # numpy's and torch's generators take no larger one
READOUT = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"  # part of the names of arrays, and of files

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, le=LARGEST_SEED)]
Name = Annotated[str, Meta(min_length=1)]
Readout = Annotated[str, Meta(pattern=READOUT)]


class Dataset(TypedDict):
    """The protocol's dataset."""

    name: Name


class Metrics(TypedDict):
    """The protocol's metrics, by their names in ``metrics``."""

    headline: str
    also: list[str]


class Budget(TypedDict):
    """Exemplars that the protocol allows."""

    per_class: int | None
    total: int | None
    frames: int | str


class Spec(TypedDict):
    """The protocol written out, as far as tables read it."""

    memory: Budget | None


class Protocol(TypedDict):
    """What was run."""

    name: Name
    label: Name
    version: int
    title: str
    fingerprint: Name
    origin: Name
    overrides: dict[str, Any]
    dataset: Dataset
    metrics: Metrics
    seeds: Annotated[list[Seed], Meta(min_length=1)]
    spec: Spec


class Method(TypedDict):
    """Who ran it; which source is a part of ``identity``."""

    name: Name
    paper: str
    readouts: Annotated[list[Readout], Meta(min_length=1)]
    data_access: Literal["task", "cumulative"]
    uses_memory: bool
    origin: Name  # built-in | installed | file
    file: Name
    distribution: str | None
    version: str | None


class Setting(TypedDict):
    """A key of a config, and who set it: default, recipe ..., command line."""

    value: Any
    origin: str


@dataclass(frozen=True)
class MemoryUse:
    """What a method keeps of old classes at present, beside its weights; a record's ``Memory``.

    Attributes:
        videos, frames, bytes: Exemplars, in the three units papers argue with.
        statistics_bytes: Numbers that stand for old videos: means, covariances, Gram matrices of features,
            maps of what mattered to old tasks, modules that restore features of frames that were not kept.
        feature_frames: Of the frames, those of which a feature is kept and no pixel.
    """

    videos: int = 0
    frames: int = 0
    bytes: int = 0
    statistics_bytes: int = 0
    feature_frames: int = 0


class Memory(TypedDict):
    """What a method keeps of old classes after a step, see ``MemoryUse``."""

    videos: Count
    frames: Count
    bytes: Count
    statistics_bytes: NotRequired[Count]  # records of version 1.1 and before have none
    feature_frames: NotRequired[Count]  # likewise


class Costs(TypedDict):
    """What a step cost."""

    train_s: Amount
    eval_s: Amount
    data_wait_s: Amount
    peak_device_mb: Amount | None
    parameters: Count
    trainable: Count
    state_bytes: Count
    memory: Memory
    # Floating-point operations, see vcil_bench.training.flops; none under torch.compile and in older records.
    train_flops: NotRequired[Amount | None]
    test_clip_flops: NotRequired[Amount | None]


class Step(TypedDict):
    """What one step of the protocol gave."""

    step: Count
    classes_seen: Positive
    correct: dict[str, list[Count]]  # per readout, of every task so far
    costs: Costs
    losses: list[dict[str, float | str]]  # per epoch: phase, epoch and every loss term


class Predictions(TypedDict):
    """The file with the predictions of every test video."""

    file: Name
    sha256: Name


class LeftOut(TypedDict):
    """A video that could not be used."""

    id: str
    split: str
    problem: str


class Store(TypedDict):
    """The frame store that frames were read from."""

    quality: int
    max_frames: int | None


class Finding(TypedDict):
    """What verification found."""

    level: Literal["ok", "note", "warning", "error"]
    check: str
    text: str


class Data(TypedDict):
    """The videos."""

    kind: Literal["real", "synthetic"]
    dataset: str
    split: str
    root: str
    manifest_sha256: str
    train_videos: Count
    test_videos: Count
    left_out: list[LeftOut]
    decoder: str
    store: Store | None
    test_videos_sharing_a_group_with_train: Count | None  # None where groups are unknown
    identical_files_in_train_and_test: list[Any]
    verified: list[Finding]


class Weights(TypedDict):
    """Pretrained weights, see ``nets.weights.WeightsInfo``."""

    name: Name
    source: Name
    sha256: str
    pretraining: str


class Environment(TypedDict):
    """Where a process ran; also GPU, libraries and more."""

    git: str | None  # None outside a checkout
    dirty: bool | None
    command: str
    device: str
    device_type: str  # cpu, cuda, mps
    torch: str
    threads: Positive
    processes: Positive


class Session(TypedDict):
    """One process that worked on the run."""

    started: str
    environment: Environment


class RecordData(TypedDict):
    """The JSON of a record, schema 1."""

    schema: int
    run_id: Name  # <protocol label>/<method>/<variant>-s<seed>
    status: Literal["complete", "partial", "failed"]
    reason: str | None  # why it failed
    started: str  # UTC, ISO 8601, of the first session
    finished: str | None
    protocol: Protocol
    method: Method
    variant: Name  # what the command line changed, "default" if nothing
    seed: Seed  # of the class order
    run_seed: Seed  # of initialisation, shuffling and frame sampling
    config: dict[str, Setting]
    options: dict[str, Setting]  # run options
    class_order: list[Count]
    class_names: list[str]  # in id order
    classes_per_task: list[Positive]
    test_videos: list[Positive]  # per task
    steps: list[Step]
    predictions: Predictions | None
    data: Data
    weights: Weights
    sessions: list[Session]  # one per resumption
    environment: Environment  # of the last session
    identity: dict[str, str]  # hash per part that the numbers depend on, see vcil_bench.identity
