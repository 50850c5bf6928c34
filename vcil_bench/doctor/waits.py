"""The source lines of a command that wait for a GPU: ``python -m vcil_bench.doctor.waits FILE run METHOD ...``.

torch's sync debug mode warns at every synchronisation it knows of (reads of values, copies that block,
``nonzero``); the innermost line outside torch is what is noted.
"""

from __future__ import annotations

import json
import runpy
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from vcil_bench import training

_TORCH = str(Path(torch.__file__).parent)
_OWN_WAITS = ("grad_scaler.py",)  # asks after every fp16 step whether it overflowed


class Watch:
    """Counts waits by source line, those of training steps apart."""

    def __init__(self) -> None:
        self.in_steps: Counter[str] = Counter()
        self.elsewhere: Counter[str] = Counter()
        self.steps = 0
        self._in_step = False

    def batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield an epoch's batches; until the next is asked for, a training step runs."""
        for batch in batches:
            self.steps += 1
            self._in_step = True
            try:
                yield batch
            finally:
                self._in_step = False

    def warned(self, message: Any, *rest: Any, **more: Any) -> None:
        """Take a warning in the place of ``warnings.showwarning``."""
        if "synchroniz" not in str(message):
            return
        frames = [
            frame for frame in traceback.extract_stack() if frame.filename not in (__file__, warnings.__file__)
        ]
        inner = len(frames)
        while inner > 1 and frames[inner - 1].filename.startswith(_TORCH):
            inner -= 1
        if any(frame.filename.endswith(_OWN_WAITS) for frame in frames[inner:]):
            return
        at = frames[inner - 1]
        counter = self.in_steps if self._in_step else self.elsewhere
        counter[f"{Path(at.filename).name}:{at.lineno}"] += 1


def main(target: Path, arguments: list[str]) -> int:
    """Run a command and write what was counted to a file."""
    watch = Watch()
    batches = training.Epoch.__iter__
    with (
        warnings.catch_warnings(),
        mock.patch.object(training.Epoch, "__iter__", lambda epoch: watch.batches(batches(epoch))),
    ):
        warnings.simplefilter("always")
        warnings.showwarning = watch.warned
        torch.cuda.set_sync_debug_mode("warn")
        code = _run(arguments)
    found = {"steps": watch.steps, "in steps": watch.in_steps, "elsewhere": watch.elsewhere}
    target.write_text(json.dumps(found), encoding="utf-8")
    return code


def _run(arguments: list[str]) -> int:
    """Run the program in this process, as ``python -m vcil_bench`` would, and return its exit code."""
    with mock.patch.object(sys, "argv", ["vcil-bench", *arguments]):
        try:
            runpy.run_module("vcil_bench", run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
