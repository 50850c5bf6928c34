"""How long ``vcil-bench --help`` takes: what is imported before a command is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

from common import Row, hand_over, seconds

ROUNDS = 9


def main() -> None:
    """Measure and hand over."""
    command = [str(Path(sys.executable).with_name("vcil-bench")), "--help"]
    times = [
        seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)) for _ in range(ROUNDS)
    ]
    middle = median(times)
    hand_over([Row("`vcil-bench --help`", f"{middle:.2f} s", "< 0.2 s", middle < 0.2, f"median of {ROUNDS}")])


if __name__ == "__main__":
    main()
