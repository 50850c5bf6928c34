"""All benchmarks in one command: ``python speed/run.py`` writes ``speed/results.md``.

Each subject runs in a process of its own, so that its peak memory is its own; subjects run one after the other.
``--gpu`` runs the section for GPUs alone and writes ``speed/results_gpu.md``. ``--only`` picks subjects,
and leaves the rest of the table as it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from common import Row, machine
from tabulate import tabulate

HERE = Path(__file__).parent
SUBJECTS = {
    "startup": "Start-up",
    "overhead": "The harness around a training step",
    "loading": "Loading clips",
    "stpr_step": "A training step of StPR",
    "bare_step": "A training step of StPR against a loop without the harness",
    "tuning_step": "A distillation step by tuning",
    "experts": "Experts at evaluation",
    "pretrained": "Heads on pretrained features",
    "essential": "Epochs of ESSENTIAL",
    "tcd_step": "A training step of TCD",
    "penalty": "The penalty of EWC over tasks",
    "memory": "Memory",
    "growth": "Growth",
    "scale": "Millions of videos, without pixels",
    "report": "Reports",
}

MACHINE = "machine"  # a row that names where a section was measured


def measure(subject: str) -> list[Row]:
    """Run one subject and return its rows."""
    print(f"{subject} ...", file=sys.stderr, flush=True)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(HERE / f"{subject}.py")], stdout=subprocess.PIPE, text=True, check=True
    )
    print(f"{subject}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    rows = [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]
    if not any(row.what == MACHINE for row in rows):
        rows.append(Row(MACHINE, machine()))
    return rows


def markdown(found: dict[str, list[Row]], titles: dict[str, str], command: str) -> str:
    """Return the results as a page."""
    parts = [
        "# Benchmarks",
        f"Made by `{command}`. Ratios compare things measured in turn in one run; absolute figures are those of "
        "the machine that a section names.",
    ]
    for subject, title in titles.items():
        if subject in found:
            rows = [
                [row.what, row.value, row.goal, {True: "yes", False: "**no**", None: ""}[row.met], row.note]
                for row in found[subject]
                if row.what != MACHINE
            ]
            table = tabulate(rows, headers=["what", "measured", "goal", "met", "how"], tablefmt="github")
            (named,) = [row.value for row in found[subject] if row.what == MACHINE]
            parts += [f"## {title}", f"On: {named}.", table]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*SUBJECTS], default=[*SUBJECTS])
    parser.add_argument("--gpu", action="store_true", help="the section for GPUs, and nothing else")
    options = parser.parse_args()
    if options.gpu:
        found, titles, out = {"gpu": measure("gpu")}, {"gpu": "ViT-B-16 on a GPU"}, HERE / "results_gpu.md"
        command = "python speed/run.py --gpu"
    else:
        kept = HERE / "results.json"
        found = {}
        if kept.exists() and set(options.only) != set(SUBJECTS):
            found = {name: [Row(**r) for r in rows] for name, rows in json.loads(kept.read_text()).items()}
        found |= {subject: measure(subject) for subject in options.only}
        kept.write_text(json.dumps({k: [r.__dict__ for r in v] for k, v in found.items()}, indent=1) + "\n")
        titles, out, command = SUBJECTS, HERE / "results.md", "python speed/run.py"
    out.write_text(markdown(found, titles, command), encoding="utf-8")
    print(out.read_text())


if __name__ == "__main__":
    main()
