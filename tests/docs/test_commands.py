"""The documents: commands on a page have arguments that exist, and those that need no data, GPU or network run.

A block of commands runs as it stands, in a folder of the page's own, unless a comment before it says otherwise:
``<!-- commands: slow -->`` runs it among the slow tests, ``<!-- commands: not run, WHY -->`` only parses it.
Blocks of Python run too; one behind ``<!-- file: NAME -->`` is written to a file instead.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vcil_bench import cli, options, protocol, registry
from vcil_bench.cli import grid
from vcil_bench.common.config import parse_assignments

ROOT = Path(__file__).parents[2]
PAGES = [
    *("README.md", "CONTRIBUTING.md", "results/README.md", "protocols/README.md"),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
]
BLOCK = re.compile(r"(?:^<!-- ([^\n]*?) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = {"sh", "bash", "console"}
OTHER = {"git", "cd", "source", "pip", "python", "make"}  # what a command may be beside vcil-bench and torchrun
PLACEHOLDERS = {"METHOD", "PROTOCOL"}


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: The page's path.
        line: Where it begins.
        remark: What the comment before it says.
        language: Of its text.
        text: What it holds.
    """

    page: str
    line: int
    remark: str
    language: str
    text: str

    def commands(self) -> Iterator[list[str]]:
        """Yield its commands as lists of words, comments left out."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line.removeprefix("$ "), comments=True):
                yield words


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1] or "", match[2], match[3])
        for match in BLOCK.finditer(text)
    ]


COMMANDS = [
    pytest.param(words, id=f"{block.page}:{block.line} {' '.join(words)}")
    for page in PAGES
    for block in blocks(page)
    if block.language in SHELL
    for words in block.commands()
]


def arguments_of(words: list[str]) -> list[str] | None:
    """Return the arguments that a command gives to vcil-bench, None if it is another's."""
    if words[0] == "torchrun":
        assert words[3:5] == ["-m", "vcil_bench"]
        return words[5:]
    return words[1:] if words[0] == "vcil-bench" else None


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_on_a_page_has_arguments_that_exist(words: list[str]) -> None:
    arguments = arguments_of(words)
    if arguments is None:
        assert words[0] in OTHER
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    if "--help" in arguments:
        return
    parsed = cli._parser().parse_args(arguments)
    if arguments[0] == "run":
        check_assignments([parsed.method], [parsed.protocol], parsed.assignments)
    if arguments[0] == "grid":
        for experiment in grid._experiments(parsed):
            check_assignments([experiment.method], [experiment.protocol], list(experiment.assignments))


def check_assignments(methods: list[str], protocols: list[str], assignments: list[str]) -> None:
    """Check that what is set exists: keys of methods, options, keys of protocols, where these are built in."""
    for name in protocols:
        if name in PLACEHOLDERS or name.endswith(".yaml"):
            continue
        loaded = protocol.load(name)
        for method in methods:
            if method in PLACEHOLDERS or method.endswith(".py") or method not in registry.find_all():
                continue
            cls = registry.find(method).cls
            assert cls is not None
            given = parse_assignments(assignments)
            overrides, chosen, config = options.split_assignments(given, cls.Config, method)
            options.build_options(chosen)
            cls.resolve_config(name, config)
            loaded.derive(overrides)


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow) if p == "docs/results.md" else p for p in PAGES],  # many reports
)
def test_the_quick_commands_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_page(page, tmp_path, monkeypatch, capsys, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if any(b.remark == "commands: slow" for b in blocks(p))])
def test_all_commands_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_page(page, tmp_path, monkeypatch, capsys, slow=True)


def run_page(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, slow: bool
) -> None:
    """Do what a page says in a folder that, as a clone does, holds the records that come with the harness."""
    shutil.copytree(ROOT / "results/reference", folder / "results/reference")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.remark.startswith("file: "):
            path = folder / block.remark.removeprefix("file: ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python" and not block.remark:
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)
        elif block.language in SHELL and (not block.remark or (slow and block.remark == "commands: slow")):
            for words in block.commands():
                run(words, f"{page}:{block.line}", capsys)


def run(words: list[str], where: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = arguments_of(words)
    assert arguments is not None, f"{where}: {words[0]} is not run; mark the block"
    code = 0
    try:
        code = cli.main(arguments)
    except SystemExit as end:  # --help
        code = int(end.code or 0)
    printed = capsys.readouterr()
    assert code == 0, f"{where}: {' '.join(words)}\n{printed.out}{printed.err}"


def test_a_remark_before_a_block_is_one_that_is_understood() -> None:
    for page in PAGES:
        for block in blocks(page):
            known = ("commands: slow", "commands: not run, ", "file: ", "recipe: ")
            assert not block.remark or block.remark.startswith(known), f"{page}:{block.line}: {block.remark}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("http"):
                continue
            file, _, anchor = target.partition("#")
            path = (ROOT / page).parent / file if file else ROOT / page
            assert path.exists(), f"{page} links to {target}"
            if anchor:
                assert anchor in anchors(path), f"{page} links to {target}"


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_stays_short() -> None:
    """What is written by hand: its table of methods grows with them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    by_hand = re.sub(r"<!-- generated: .*?<!-- end: .*?-->", "", text, flags=re.DOTALL)
    assert len(by_hand.splitlines()) <= 90
