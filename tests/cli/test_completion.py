"""Completion: names begin as typed, also behind a comma, and are found without torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from small_runs import ENTRIES

from vcil_bench.cli import completion


def test_method_names_are_those_of_the_registry() -> None:
    assert set(completion.method_names()) == set(ENTRIES)


@pytest.mark.parametrize(
    ("kinds", "typed", "wanted"),
    [
        (["protocols"], "tcd_hmdb51_5", ["tcd_hmdb51_5x5"]),
        (["methods"], "tcd,st", ["tcd,stpr"]),
        (["tables"], "stpr_c", ["stpr_components"]),
        (["metrics"], "final_a", ["final_accuracy"]),
        (["keys"], "micro", ["micro_batch="]),
        (["keys"], "fssd_", ["fssd_weight="]),
        (["backbones", "datasets"], "hm", ["hmdb51"]),
    ],
)
def test_names_are_completed(kinds: list[completion.Kind], typed: str, wanted: list[str]) -> None:
    assert list(completion.names_of(kinds, typed)) == wanted


ASKED = """
import os, sys
from vcil_bench import cli

def end(code):  # argcomplete ends the process so
    os.write(8, b"\\n" + str("torch" in sys.modules).encode())
    os.close(8)
    os.abort() if code else sys.exit()

os._exit = end
cli.main([])
"""


def test_a_shell_is_answered_without_torch() -> None:
    """Asked as bash asks, with argcomplete's variables; the answer comes over descriptor 8."""
    pytest.importorskip("argcomplete")
    line = "vcil-bench run stp"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "IFS": "\n"}
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" 8>&1 9>/dev/null', sys.executable, ASKED],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **asked},
    )
    assert done.stdout.split() == ["stpr", "False"], done.stderr
