"""Environment of a run: records code version, libraries, hardware and command."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils import collect_env

from vcil_bench import __version__
from vcil_bench.options import RunOptions


def environment(device: torch.device, options: RunOptions, processes: int) -> dict[str, Any]:
    """Return the environment block of a record."""
    commit, dirty = _git()
    cuda = device.type == "cuda"
    gpu = _gpu(device) if cuda else {}
    return {
        "vcil_bench": __version__,
        "git": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": version("open_clip_torch"),
        "timm": version("timm"),
        "av": version("av"),
        "cuda": torch.version.cuda if cuda else None,
        "device": device_name(device),
        "device_type": device.type,
        **gpu,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "precision": options.precision,
        "determinism": options.determinism,
        "platform": platform.platform(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def device_name(device: torch.device) -> str:
    """Return the model of a GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def other_device(sessions: Sequence[Mapping[str, Any]]) -> str | None:
    """Say that a run continues on another model of processor or GPU than before; None where it does not.

    Args:
        sessions: Of the record, this process's last.
    """
    names = [str(session["environment"]["device"]) for session in sessions]
    if len(names) < 2 or names[-2] == names[-1]:
        return None
    return (
        f"continues on {names[-1]}; it ran on {names[-2]} before: kernels add in another order there, and GPUs "
        "draw other dropout masks, so the result is not bit for bit what either would have given; the record "
        "names both"
    )


def _gpu(device: torch.device) -> dict[str, Any]:
    """Return what of a GPU and its libraries may move a number or explain a failure."""
    return {
        "device_memory_mb": torch.cuda.get_device_properties(device).total_memory // 2**20,
        "driver": collect_env.get_nvidia_driver_version(collect_env.run),
        "cudnn": torch.backends.cudnn.version(),
    }


def _git() -> tuple[str | None, bool | None]:
    """Return the commit of the checkout this package lies in, and whether it was changed; None outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _run(["git", "rev-parse", "HEAD"], root)
        # What runs and reports write changes no code.
        status = ["git", "status", "--porcelain", "--", ".", ":!results", ":!reports"]
        return commit, bool(_run(status, root))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
