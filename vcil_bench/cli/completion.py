"""Completion of names in the shell (argcomplete): methods, protocols, tables, metrics, keys of ``--set``.

Pressing the tab key must not take seconds, so nothing here imports torch: methods are named by their files and
entry points, and the keys of a method are read from its source.
"""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Iterator, Sequence
from importlib import metadata, resources
from pathlib import Path

from .arguments import Kind, Parser


def enable(parser: Parser) -> None:
    """Answer the shell and end, if it asks for completions; else do nothing."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    with contextlib.suppress(ImportError):  # an extra
        import argcomplete

        argcomplete.autocomplete(parser)


def names_of(kinds: Sequence[Kind], prefix: str) -> Iterator[str]:
    """Yield the names of some kinds that begin with a text; behind a comma, the next of a list."""
    before, comma, begun = prefix.rpartition(",")
    for kind in kinds:
        for name in _names(kind):
            if name.startswith(begun):
                yield f"{before}{comma}{name}"


def _names(kind: Kind) -> list[str]:
    if kind == "methods":
        return method_names()
    if kind == "protocols":
        from vcil_bench import protocol

        return list(protocol.names())
    if kind == "datasets":
        from vcil_bench.data.datasets import ADAPTERS

        return list(ADAPTERS)
    if kind == "sources":
        from vcil_bench.fetch.sources import sources

        return [*sources(), "weights"]
    if kind == "backbones":
        from vcil_bench.nets.backbones import BACKBONES

        return list(BACKBONES)
    if kind == "tables":
        from vcil_bench.report.papers import specs

        return [spec.id for spec in specs()]
    if kind == "metrics":
        from vcil_bench.metrics import METRICS

        return list(METRICS)
    if kind == "keys":
        return _keys()
    return [
        name for every in ("methods", "protocols", "datasets", "backbones", "tables") for name in _names(every)
    ]


def method_names() -> list[str]:
    """Return the names of built-in and installed methods, without importing any."""
    installed = [point.name for point in metadata.entry_points(group="vcil_bench.methods")]
    return sorted({*(path.stem for path in _method_files()), *installed})


def _method_files() -> list[Path]:
    folder = resources.files("vcil_bench.methods")
    return [path for path in sorted(Path(str(folder)).glob("*.py")) if not path.name.startswith("_")]


def _keys() -> list[str]:
    """Return the run options, and the keys of all Configs of methods, each with its ``=``."""
    import dataclasses

    from vcil_bench.options import RunOptions

    keys = {field.name for field in dataclasses.fields(RunOptions)}
    package = Path(str(resources.files("vcil_bench")))
    for path in (
        *_method_files(),
        *(package / name for name in ("classifier.py", "rehearsal.py", "pretrained.py")),
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                keys |= {
                    line.target.id
                    for line in node.body
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
                }
    return [f"{key}=" for key in sorted(keys)]
