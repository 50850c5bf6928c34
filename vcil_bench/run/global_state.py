"""Process-wide settings: refuses a method that changes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from vcil_bench.training import TrainingError


@dataclass(frozen=True)
class _Setting:
    name: str
    read: Callable[[], Any]
    put_back: Callable[[Any], object]


def _set_default_device(device: torch.device) -> None:
    """Set it; None, unlike the processor by name, costs nothing at every later call."""
    torch.set_default_device(None if device.type == "cpu" else device)


SETTINGS = (
    _Setting("the working directory", os.getcwd, os.chdir),
    _Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Setting("torch's default device", torch.get_default_device, _set_default_device),
    _Setting("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    _Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
)


@contextmanager
def left_as_found(method: str, call: str) -> Iterator[None]:
    """Put back what a call of a method's code has changed around it, and refuse it.

    Args:
        method: Name of the method.
        call: What is called.

    Raises:
        TrainingError: Names what was changed, also where the call failed, since that is the likely cause.
    """
    before = [setting.read() for setting in SETTINGS]
    failed: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001  # raised again below
        failed = error
    finally:
        changed = [
            (setting.name, old, now)
            for setting, old in zip(SETTINGS, before, strict=True)
            if (now := setting.read()) != old
        ]
        for setting, old in zip(SETTINGS, before, strict=True):
            if any(setting.name == name for name, _, _ in changed):
                setting.put_back(old)
    if changed:
        name, old, now = changed[0]
        raise TrainingError(
            f"{method}: {call} changed {name} from {old} to {now}; put it back before {call} returns"
        ) from failed
    if failed is not None:
        raise failed
