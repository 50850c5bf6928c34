"""What tests need to run a method whole, on a stream so small that it takes a second."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vcil_bench import protocol, registry
from vcil_bench.data.datasets import adapter
from vcil_bench.data.loader import ClipLoader
from vcil_bench.data.prepare import prepare
from vcil_bench.method import Method, RunContext
from vcil_bench.nets.trunk import Trunk
from vcil_bench.nets.tuning_config import KEYS as TUNING_KEYS
from vcil_bench.run import seeded
from vcil_bench.run.loop import within_reach
from vcil_bench.stream import TaskStream
from vcil_bench.training import Trainer

ENTRIES = registry.find_all()
# What makes a method quick enough for a test; keys that a method's Config lacks are passed over.
QUICK: dict[str, Any] = {
    "epochs": 1,
    "epochs_first": 2,
    "rehearsal_epochs": 1,
    "batch_size": 4,
    "template": "{}",
    "balanced_epochs": 1,
    "prompt_epochs": 1,
    "replay_epochs": 1,
    "proxies": 2,
    "channels": 4,
    "hidden": 4,
    "depth": 1,
    "correlation_size": 4,
    "evolved_size": 2,
    "expansion": 32,
    "samples_per_class": 8,
}


def method_class(name: str) -> type[Method]:
    """Return a method's class."""
    cls = ENTRIES[name].cls
    assert cls is not None
    return cls


def quick(cls: type[Method], **changes: Any) -> dict[str, Any]:
    """Return the values that make a method quick, with changes, as far as its Config has the keys."""
    keys = {f.name for f in dataclasses.fields(cls.Config)}
    return {k: v for k, v in QUICK.items() if k in keys} | changes


def config_of(cls: type[Method], **changes: Any) -> Any:
    """Build a quick config."""
    return cls.resolve_config("contract", quick(cls, **changes))[0]


def stream_of(
    tiny: Any, seed: int = 1, sizes: Sequence[int] | None = None, **manifest_changes: Any
) -> TaskStream:
    """Join the tiny protocol and its clips; ``sizes`` are classes per task in place of its own."""
    manifest = prepare(adapter("folder"), tiny.root, "videos.csv")
    spec = protocol.load(tiny.protocol)
    if sizes is not None:
        spec = spec.derive({"tasks.sizes": list(sizes)})
    return TaskStream(spec, dataclasses.replace(manifest, **manifest_changes), seed)


def context_of(trunk: Trunk, protocol_file: Path, **overrides: Any) -> RunContext:
    """Return what a run gives to a method; ``overrides`` are protocol keys with ``__`` for the dot."""
    cpu = torch.device("cpu")
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    spec = protocol.load(protocol_file).derive(changes).spec
    loader = ClipLoader(spec.clip, decoder="auto", workers=0, device=cpu, seed=1)
    return RunContext(cpu, "fp32", loader, trunk, spec.memory, Trainer(cpu, "fp32", loader))


def learn(
    cls: type[Method], config: Any, trunk: Trunk, stream: TaskStream, tiny: Any, steps: int, **overrides: Any
) -> Method:
    """Construct a method and let it learn the first tasks, seeded as the runner does."""
    method = seeded.construct(cls, config, context_of(trunk, tiny.protocol, **overrides), 1)
    for step in range(steps):
        task = stream.task(step, cumulative=cls.data_access == "cumulative")
        seeded.grow(method, task, 1)
        with within_reach(method, method.context, task):
            seeded.learn(method, task, 1)
    return method.eval()


def clips_of(stream: TaskStream, method: Method, upto: int) -> torch.Tensor:
    """Return the test clips of the first tasks [B, T, 3, S, S]."""
    samples = [s for i in range(upto) for s in stream.test(i)]
    return torch.cat([b.clips[:, 0] for b in method.context.loader.views(samples, 8)])


def untried_switches(cls: type[Method], variants: list[dict[str, Any]], base: Any = None) -> list[Any]:
    """Return the (key, value) of every switch of a Config that no variant tries.

    Args:
        cls: The method.
        variants: Config values that are tried.
        base: A Config whose switches, where they are inherited with their default, are tried elsewhere.
    """
    tried = {(key, value) for variant in variants for key, value in variant.items()}
    elsewhere = {} if base is None else {field.name: field.default for field in dataclasses.fields(base)}
    left = []
    for field in dataclasses.fields(cls.Config):
        if field.name in elsewhere and elsewhere[field.name] == field.default:
            continue
        if field.name in TUNING_KEYS:  # every method that has them is run with every tuning, see test_tuned_runs
            continue
        hint = typing.get_type_hints(cls.Config)[field.name]
        choices = (True, False) if hint is bool else typing.get_args(hint)
        for value in choices:
            switch = isinstance(value, (bool, str)) and value != field.default
            if switch and (field.name, value) not in tried:
                left.append((field.name, value))
    return left
