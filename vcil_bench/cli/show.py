"""``vcil-bench list`` and ``vcil-bench show``: methods, protocols, datasets, backbones, tables, options."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.docstrings import docstrings, explained
from vcil_bench.common.errors import ExitCode, UserError, did_you_mean
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results, completed_by
from .progress import loading_torch

if TYPE_CHECKING:
    from vcil_bench.protocol import Protocol
    from vcil_bench.registry import Entry
    from vcil_bench.report.table_file import TableSpec

WIDEST = 110  # columns of running text


def add_to(commands: Commands) -> None:
    """Add ``list`` and ``show``."""
    listing = add_command(
        commands,
        "list",
        "list what there is",
        """
        vcil-bench list methods
        vcil-bench list protocols
        vcil-bench list tables      # of papers; their runs: vcil-bench grid --table ID
        """,
    )
    listing.add_argument("what", choices=[*KINDS], metavar=f"{{{','.join(KINDS)}}}", help="what to list")
    add_results(listing, "records there tell of methods that were run from files")
    listing.set_defaults(run=_list)

    show = add_command(
        commands,
        "show",
        "show a method, protocol, dataset, backbone or table of a paper in full; or all options, or metrics",
        """
        vcil-bench show stpr               # paper, settings, defaults and their reasons
        vcil-bench show tcd_ucf101_10x5    # a protocol with its tasks
        vcil-bench show stpr_components    # a table of a paper, and what each row sets
        vcil-bench show options            # what --set takes beside a method's keys
        vcil-bench show metrics
        """,
    )
    action = show.add_argument("name", metavar="NAME", help="see: list; or 'options', or 'metrics'")
    completed_by(action, "names")
    show.set_defaults(run=_show)


def _list(options: argparse.Namespace) -> int:
    KINDS[options.what](options.results)
    return ExitCode.DONE


def _list_protocols(results: Path) -> None:
    from vcil_bench import protocol

    for name in protocol.names():
        print(f"{name:32} {protocol.load(name).spec.title}")


def _list_datasets(results: Path) -> None:
    from vcil_bench.data.datasets import ADAPTERS

    for name, adapter in ADAPTERS.items():
        print(f"{name:12} {adapter.kind:10} {adapter.layout}")


def _list_backbones(results: Path) -> None:
    from vcil_bench.nets.backbones import BACKBONES

    for name, backbone in BACKBONES.items():
        print(f"{name:16} {backbone.summary}")


def _list_tables(results: Path) -> None:
    from vcil_bench.report.papers import specs

    for spec in specs():
        print(f"{spec.id:20} {spec.title}")


def _list_methods(results: Path) -> None:
    from vcil_bench.record import load_all

    with loading_torch():
        from vcil_bench import registry

        entries = registry.find_all()
    for entry in entries.values():
        text = f"cannot be used: {entry.error}" if entry.cls is None else entry.cls.paper
        print(f"{entry.name:16} {entry.origin:10} {text}{_whence(entry)}")
    # Files that records name are told of but not imported: a results folder may come from anybody.
    records, _ = load_all(results)
    methods = {r.data["method"]["file"]: r.data["method"] for r in records}
    for file, method in sorted(methods.items()):
        if method["origin"] == "file":
            gone = "" if Path(file).is_file() else ", which is gone"
            print(f"{method['name']:16} {'file':10} {method['paper']} [{file}{gone}]")


KINDS: dict[str, Callable[[Path], None]] = {
    "methods": _list_methods,
    "protocols": _list_protocols,
    "datasets": _list_datasets,
    "backbones": _list_backbones,
    "tables": _list_tables,
}


def _whence(entry: Entry) -> str:
    if entry.origin == "installed":
        return f" [{entry.distribution} {entry.version}]"
    return ""


def _show(options: argparse.Namespace) -> int:
    from vcil_bench import protocol
    from vcil_bench.data.datasets import ADAPTERS
    from vcil_bench.nets.backbones import BACKBONES

    name = options.name
    if name == "options":
        _show_options()
    elif name == "metrics":
        _show_metrics()
    elif name in protocol.names() or name.endswith((".yaml", ".yml")):
        _show_protocol(protocol.load(name))
    elif name in ADAPTERS:
        print(f"dataset {name} ({ADAPTERS[name].kind})\nroot holds: {ADAPTERS[name].layout}")
    elif name in BACKBONES:
        chosen = BACKBONES[name]
        print(f"backbone {name}: {chosen.summary}")
        print(f"provides: {', '.join(sorted(chosen.provides))}")
    else:
        _show_table_or_method(name)
    return ExitCode.DONE


def _show_table_or_method(name: str) -> None:
    from vcil_bench import protocol
    from vcil_bench.data.datasets import ADAPTERS
    from vcil_bench.nets.backbones import BACKBONES
    from vcil_bench.report.papers import specs

    tables = {spec.id: spec for spec in specs()}
    if name in tables:
        _show_table(tables[name])
        return
    with loading_torch():
        from vcil_bench import registry

        methods = registry.find_all()
    if name in methods or name.endswith(".py"):
        _show_method(registry.find(name))
        return
    known = [*methods, *protocol.names(), *ADAPTERS, *BACKBONES, *tables, "options", "metrics"]
    raise UserError(
        f"nothing is named {name!r}{did_you_mean(name, known)}; names: vcil-bench list {'|'.join(KINDS)}; or "
        "options, or metrics"
    )


def _show_options() -> None:
    from vcil_bench.options import RunOptions

    defaults = {field.name: field.default for field in dataclasses.fields(RunOptions)}
    print("Run options, set with --set OPTION=VALUE beside a method's own keys (see: show METHOD)\n")
    for _, entries in explained(RunOptions).sections:
        for keys, text in entries.items():
            print(", ".join(f"{key} = {_typed(defaults[key])}" for key in keys))
            print(_wrapped(text.replace("`", ""), "    "))
    print("\nprotocol.KEY=VALUE changes the protocol, which gives a derived one (keys: show PROTOCOL)")


def _typed(value: object) -> str:
    """Return a value as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _show_metrics() -> None:
    from vcil_bench.metrics import METRICS, STEP_METRICS

    print("Metrics of a run, from the counts in its record; formulas and sources: vcil_bench/metrics.py\n")
    for name, metric in METRICS.items():
        print(f"{name}: {metric.title}, {'higher' if metric.higher_is_better else 'lower'} is better")
        print(_wrapped(metric.formula, "    "))
    print("\nMetrics after every step, in tables of papers that print them\n")
    for name, step in STEP_METRICS.items():
        print(f"{name}: {step.title}\n{_wrapped(step.formula, '    ')}")


def _show_table(spec: TableSpec) -> None:
    print(f"table {spec.id}: {spec.title}")
    print(_wrapped(spec.note.replace("\n", " "), ""))
    print(f"\nprotocols: {', '.join(spec.protocols)}")
    print("metric: " + ", ".join(dict.fromkeys([spec.metric, *spec.metrics.values()])))
    print("\nrows, and what a run of each sets:")
    width = min(40, max(len(row.label) for row in spec.rows))
    for row in spec.rows:
        values = {**row.config, **{f"protocol.{key}": value for key, value in row.overrides.items()}}
        changed = " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
        method = "published only" if row.method is None else row.method
        on = "" if row.provides is None else f" (on a backbone with {row.provides})"
        print(f"  {row.label:{width}}  {method}{f' --set {changed}' if changed else ''}{on}")
    if any(row.method is not None for row in spec.rows):
        print(f"\nall of its runs: vcil-bench grid --table {spec.id} --data DATASET=ROOT   (or --dry-run)")


def _wrapped(text: str, before: str) -> str:
    """Return text in lines as wide as the window, at most as wide as is read well."""
    width = min(WIDEST, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, initial_indent=before, subsequent_indent=before, break_on_hyphens=False)


def _show_protocol(protocol: Protocol) -> None:
    import yaml

    spec = dataclasses.asdict(protocol.spec)
    print(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=100), end="")
    try:
        print(f"fingerprint: {protocol.fingerprint}")
        for seed in protocol.spec.seeds:
            print(f"tasks with seed {seed}:")
            for index, ids in enumerate(protocol.tasks(seed)):
                names = [protocol.class_names[i] for i in ids] if protocol.has_class_names else ids
                print(f"  {index + 1}: {', '.join(map(str, names))}")
    except UserError as error:
        print(f"tasks: {error}")


def _show_method(entry: Entry) -> None:
    cls = entry.cls
    assert cls is not None
    print(f"method {cls.name} ({entry.origin}){_whence(entry)}\n{cls.paper}\n")
    print(f"readouts: {', '.join(cls.readouts)}; data access: {cls.data_access}; ", end="")
    print(f"exemplars: {'yes' if cls.uses_memory else 'no'}; needs: {', '.join(sorted(cls.needs)) or '-'}")
    print(f"backbone: {cls.backbone}", end="")
    print("".join(f"; on {pattern}: {name}" for pattern, name in cls.backbones.items()))
    for _, text in docstrings(cls.Config):
        print(f"\n{text}")
    print("\ndefaults:")
    for field in dataclasses.fields(cls.Config):
        default = field.default_factory() if callable(field.default_factory) else field.default
        print(f"  {field.name} = {json.dumps(default)}")
    for pattern, recipe in cls.all_recipes():
        print(f"on {pattern}: {json.dumps(dict(recipe))}")
