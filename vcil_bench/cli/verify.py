"""``vcil-bench verify``: class orders, lists, and what train and test share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcil_bench.common.errors import ExitCode
from vcil_bench.common.terminal_text import print

from .arguments import Commands, add_assignments, add_command, completed_by, path_argument
from .progress import watched

if TYPE_CHECKING:
    from vcil_bench.data.datasets import Listed
    from vcil_bench.data.manifest import Manifest
    from vcil_bench.run.data import Split


def add_to(commands: Commands) -> None:
    """Add ``verify``."""
    verify = add_command(
        commands,
        "verify",
        "check class orders, lists, and what train and test share",
        """
        vcil-bench verify tcd_ucf101_10x5                                   # class orders and pretraining
        vcil-bench verify tcd_ucf101_10x5 --data /data/ucf101               # lists and files, too
        vcil-bench verify tcd_ucf101_10x5 --set backbone=clip_vit_b16 --json
        """,
    )
    action = verify.add_argument(
        "protocol", metavar="PROTOCOL", help="a name (see: list protocols) or a .yaml file"
    )
    completed_by(action, "protocols")
    verify.add_argument(
        "--data",
        type=path_argument,
        metavar="ROOT",
        help="folder of the dataset; its lists are enough (default: verify without data)",
    )
    add_assignments(
        verify,
        "backbone and weights whose pretraining is judged (default: every backbone with the protocol's frame "
        "size), and protocol.KEY",
    )
    verify.add_argument("--json", action="store_true", help="print the findings as JSON (default: lines)")
    verify.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from vcil_bench import protocol
    from vcil_bench.common.config import parse_assignments
    from vcil_bench.data.datasets import ADAPTERS
    from vcil_bench.options import split_protocol
    from vcil_bench.run.data import open_split
    from vcil_bench.verify.checks import as_plain, chosen_weights, verify

    overrides, given = split_protocol(parse_assignments(options.assignments))
    loaded = protocol.load(options.protocol)
    if overrides:
        loaded = loaded.derive(overrides)
    weights = chosen_weights(loaded, given)
    source = ADAPTERS.get(loaded.spec.dataset.name)  # a protocol may be verified whose data nothing can read
    listed: Sequence[Listed] | None = None
    files: Manifest | str = ""
    if options.data is not None or (source is not None and source.default_root() is not None):
        listed, files = _read(open_split(loaded.spec.dataset, options.data, watched))
    findings = verify(loaded, weights, listed, files)
    if options.json:
        print(json.dumps(as_plain(findings), indent=1, ensure_ascii=False))
    else:
        for finding in findings:
            print(f"{finding.level:8} {finding.check:16} {finding.text}")
        levels = [finding.level for finding in findings]
        counts = ", ".join(f"{levels.count(level)} {level}" for level in ("error", "warning", "note", "ok"))
        print(f"{loaded.label}: {counts}")
    return ExitCode.FAILED if any(finding.level == "error" for finding in findings) else ExitCode.DONE


def _read(split: Split) -> tuple[Sequence[Listed], Manifest | str]:
    """Return a split's lists, and its files as they were read before, so that verifying takes seconds.

    Raises:
        UserError: The root holds another dataset, or a list that is malformed.
    """
    from vcil_bench.data.datasets import VideosMissing
    from vcil_bench.data.manifest import manifest_path

    try:
        listed = split.listed
    except VideosMissing as error:
        number = len(error.listed)
        return error.listed, f"none of the {number} listed videos is there; the lists alone were verified"
    if manifest_path(split.source.name, split.root, split.name).is_file():
        return listed, split.manifest
    prepare = f"vcil-bench prepare {split.source.name} {split.root}"
    return listed, f"not opened: '{prepare}' reads them and finds damaged and equal ones"
