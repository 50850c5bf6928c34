"""Imports between the rooms of the package run one way, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From top to bottom; a room imports its own layer and those below.
LAYERS = (
    {"cli", "__main__"},
    {"fetch"},
    {"grid", "testing", "doctor"},
    {"run", "report"},
    {"methods"},
    {"classifier", "consolidation", "pretrained", "prompting", "rehearsal", "registry"},
    {"method"},
    {"memory", "feature_memory", "training", "stream", "verify", "trackers", "identity"},
    {"data"},
    {"nets", "protocol", "record", "record_schema", "options", "origin"},
    {"gaussians", "losses", "metrics", "common", ""},
)
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}


@cache
def modules() -> dict[str, Path]:
    """Return the files of the package by module name, the methods' among them."""
    files = [*(ROOT / "vcil_bench").rglob("*.py"), *(ROOT / "methods").glob("*.py")]
    named = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        parts = parts if parts[0] == "vcil_bench" else ("vcil_bench", *parts)
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return named


@cache
def imports(module: str, *, typing: bool) -> list[tuple[str, bool]]:
    """Return the modules of the package that a module imports, and whether it does so when imported itself.

    Args:
        module: Its name.
        typing: Whether imports for type checkers alone count, too.
    """
    file = modules()[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]

    def visit(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING" and not typing:
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
                base = ".".join([*above, *([child.module] if child.module else [])])
                for alias in child.names:
                    name = f"{base}.{alias.name}"
                    yield (name if name in modules() else base), at_once
            else:
                yield from visit(child, at_once and not isinstance(child, ast.FunctionDef))

    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [(name, at_once) for name, at_once in visit(tree, True) if name in modules() and name != module]


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_its_layer() -> None:
    assert {room(module) for module in modules()} <= LAYER_OF.keys()


def test_imports_run_one_way() -> None:
    """Also those inside functions; what only a type checker reads may look up."""
    upward = [
        f"{module} imports {name}"
        for module in modules()
        if module != "vcil_bench"  # the package itself only hands out what it is asked for
        for name, _ in imports(module, typing=False)
        if LAYER_OF[room(name)] < LAYER_OF[room(module)]
    ]
    assert not upward


@pytest.mark.parametrize("typing", [False, True])
def test_no_modules_import_each_other_in_a_circle(typing: bool) -> None:
    """A type that two modules need of each other belongs into a third."""
    graph = {
        module: {name for name, at_once in imports(module, typing=typing) if at_once} for module in modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
