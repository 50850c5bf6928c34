"""The doctor's round: the machine, then every check that this machine can be asked, line by line."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from vcil_bench.common.errors import UserError, did_you_mean

from . import machine, requirements
from .checks import CHECKS, Check
from .outcome import RESULTS as RESULTS
from .outcome import Line
from .setting import Setting, start


class DoctorError(UserError):
    """A check that is unknown, or a GPU that is asked for and not there."""


def names() -> Iterator[tuple[str, str, int]]:
    """Yield every check: name, what it looks at, the GPUs it needs."""
    yield machine.NAME, "software, GPUs, shared memory, cores, decoders, folders; weights, data and lists", 0
    for check in CHECKS.values():
        yield check.name, check.summary, check.gpus


def examine(
    results: Path,
    *,
    only: Sequence[str],
    need_gpu: bool,
    backbones: Sequence[str] = (),
    roots: Mapping[str, Path] | None = None,
) -> Iterator[Line]:
    """Look at this machine.

    Args:
        results: Folder of the records; it is made if it is not there, and nothing is left in it.
        only: Names of checks; empty for all.
        need_gpu: Refuse a machine without a GPU instead of skipping what needs one.
        backbones: Whose weights must be there.
        roots: Datasets that must be there, and their folders.

    Raises:
        UserError: A name is unknown, or a GPU is missing.
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
        yield from requirements.report(backbones, roots or {})
    wanted = [check for name, check in CHECKS.items() if not only or name in only]
    with tempfile.TemporaryDirectory(prefix="vcil-bench-doctor-") as folder:
        setting = Setting("cuda", gpus, Path(folder))
        if gpus and wanted:  # rendered once, before several runs at a time ask for them
            ended = start(["prepare", "synthetic"], setting.new_folder())
            if ended.code != 0:
                yield Line(machine.NAME, "embedded clips", "failed", ended.why())
                return
        yield from run(wanted, setting)


def run(wanted: Sequence[Check], setting: Setting) -> Iterator[Line]:
    """Run checks, and name those that the setting has too few GPUs for."""
    for check in wanted:
        if setting.device == "cuda" and setting.gpus < check.gpus:
            gpus = f"{check.gpus} GPU{'s' if check.gpus > 1 else ''}"
            yield Line(check.name, check.summary, "skipped", f"needs {gpus}, {setting.gpus or 'none'} here")
        else:
            yield from check.work(setting)
