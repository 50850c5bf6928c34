"""The table of sources (``sources.yaml``): where datasets are published, in which files, under which licence."""

from __future__ import annotations

import functools
import importlib.resources
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from vcil_bench.common.errors import did_you_mean

from .errors import FetchError
from .layout import Rule, member_path

DEFAULT_EXPANDS = 1.25  # videos do not get smaller by packing


@dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        name: Its path on a mirror, which keeps the files of a dataset below one address.
        url: Its address.
        read: Where the address, its size and hash were read.
        rule: Where it goes, or its members, if it is an archive.
        size: Its bytes, None where they are not known exactly.
        about: Its bytes, roughly.
        digest: Its published hash, see ``Wanted``; "" where none is.
        expands: How many times its size its content has at most.
        lists_archives: Whether it holds the addresses of archives, one a line, to which ``rule`` applies.
    """

    name: str
    url: str
    read: str
    rule: Rule
    size: int | None = None
    about: int = 0
    digest: str = ""
    expands: float = DEFAULT_EXPANDS
    lists_archives: bool = False


@dataclass(frozen=True)
class Given:
    """Files that a user downloads with an account.

    Attributes:
        pattern: Of their names, as a shell writes it.
        rule: Where they go, or their members, if they are archives.
        expands: How many times its size the content of one has at most.
        pieces: Whether the members are pieces of an archive.
        joined: Whether they, and those pieces, joined by name, are one tar.
    """

    pattern: str
    rule: Rule
    expands: float = DEFAULT_EXPANDS
    pieces: bool = False
    joined: bool = False


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from.

    Attributes:
        name: What ``fetch`` takes.
        title: What it is.
        page: The publishers' page.
        licence: What is known of its licence, and where.
        tried: Which of the addresses were reached when the table was made.
        files: What can be downloaded.
        account: What a user does to get it, where that needs an account; "" for the others.
        given: What is downloaded so.
    """

    name: str
    title: str
    page: str
    licence: str
    tried: str
    files: tuple[Remote, ...] = ()
    account: str = ""
    given: tuple[Given, ...] = ()


@functools.cache
def sources() -> Mapping[str, Source]:
    """Return the table by name."""
    text = (importlib.resources.files("vcil_bench.fetch") / "sources.yaml").read_text(encoding="utf-8")
    return {name: _source(name, entry) for name, entry in yaml.safe_load(text).items()}


def source(name: str) -> Source:
    """Return where a dataset comes from.

    Raises:
        FetchError: It is not in the table.
    """
    table = sources()
    if name not in table:
        raise FetchError(
            f"no source of {name!r}{did_you_mean(name, table)}; known: {', '.join(table)}, weights; other data "
            "are read where they lie: vcil-bench prepare folder ROOT"
        )
    return table[name]


def mirrored(file: Remote, mirror: str | None) -> Remote:
    """Return a file with its address on a mirror, if there is one."""
    if mirror is None:
        return file
    return replace(file, url=f"{mirror.rstrip('/')}/{urllib.parse.quote(file.name)}")


def listed_archives(file: Remote, text: str, mirror: str | None) -> list[Remote]:
    """Return the archives that a list names.

    Args:
        file: The list; on a mirror they lie beside it.
        text: Its content.
        mirror: The mirror, if there is one.

    Raises:
        FetchError: A line is no address.
        Hostile: It names no file.
    """
    folder = file.name.rpartition("/")[0]
    archives = []
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), start=1):
        last = urllib.parse.unquote(urllib.parse.urlsplit(line).path).rpartition("/")[2]
        if not re.match(r"https?://[^/\s]+/\S+$", line) or not last:
            raise FetchError(f"{file.url}, line {number}: {line[:80]!r} is no address; {_no_list(file)}")
        name = str(member_path(f"{folder}/{last}" if folder else last, file.name))
        archives.append(
            mirrored(Remote(name, line, f"listed in {file.name}", file.rule, expands=file.expands), mirror)
        )
    if not archives:
        raise FetchError(f"{file.url}: names no archive; {_no_list(file)}")
    return archives


def _no_list(file: Remote) -> str:
    return f"is it the publishers' {file.name}? Take it from elsewhere with --mirror URL or --from FOLDER"


def _source(name: str, entry: dict[str, Any]) -> Source:
    return Source(
        name,
        entry["title"],
        entry["page"],
        entry["licence"],
        entry["tried"],
        tuple(_remote(file) for file in entry.get("files", ())),
        entry.get("account", ""),
        tuple(Given(**_with_rule(given)) for given in entry.get("given", ())),
    )


def _remote(entry: dict[str, Any]) -> Remote:
    entry = dict(entry)
    entry["digest"] = entry.pop("hash", "")
    return Remote(**_with_rule(entry))


def _with_rule(entry: dict[str, Any]) -> dict[str, Any]:
    """Gather what says where members go."""
    entry = dict(entry)
    keys = ("into", "flat", "suffixes", "replaces")
    rule = {key: entry.pop(key) for key in keys if key in entry}
    rule = {key: tuple(value) if isinstance(value, list) else value for key, value in rule.items()}
    return {**entry, "rule": Rule(**rule)}
