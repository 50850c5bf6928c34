"""Plans: a command resolved and checked, before any work is done for it.

Method, protocol, config, options, device and backbone are found here and refused here if they do not fit
together; ``run.loop`` takes it from there.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vcil_bench import identity
from vcil_bench import record as records
from vcil_bench.common.errors import UserError
from vcil_bench.common.files import check_writable, file_sha256
from vcil_bench.data.datasets import adapter
from vcil_bench.data.video import resolve_decoder
from vcil_bench.memory import check_budget
from vcil_bench.method import Method
from vcil_bench.nets.backbones import BACKBONES, backbone
from vcil_bench.nets.backbones.base import Backbone
from vcil_bench.nets.parallel.team import size_of_team
from vcil_bench.nets.tuning_config import KEYS as TUNING_KEYS
from vcil_bench.nets.tuning_config import TuningConfig
from vcil_bench.nets.weights import given_file, is_path
from vcil_bench.options import RESULT_NEUTRAL, RunOptions, build_options, split_assignments
from vcil_bench.protocol import Protocol
from vcil_bench.protocol import load as load_protocol
from vcil_bench.registry import Entry
from vcil_bench.registry import find as find_method
from vcil_bench.trackers import find as find_tracker


class RunError(UserError):
    """A run that cannot be started as it was asked for."""


class StaleRecord(RunError):
    """A finished record that was made under other conditions than the run that is asked for.

    Attributes:
        path: The record.
        reasons: Names of the parts in which they differ, see ``vcil_bench.identity``.
    """

    def __init__(self, path: Path, reasons: list[str]) -> None:
        changed = identity.in_words(reasons)
        super().__init__(f"{path}: finished, but stale: {changed} changed; --force moves it aside and runs anew")
        self.path = path
        self.reasons = reasons


@dataclass(frozen=True)
class Plan:
    """A command, resolved and checked: one method on one protocol, for some seeds.

    ``parts`` holds all parts of its identity that are known before data and networks are loaded. The hashes of
    the code among them were taken when it was imported: a file that is edited later is not what this process
    computes with.
    """

    entry: Entry
    protocol: Protocol
    seeds: tuple[int, ...]
    config: Any
    config_origins: dict[str, str]
    options: RunOptions
    option_origins: dict[str, str]
    variant: str
    results: Path
    device: torch.device
    backbone: Backbone
    parts: dict[str, str]

    @property
    def code(self) -> dict[str, str]:
        """The hashes of the code that runs, by module."""
        return {name: digest for name, digest in self.parts.items() if identity.is_code(name)}

    @property
    def method(self) -> type[Method]:
        """The method's class."""
        assert self.entry.cls is not None
        return self.entry.cls

    def path(self, seed: int) -> Path:
        """Return where the record of a seed lies."""
        return records.record_path(self.results, self.protocol.label, self.method.name, self.variant, seed)


def make_plan(
    method: str,
    protocol: str,
    *,
    seed: int | None,
    assignments: dict[str, Any],
    results: Path,
    device: str,
) -> Plan:
    """Resolve a command.

    Args:
        method: Name or ``.py`` file.
        protocol: Name or ``.yaml`` file.
        seed: One of the protocol's seeds, or None for all of them.
        assignments: ``--set`` keys and values.
        results: Folder of the records.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UserError: Anything that is unknown, malformed or does not fit together.
    """
    loaded = load_protocol(protocol)
    entry = find_method(method)
    assert entry.cls is not None
    overrides, option_values, config_values = split_assignments(assignments, entry.cls.Config, entry.name)
    if overrides:
        loaded = loaded.derive(overrides)
    config, origins = entry.cls.resolve_config(loaded.name, config_values)
    options = build_options(option_values)
    option_origins = {
        f.name: "command line" if f.name in option_values else "default" for f in dataclasses.fields(options)
    }
    seeds = tuple(loaded.spec.seeds)
    if seed is not None:
        loaded.check_seed(seed)
        seeds = (seed,)
    for chosen_seed in seeds:
        loaded.order(chosen_seed)  # refuses lists that must be imported first
    resolve_decoder(options.decoder)
    find_tracker(options.tracker)
    default, origin = entry.cls.backbone_for(loaded.name)
    chosen = backbone(options.backbone or default)
    if options.backbone is None:
        option_origins["backbone"] = origin
    if options.backbone is None and adapter(loaded.spec.dataset.name).kind == "synthetic":
        chosen = backbone(chosen.embedded_sibling)
        option_origins["backbone"] = "embedded data"
    _check_tuning(config, config_values, loaded, chosen)
    _check_fit(entry, config, loaded, chosen)
    _check_parts(entry, config, options)
    named = {k: v for k, v in (option_values | config_values).items() if k not in RESULT_NEUTRAL}
    check_writable(results)
    options = dataclasses.replace(options, backbone=chosen.name)
    return Plan(
        entry,
        loaded,
        seeds,
        config,
        origins,
        options,
        option_origins,
        records.variant_name(named),
        results,
        _device(device),
        chosen,
        _known_parts(_code_of(entry, chosen), loaded, config, options, chosen.name),
    )


def _known_parts(
    code: dict[str, str], protocol: Protocol, config: Any, options: RunOptions, backbone_name: str
) -> dict[str, str]:
    """Return the parts of a run's identity that no data and no network need be loaded for."""
    known = {
        "protocol": protocol.fingerprint,
        "config": plain_values(config),
        "options": identity.relevant(plain_values(options)),
    }
    if options.weights is not None and is_path(options.weights):
        known["weights"] = [backbone_name, file_sha256(given_file(options.weights))]
    return identity.parts(code, **known)


def _code_of(entry: Entry, chosen: Backbone) -> dict[str, str]:
    """Return the hashes of the code that a method's runs on a backbone depend on, as it is on disk now."""
    assert entry.cls is not None
    file = entry.file if entry.origin == "file" else None
    given = entry.cls.__module__
    bases = {base.__module__ for base in entry.cls.__mro__ if issubclass(base, Method)} - {given}
    return identity.code_of(file or given, type(chosen).__module__, *sorted(bases))


def plain_values(config: Any) -> dict[str, Any]:
    """Return a config as plain data, as JSON will give it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _check_fit(entry: Entry, config: Any, protocol: Protocol, chosen: Backbone) -> None:
    """Refuse a backbone that lacks what the method needs, or that takes frames of another size."""
    assert entry.cls is not None
    needs = entry.cls.needs_with(config)
    lacking = needs - chosen.provides
    if lacking:
        by_values = "" if lacking & entry.cls.needs else " with these values of its keys"
        raise RunError(
            f"method {entry.name!r}{by_values} needs a backbone with {', '.join(sorted(lacking))}; "
            f"{chosen.name!r} provides {', '.join(sorted(chosen.provides))}; choose one of: "
            f"{', '.join(name for name, other in BACKBONES.items() if needs <= other.provides) or 'none'}"
        )
    if entry.cls.uses_memory:
        if protocol.spec.memory is None:
            raise RunError(
                f"method {entry.name!r} keeps exemplars, protocol {protocol.name!r} allows none; allow them "
                "with --set protocol.memory.per_class=5 (a derived protocol), or choose a method without"
            )
        check_budget(protocol.spec.memory, protocol.spec.classes.num, entry.name)
    if protocol.spec.clip.size != chosen.image_size:
        raise RunError(
            f"backbone {chosen.name!r} takes frames of {chosen.image_size} pixels, protocol "
            f"{protocol.name!r} gives {protocol.spec.clip.size}; choose another --set backbone=, or "
            f"--set protocol.clip.size={chosen.image_size} protocol.clip.short_side={chosen.image_size}"
        )


def _check_tuning(config: Any, given: Collection[str], protocol: Protocol, chosen: Backbone) -> None:
    """Refuse to tune what trains whole, and a tuning that does not fit the protocol's clips."""
    if not isinstance(config, TuningConfig):
        return
    if "adapters" in chosen.provides:
        config.network_tuning(protocol.spec.clip.frames, features=getattr(config, "features", "joint"))
    elif keys := [key for key in given if key in TUNING_KEYS]:
        clips = [name for name, other in BACKBONES.items() if "adapters" in other.provides]
        raise RunError(
            f"{keys[0]}: {chosen.name!r} is trained whole, a tuning is for a frozen CLIP; leave it out, or take "
            f"--set backbone= with one of: {', '.join(clips)}"
        )


def _check_parts(entry: Entry, config: Any, options: RunOptions) -> None:
    """Refuse to split the batches of a method that cannot work on parts of them."""
    assert entry.cls is not None
    if entry.cls.mixes_test_clips_with(config):
        own = RunOptions().eval_batch
        if options.eval_batch != own:
            raise RunError(
                f"eval_batch: {options.eval_batch}: with these values of its keys method {entry.name!r} scores "
                f"a clip by the clips beside it, so that results hang on it; leave it at {own}"
            )
        if size_of_team() > 1:
            raise RunError(
                f"with these values of its keys method {entry.name!r} scores a clip by the clips beside it, "
                "which several processes would divide; start it without torchrun, in one process"
            )
    if options.micro_batch is not None and "maps" in entry.cls.needs:
        raise RunError(
            f"micro_batch: method {entry.name!r} reads feature maps, which stay in memory for the whole batch; "
            "leave micro_batch out, or lower batch_size, which is another experiment"
        )
    if size_of_team() > 1 and not entry.cls.splits_batches:
        raise RunError(
            f"method {entry.name!r} takes whole batches (it differentiates by feature maps, or does not say "
            "splits_batches = True); start it without torchrun, in one process"
        )


def _device(name: str) -> torch.device:
    """Return a device that is really there; with several processes, this process's own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if size_of_team() > 1:
        if name.startswith("cuda:"):
            raise RunError(
                f"--device {name}: all processes of torchrun would share one GPU; give --device cuda, of which "
                "each takes its own, and choose among them with CUDA_VISIBLE_DEVICES"
            )
        if name == "cuda":
            name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RunError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:N, mps") from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise RunError(f"device {name!r} is not there; this machine has: {', '.join(devices)}")
    return device
