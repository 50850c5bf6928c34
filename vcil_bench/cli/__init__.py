"""The command line: thin, and quick to start since torch is imported only by the commands that need it."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

from vcil_bench import __version__
from vcil_bench.common.config import parse_assignments
from vcil_bench.common.errors import UserError, did_you_mean
from vcil_bench.common.progress_lines import ProgressLines
from vcil_bench.common.terminal_text import print, shown  # whatever the command line prints

from . import check, new_method

if TYPE_CHECKING:
    from vcil_bench.data.manifest import Manifest
    from vcil_bench.protocol import Protocol
    from vcil_bench.registry import Entry
    from vcil_bench.run.stopping import StopRequest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 a run failed, 2 the user's input cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except UserError as error:
        print(f"vcil-bench: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except (SystemExit, GeneratorExit) as error:  # of a plugin or a library: nothing here ends so
        print(f"vcil-bench: error: the command was ended by {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output (head, less) has closed it; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _path(text: str) -> Path:
    """Read a path, if the system can tell whether anything lies there."""
    path = Path(text)
    try:
        text.encode()  # records name paths, and are UTF-8
        path.exists()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{text!a} is not UTF-8; rename the folder") from error
    except OSError as error:  # such as a name that is too long
        raise argparse.ArgumentTypeError(f"{text[:40]}... is no path ({error.strerror})") from error
    return path


DRAWING_S = 60.0  # for another process to draw the same picture
LINES = 20  # of a list printed before the rest is left to the report file


class _Parser(argparse.ArgumentParser):
    """Ends a wrong command in one line, as every other user error."""

    def error(self, message: str) -> NoReturn:
        print(f"vcil-bench: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _add_assignments(parser: argparse.ArgumentParser, text: str) -> None:
    """Let a command take ``--set``, which may stand several times and take several assignments each time."""
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="assignments", help=text
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vcil-bench", description="Benchmark Video Class-Incremental Learning methods.")
    parser.add_argument("--version", action="version", version=f"vcil-bench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="run a method on a protocol; finished runs are reused")
    run.add_argument("method", metavar="METHOD", help="a name (see: list methods) or a .py file")
    run.add_argument("protocol", metavar="PROTOCOL", help="a name (see: list protocols) or a .yaml file")
    run.add_argument("--seed", default="all", help="one of the protocol's seeds, or all (default)")
    run.add_argument("--data", type=_path, metavar="ROOT", help="folder of the dataset")
    _add_assignments(run, "method config, run options, and protocol.KEY for a derived protocol")
    run.add_argument("--results", type=_path, default=Path("results"), metavar="DIR")
    run.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    run.add_argument("--force", action="store_true", help="move finished records aside and run anew")
    run.set_defaults(run=_run)

    grid = commands.add_parser("grid", help="run methods x protocols x seeds, as many at once as there are GPUs")
    grid.add_argument("methods", metavar="METHODS", help="joined by commas")
    grid.add_argument("protocols", metavar="PROTOCOLS", help="joined by commas")
    grid.add_argument("--seeds", default="all", help="joined by commas, or all of each protocol (default)")
    grid.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=ROOT",
        help="folder of a dataset, or for one protocol that of its dataset",
    )
    _add_assignments(grid, "for every run, as for 'run'")
    grid.add_argument("--results", type=_path, default=Path("results"), metavar="DIR")
    grid.add_argument("--gpus", default="all", help="all (default), none, or numbers joined by commas")
    grid.add_argument("--jobs", type=int, metavar="N", help="runs at a time per GPU, or on the processor (1)")
    grid.add_argument("--retries", type=int, default=1, metavar="N", help="for a run that died (1)")
    grid.add_argument("--skip-impossible", action="store_true", help="leave out runs that cannot be made")
    grid.add_argument("--rerun-stale", action="store_true", help="move stale records aside and run anew")
    grid.add_argument("--engine", choices=["local", "slurm", "submitit-local"], default="local")
    grid.add_argument(
        "--slurm",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="what a job asks for: partition=..., timeout_min=..., cpus_per_task=...",
    )
    grid.set_defaults(run=_grid)

    listing = commands.add_parser("list", help="list what there is")
    listing.add_argument("what", choices=["methods", "protocols", "datasets", "backbones"])
    listing.add_argument(
        "--results",
        type=_path,
        default=Path("results"),
        metavar="DIR",
        help="records there tell of methods that were run from files",
    )
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="show a method, protocol, dataset or backbone in full")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)

    verify = commands.add_parser("verify", help="check class orders, lists, and what train and test share")
    verify.add_argument("protocol", metavar="PROTOCOL", help="a name (see: list protocols) or a .yaml file")
    verify.add_argument("--data", type=_path, metavar="ROOT", help="folder of the dataset; its lists are enough")
    _add_assignments(verify, "backbone and weights to judge (default: all that fit), and protocol.KEY")
    verify.add_argument("--json", action="store_true", help="print the findings as JSON")
    verify.set_defaults(run=_verify)

    prepare = commands.add_parser("prepare", help="check a dataset file by file and write its manifest")
    prepare.add_argument("dataset", metavar="DATASET", help="a name (see: list datasets), or vclimb")
    prepare.add_argument("root", type=_path, nargs="?", metavar="ROOT", help="folder of the dataset")
    prepare.add_argument("--split", metavar="NAME", help="prepare this one alone (default: all there are)")
    prepare.add_argument("--workers", type=int, metavar="N", help="processes that decode (default: one a core)")
    prepare.add_argument(
        "--limit", type=float, metavar="SECONDS", help="kill a decoder that takes longer over a video (60)"
    )
    prepare.add_argument(
        "--pickle",
        type=_path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="with DATASET vclimb: the authors' files, whose lists are imported",
    )
    prepare.add_argument(
        "--store",
        type=_path,
        nargs="?",
        const=Path(),
        metavar="DIR",
        help="decode all videos once into a frame store there (default: the user's cache), for store=true",
    )
    prepare.add_argument(
        "--store-frames", type=int, metavar="N", help="keep N frames of a video there, evenly spaced (all)"
    )
    prepare.set_defaults(run=_prepare)

    doctor = commands.add_parser("doctor", help="describe this machine and check the whole path on its GPUs")
    doctor.add_argument("--gpu", action="store_true", help="refuse a machine without a GPU")
    doctor.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="checks (see --list); default: all",
    )
    doctor.add_argument("--list", action="store_true", help="list the checks")
    doctor.add_argument("--json", action="store_true", help="print the lines as JSON")
    doctor.add_argument("--results", type=_path, default=Path("results"), metavar="DIR")
    doctor.set_defaults(run=_doctor)

    report = commands.add_parser("report", help="write tables and curves from the records")
    report.add_argument("--results", type=_path, default=Path("results"), metavar="DIR")
    report.add_argument("--out", type=_path, default=Path("reports"), metavar="DIR")
    report.set_defaults(run=_report)
    check.add_to(commands)
    new_method.add_to(commands)
    return parser


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty() or not _leads(),
    )


def _leads() -> bool:
    """Tell whether this is the process that speaks, where torchrun has started several."""
    return os.environ.get("RANK", "0") == "0"


def _bar(progress: Progress, text: str) -> Callable[[int, int], None]:
    """Add a bar and return what moves it."""
    bar = progress.add_task(text, total=None)
    return lambda done, total: progress.update(bar, completed=done, total=total)


def _run(options: argparse.Namespace) -> int:
    from vcil_bench.run.stopping import StopRequest

    stop = StopRequest()
    with stop.heard():
        return _run_until(options, stop)


def _run_until(options: argparse.Namespace, stop: StopRequest) -> int:
    """Run, with the torch it needs; a request to stop is heard from here on."""
    from vcil_bench import protocol

    seed = _seed(options.seed)
    protocol.load(options.protocol)  # the commonest slips are answered before torch is imported

    with stop.held_back():  # raised inside an import, it would be dropped, or leave half a module
        from vcil_bench.common.files import locked, remove
        from vcil_bench.nets.parallel.team import TeamError
        from vcil_bench.report.curves import draw
        from vcil_bench.report.tables import Group, markdown, rows
        from vcil_bench.run import loop
        from vcil_bench.run.evaluation import EvaluationError
        from vcil_bench.run.files import unfinished_files
        from vcil_bench.run.plan import make_plan
        from vcil_bench.training import TrainingError
    stop.follow()

    plan = make_plan(
        options.method,
        options.protocol,
        seed=seed,
        assignments=parse_assignments(options.assignments),
        results=options.results,
        device=options.device,
    )
    stop.follow()
    with _progress() as progress:

        def say(line: str) -> None:
            progress.console.print(shown(line), markup=False, highlight=False, soft_wrap=True)

        try:
            records = loop.run(
                plan, data=options.data, force=options.force, progress=progress, say=say, stop=stop
            )
        except (TrainingError, EvaluationError, TeamError) as error:
            print(f"vcil-bench: the run failed: {error}", file=sys.stderr)
            return 1
    if not _leads():
        return 0
    group = Group(plan.protocol.label, plan.protocol.label, records)
    print()
    print(markdown(group))
    for record in records:
        print(f"record: {record.path}")
    if any(record.complete for record in records):
        picture = records[0].path.with_name(plan.variant)
        vector = picture.with_name(f"{picture.name}.svg")
        try:
            with locked(vector, wait_s=DRAWING_S):  # runs of other seeds draw it, too
                for path in unfinished_files(vector):
                    remove(path)
                curves = draw(rows(group), f"{plan.method.name} on {plan.protocol.label}", picture)
            print(f"curve:  {curves[1]}")
        except UserError as error:  # the records are complete without it
            print(f"vcil-bench: warning: no curve: {error}", file=sys.stderr)
    return 0


def _grid(options: argparse.Namespace) -> int:
    from vcil_bench.grid import display, scheduler
    from vcil_bench.grid.launchers import Engine, LocalEngine, visible_gpus
    from vcil_bench.grid.slurm import SubmititEngine

    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: at least 1 run at a time is needed; leave it out for 1")
    if options.retries < 0:
        raise UserError(f"--retries {options.retries}: give 0 to try each run once, or more")
    if options.slurm and options.engine == "local":
        raise UserError(f"--slurm {options.slurm[0]}: only for --engine slurm or submitit-local; leave it out")
    request = scheduler.Request(
        options.methods.split(","),
        options.protocols.split(","),
        None if options.seeds == "all" else [_number(text, "--seeds") for text in options.seeds.split(",")],
        _roots(options.data),
        options.assignments,
        options.results,
        options.rerun_stale,
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    engine: Engine
    if options.engine == "local":
        engine = LocalEngine(visible_gpus(options.gpus), options.jobs or 1)
    else:
        cluster = "slurm" if options.engine == "slurm" else "local"
        # A cluster has a queue of its own, this machine has not.
        slots = options.jobs or (scheduler.ALL_AT_ONCE if cluster == "slurm" else 1)
        wanted = parse_assignments(options.slurm)
        engine = SubmititEngine(cluster, options.results / "submitit", wanted, slots, say)
    with _progress() as progress:
        cells = scheduler.cells(request, progress)
    impossible = [cell for cell in cells if cell.status == "impossible"]
    if impossible and not options.skip_impossible:
        more = f" (and {len(impossible) - 1} more)" if len(impossible) > 1 else ""
        raise UserError(
            f"{impossible[0].name}{more}: {impossible[0].reason}; --skip-impossible runs the grid without"
        )
    todo = [cell for cell in cells if cell.status is None]
    with display.View(say) as view:
        ended = scheduler.run(todo, engine, options.assignments, options.retries, view.watch, say)
    print(display.table(cells))
    if not ended:
        return 130
    if len(impossible) == len(cells):
        raise UserError("nothing was run: no run of this grid is possible, for the reasons above")
    return int(any(cell.status == "failed" for cell in cells))


def _roots(pairs: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=ROOT`` pairs."""
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"--data {pair!r} names no dataset; give it as NAME=ROOT, such as ucf101={pair}")
    return {name: Path(root) for name, _, root in (pair.partition("=") for pair in pairs)}


def _seed(text: str) -> int | None:
    if text == "all":
        return None
    return _number(text, "--seed")


def _number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{option} {text!r} is neither a whole number nor 'all'") from None


def _list(options: argparse.Namespace) -> int:
    if options.what == "protocols":
        from vcil_bench import protocol

        for name in protocol.names():
            print(f"{name:28} {protocol.load(name).spec.title}")
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
    return 0


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
        return 0
    if name in ADAPTERS:
        print(f"dataset {name} ({ADAPTERS[name].kind})\nroot holds: {ADAPTERS[name].layout}")
        return 0
    from vcil_bench.nets.backbones import BACKBONES

    if name in BACKBONES:
        chosen = BACKBONES[name]
        print(f"backbone {name}: {chosen.summary}")
        print(f"provides: {', '.join(sorted(chosen.provides))}")
        return 0
    from vcil_bench import registry

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
    for pattern, recipe in cls.all_recipes():
        print(f"on {pattern}: {json.dumps(dict(recipe))}")


def _verify(options: argparse.Namespace) -> int:
    from vcil_bench import protocol
    from vcil_bench.verify.checks import as_plain, chosen_weights, verify

    given = parse_assignments(options.assignments)
    prefix = "protocol."
    overrides = {key.removeprefix(prefix): given.pop(key) for key in list(given) if key.startswith(prefix)}
    loaded = protocol.load(options.protocol)
    if overrides:
        loaded = loaded.derive(overrides)
    weights = chosen_weights(loaded, given)
    with _progress() as progress:
        found = verify(loaded, options.data, weights, _bar(progress, f"{loaded.spec.dataset.name}, files"))
    if options.json:
        print(json.dumps(as_plain(found), indent=1, ensure_ascii=False))
    else:
        for one in found:
            print(f"{one.level:8} {one.check:16} {one.text}")
        levels = [one.level for one in found]
        counts = ", ".join(f"{levels.count(level)} {level}" for level in ("error", "warning", "note", "ok"))
        print(f"{loaded.label}: {counts}")
    return int(any(one.level == "error" for one in found))


def _doctor(options: argparse.Namespace) -> int:
    from vcil_bench.doctor import report

    if options.list:
        for name, summary, gpus in report.names():
            print(f"{name:12} {summary}{f' ({gpus} GPUs)' if gpus > 1 else ''}")
        return 0
    lines = []
    for line in report.examine(options.results, only=options.only, need_gpu=options.gpu):
        lines.append(line)
        if not options.json:  # at once: all checks take minutes
            print(f"{line.result:8} {line.check:12} {line.what:34} {line.figure}", flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(line) for line in lines], indent=1, ensure_ascii=False))
    else:
        counts = [f"{n} {r}" for r in report.RESULTS if (n := sum(line.result == r for line in lines))]
        print(f"doctor: {', '.join(counts)}")
    return int(any(line.result == "failed" for line in lines))


def _prepare(options: argparse.Namespace) -> int:
    from vcil_bench.data.datasets import adapter
    from vcil_bench.data.datasets.base import NotAList
    from vcil_bench.data.manifest import LIMIT_S, manifest_path, prepare
    from vcil_bench.data.prepare import report, statistics

    if options.dataset == "vclimb" or options.pickle:
        return _import_vclimb(options)
    numbers = {"workers": options.workers, "limit": options.limit, "store-frames": options.store_frames}
    for name, value in numbers.items():
        if value is not None and value <= 0:
            raise UserError(f"--{name} {value} must be more than 0")
    source = adapter(options.dataset)
    root = options.root or source.default_root()
    if root is None:
        raise UserError(
            f"dataset {source.name!r} needs a folder: vcil-bench prepare {source.name} ROOT; it should hold: "
            f"{source.layout}"
        )
    with _watched(f"rendering {source.name}") as watch:
        source.make_ready(root, watch)
    splits = source.splits(root) if options.split is None else [options.split]
    if not splits:
        source.list_videos(root, "1")  # says what is wrong with the root
    manifests = []
    for split in splits:
        try:
            with _watched(f"{source.name}, split {split}") as watch:
                manifest = prepare(
                    source, root, split, watch, workers=options.workers, limit_s=options.limit or LIMIT_S
                )
        except NotAList as error:
            if len(splits) == 1:
                raise
            print(f"passed over, not a split: {error}", file=sys.stderr)
            continue
        manifests.append(manifest)
        found = report.summary(manifest)
        print(f"{source.name}, split {split}: {found['classes']} classes")
        for line in (*report.lines(found, LINES), *statistics.lines(statistics.statistics(manifest))):
            print(f"  {line}")
        target = manifest_path(source.name, root, split)
        print(f"  manifest: {target}\n  report: {target.with_suffix('.report.json')}")
        print(f"  statistics: {target.with_suffix('.statistics.json')}")
    if not manifests:
        raise UserError(f"{root}: none of {', '.join(splits)} is a split; it should hold: {source.layout}")
    return 0 if options.store is None else _fill_store(options, manifests)


def _fill_store(options: argparse.Namespace, manifests: Sequence[Manifest]) -> int:
    from vcil_bench.data.store.build import LIMIT_S, build, estimate
    from vcil_bench.data.store.frame_store import FrameStore, default_root

    root = default_root() if options.store == Path() else options.store
    store = FrameStore(root, max_frames=options.store_frames)
    needed = estimate(manifests, store)
    print(f"frame store {store.root}: {needed}")
    needed.check()
    with _watched("storing frames") as watch:
        done = build(manifests, store, workers=options.workers, progress=watch, limit_s=options.limit or LIMIT_S)
    print(f"  {done.made} videos stored, {done.kept} were there, {len(done.failed)} cannot be stored")
    for name, problem in done.failed[:LINES]:
        print(f"  not stored: {name}: {problem}")
    return int(bool(done.failed))


@contextmanager
def _watched(text: str) -> Iterator[Callable[[int, int], None]]:
    """Give what shows progress: a bar in a terminal, lines in a log."""
    if sys.stderr.isatty():
        with _progress() as progress:
            yield _bar(progress, text)
    else:
        yield ProgressLines(text, lambda line: print(line, file=sys.stderr, flush=True))


def _import_vclimb(options: argparse.Namespace) -> int:
    from vcil_bench.data.datasets.vclimb_import import SOURCES, import_pickle

    if options.dataset != "vclimb" or options.root is not None or not options.pickle:
        raise UserError(
            "the vCLIMB authors' lists are imported with 'vcil-bench prepare vclimb --pickle FILE', FILE being "
            f"one of: {', '.join(source.file for source in SOURCES)}"
        )
    for path in options.pickle:
        done = import_pickle(path)
        counts = ", ".join(f"{count} {part}" for part, count in done.videos.items())
        print(f"{path}: {done.classes} classes in {done.tasks} tasks; videos: {counts}")
        print(f"  kept in {done.folder}; protocol {done.source.protocol} can now be run")
    return 0


def _report(options: argparse.Namespace) -> int:
    from vcil_bench.report.build import write

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
