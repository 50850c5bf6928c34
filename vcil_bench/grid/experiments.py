"""Experiments of a grid: methods x protocols x swept settings, or every run behind a table of a paper.

An experiment is a run but for its seed. Whatever it sets beside the method's defaults stands in it as ``--set``
takes it, so the command that runs it says all.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from vcil_bench import protocol as protocols
from vcil_bench import registry
from vcil_bench.common.config import ConfigError, parse_assignments
from vcil_bench.common.errors import UserError, did_you_mean
from vcil_bench.data.datasets import adapter
from vcil_bench.method import Method
from vcil_bench.nets.backbones import BACKBONES
from vcil_bench.protocol.spec import ProtocolSpec
from vcil_bench.report.papers import specs
from vcil_bench.report.table_file import RowSpec

ALL = "all"
_OPENING, _CLOSING, _QUOTES = "[{(", "]})", "'\""


class ExperimentError(UserError):
    """Experiments that cannot be had as they were asked for."""


@dataclass(frozen=True)
class Experiment:
    """One method on one protocol.

    Attributes:
        method: Name or ``.py`` file.
        protocol: Name or ``.yaml`` file.
        assignments: ``--set`` of its runs.
    """

    method: str
    protocol: str
    assignments: tuple[str, ...] = ()


def product(methods: Sequence[str], named: Sequence[str], assignments: Sequence[str]) -> list[Experiment]:
    """Return every method on every protocol with every combination of swept values, each once.

    Raises:
        ConfigError: A value of a sweep is empty, or an assignment is malformed.
    """
    swept = sweep(assignments)
    return list(
        dict.fromkeys(
            Experiment(method, protocol, chosen) for protocol in named for method in methods for chosen in swept
        )
    )


def sweep(assignments: Sequence[str]) -> list[tuple[str, ...]]:
    """Return every combination of the values in ``key=value,value`` assignments.

    Commas inside brackets or quotes belong to a value: ``milestones=[20,40],[30]`` are two, and so is the text
    ``template="a clip of {}, slowly"`` one.

    Raises:
        ConfigError: A value is empty.
    """
    choices = []
    for text in assignments:
        key, equals, value = text.partition("=")
        values = _split(value) if equals else [value]
        if len(values) > 1 and not all(part.strip() for part in values):
            raise ConfigError(
                f"--set {text!r}: one of the {len(values)} values is empty; commas part the values of a sweep, "
                "such as lr=0.01,0.02; put a text with commas into quotes within quotes: '" + key + '="a, b"\''
            )
        choices.append([f"{key}={part.strip()}" for part in values] if len(values) > 1 else [text])
    return list(dict.fromkeys(itertools.product(*choices)))


def of_table(
    name: str, methods: Sequence[str], named: Sequence[str], assignments: Sequence[str]
) -> list[Experiment]:
    """Return the experiments behind a table of a paper, each once, protocol by protocol.

    Args:
        name: The table's id.
        methods: Of the table's methods those wanted; ``all`` takes all.
        named: Likewise of its protocols.
        assignments: ``--set`` of every run beside what rows set; may sweep.

    Raises:
        ExperimentError: No such table, or a method or protocol that is not in it.
        ConfigError: An assignment that a row makes itself.
    """
    tables = {spec.id: spec for spec in specs()}
    if name not in tables:
        raise ExperimentError(
            f"--table {name!r}: no such table{did_you_mean(name, tables)}; tables: {', '.join(tables)}"
        )
    spec = tables[name]
    rows = [row for row in spec.rows if row.method is not None]
    if not rows:
        raise ExperimentError(f"--table {name}: published numbers alone; none of its methods can be run here")
    _check_wanted(name, "method", methods, [str(row.method) for row in rows])
    _check_wanted(name, "protocol", named, spec.protocols)
    swept = sweep(assignments)
    made = []
    for protocol in spec.protocols:
        if protocol not in named and ALL not in named:
            continue
        for row in rows:
            if row.method in methods or ALL in methods:
                made += [_of_row(row, protocol, name, chosen) for chosen in swept]
    return list(dict.fromkeys(made))


def _of_row(row: RowSpec, protocol: str, table: str, assignments: Sequence[str]) -> Experiment:
    assert row.method is not None
    values = {**row.config, **{f"protocol.{key}": value for key, value in row.overrides.items()}}
    given = parse_assignments(list(assignments))
    for key in values.keys() & given.keys():
        if given[key] != values[key]:
            raise ConfigError(
                f"--set {key}={given[key]}: row {row.label!r} of table {table} sets {key}={values[key]} itself; "
                "leave it out, or name methods and protocols in place of --table"
            )
    if row.provides is not None and "backbone" not in given:
        backbone = _providing(row.method, protocol, row.provides)
        if backbone is not None:
            values["backbone"] = backbone
    made = [
        f"{key}={json.dumps(value) if not isinstance(value, str) else _as_text(value)}"
        for key, value in values.items()
    ]
    return Experiment(row.method, protocol, (*made, *(text for text in assignments if _key(text) not in values)))


def _providing(method: str, protocol: str, wanted: str) -> str | None:
    """Return a backbone that provides something, None where the method's own on the protocol does.

    Raises:
        ExperimentError: No backbone does on frames of the protocol's size.
    """
    cls, spec = _class(method), _spec(protocol)
    embedded = adapter(spec.dataset.name).kind == "synthetic"
    own = BACKBONES[cls.backbone_for(protocol)[0]]
    own = BACKBONES[own.embedded_sibling] if embedded else own
    if wanted in own.provides:
        return None
    for name, backbone in BACKBONES.items():
        fits = backbone.image_size == spec.clip.size and (backbone.embedded_sibling == name) == embedded
        if fits and wanted in backbone.provides:
            return name
    raise ExperimentError(
        f"no backbone with {wanted} takes frames of {spec.clip.size} pixels, as {protocol} gives"
    )


@functools.cache
def _spec(protocol: str) -> ProtocolSpec:
    return protocols.load(protocol).spec


@functools.cache
def _class(method: str) -> type[Method]:
    cls = registry.find(method).cls
    assert cls is not None
    return cls


def _check_wanted(table: str, kind: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    known = list(dict.fromkeys(there))
    for name in wanted:
        if name not in (ALL, *known):
            raise ExperimentError(
                f"{kind} {name!r} is not in table {table}{did_you_mean(name, known)}; it has: "
                f"{', '.join(known)}; or all"
            )


def _key(assignment: str) -> str:
    return assignment.partition("=")[0].strip()


def _as_text(value: str) -> str:
    """Return a text as ``--set`` reads it, quoted where plain YAML would take it for something else."""
    return value if yaml.safe_load(value) == value else json.dumps(value)


def _split(value: str) -> list[str]:
    """Split at commas that lie in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in value:
        if quote:
            quote = "" if sign == quote else quote
        elif (sign in _QUOTES and not parts[-1].strip()) or (sign in _QUOTES and depth):
            quote = sign
        elif sign in _OPENING:
            depth += 1
        elif sign in _CLOSING:
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += sign
    return parts
