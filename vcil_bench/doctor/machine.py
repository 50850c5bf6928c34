"""The machine as the harness meets it: software, GPUs, shared memory, cores, decoders, folders."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from vcil_bench.common import cpu_cores
from vcil_bench.common.errors import UserError
from vcil_bench.common.files import cache_dir, check_writable
from vcil_bench.data import video
from vcil_bench.data.video import other_decoders

from .outcome import Line, Result

NAME = "machine"
GIB = 2**30
SHARED = Path("/dev/shm")
LEAST_SHARED_GIB = 2.0  # what 16 workers hold of the paper's batches: 33 places of 40 clips of 8 frames of 224


def report(results: Path) -> Iterator[Line]:
    """Describe this machine.

    Args:
        results: Folder of the records.
    """
    yield _line(
        "software", f"Python {platform.python_version()}, torch {torch.__version__}, {platform.platform()}"
    )
    there = torch.cuda.is_available()
    built = torch.version.cuda or "none"
    yield Line(
        NAME,
        "CUDA of torch",
        "note" if there else "lacking",
        f"{built}{_cudnn() if there else ''}, {'in use' if there else _without_gpu()}",
    )
    for number in range(torch.cuda.device_count() if there else 0):
        found = torch.cuda.get_device_properties(number)
        yield _line(
            f"GPU {number}",
            f"{found.name}, {found.total_memory / GIB:.0f} GiB, compute capability {found.major}.{found.minor}, "
            f"bf16 {'yes' if found.major >= 8 else 'emulated'}",
        )
    of_all, own = os.cpu_count() or 1, cpu_cores.allowed()
    yield _line("cores", f"{own} of {of_all} are this process's; {torch.get_num_threads()} threads of torch")
    yield _line("memory", _memory())
    if SHARED.is_dir():
        size = shutil.disk_usage(SHARED)
        enough = size.free / GIB >= LEAST_SHARED_GIB
        yield Line(
            NAME,
            "shared memory",
            "ok" if enough or not there else "failed",
            f"/dev/shm has {size.free / GIB:.1f} of {size.total / GIB:.1f} GiB free"
            + ("" if enough else f"; 16 workers at full size need {LEAST_SHARED_GIB:g} (docker run --shm-size)"),
        )
    for name in video.DECODERS:
        if name != "auto":
            yield _line(f"decoder {name}", _decoder(name))
    for what, folder in (("cache", cache_dir()), ("results", results)):
        yield _folder(what, folder)


def _line(what: str, figure: str) -> Line:
    return Line(NAME, what, "note", figure)


def _cudnn() -> str:
    return f", cuDNN {torch.backends.cudnn.version()}"


def _memory() -> str:
    names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
    if not all(name in os.sysconf_names for name in names):
        return "not known"
    return f"{os.sysconf(names[0]) * os.sysconf(names[1]) / GIB:.0f} GiB"


def _decoder(name: str) -> str:
    if name in other_decoders.READERS and importlib.util.find_spec(name) is None:
        return f"not installed, nor needed: pyav is the default; pip install {name}"
    return "installed"


def _without_gpu() -> str:
    """Say why there is no GPU, and what to do about it."""
    if torch.backends.mps.is_available():
        return "Apple's GPU is used with --device mps"
    if torch.version.cuda is None:
        return "no GPU to use: this torch is built without CUDA (pytorch.org/get-started has one with)"
    return "no GPU to use: see nvidia-smi for the driver, and CUDA_VISIBLE_DEVICES; runs go on the processor"


def _folder(what: str, folder: Path) -> Line:
    result: Result = "ok"
    try:
        check_writable(folder)
        figure = f"{folder.resolve()} can be written, {shutil.disk_usage(folder).free / GIB:.0f} GiB free"
    except UserError as error:
        result, figure = "failed", str(error)
    return Line(NAME, what, result, figure)
