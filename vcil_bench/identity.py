"""Identity of a run: a hash per named part of everything its numbers depend on, stored in its record.

Two runs whose parts agree are the same experiment. Every question of that kind is answered by ``differences``
of two identities: may a saved state be resumed, does a finished record still count, is it stale in a report, do
the seeds of a table's row belong together. Imports neither torch nor a method.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from .common.errors import UserError
from .options import RESULT_NEUTRAL
from .protocol import load as load_protocol
from .record import Record
from .record_schema import RecordData

METHODS = "vcil_bench.methods"

# Parts other than code. Each seed has its own class order and run seed; the last two matter for resuming alone.
SEED_PARTS = frozenset({"class_order", "run_seed"})
MACHINE_PARTS = frozenset({"device_kind", "torch_version"})
PARTS = SEED_PARTS | MACHINE_PARTS | {"protocol", "config", "options", "data", "frame_store", "weights"}

# Modules that every run's numbers depend on; what they and the method import is followed from here.
ALWAYS = (
    "vcil_bench.stream",
    "vcil_bench.data.loader",
    "vcil_bench.run.determinism",
    "vcil_bench.run.seeded",
    "vcil_bench.run.evaluation",
)
# Every module that these or a built-in method can reach by imports stands in one of two lists. A change in the
# first kind makes stale the records of the methods that reach it, and refuses to resume their states.
NUMERIC_MODULES = frozenset(
    {
        "vcil_bench.classifier",
        "vcil_bench.common.random_streams",
        "vcil_bench.consolidation",
        "vcil_bench.data.clips",
        "vcil_bench.data.crops",
        "vcil_bench.data.loader",
        "vcil_bench.data.store.frame_store",
        "vcil_bench.data.store.jpeg",
        "vcil_bench.data.video",
        "vcil_bench.data.video.damage",
        "vcil_bench.data.video.facts",
        "vcil_bench.data.video.frame_folder",
        "vcil_bench.data.video.other_decoders",
        "vcil_bench.data.video.pyav",
        "vcil_bench.data.worker_pool",
        "vcil_bench.feature_memory",
        "vcil_bench.gaussians",
        "vcil_bench.losses",
        "vcil_bench.memory",
        "vcil_bench.method",
        "vcil_bench.nets.aim",
        "vcil_bench.nets.backbones.base",
        "vcil_bench.nets.backbones.clip",
        "vcil_bench.nets.backbones.resnet",
        "vcil_bench.nets.centre_pivot",
        "vcil_bench.nets.clip",
        "vcil_bench.nets.clip_blocks",
        "vcil_bench.nets.compute",
        "vcil_bench.nets.dist",
        "vcil_bench.nets.expert_pool",
        "vcil_bench.nets.feature_cache",
        "vcil_bench.nets.heads",
        "vcil_bench.nets.network",
        "vcil_bench.nets.parallel.batch_norm",
        "vcil_bench.nets.parallel.batch_part",
        "vcil_bench.nets.parallel.gather",
        "vcil_bench.nets.parallel.micro_batches",
        "vcil_bench.nets.parallel.team",
        "vcil_bench.nets.precision",
        "vcil_bench.nets.prompts",
        "vcil_bench.nets.ridge",
        "vcil_bench.nets.st_adapter",
        "vcil_bench.nets.temporal",
        "vcil_bench.nets.token_maps",
        "vcil_bench.nets.tower",
        "vcil_bench.nets.trunk",
        "vcil_bench.nets.tuning_config",
        "vcil_bench.nets.tsm",
        "vcil_bench.pretrained",
        "vcil_bench.prompting",
        "vcil_bench.rehearsal",
        "vcil_bench.run.determinism",
        "vcil_bench.run.evaluation",
        "vcil_bench.run.seeded",
        "vcil_bench.stream",
        "vcil_bench.training",
        "vcil_bench.training.checkpoint",
        "vcil_bench.training.optimisers",
        "vcil_bench.training.resume",
        "vcil_bench.training.trainer",
    }
)
# The second kind moves no count: its outcome is hashed as a part of its own (protocol, manifest, weights,
# options), it is computed from stored counts (metrics), or it reports, locks and stops.
OTHER_MODULES = frozenset(
    {
        "vcil_bench.common.config",
        "vcil_bench.common.errors",
        "vcil_bench.common.files",
        "vcil_bench.common.stopping",
        "vcil_bench.data.manifest",
        "vcil_bench.data.worker_watchdog",
        "vcil_bench.identity",
        "vcil_bench.nets.weights",
        "vcil_bench.options",
        "vcil_bench.protocol",
        "vcil_bench.record",
        "vcil_bench.record_schema",
        "vcil_bench.trackers",
        "vcil_bench.training.flops",
    }
)


def parts(code: Mapping[str, str], **values: Any) -> dict[str, str]:
    """Return a hash per part.

    Args:
        code: Hashes of modules, see ``code_of``.
        values: What is known of the other ``PARTS``, as plain data.
    """
    return {name: _digest(value) for name, value in values.items()} | dict(code)


def parts_of(data: RecordData, code: Mapping[str, str]) -> dict[str, str]:
    """Return all parts of a run from the sections of its record.

    Args:
        data: The record; its ``identity`` is not read.
        code: Hashes of modules, see ``code_of``.
    """
    return parts(
        code,
        protocol=data["protocol"]["fingerprint"],
        config={key: setting["value"] for key, setting in data["config"].items()},
        options=relevant({key: setting["value"] for key, setting in data["options"].items()}),
        class_order=data["class_order"],
        run_seed=data["run_seed"],
        data=data["data"]["manifest_sha256"],
        frame_store=data["data"]["store"],
        weights=[data["weights"]["name"], data["weights"]["sha256"]],
        device_kind=data["environment"]["device_type"],
        torch_version=data["environment"]["torch"],
    )


def relevant(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run options that make another experiment of a run."""
    return {key: value for key, value in options.items() if key not in RESULT_NEUTRAL}


def differences(saved: Mapping[str, str], now: Mapping[str, str], ignoring: Collection[str] = ()) -> list[str]:
    """Return the names of the parts in which two identities differ, those that one of them lacks included.

    Versions of a module that are known to compute the same numbers (``same_numbers.yaml``) do not differ.
    """
    names = dict.fromkeys([*saved, *now])
    return [
        name
        for name in names
        if name not in ignoring and _last_version(name, saved.get(name)) != _last_version(name, now.get(name))
    ]


def _last_version(part: str, digest: str | None) -> str | None:
    """Return the hash of the last version of a module that computes the same numbers as the one with a hash."""
    return None if digest is None else _SAME.get((part, digest), digest)


@dataclass(frozen=True)
class SameNumbers:
    """Versions of a module between which no number moved, not by its last bit.

    Attributes:
        module: Dotted name.
        versions: Hashes, the oldest first.
        why: What changed.
        shown: The runs that were made with either, and had the same losses and counts.
    """

    module: str
    versions: tuple[str, ...]
    why: str
    shown: str


def same_numbers() -> list[SameNumbers]:
    """Return what is known of versions that compute the same numbers."""
    text = (resources.files("vcil_bench") / "same_numbers.yaml").read_text(encoding="utf-8")
    return [SameNumbers(**{**entry, "versions": tuple(entry["versions"])}) for entry in yaml.safe_load(text)]


_SAME = {(entry.module, digest): entry.versions[-1] for entry in same_numbers() for digest in entry.versions}


def is_code(part: str) -> bool:
    """Tell whether a part is a module, named with dots, or the file of a method that was given by its path."""
    return part not in PARTS


def in_words(names: Sequence[str], most: int = 3) -> str:
    """Return names of parts as text, a long list cut short."""
    shown = [name if is_code(name) else name.replace("_", " ") for name in names]
    if len(shown) > most:
        return f"{', '.join(shown[: most - 1])} and {len(shown) - most + 1} more"
    return ", ".join(shown)


def changed_since(record: Record) -> list[str]:
    """Return the parts of a record, protocol and code, that have changed since it was made: why it is stale.

    What cannot be found on this machine, such as another user's method file or lists that must be imported
    first, counts as unchanged; files that a record from elsewhere names are not looked for.
    """
    record = record.as_written
    saved = record.data["identity"]
    now = {name: digest for name in saved if is_code(name) and (digest := _code_now(name, record)) is not None}
    protocol = record.data["protocol"]
    reference = record.protocol_reference
    foreign = record.origin is not None and reference != protocol["name"]
    fingerprint = None if foreign else fingerprint_now(reference, protocol["overrides"])
    if fingerprint is not None:
        now |= parts({}, protocol=fingerprint)
    return differences(saved, now, ignoring=saved.keys() - now.keys())


def fingerprint_now(reference: str, overrides: Mapping[str, Any]) -> str | None:
    """Return today's fingerprint of a protocol; None if it, or a list it needs, is not there.

    Args:
        reference: Name or path.
        overrides: What a derived protocol changes.
    """
    path = Path(reference)
    version = _version(path) if path.is_file() else None
    return _fingerprint(reference, json.dumps(overrides), version)


@functools.cache  # a report asks for the same few protocols once per record
def _fingerprint(reference: str, overrides: str, version: tuple[int, int] | None) -> str | None:
    try:
        return load_protocol(reference, json.loads(overrides)).fingerprint
    except UserError:
        return None


def code_of(method: str | Path, *others: str) -> dict[str, str]:
    """Return a hash per module that a run's numbers depend on, by dotted name.

    Follows import statements from the method, ``others`` and ``ALWAYS``: into ``NUMERIC_MODULES``, into other
    methods, and into what a plugin brings along (modules of its package, or beside its file).

    Args:
        method: The method's module; the path of one that was given as a file, whose hash is named after it.
        others: Further modules to begin with: the backbone's, and those of the method's base classes, wherever
            they come from.
    """
    found: dict[str, str] = {}
    if isinstance(method, Path):
        source = _read(method)
        found[method.name] = source.digest
        # Such a file stands among the built-in methods: it may import them relatively.
        todo = [name for name in source.imported(METHODS) if _is_followed(name, method)]
    else:
        todo = [method]
    todo += [*others, *ALWAYS]
    for name in todo:
        if name not in found:
            path = _file(name)
            if path is None:  # a compiled method has no source to compare
                continue
            source = _read(path)
            found[name] = source.digest
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            todo += [other for other in source.imported(package) if _is_followed(other, method)]
    return dict(sorted(found.items()))


def _is_followed(module: str, method: str | Path) -> bool:
    """Tell whether what is imported under a name is a module whose code counts for a method."""
    top = module.partition(".")[0]
    if top == "vcil_bench":
        return module in NUMERIC_MODULES or (module.startswith(f"{METHODS}.") and _file(module) is not None)
    if isinstance(method, str):
        return top == method.partition(".")[0] and _file(module) is not None
    beside, imported = _below([str(method.parent)], module.split(".")), _file(module)
    return beside is not None and imported is not None and imported.resolve() == beside.resolve()


def _code_now(part: str, record: Record) -> str | None:
    """Return today's hash of a record's code part; None where it is not there to be compared."""
    method = record.data["method"]
    if part.startswith("vcil_bench.") and not part.startswith(f"{METHODS}."):
        return _harness_module(part)
    is_file = method["origin"] == "file" and part == Path(method["file"]).name
    if is_file and record.origin is not None:
        return None
    path = Path(method["file"]) if is_file else _file(part)
    return _read(path).digest if path is not None and path.is_file() else None


@functools.cache  # fixed while a process lives, and asked for once per record
def _harness_module(name: str) -> str:
    """Return a module's hash; one that is not there any more has changed."""
    path = _harness_file(name)
    return _read(path).digest if path is not None else "gone"


@functools.cache
def _harness_file(module: str) -> Path | None:
    return _below(importlib.import_module("vcil_bench").__path__, module.split(".")[1:])


def _file(module: str) -> Path | None:
    """Return a module's source file without importing its package; None where there is none."""
    top, *rest = module.split(".")
    if module.startswith(f"{METHODS}."):
        return _below(importlib.import_module(METHODS).__path__, rest[1:])
    if top == "vcil_bench":
        return _harness_file(module)
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # what was put into sys.modules by hand has none
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is not None:
        return _below(spec.submodule_search_locations, rest)
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") and not rest else None


def _below(folders: Iterable[str], names: Sequence[str]) -> Path | None:
    """Return the file of a package or module below the first of some folders that has it."""
    for folder in folders:
        place = Path(folder, *names)
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                return path
    return None


@dataclass(frozen=True)
class _Source:
    """What identity needs of a source file.

    Attributes:
        digest: Hash of its syntax tree.
        imports: Level, module and name of every import statement; the name is empty for ``import module``.
    """

    digest: str
    imports: tuple[tuple[int, str, str], ...]

    def imported(self, package: str) -> Iterator[str]:
        """Yield the names that a file of a package imports; of ``from a import b`` both ``a.b`` and ``a``."""
        for level, module, name in self.imports:
            if level:
                above = package.split(".")[: len(package.split(".")) - level + 1]
                module = ".".join([*above, *([module] if module else [])])
            yield module
            if name:
                yield f"{module}.{name}"


def _read(path: Path) -> _Source:
    return _parsed(path, _version(path))


def _version(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written, so that what was made of it can be kept until then."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1024)
def _parsed(path: Path, version: tuple[int, int]) -> _Source:
    text = path.read_bytes()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # a method's file that was broken since
        return _Source(hashlib.sha256(text).hexdigest()[:16], ())
    return _Source(_tree_digest(tree), tuple(_imports(tree)))


def source_digest(text: str) -> str:
    """Return the hash of a module's syntax tree: comments, layout and docstrings do not count."""
    return _tree_digest(ast.parse(text))


def _tree_digest(tree: ast.Module) -> str:
    words: list[str] = []
    _write(tree, words)
    return _digest(words)


def _write(node: Any, words: list[str]) -> None:
    """Write a syntax tree down, alike under every version of Python: ``ast.dump`` shows fields that are new."""
    if not isinstance(node, ast.AST):
        words.append(repr(node))
        return
    words.append(node.__class__.__name__)
    for field in node._fields:
        value = getattr(node, field)
        if isinstance(value, list):
            value = [each for each in value if not _is_docstring(each) and not _is_empty_text(node, each)]
        if value is None or value == [] or field in ("ctx", "kind", "type_comment"):
            continue
        words.append(field)
        if isinstance(value, list):
            for each in value:
                _write(each, words)
            words.append("]")
        else:
            _write(value, words)
    words.append(")")


def _is_docstring(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def _is_empty_text(node: ast.AST, each: Any) -> bool:
    """Tell the empty piece that some versions of Python put after a nested field of an f-string."""
    return isinstance(node, ast.JoinedStr) and isinstance(each, ast.Constant) and each.value == ""


def _imports(node: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield level, module and name of every import that runs, those inside functions included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((0, alias.name, "") for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from ((child.level, child.module or "", alias.name) for alias in child.names)
        elif isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)) and not _is_for_types(child):
            yield from _imports(child)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
