"""``vcil-bench prepare``: checks a dataset file by file, writes its manifest, fills a frame store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, completed_by, path_argument
from .progress import watched

if TYPE_CHECKING:
    from vcil_bench.data.manifest import Manifest

LINES = 20  # of a list printed before the rest is left to the report file


def add_to(commands: Commands) -> None:
    """Add ``prepare``."""
    prepare = add_command(
        commands,
        "prepare",
        "check a dataset file by file and write its manifest",
        """
        vcil-bench prepare ucf101 /data/ucf101                # decode every video, say what is wrong
        vcil-bench prepare ucf101 /data/ucf101 --store        # and keep its frames for --set store=true
        vcil-bench prepare vclimb --pickle UCF101_data.pkl    # import the vCLIMB authors' lists
        """,
    )
    action = prepare.add_argument("dataset", metavar="DATASET", help="a name (see: list datasets), or vclimb")
    completed_by(action, "datasets")
    prepare.add_argument(
        "root",
        type=path_argument,
        nargs="?",
        metavar="ROOT",
        help="folder of the dataset (default: its own, which embedded clips have)",
    )
    prepare.add_argument("--split", metavar="NAME", help="prepare only this split (default: all splits in ROOT)")
    prepare.add_argument("--workers", type=int, metavar="N", help="processes that decode (default: one a core)")
    prepare.add_argument(
        "--limit",
        type=float,
        metavar="SECONDS",
        help="kill a decoder that takes longer over a video (default: 60; 600 while storing)",
    )
    prepare.add_argument(
        "--pickle",
        type=path_argument,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="with DATASET vclimb: the authors' files, whose lists are imported (default: none)",
    )
    prepare.add_argument(
        "--store",
        type=path_argument,
        nargs="?",
        const=Path(),
        metavar="DIR",
        help="decode all videos once into a frame store there, for store=true (default: no store; without DIR "
        "in the user's cache)",
    )
    prepare.add_argument(
        "--store-frames",
        type=int,
        metavar="N",
        help="keep N frames of a video there, evenly spaced (default: all)",
    )
    prepare.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> int:
    if options.dataset == "vclimb" or options.pickle:
        return _import_vclimb(options)
    numbers = {"workers": options.workers, "limit": options.limit, "store-frames": options.store_frames}
    for name, value in numbers.items():
        if value is not None and value <= 0:
            raise UserError(f"--{name} {value} must be more than 0")
    manifests = prepare_splits(
        options.dataset, options.root, split=options.split, workers=options.workers, limit_s=options.limit
    )
    return ExitCode.DONE if options.store is None else _fill_store(options, manifests)


def prepare_splits(
    name: str,
    root: Path | None,
    *,
    split: str | None = None,
    workers: int | None = None,
    limit_s: float | None = None,
) -> list[Manifest]:
    """Prepare a dataset's splits, or a single one, and print what is known of each.

    Args:
        name: The dataset.
        root: Its folder; None for that which embedded data have.
        split: The split; None for all.
        workers: Processes that decode; None for one a core.
        limit_s: Seconds after which the decoder of a video is killed; None for the usual ones.

    Raises:
        UserError: The folder does not hold the dataset.
    """
    from vcil_bench.data.datasets.base import NotAList
    from vcil_bench.data.manifest import manifest_path
    from vcil_bench.data.prepare import READ_LIMIT_S, report
    from vcil_bench.protocol import DatasetSpec
    from vcil_bench.run.data import open_split, open_splits

    way_out = f"vcil-bench prepare {name} ROOT"
    limit_s = limit_s or READ_LIMIT_S
    if split is None:
        splits = open_splits(name, root, watched, way_out=way_out, workers=workers, limit_s=limit_s)
    else:
        dataset = DatasetSpec(name=name, split=split)
        splits = [open_split(dataset, root, watched, way_out=way_out, workers=workers, limit_s=limit_s)]
    source, folder = splits[0].source, splits[0].root
    manifests = []
    for opened in splits:
        try:
            manifest = opened.manifest
        except NotAList as error:
            if len(splits) == 1:
                raise
            print(f"passed over, not a split: {error}", file=sys.stderr)
            continue
        manifests.append(manifest)
        summary = report.summary(manifest)
        print(f"{source.name}, split {opened.name}: {summary['classes']} classes")
        for line in (
            *report.summary_lines(summary, LINES),
            *report.statistics_lines(report.statistics(manifest)),
        ):
            print(f"  {line}")
        target = manifest_path(source.name, folder, opened.name)
        print(f"  manifest: {target}\n  report: {target.with_suffix('.report.json')}")
        print(f"  statistics: {target.with_suffix('.statistics.json')}")
    if not manifests:
        names = ", ".join(opened.name for opened in splits)
        raise UserError(f"{folder}: none of {names} is a split; it should hold: {source.layout}")
    return manifests


def _fill_store(options: argparse.Namespace, manifests: Sequence[Manifest]) -> int:
    from vcil_bench.data.store.build import STORE_LIMIT_S, build, estimate
    from vcil_bench.data.store.frame_store import FrameStore, default_root

    root = default_root() if options.store == Path() else options.store
    store = FrameStore(root, max_frames=options.store_frames)
    needed = estimate(manifests, store)
    print(f"frame store {store.root}: {needed}")
    needed.check()
    with watched("storing frames") as watch:
        limit_s = options.limit or STORE_LIMIT_S
        done = build(manifests, store, workers=options.workers, progress=watch, limit_s=limit_s)
    print(f"  {done.made} videos stored, {done.kept} were there, {len(done.failed)} cannot be stored")
    for name, problem in done.failed[:LINES]:
        print(f"  not stored: {name}: {problem}")
    return ExitCode.FAILED if done.failed else ExitCode.DONE


def _import_vclimb(options: argparse.Namespace) -> int:
    from vcil_bench.data.datasets.vclimb_import import SOURCES

    if options.dataset != "vclimb" or options.root is not None or not options.pickle:
        raise UserError(
            "the vCLIMB authors' lists are imported with 'vcil-bench prepare vclimb --pickle FILE', FILE being "
            f"one of: {', '.join(source.file for source in SOURCES)}"
        )
    import_lists(options.pickle)
    return ExitCode.DONE


def import_lists(paths: Sequence[Path]) -> None:
    """Import the vCLIMB authors' files and print what each opens.

    Raises:
        VclimbError: A file is none of theirs.
    """
    from vcil_bench.data.datasets.vclimb_import import import_pickle

    for path in paths:
        done = import_pickle(path)
        counts = ", ".join(f"{count} {part}" for part, count in done.videos.items())
        print(f"{path}: {done.classes} classes in {done.tasks} tasks; videos: {counts}")
        protocols = " and ".join(f"protocol {name}" for name in done.source.protocols.values())
        print(f"  kept in {done.folder}; {protocols} can now be run")
