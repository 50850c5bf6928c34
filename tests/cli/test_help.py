"""The help of every command: examples that can be typed, and a default for everything that need not be given."""

from __future__ import annotations

import argparse
import shlex

import pytest

from vcil_bench import cli
from vcil_bench.cli.arguments import path_argument

PARSER = cli._parser()
(COMMANDS,) = (a.choices for a in PARSER._actions if isinstance(a, argparse._SubParsersAction))
ACTIONS = [
    pytest.param(
        action, id=f"{name} {action.metavar if not action.option_strings else action.option_strings[-1]}"
    )
    for name, parser in COMMANDS.items()
    for action in parser._actions
    if not isinstance(action, argparse._HelpAction)
]


def examples(parser: argparse.ArgumentParser) -> list[list[str]]:
    """Return the commands below EXAMPLES as lists of words."""
    head, *lines = (parser.epilog or "").splitlines()
    assert head == "EXAMPLES"
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_a_command_ends_its_help_with_examples_that_can_be_typed(name: str | None) -> None:
    parser = PARSER if name is None else COMMANDS[name]
    made = examples(parser)
    assert made
    for words in made:
        words = words[: words.index(">")] if ">" in words else words
        assert words[0] == "vcil-bench"
        assert name in (None, words[1])
        PARSER.parse_args(words[1:])  # ends the test if it cannot be typed
    assert parser.format_help().rstrip().endswith(" ".join((parser.epilog or "").splitlines()[-1].split()))


@pytest.mark.parametrize("action", ACTIONS)
def test_an_argument_names_its_default(action: argparse.Action) -> None:
    assert action.help
    if action.option_strings or action.nargs in ("?", "*"):
        assert "default" in action.help


def test_what_can_be_completed_is() -> None:
    """Names of things may be completed wherever they are typed."""
    named = {"method", "methods", "protocol", "protocols", "backbone", "metric", "table", "dataset"}
    for name, parser in COMMANDS.items():
        for action in parser._actions:
            if action.dest in named and action.type is not path_argument:
                assert hasattr(action, "completer"), f"{name} {action.dest}"
