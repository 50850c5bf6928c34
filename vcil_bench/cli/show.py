"""``vcil-bench list`` and ``vcil-bench show``: methods, protocols, datasets and backbones."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.errors import ExitCode, UserError, did_you_mean
from vcil_bench.common.terminal_text import print

from .arguments import path_argument

if TYPE_CHECKING:
    from vcil_bench.protocol import Protocol
    from vcil_bench.registry import Entry


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add ``list`` and ``show``."""
    listing = commands.add_parser("list", help="list what there is")
    kinds = ["methods", "protocols", "datasets", "backbones"]
    listing.add_argument("what", choices=kinds, metavar=f"{{{','.join(kinds)}}}")
    listing.add_argument(
        "--results",
        type=path_argument,
        default=Path("results"),
        metavar="DIR",
        help="records there tell of methods that were run from files",
    )
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="show a method, protocol, dataset or backbone in full")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)


def _list(options: argparse.Namespace) -> int:
    if options.what == "protocols":
        from vcil_bench import protocol

        for name in protocol.names():
            print(f"{name:32} {protocol.load(name).spec.title}")
    elif options.what == "datasets":
        from vcil_bench.data.datasets import ADAPTERS

        for name, adapter in ADAPTERS.items():
            print(f"{name:12} {adapter.kind:10} {adapter.layout}")
    elif options.what == "backbones":
        from vcil_bench.nets.backbones import BACKBONES

        for name, backbone in BACKBONES.items():
            print(f"{name:16} {backbone.summary}")
    else:
        from vcil_bench import registry
        from vcil_bench.record import load_all

        for entry in registry.find_all().values():
            text = f"cannot be used: {entry.error}" if entry.cls is None else entry.cls.paper
            print(f"{entry.name:16} {entry.origin:10} {text}{_whence(entry)}")
        # Files that records name are told of but not imported: a results folder may come from anybody.
        records, _ = load_all(options.results)
        methods = {r.data["method"]["file"]: r.data["method"] for r in records}
        for file, method in sorted(methods.items()):
            if method["origin"] == "file":
                gone = "" if Path(file).is_file() else ", which is gone"
                print(f"{method['name']:16} {'file':10} {method['paper']} [{file}{gone}]")
    return ExitCode.DONE


def _whence(entry: Entry) -> str:
    if entry.origin == "installed":
        return f" [{entry.distribution} {entry.version}]"
    return ""


def _show(options: argparse.Namespace) -> int:
    from vcil_bench import protocol
    from vcil_bench.data.datasets import ADAPTERS

    name = options.name
    if name in protocol.names() or name.endswith((".yaml", ".yml")):
        _show_protocol(protocol.load(name))
        return ExitCode.DONE
    if name in ADAPTERS:
        print(f"dataset {name} ({ADAPTERS[name].kind})\nroot holds: {ADAPTERS[name].layout}")
        return ExitCode.DONE
    from vcil_bench.nets.backbones import BACKBONES

    if name in BACKBONES:
        chosen = BACKBONES[name]
        print(f"backbone {name}: {chosen.summary}")
        print(f"provides: {', '.join(sorted(chosen.provides))}")
        return ExitCode.DONE
    from vcil_bench import registry

    methods = registry.find_all()
    if name in methods or name.endswith(".py"):
        _show_method(registry.find(name))
        return ExitCode.DONE
    known = [*methods, *protocol.names(), *ADAPTERS, *BACKBONES]
    raise UserError(
        f"nothing is named {name!r}{did_you_mean(name, known)}; names: vcil-bench list "
        "methods|protocols|datasets|backbones"
    )


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
    for config in cls.Config.__mro__:
        if dataclasses.is_dataclass(config):
            print(f"\n{inspect.getdoc(config)}")
    print("\ndefaults:")
    for field in dataclasses.fields(cls.Config):
        default = field.default_factory() if callable(field.default_factory) else field.default
        print(f"  {field.name} = {json.dumps(default)}")
    for pattern, recipe in cls.all_recipes():
        print(f"on {pattern}: {json.dumps(dict(recipe))}")
