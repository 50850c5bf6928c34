"""Systems of the literature: which method each is here, or why there is none; read from ``systems.yaml``."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

import yaml

from vcil_bench.common.config import ConfigError, build

PAGE = "docs/systems.md"


@dataclass(frozen=True, kw_only=True)
class System:
    """A system, see the head of ``systems.yaml``."""

    name: str
    paper: str
    published: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    option: str = ""
    missing: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a system that is here and missing, or neither."""
        if sum(map(bool, (self.methods, self.option, self.missing))) != 1:
            raise ConfigError(f"{self.name}: give it one of methods, option, missing")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Systems of one kind."""

    title: str
    systems: tuple[System, ...]


@functools.cache
def families() -> list[Family]:
    """Return all systems, family by family."""
    text = (resources.files("vcil_bench.report") / "systems.yaml").read_text(encoding="utf-8")
    return [build(Family, raw, f"systems.yaml: {key}") for key, raw in yaml.safe_load(text).items()]


def system_of(published: str) -> System | None:
    """Return the system of a name in ``published.csv``: the one that begins it, of several the longest."""
    fits = [
        (len(beginning), system)
        for family in families()
        for system in family.systems
        for beginning in system.published
        if published.startswith(beginning)
    ]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None


def missing(published: Iterable[str]) -> dict[str, str]:
    """Return why there is no method here, per system, of those names in ``published.csv`` that have none."""
    systems = [system for name in published if (system := system_of(name)) is not None]
    return {system.name: system.missing for system in systems if system.missing}
