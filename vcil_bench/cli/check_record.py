"""``vcil-bench check-record``: checks records that were made elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vcil_bench.common.errors import ExitCode, UserError
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_command, add_results, path_argument
from .progress import watched

if TYPE_CHECKING:
    from vcil_bench.verify.record_checks import Check, Here


def add_to(commands: Commands) -> None:
    """Add ``check-record``."""
    check = add_command(
        commands,
        "check-record",
        "check records made elsewhere: counts, labels, class order, protocol, budget",
        """
        vcil-bench check-record results/reference/synthetic_3x4/icarl
        vcil-bench check-record theirs/ --data ~/data/UCF-101          # classes from the dataset's own lists
        vcil-bench check-record theirs/ --json                         # exit code 1: a check failed
        """,
    )
    check.add_argument(
        "place",
        type=path_argument,
        nargs="?",
        metavar="FILE|FOLDER",
        help="a record, or a folder of them (no default: it must be given, but for --list)",
    )
    add_grounds(check)
    check.add_argument("--json", action="store_true", help="print the checks as JSON (default: as lines)")
    check.add_argument("--list", action="store_true", help="list the checks, and check nothing (default: check)")
    check.set_defaults(run=_check)


def add_grounds(parser: argparse.ArgumentParser, results: str = "folder of records to compare with") -> None:
    """Let a command take what records are held against.

    Args:
        parser: The command's.
        results: What the results folder is for.
    """
    parser.add_argument(
        "--protocol",
        type=path_argument,
        metavar="FILE",
        help="the .yaml file of a protocol that is not built in (default: none, and such a protocol is not "
        "compared)",
    )
    parser.add_argument(
        "--data",
        type=path_argument,
        metavar="ROOT",
        help="folder of the dataset, whose lists tell the classes of test videos (default: other records of the "
        "same data, and the folders of the videos, do)",
    )
    add_results(parser, results)


def _check(options: argparse.Namespace) -> int:
    from vcil_bench.verify.record_checks import NAMES, check_records, failed, record_files

    if options.list:
        for name, text in NAMES.items():
            print(f"{name:12} {text}")
        return ExitCode.DONE
    if options.place is None:
        raise UserError("check-record needs a record, or a folder of them")
    files = record_files(options.place)
    checks = check_records(files, grounds(options, files))
    if options.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=1, ensure_ascii=False))
    else:
        show(checks)
    return ExitCode.FAILED if any(failed(checks)) else ExitCode.DONE


def grounds(options: argparse.Namespace, files: Sequence[Path]) -> Here:
    """Gather what records are held against."""
    from vcil_bench.record import load_all
    from vcil_bench.verify.record_checks import Here

    records, _ = load_all(options.results)
    protocol: Path | None = options.protocol
    if protocol is not None and not protocol.is_file():
        raise UserError(f"--protocol: no file {str(protocol)!r}")
    if options.data is None:
        return Here(records, protocol)
    return Here(records, protocol, _listed(files, options.data))


def _listed(files: Sequence[Path], root: Path) -> dict[str, str]:
    """Return the class of each test video by the lists of the dataset that the records are about.

    Raises:
        UserError: They are about several, or the root holds another dataset.
    """
    from vcil_bench.data.datasets import VideosMissing
    from vcil_bench.protocol import DatasetSpec
    from vcil_bench.record import RecordError, read
    from vcil_bench.run.data import open_split

    about = set()
    for path in files:
        try:
            data = read(path).data["data"]
        except RecordError:  # the checks tell of it
            continue
        about.add((data["dataset"], data["split"]))
    if len(about) > 1:
        named = ", ".join(f"{dataset} (split {split})" for dataset, split in sorted(about))
        raise UserError(f"--data names one dataset, the records are about {named}; check them apart")
    if not about:
        return {}
    ((dataset, split),) = about
    opened = open_split(DatasetSpec(name=dataset, split=split), root, watched)
    try:
        listed = opened.listed
    except VideosMissing as error:
        listed = error.listed
    return {video.id: video.label for video in listed if video.split == "test"}


def show(checks: Sequence[Check]) -> None:
    """Print checks by record: what failed and what is unchecked in full, the rest by name."""
    by_record: dict[str, list[Check]] = {}
    for check in checks:
        by_record.setdefault(check.record, []).append(check)
    for record, several in by_record.items():
        print(record)
        for check in several:
            print(f"  {check.outcome:10} {check.check:12} {check.text}")
    counts = [(sum(c.outcome == outcome for c in checks), outcome) for outcome in ("failed", "unchecked", "ok")]
    bad = len({c.record for c in checks if c.outcome == "failed"})
    print(
        f"{len(by_record)} records, {bad} of them with a failed check; "
        f"{', '.join(f'{number} {outcome}' for number, outcome in counts)}"
    )
