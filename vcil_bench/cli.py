"""The command line: thin, and quick to start since torch is imported only by the commands that need it."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import yaml
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from . import __version__
from .errors import UserError, did_you_mean
from .schema import parse_assignments

if TYPE_CHECKING:
    from .protocol import Protocol
    from .registry import Entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 a run failed, 2 the user's input cannot be used."""
    try:
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except UserError as error:
        print(f"vcil-bench: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has closed it; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


LINES = 20  # of a list printed before the rest is left to the report file


class _Parser(argparse.ArgumentParser):
    """Ends a wrong command in one line, as every other user error."""

    def error(self, message: str) -> NoReturn:
        print(f"vcil-bench: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vcil-bench", description="Benchmark Video Class-Incremental Learning methods.")
    parser.add_argument("--version", action="version", version=f"vcil-bench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="run a method on a protocol; finished runs are reused")
    run.add_argument("method", metavar="METHOD", help="a name (see: list methods) or a .py file")
    run.add_argument("protocol", metavar="PROTOCOL", help="a name (see: list protocols) or a .yaml file")
    run.add_argument("--seed", default="all", help="one of the protocol's seeds, or all (default)")
    run.add_argument("--data", type=Path, metavar="ROOT", help="folder of the dataset")
    run.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        dest="assignments",
        help="method config, run options, and protocol.KEY for a derived protocol",
    )
    run.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    run.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    run.add_argument("--force", action="store_true", help="move finished records aside and run anew")
    run.set_defaults(run=_run)

    listing = commands.add_parser("list", help="list what there is")
    listing.add_argument("what", choices=["methods", "protocols", "datasets", "backbones"])
    listing.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="records there tell of methods that were run from files",
    )
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="show a method, protocol, dataset or backbone in full")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)

    prepare = commands.add_parser("prepare", help="check a dataset file by file and write its manifest")
    prepare.add_argument("dataset", metavar="DATASET")
    prepare.add_argument("root", type=Path, metavar="ROOT")
    prepare.set_defaults(run=_prepare)

    report = commands.add_parser("report", help="write tables and curves from the records")
    report.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    report.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR")
    report.set_defaults(run=_report)
    return parser


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _bar(progress: Progress, text: str) -> Callable[[int, int], None]:
    """Add a bar and return what moves it."""
    bar = progress.add_task(text, total=None)
    return lambda done, total: progress.update(bar, completed=done, total=total)


def _run(options: argparse.Namespace) -> int:
    from . import protocol

    seed = _seed(options.seed)
    protocol.load(options.protocol)  # the commonest slips are answered before torch is imported

    from . import runner
    from .evaluation import EvaluationError
    from .plan import make_plan
    from .report.curves import draw
    from .report.tables import Group, markdown, rows
    from .training import TrainingError

    plan = make_plan(
        options.method,
        options.protocol,
        seed=seed,
        assignments=parse_assignments(options.assignments),
        results=options.results,
        device=options.device,
    )
    with _progress() as progress:

        def say(line: str) -> None:
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        try:
            records = runner.run(plan, data=options.data, force=options.force, progress=progress, say=say)
        except (TrainingError, EvaluationError) as error:
            print(f"vcil-bench: the run failed: {error}", file=sys.stderr)
            return 1
    group = Group(plan.protocol.label, plan.protocol.label, records)
    print()
    print(markdown(group))
    for record in records:
        print(f"record: {record.path}")
    if any(record.complete for record in records):
        picture = records[0].path.with_name(plan.variant)
        curves = draw(rows(group), f"{plan.method.name} on {plan.protocol.label}", picture)
        print(f"curve:  {curves[1]}")
    return 0


def _seed(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--seed {text!r} is neither a whole number nor 'all'") from None


def _list(options: argparse.Namespace) -> int:
    if options.what == "protocols":
        from . import protocol

        for name in protocol.names():
            print(f"{name:28} {protocol.load(name).spec.title}")
    elif options.what == "datasets":
        from .data.datasets import ADAPTERS

        for name, adapter in ADAPTERS.items():
            print(f"{name:12} {adapter.kind:10} {adapter.layout}")
    elif options.what == "backbones":
        from .nets.backbones import BACKBONES

        for name, backbone in BACKBONES.items():
            print(f"{name:16} {backbone.summary}")
    else:
        from . import registry
        from .record import load_all

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
    return 0


def _whence(entry: Entry) -> str:
    if entry.origin == "installed":
        return f" [{entry.distribution} {entry.version}]"
    return ""


def _show(options: argparse.Namespace) -> int:
    from . import protocol
    from .data.datasets import ADAPTERS

    name = options.name
    if name in protocol.names() or name.endswith((".yaml", ".yml")):
        _show_protocol(protocol.load(name))
        return 0
    if name in ADAPTERS:
        print(f"dataset {name} ({ADAPTERS[name].kind})\nroot holds: {ADAPTERS[name].layout}")
        return 0
    from .nets.backbones import BACKBONES

    if name in BACKBONES:
        chosen = BACKBONES[name]
        print(f"backbone {name}: {chosen.summary}")
        print(f"provides: {', '.join(sorted(chosen.provides))}")
        return 0
    from . import registry

    methods = registry.find_all()
    if name in methods or name.endswith(".py"):
        _show_method(registry.find(name))
        return 0
    known = [*methods, *protocol.names(), *ADAPTERS, *BACKBONES]
    raise UserError(f"nothing is named {name!r}{did_you_mean(name, known)}; see 'vcil-bench list ...'")


def _show_protocol(protocol: Protocol) -> None:
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
    for pattern, recipe in cls.recipes.items():
        print(f"on {pattern}: {json.dumps(dict(recipe))}")


def _prepare(options: argparse.Namespace) -> int:
    from .data.datasets import adapter
    from .data.manifest import manifest_path, prepare, summary

    source = adapter(options.dataset)
    with _progress() as progress:
        source.make_ready(options.root, _bar(progress, f"rendering {source.name}"))
    splits = source.splits(options.root)
    if not splits:
        source.list_videos(options.root, "1")  # says what is wrong with the root
    for split in splits:
        with _progress() as progress:
            manifest = prepare(source, options.root, split, _bar(progress, f"{source.name}, split {split}"))
        found = summary(manifest)
        print(f"{source.name}, split {split}: {found['classes']} classes")
        for part, count in found["counts"].items():
            print(f"  {part}: {count['usable']} usable, {count['left_out']} left out")
        for video in found["left_out"][:LINES]:
            print(f"  left out: {video['id']}: {video['problem']}")
        if len(found["left_out"]) > LINES:
            print(f"  ... and {len(found['left_out']) - LINES} more, all in the report")
        shared = found["test_videos_sharing_a_group_with_train"]
        known = "not checked, the list has no groups" if shared is None else shared
        print(f"  test videos that share a group with a training video: {known}")
        for same in found["identical_files_in_train_and_test"][:LINES]:
            print(f"  the same file in train and test: {', '.join(same)}")
        target = manifest_path(source.name, options.root, split)
        print(f"  manifest: {target}\n  report: {target.with_suffix('.report.json')}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from .report.page import write

    if not options.results.is_dir():
        raise UserError(f"no results folder {str(options.results)!r}; run something first or give --results")
    written = write(options.results, options.out)
    print(f"{written.records} records; {len(written.files)} files")
    for note in written.notes:
        print(f"not drawn: {note}")
    print(f"wrote {written.files[0]} and, below {options.out}, tables and figures")
    for error in written.errors:
        print(f"vcil-bench: error: left out: {error}", file=sys.stderr)
    return 2 if written.errors else 0
