"""``vcil-bench fetch``: downloads a dataset, unpacks it, prepares it; puts weights where runs look for them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, completed_by, path_argument
from .progress import loading_torch, watched

if TYPE_CHECKING:
    from vcil_bench.fetch.fetching import Outcome, Plan
    from vcil_bench.fetch.sources import Source

AT_ONCE = 4
WEIGHTS = "weights"
VCLIMB = "vclimb"


def add_to(commands: Commands) -> None:
    """Add ``fetch``."""
    fetch = add_command(
        commands,
        "fetch",
        "download and unpack a dataset, or put weights into place",
        """
        vcil-bench fetch ucf101 --check                          # which addresses answer, and with what
        vcil-bench fetch ucf101 /data/ucf101 --accept-licence    # download, unpack, prepare; again: resume
        vcil-bench fetch ssv2 /data/ssv2 --from downloads         # what needs an account, once downloaded
        vcil-bench fetch weights clip_vit_b16                    # where runs look for them
        """,
    )
    action = fetch.add_argument("dataset", metavar="DATASET", help="a name in the table of sources, or weights")
    completed_by(action, "sources")
    action = fetch.add_argument(
        "place",
        nargs="?",
        metavar="ROOT",
        help="folder of the dataset, or the backbone whose weights are wanted (default: none, which will do for "
        "--check)",
    )
    completed_by(action, "backbones")
    fetch.add_argument(
        "--check",
        action="store_true",
        help="ask every address for its headers and download nothing (default: download)",
    )
    fetch.add_argument(
        "--accept-licence",
        action="store_true",
        help="accept the dataset's licence, which is shown; ROOT remembers it (default: refuse before that)",
    )
    fetch.add_argument(
        "--mirror",
        metavar="URL",
        help="take the same files below this address (default: the publishers' addresses)",
    )
    fetch.add_argument(
        "--from",
        dest="folder",
        type=path_argument,
        metavar="FOLDER",
        help="take the files from a folder, which stays as it is (default: download them)",
    )
    fetch.add_argument(
        "--keep-archives",
        action="store_true",
        help="keep downloaded archives in ROOT/.fetch (default: delete each when it is unpacked)",
    )
    fetch.add_argument(
        "--no-prepare", action="store_true", help="stop when the files are in place (default: prepare them)"
    )
    fetch.add_argument(
        "--at-once", type=int, default=AT_ONCE, metavar="N", help=f"downloads at once (default: {AT_ONCE})"
    )
    fetch.add_argument(
        "--workers", type=int, metavar="N", help="processes that decode while preparing (default: one a core)"
    )
    fetch.set_defaults(run=_fetch)


def _fetch(options: argparse.Namespace) -> int:
    from vcil_bench.fetch.sources import source

    for name, value in (("at-once", options.at_once), ("workers", options.workers)):
        if value is not None and value <= 0:
            raise UserError(f"--{name} {value} must be more than 0")
    if options.folder is not None and (options.mirror is not None or options.check):
        raise UserError("--from takes files from a folder: it goes neither with --mirror nor with --check")
    if options.folder is not None and not options.folder.is_dir():
        raise UserError(f"--from {options.folder}: there is no such folder")
    if options.dataset == WEIGHTS:
        return _fetch_weights(options)
    chosen = source(options.dataset)
    if options.check:
        return _check(chosen, options)
    if options.place is None:
        raise UserError(f"say where to: vcil-bench fetch {chosen.name} ROOT")
    return _fetch_dataset(chosen, path_argument(options.place), options)


def _fetch_dataset(chosen: Source, root: Path, options: argparse.Namespace) -> int:
    from vcil_bench.fetch.accounts import unpack_given, where
    from vcil_bench.fetch.fetching import Options, fetch
    from vcil_bench.fetch.state import State

    if chosen.account and options.folder is None:
        raise where(chosen)
    state = State(root)
    with state.locked():
        if state.accept(chosen, options.accept_licence):
            print(f"{chosen.title}\nlicence, accepted: {chosen.licence}\npage: {chosen.page}")
        if chosen.account:
            outcome = unpack_given(chosen, options.folder, state, watched, _tell)
        else:
            how = Options(options.mirror, options.folder, options.keep_archives, options.at_once)
            outcome = fetch(chosen, state, how, watched, _tell)
    return _finish(chosen, root, outcome, options)


def _tell(plan: Plan) -> None:
    from vcil_bench.fetch.space import in_units

    unknown = f", and {plan.unknown} of a size that no server says" if plan.unknown else ""
    print(
        f"{plan.files} files to fetch, {plan.there} are there: {in_units(plan.to_come)} to download{unknown}; "
        f"takes up to {in_units(plan.needed)} of disk on the way"
    )


def _finish(chosen: Source, root: Path, outcome: Outcome, options: argparse.Namespace) -> int:
    print(f"{outcome.files} files written to {root}")
    for error in outcome.failed:
        print(f"not fetched: {error}", file=sys.stderr)
    if outcome.failed:
        print("the same command fetches what is lacking", file=sys.stderr)
        return ExitCode.FAILED
    if options.no_prepare:
        return ExitCode.DONE
    from . import prepare

    if chosen.name == VCLIMB:
        prepare.import_lists([root / file.name for file in chosen.files])
    else:
        prepare.prepare_splits(chosen.name, root, workers=options.workers)
    return ExitCode.DONE


def _check(chosen: Source, options: argparse.Namespace) -> int:
    from vcil_bench.fetch.checking import check
    from vcil_bench.fetch.space import in_units

    if not chosen.files:
        print(f"{chosen.title}: {chosen.account}: {chosen.page} ({chosen.tried})")
        return ExitCode.DONE
    failed = 0
    for answer in check(chosen, options.mirror, at_once=options.at_once):
        failed += bool(answer.problem)
        if answer.problem or answer.headers is None:
            print(f"no   {answer.file.name}: {answer.problem}")
            continue
        size = "size unknown" if answer.headers.size is None else in_units(answer.headers.size)
        resumes = "" if answer.headers.ranges else ", does not say that a download can be resumed"
        print(f"yes  {answer.file.name}: {size}{resumes}: {answer.file.url}")
    return ExitCode.FAILED if failed else ExitCode.DONE


def _fetch_weights(options: argparse.Namespace) -> int:
    if options.check or options.mirror is not None:
        raise UserError(
            "weights come by timm's and open_clip's own loaders: of a mirror of the Hugging Face hub these are "
            "told by the environment variable HF_ENDPOINT, and --check is for datasets"
        )
    if options.place is None:
        raise UserError("say which weights: vcil-bench fetch weights BACKBONE (see: vcil-bench list backbones)")
    with loading_torch():
        from vcil_bench.fetch.weights import fetch_weights
    path, sha256, there = fetch_weights(options.place, options.folder)
    print(f"{path}: {'was there' if there else 'fetched'}, loads; SHA-256 {sha256}")
    return ExitCode.DONE
