"""Templates of ``vcil-bench new-method``: a method file, or a package around it, under a name of the user's."""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
import sys
from pathlib import Path

from vcil_bench import registry
from vcil_bench.common.errors import UserError
from vcil_bench.common.files import check_writable, write_atomically

FOLDER = importlib.resources.files("vcil_bench.testing") / "template"
METHOD = "new_method.py"
# Of a package: the template of each file, by its place; {name} is the method's.
PACKAGE = {
    "pyproject.toml": "pyproject.toml.template",
    "README.md": "readme.md.template",
    "vcil_bench_{name}/__init__.py": "init.py.template",
    "vcil_bench_{name}/{name}.py": METHOD,
    "tests/test_{name}.py": "test_method.py.template",
    ".github/workflows/test.yml": "test.yml.template",
}


def write_method(name: str, folder: Path) -> list[Path]:
    """Write a method file ``<folder>/<name>.py``.

    Args:
        name: Of the method.
        folder: Made if it is not there.

    Returns:
        The file.

    Raises:
        UserError: The name cannot be used or is taken, or the file is there.
    """
    return _write(name, {folder / f"{name}.py": METHOD})


def write_package(name: str, folder: Path) -> list[Path]:
    """Write a package ``<folder>/vcil-bench-<name>`` with entry point, test and CI file.

    Args:
        name: Of the method.
        folder: Made if it is not there.

    Returns:
        The files, ``pyproject.toml`` first.

    Raises:
        UserError: The name cannot be used or is taken, or one of the files is there.
    """
    root = folder / f"vcil-bench-{name.replace('_', '-')}"
    return _write(name, {root / place.format(name=name): template for place, template in PACKAGE.items()})


def class_name(name: str) -> str:
    """Return a method's name as that of its class: ``my_method`` becomes ``MyMethod``."""
    return "".join(part.capitalize() for part in name.split("_"))


def _write(name: str, files: dict[Path, str]) -> list[Path]:
    _check_name(name)
    for path in files:
        if path.exists():
            raise UserError(f"{path} is there already; give another name, or another folder with --out DIR")
    for path, template in files.items():
        text = (FOLDER / template).read_text(encoding="utf-8")
        for placeholder, value in (
            ("new_method", name),
            ("new-method", name.replace("_", "-")),
            ("NewMethod", class_name(name)),
            ("new method", name.replace("_", " ")),
        ):
            text = text.replace(placeholder, value)
        check_writable(path.parent)
        write_atomically(path, text.encode())
    return list(files)


def _check_name(name: str) -> None:
    """Refuse a name that no method can have, or that another has.

    Raises:
        UserError: Says which are allowed.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower().removesuffix(".py")).strip("_")
        usable = re.fullmatch(r"[a-z][a-z0-9_]*", plain) and not keyword.iskeyword(plain)
        hint = f", such as {plain!r}" if usable else ", such as 'my_method'"
        raise UserError(
            f"method name {name!r} cannot be used; allowed are lower-case letters, digits and _, beginning with "
            f"a letter, and no word of Python{hint}"
        )
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise UserError(
            f"method name {name!r} is that of a Python module, which {name}.py would hide from what runs beside "
            f"it; choose another, such as 'my_{name}'"
        )
    methods = registry.find_all()
    if name in methods:
        raise UserError(
            f"method name {name!r} is taken by a method that is {methods[name].origin}; taken are "
            f"{', '.join(methods)}; choose another"
        )
