"""The doctor's round: the machine, then every check that this machine can be asked, line by line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from vcil_bench.errors import UserError, did_you_mean

from . import machine
from .checks import CHECKS, Check
from .outcome import RESULTS as RESULTS
from .outcome import Line
from .setting import Setting


class DoctorError(UserError):
    """A check that is unknown, or a GPU that is asked for and not there."""


def names() -> Iterator[tuple[str, str, int]]:
    """Yield every check: name, what it looks at, the GPUs it needs."""
    yield machine.NAME, "software, GPUs, shared memory, cores, decoders, weights, folders", 0
    for check in CHECKS.values():
        yield check.name, check.summary, check.gpus


def examine(results: Path, *, only: Sequence[str], need_gpu: bool) -> Iterator[Line]:
    """Look at this machine.

    Args:
        results: Folder of the records; it is only looked at, nothing is left there.
        only: Names of checks; empty for all.
        need_gpu: Refuse a machine without a GPU instead of skipping what needs one.

    Raises:
        DoctorError: A name is unknown, or a GPU is missing.
    """
    known = [machine.NAME, *CHECKS]
    for name in only:
        if name not in known:
            raise DoctorError(f"--only {name!r}{did_you_mean(name, known)}; checks: {', '.join(known)}")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if need_gpu and not gpus:
        raise DoctorError(
            "no GPU that torch can use, so that none of its checks means anything here; 'vcil-bench doctor' "
            f"describes this machine (torch {torch.__version__}, built for CUDA {torch.version.cuda or 'none'})"
        )
    if not only or machine.NAME in only:
        yield from machine.report(results)
    wanted = [check for name, check in CHECKS.items() if not only or name in only]
    with tempfile.TemporaryDirectory(prefix="vcil-bench-doctor-") as folder:
        yield from run(wanted, Setting("cuda", gpus, Path(folder)))


def run(
    wanted: Sequence[Check], setting: Setting, least: Callable[[Check], int] = lambda c: c.gpus
) -> Iterator[Line]:
    """Run checks, and name those that the setting has too few GPUs for.

    Args:
        wanted: The checks.
        setting: What they run on.
        least: GPUs that a check needs.
    """
    for check in wanted:
        if setting.gpus < least(check):
            there = f"there {'is' if setting.gpus == 1 else 'are'} {setting.gpus or 'none'}"
            yield Line(check.name, check.summary, "skipped", f"needs {check.gpus} GPU, {there}")
        else:
            yield from check.work(setting)
