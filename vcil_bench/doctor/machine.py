"""The machine as the harness meets it: software, GPUs, shared memory, cores, decoders, weights, folders."""

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
from vcil_bench.nets.backbones import BACKBONES

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
    yield _line("CUDA of torch", f"{built}{_cudnn() if there else ''}, {'in use' if there else 'no GPU to use'}")
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
    for name, backbone in BACKBONES.items():
        file = backbone.local_file()
        embedded = backbone.embedded_sibling == name
        yield _line(f"weights {name}", "embedded" if embedded else str(file) if file.is_file() else _hub(file))
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
        return "not installed"
    return "installed"


def _hub(file: Path) -> str:
    return f"not at {file}; looked for in the Hugging Face cache, then fetched, when a run needs them"


def _folder(what: str, folder: Path) -> Line:
    result: Result = "ok"
    try:
        check_writable(folder)
        figure = f"{folder.resolve()} can be written, {shutil.disk_usage(folder).free / GIB:.0f} GiB free"
    except UserError as error:
        result, figure = "failed", str(error)
    return Line(NAME, what, result, figure)
