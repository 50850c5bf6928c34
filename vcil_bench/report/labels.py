"""Labels: what readers call a method, protocol or readout, such as ``StPR`` or ``UCF101 10x5``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml

from vcil_bench.common.errors import UserError
from vcil_bench.protocol import load


class Labels:
    """Labels of methods, protocols and readouts; what has none keeps its name."""

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        """Take labels that come before the usual ones.

        Args:
            given: Labels of methods or protocols, by name.
        """
        self._given = dict(given or {})

    def method(self, name: str) -> str:
        """Return a method's label."""
        return self._given.get(name) or _usual()["methods"].get(name, name)

    def protocol(self, name: str) -> tuple[str, str]:
        """Return a protocol's label in two parts: what it shares with others, such as the dataset, and the rest.

        Args:
            name: The protocol's name or, if it is derived, label.
        """
        if name in self._given:
            group, _, rest = self._given[name].partition(" ")
            return group, rest
        return _of_name(name)

    def readout(self, name: str) -> str:
        """Return a readout's label."""
        return str(_usual()["readouts"].get(name, name))


def of_dataset(name: str) -> str:
    """Return a dataset's label."""
    return str(_usual()["datasets"].get(name, name))


def read_labels(pairs: Sequence[str]) -> Labels:
    """Read ``NAME=LABEL`` pairs of a command line.

    Raises:
        UserError: One is no such pair.
    """
    for pair in pairs:
        if not all(pair.partition("=")):
            raise UserError(f"--labels {pair!r} is no label; give it as NAME=LABEL, such as mine=MyMethod")
    return Labels({name: label for name, _, label in (pair.partition("=") for pair in pairs)})


@cache
def _of_name(name: str) -> tuple[str, str]:
    """Return a protocol's label: the dataset, and classes a step times steps, as its name says them."""
    try:
        spec = load(name).spec
    except UserError:  # one of a file, or derived: known by its name alone
        return name, ""
    dataset = _usual()["datasets"].get(spec.dataset.name)
    if dataset is None:
        return name, ""
    sizes = spec.tasks.sizes
    family, _, _ = name.partition("_")
    rest = name.partition(f"_{spec.dataset.name}_")[2] or name.partition("_")[2]
    if family == "vclimb":
        dataset, rest = f"vCLIMB {dataset}", f"{len(sizes)} tasks{_behind_number(rest)}"
    elif family == "synthetic":
        rest = f"{sizes[0]}+{len(sizes) - 1}x{sizes[1]}"
    return dataset, rest.replace("_", " ")


def _behind_number(text: str) -> str:
    """Return what follows ``10_`` in a name, behind a comma."""
    rest = text.partition("_")[2]
    return f", {rest}" if rest else ""


@cache
def _usual() -> dict[str, Any]:
    text = (resources.files("vcil_bench.report") / "labels.yaml").read_text(encoding="utf-8")
    usual: dict[str, Any] = yaml.safe_load(text)
    return usual
