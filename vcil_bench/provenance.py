"""Where a number came from: code version, libraries, hardware and the command that was typed."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .options import RunOptions


def environment(device: torch.device, options: RunOptions, processes: int) -> dict[str, Any]:
    """Return the environment block of a record."""
    commit, dirty = _git()
    cuda = device.type == "cuda"
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
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "precision": options.precision,
        "determinism": options.determinism,
        "platform": platform.platform(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _git() -> tuple[str | None, bool | None]:
    """Return the commit of the checkout this package lies in, and whether it was changed; None outside one."""
    root = Path(__file__).resolve().parent.parent
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
