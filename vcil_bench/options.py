"""Run options: what a run may choose beside the method's config and the protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .common.config import ConfigError, build
from .common.errors import did_you_mean
from .nets.tuning_config import KEYS as TUNING_KEYS
from .record_schema import LARGEST_SEED

MOST_AT_ONCE = 1024  # processes or threads; far more end Python without a word
LONGEST_TIMEOUT = 7 * 24 * 60  # minutes
Determinism = Literal["off", "seeded", "strict"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options set with ``--set key=value``, beside the method's own config keys.

    Attributes:
        backbone: Backbone by name; null takes the method's own choice for the protocol, and on embedded data the
            small backbone of the same kind.
        weights: ``random``, a weight file, or a timm name; null takes the backbone's default weights.
        run_seed: Seed of initialisation, shuffling and frame sampling; null takes the seed of the class order.
        precision: ``fp32`` is the reference. ``tf32``, ``bf16`` (autocast) and ``fp16`` (autocast, scaled loss)
            are faster on recent GPUs, need less memory, and change numbers slightly.
        determinism: ``off`` allows the fastest kernels of a GPU; ``seeded`` uses cuDNN's deterministic kernels;
            ``strict`` raises an error at every operation that does not repeat bit for bit. Random draws are
            seeded at every level.
        decoder: ``auto`` is PyAV, decoding forward. ``decord`` returns wrong frames on some files, and so does
            ``torchcodec`` on AVI files.
        store: Read frames from the frame store that ``prepare --store`` built instead of decoding videos. JPEG
            compression changes pixels slightly.
        store_dir: Folder of the frame store; null takes the folder in the user's cache.
        workers: Decoding processes; null means 1 on a CPU, on a GPU the run's share of the cores, at most 16.
        threads: CPU threads of torch; null takes torch's default, or the backbone's if it names one. Another
            number of threads may change sums in the last bit.
        eval_batch: Test videos per batch; affects speed and memory only.
        micro_batch: Clips that pass through a CLIP at a time in training, to save memory. Losses see the whole
            batch and dropout draws the same masks, so the gradient is that of the full batch up to rounding;
            null takes all clips at once.
        compile: Compile the backbone's blocks with torch.compile: takes about a minute at first, then faster on
            GPUs.
        feature_cache_mb: Memory in MiB that keeps features of the frozen CLIP, so that a clip seen again, as in
            every test, is not computed again. Helps methods that read the frozen CLIP, on CPUs; a GPU computes
            the features faster than the cache looks them up.
        checkpoint_minutes: Minutes of training between two saved states inside a task, from which a killed run
            resumes; 0 saves after every step.
        rank_timeout_minutes: With several processes (torchrun), minutes without a sign of life after which the
            others give up on one; raise it where reading the data for the first time takes longer.
        max_tasks: Stop after this many tasks with a partial record; the same command without it continues from
            there. null runs all tasks.
        tracker: Also send losses, accuracies and counts to ``tensorboard``, ``wandb`` (offline) or ``mlflow``,
            or to a class of yours, given as ``package.module:Name`` (see ``vcil_bench/trackers.py`` for its
            methods and the names of the scalars).
        max_missing: Largest share of the training or test videos that may be unusable; a run with more is
            refused.
    """

    backbone: str | None = None
    weights: str | None = None
    run_seed: int | None = None
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    determinism: Determinism = "seeded"
    decoder: Literal["auto", "pyav", "decord", "torchcodec"] = "auto"
    store: bool = False
    store_dir: str | None = None
    workers: int | None = None
    threads: int | None = None
    eval_batch: int = 32
    micro_batch: int | None = None
    compile: bool = False
    feature_cache_mb: int = 0
    checkpoint_minutes: float = 10.0
    rank_timeout_minutes: float = 30.0
    max_tasks: int | None = None
    tracker: str | None = None
    max_missing: float = 0.1


PROTOCOL_PREFIX = "protocol."  # of the --set keys that change the protocol
# Options that are no part of the experiment (at most they reorder a sum) stay out of the variant's name and
# out of what resuming compares.
RESULT_NEUTRAL = frozenset(
    {
        *("workers", "threads", "eval_batch", "max_tasks", "max_missing", "tracker", "determinism", "store_dir"),
        *("micro_batch", "compile", "feature_cache_mb", "checkpoint_minutes", "rank_timeout_minutes"),
    }
)


def split_protocol(assignments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort command-line assignments into protocol overrides, their prefix taken off, and all others."""
    overrides, others = {}, {}
    for key, value in assignments.items():
        if key.startswith(PROTOCOL_PREFIX):
            overrides[key.removeprefix(PROTOCOL_PREFIX)] = value
        else:
            others[key] = value
    return overrides, others


def split_assignments(
    assignments: Mapping[str, Any], config_cls: type, method: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sort command-line assignments into protocol overrides, run options and method config.

    Raises:
        ConfigError: A key that belongs to none of them, with the closest one that does.
    """
    protocol, others = split_protocol(assignments)
    options: dict[str, Any] = {}
    config: dict[str, Any] = {}
    option_keys = [f.name for f in dataclasses.fields(RunOptions)]
    config_keys = [f.name for f in dataclasses.fields(config_cls)]
    for key, value in others.items():
        if key in option_keys:
            options[key] = value
        elif key in config_keys:
            config[key] = value
        elif key in TUNING_KEYS:
            raise ConfigError(
                f"--set {key}: method {method!r} tunes its network in a way of its own, or not at all; it has: "
                f"{', '.join(config_keys) or 'none'}"
            )
        else:
            raise ConfigError(
                f"--set {key}: unknown key{did_you_mean(key, [*config_keys, *option_keys])}; method "
                f"{method!r} has: {', '.join(config_keys) or 'none'}; run options: "
                f"{', '.join(option_keys)}; protocol keys begin with {PROTOCOL_PREFIX!r}"
            )
    return protocol, options, config


def build_options(values: Mapping[str, Any]) -> RunOptions:
    """Build run options, checking types and ranges."""
    options = build(RunOptions, values, "run options")
    for key in ("eval_batch", "threads", "max_tasks", "micro_batch"):
        value = getattr(options, key)
        if value is not None and value < 1:
            raise ConfigError(f"{key}: {value} must be at least 1")
    for key in ("workers", "feature_cache_mb", "checkpoint_minutes"):
        value = getattr(options, key)
        if value is not None and not 0 <= value < float("inf"):
            raise ConfigError(f"{key}: {value} must be 0 or more")
    if not 0 < options.rank_timeout_minutes <= LONGEST_TIMEOUT:
        given = options.rank_timeout_minutes
        raise ConfigError(f"rank_timeout_minutes: {given} must be more than 0 and at most {LONGEST_TIMEOUT}")
    for key in ("workers", "threads"):
        value = getattr(options, key)
        if value is not None and value > MOST_AT_ONCE:
            raise ConfigError(f"{key}: {value} must be at most {MOST_AT_ONCE}")
    if options.run_seed is not None and not 0 <= options.run_seed <= LARGEST_SEED:
        raise ConfigError(f"run_seed: {options.run_seed} must lie in 0..{LARGEST_SEED}")
    if not 0 <= options.max_missing <= 1:
        raise ConfigError(f"max_missing: {options.max_missing} must lie between 0 and 1")
    if options.store_dir is not None and not options.store:
        raise ConfigError(f"store_dir: {options.store_dir!r} is not read without store=true")
    return options
