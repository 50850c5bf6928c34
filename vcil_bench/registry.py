"""Finds methods: built in (files in ``methods/``), installed (entry points) or given as a file.

A method whose import fails stays visible with its reason and harms no other. No method is named here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType, ModuleType
from typing import cast

from . import __version__
from .common.errors import UserError, did_you_mean
from .method import Method
from .record_schema import READOUT

GROUP = "vcil_bench.methods"


class MethodError(UserError):
    """A method that is unknown, cannot be imported, or breaks the common interface."""


@dataclass(frozen=True)
class Entry:
    """A method that was found.

    Attributes:
        name: Its name.
        origin: ``built-in``, ``installed`` or ``file``.
        file: The source file, where known.
        cls: The class, or None if it could not be imported.
        error: Why not.
        distribution: Distribution that provides it, None for a file.
        version: That distribution's version.
    """

    name: str
    origin: str
    file: Path | None
    cls: type[Method] | None
    error: str | None = None
    distribution: str | None = None
    version: str | None = None


def methods_folder() -> Path:
    """Return the folder of the built-in methods."""
    package = importlib.import_module("vcil_bench.methods")
    return Path(next(iter(package.__path__)))


def find_all() -> dict[str, Entry]:
    """Return every built-in and installed method by name, failed ones included."""
    entries: dict[str, Entry] = {}
    for path in sorted(methods_folder().glob("*.py")):
        if not path.name.startswith("_"):
            entries[path.stem] = _built_in(path)
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda p: p.name):
        entry = _installed(point)
        key = entry.name
        if key in entries:
            taken = entries[key].origin
            entry = dataclasses.replace(
                entry, cls=None, error=f"the name {key!r} is taken by a method that is {taken}"
            )
            key = f"{key} ({entry.distribution})"
        entries[key] = entry
    return entries


def find(reference: str) -> Entry:
    """Return the method of a name or of a path to a ``.py`` file.

    Raises:
        MethodError: Unknown, or its import failed; says why.
    """
    if reference.endswith(".py") or "/" in reference:
        entry = from_file(Path(reference))
    else:
        entries = find_all()
        if reference not in entries:
            usable = [name for name, entry in entries.items() if entry.cls is not None]
            raise MethodError(
                f"unknown method {reference!r}{did_you_mean(reference, usable)}; known: "
                f"{', '.join(usable)}; or give the path of a .py file"
            )
        entry = entries[reference]
    if entry.cls is None:
        raise MethodError(f"method {entry.name!r} ({entry.file}) cannot be used: {entry.error}")
    return entry


def from_file(path: Path) -> Entry:
    """Load a method from a file anywhere; it may import built-in siblings relatively, as built-ins do.

    Raises:
        MethodError: No such file.
    """
    if not path.is_file():
        raise MethodError(
            f"no method file {str(path)!r}; give a .py file, or a name (see: vcil-bench list methods)"
        )
    if path.suffix != ".py":
        raise MethodError(f"{str(path)!r} is not a .py file")
    path = path.resolve()
    built_in = methods_folder().resolve()
    if path.parent == built_in and not path.name.startswith("_"):
        return find_all()[path.stem]
    key = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    module_name = f"vcil_bench.methods._file_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{key}"
    entry = _load(path.stem, "file", path, lambda: _import_file(module_name, path))
    if entry.cls is not None and entry.name in find_all():
        why = f"its method is named {entry.name!r}, which is taken; give its class another name"
        return dataclasses.replace(entry, cls=None, error=why)
    return entry


def _built_in(path: Path) -> Entry:
    module = f"vcil_bench.methods.{path.stem}"
    entry = _load(path.stem, "built-in", path, lambda: importlib.import_module(module))
    entry = dataclasses.replace(entry, distribution="vcil-bench", version=__version__)
    if entry.cls is not None and entry.name != path.stem:
        why = f"its class is named {entry.name!r}, a built-in's name must be its file's"
        return dataclasses.replace(entry, name=path.stem, cls=None, error=why)
    return entry


def _installed(point: metadata.EntryPoint) -> Entry:
    entry = _load(point.name, "installed", None, point.load)
    dist = point.dist
    return dataclasses.replace(
        entry,
        distribution=dist.name if dist else None,
        version=dist.version if dist else None,
    )


def _import_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their annotations up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load(name: str, origin: str, file: Path | None, importer) -> Entry:  # type: ignore[no-untyped-def]
    """Import a method and check it; whatever goes wrong becomes the entry's reason."""
    pressed: list[int] = []
    try:
        with _interrupts(pressed):
            loaded = importer()
        cls = cast("type[Method]", loaded if inspect.isclass(loaded) else _class_in(loaded))
        check_class(cls)
        source = Path(inspect.getfile(cls))
    except BaseException as error:
        if pressed:
            raise
        # A plugin's fault must not take others down, and to raise KeyboardInterrupt or SystemExit is one.
        where = _last_line(error, file)
        return Entry(name, origin, file, None, f"{type(error).__name__}: {error}{where}")
    return Entry(cls.name, origin, source, cls)


@contextmanager
def _interrupts(pressed: list[int]) -> Iterator[None]:
    """Note in ``pressed`` when the user presses Ctrl-C, which code that is imported may only pretend."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # nobody can interrupt it
        return

    def press(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _class_in(module: ModuleType) -> type[Method]:
    """Return the one method class that a module defines."""
    classes = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Method) and cls.__module__ == module.__name__ and not cls.__name__.startswith("_")
    ]
    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "none"
        raise MethodError(f"a method file must define exactly one Method class, it has: {names}")
    return classes[0]


def check_class(cls: type[Method]) -> None:
    """Check the class attributes of the common interface.

    Raises:
        MethodError: Names the attribute.
    """
    from .options import RunOptions  # options need no method, but name what a Config must not

    if not (inspect.isclass(cls) and issubclass(cls, Method)):
        raise MethodError(f"{cls!r} is not a subclass of vcil_bench.method.Method")
    if inspect.isabstract(cls):
        left = ", ".join(sorted(cls.__abstractmethods__))
        raise MethodError(f"{cls.__name__} does not define {left}")
    for attribute in ("name", "paper", "readouts", "Config"):
        if not hasattr(cls, attribute):
            raise MethodError(f"{cls.__name__} has no class attribute {attribute!r}")
    if not isinstance(cls.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", cls.name):
        raise MethodError(f"{cls.__name__}.name {cls.name!r} must be lower-case letters, digits and _")
    if not isinstance(cls.paper, str):
        raise MethodError(f"{cls.__name__}.paper {cls.paper!r} must be text")
    if not isinstance(cls.readouts, tuple) or not cls.readouts:
        raise MethodError(f"{cls.__name__}.readouts must be a tuple of at least one name")
    for readout in cls.readouts:
        if not isinstance(readout, str) or not re.fullmatch(READOUT, readout):
            raise MethodError(f"{cls.__name__}.readouts: {readout!r} must be letters, digits, _ and -")
    if len(set(cls.readouts)) != len(cls.readouts):
        raise MethodError(f"{cls.__name__}.readouts {cls.readouts} holds a name twice")
    if not (dataclasses.is_dataclass(cls.Config) and cls.Config.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise MethodError(f"{cls.__name__}.Config must be a frozen dataclass")
    if cls.data_access not in ("task", "cumulative"):
        raise MethodError(f"{cls.__name__}.data_access {cls.data_access!r} must be 'task' or 'cumulative'")
    for field in dataclasses.fields(cls.Config):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise MethodError(f"{cls.__name__}.Config key {field.name!r} has no default")
    keys = {f.name for f in dataclasses.fields(cls.Config)}
    clash = keys & {f.name for f in dataclasses.fields(RunOptions)}
    if clash:
        raise MethodError(f"{cls.__name__}.Config key {min(clash)!r} is the name of a run option")


def _last_line(error: BaseException, file: Path | None) -> str:
    """Return `` (line N)`` for the last line of ``file`` that an import went through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if file is not None and trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line is not None else ""
