"""Anonymity: leaves out of records what tells where, or by whom, they were made, before a report draws them.

Absolute paths, host and user names never reach a report unless they are asked for; an anonymous one, for a
double-blind review, tells neither code version, kernel, senders nor papers of one's own either. Everything that
shows records is handed what is left of them, so that no form of output needs to care. A name that somebody gave
to a method, a variant, a protocol or a class is shown as it is.
"""

from __future__ import annotations

import copy
import dataclasses
import getpass
import hashlib
import re
import shlex
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

from vcil_bench.options import RESULT_NEUTRAL
from vcil_bench.origin import ELSEWHERE, Origin
from vcil_bench.record import Record
from vcil_bench.record_schema import RecordData


class Telling(Enum):
    """How much a report tells of where records were made."""

    EVERYTHING = "everything"
    NO_PATHS = "no paths"
    ANONYMOUS = "anonymous"


HIDDEN = "..."
# Files whose names say what was run; folders are named after people and machines.
SHOWN_FILES = {
    ".py",
    ".yaml",
    ".yml",
    ".json",
    ".npz",
    ".csv",
    ".pt",
    ".pth",
    ".bin",
    ".safetensors",
    ".mp4",
    ".avi",
}
# Parts of a record that hold free text, in which a user or a host may be named.
FREE_TEXT = {"environment", "sessions", "reason", "data", "options", "config", "weights"}
TELLING_KEY = re.compile(r"host|user|node|login|home|cwd|pwd|mail|remote|address|author|path", re.IGNORECASE)
# What an anonymous report tells of an environment; the rest names a version of one's own or a machine.
HARMLESS = {
    *("vcil_bench", "python", "torch", "open_clip", "timm", "av", "cuda", "cudnn", "device", "device_type"),
    *("device_memory_mb", "threads", "processes", "precision", "determinism", "command"),
}
# Names that so many machines have that they name nobody.
ANYBODY = {
    *("root", "user", "users", "home", "data", "public", "shared", "ubuntu", "admin", "runner", "localhost"),
    *("git", "github", "gitlab", "bitbucket", "www"),
}

_END = r"\s'\"`,;:()\[\]{}<>|="  # what cannot be part of a path in a sentence
_PATH = re.compile(
    rf"""
    file:/[^{_END}]*                                     # an address of this machine
    | (?<![A-Za-z0-9])[A-Za-z]:[\\/][^{_END}]*           # C:\\...
    | \\\\[\w.-]+\\[^{_END}]*                            # \\\\server\\...
    | (?<![\w/])~[\w.-]*/[^{_END}]*                      # ~/... and ~somebody/...
    | (?<![\w.~/-])(?:\.\./)+[^{_END}]*                  # ../...
    | (?<![\w.~/-])/(?=[^\s/{_END}])[^{_END}]*           # /..., also behind a colon, but not in an address
    """,
    re.VERBOSE,
)
_QUOTED = re.compile(r"(['\"])((?:~[\w.-]*)?/[^'\"/][^'\"]*|[A-Za-z]:[\\/][^'\"]*)\1")
_WHOLE = re.compile(r"file:/.*|~[\w.-]*/.*|/[^/].*|(?:\.\./).*|[A-Za-z]:[\\/].*|\\\\.*", re.DOTALL)
_ADDRESS = re.compile(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)*)(?::[^\s'\"]*)?")  # mail, or a remote of git
_IN_VARIANT = re.compile(r"=_[A-Za-z0-9._=+-]*(-[0-9a-f]{8})")  # a path, as the name of a variant writes it
_SENDER = re.compile(rf"({ELSEWHERE}/)[^/\s]+")
_HOME = re.compile(r"(?:^|[/\\])(?:home|Users)[/\\]([^/\\\s'\"]+)|~([\w.-]+)/|([\w.+-]+)@([\w-]+)")


class Cover:
    """Covers what records tell of machines and people."""

    def __init__(self, telling: Telling, results: Path, records: Sequence[Record]) -> None:
        """Learn from all records what there is to cover.

        Args:
            telling: How much is told.
            results: Folder of the records.
            records: All of them.
        """
        self._telling = telling
        self._names: re.Pattern[str] | None = None
        self._known: list[tuple[re.Pattern[str], str]] = []
        if telling is Telling.EVERYTHING:
            return
        folders: set[str] = set()
        names = {_own(getpass.getuser), _own(socket.gethostname), _own(socket.gethostname).partition(".")[0]}
        for record in records:
            for text in _texts(record.data):
                if " " in text and _WHOLE.fullmatch(text) and ": " not in text:
                    folders.add(text)  # or a sentence that holds it would be taken to end it at the blank
                for match in _HOME.findall(text):
                    names |= set(match)
            for session in (record.data, *record.data["sessions"]):
                for key, value in session["environment"].items():
                    if TELLING_KEY.search(key) and isinstance(value, str) and re.fullmatch(r"[\w.@-]+", value):
                        names |= {value, value.partition(".")[0]}
        here = {str(results), str(results.absolute()), str(results.resolve())}
        shown = {path: HIDDEN for path in folders} | {path: "results" for path in here}
        self._known = [
            (re.compile(rf"(?<![\w/]){re.escape(path)}(?![\w-])"), shown[path])
            for path in sorted(shown, key=lambda path: (-len(path), path))
            if _WHOLE.fullmatch(path)
        ]
        chosen = [name for name in names if len(name) > 2 and name.lower() not in ANYBODY]
        if chosen:
            text = "|".join(map(re.escape, sorted(chosen, key=lambda name: (-len(name), name))))
            self._names = re.compile(rf"(?<![A-Za-z0-9])(?:{text})(?![A-Za-z0-9])")
        senders = sorted({record.origin.name for record in records if record.origin is not None})
        self._senders = {name: f"other-{number}" for number, name in enumerate(senders, start=1)}

    def records(self, records: Iterable[Record]) -> list[Record]:
        """Return what a report may show of records; each still knows what its file says."""
        return [self._record(record) for record in records]

    def text(self, text: str) -> str:
        """Return a sentence without paths and names."""
        if self._telling is Telling.EVERYTHING:
            return text
        for path, instead in self._known:
            text = path.sub(instead, text)
        text = _QUOTED.sub(lambda match: match[1] + self._path(match[2]) + match[1], text)
        text = _PATH.sub(lambda match: self._path(match[0]), text)
        text = _IN_VARIANT.sub(rf"={HIDDEN}\1", text)
        if self._telling is Telling.ANONYMOUS:
            text = _SENDER.sub(rf"\1{HIDDEN}", text)
        return self._without_names(_ADDRESS.sub(HIDDEN, text))

    def _record(self, record: Record) -> Record:
        if self._telling is Telling.EVERYTHING:
            return record
        data = cast("dict[str, Any]", copy.copy(record.data))
        free = (
            FREE_TEXT if record.data["protocol"]["origin"].startswith("protocols/") else FREE_TEXT | {"protocol"}
        )
        for key, value in data.items():
            data[key] = self._covered(value, free=key in free)
        shown = cast("RecordData", data)
        for session in (shown, *shown["sessions"]):
            session["environment"] = self._environment(session["environment"])  # type: ignore[typeddict-item]
        self._rename(shown, record.data)
        origin = record.origin
        if self._telling is Telling.ANONYMOUS:
            _anonymise(shown, record.data)
            if origin is not None:
                name = self._senders[origin.name]
                origin = Origin(name=name, who="", source="", received="", checked=origin.checked)
        elif origin is not None:
            origin = dataclasses.replace(origin, who=self.text(origin.who), source=self.text(origin.source))
        return Record(record.path, shown, origin, record.data)

    def _covered(self, value: Any, *, free: bool, key: str = "") -> Any:
        """Return a value without paths and, in free text, without names."""
        if isinstance(value, str):
            if key == "command":
                return self._command(value)
            if not _may_tell(value):
                return self._without_names(value) if free else value
            if _WHOLE.fullmatch(value) and (key or " " not in value) and "\n" not in value and ": " not in value:
                return self._path(value)
            return self.text(value) if free else self._sentence(value)
        if isinstance(value, Mapping):
            return {self._sentence(k): self._covered(v, free=free, key=k) for k, v in value.items()}
        if isinstance(value, list) and value and not isinstance(value[0], int | float):
            return [self._covered(each, free=free) for each in value]
        return value

    def _sentence(self, text: str) -> str:
        """Return text without paths, the names of people left, since methods and variants may have them."""
        if not _may_tell(text):
            return text
        text = _QUOTED.sub(lambda match: match[1] + self._path(match[2]) + match[1], text)
        return _PATH.sub(lambda match: self._path(match[0]), text)

    def _command(self, line: str) -> str:
        """Return a command line without paths and names, word by word: a path may hold blanks."""
        try:
            words = shlex.split(line)
        except ValueError:
            return self.text(line)
        if "\\" in line and shlex.join(words) != line:  # typed on Windows: the shell's rules would eat it
            return self.text(line)
        return shlex.join(self._word(word) for word in words)

    def _word(self, word: str) -> str:
        before, equals, value = word.partition("=")
        if equals and _WHOLE.fullmatch(value):
            return f"{before}={self._path(value)}"
        return self._path(word) if _WHOLE.fullmatch(word) else self.text(word)

    def _path(self, path: str) -> str:
        """Return what is shown of a path: of some files their name."""
        windows = "\\" in path or re.match(r"[A-Za-z]:", path) is not None
        name = (PureWindowsPath if windows else PurePosixPath)(path).name
        suffix = PurePosixPath(name).suffix.lower()
        if self._telling is Telling.ANONYMOUS or suffix not in SHOWN_FILES:
            return HIDDEN
        return f"{HIDDEN}/{self._without_names(name)}"

    def _without_names(self, text: str) -> str:
        return text if self._names is None else self._names.sub(HIDDEN, text)

    def _environment(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        if self._telling is Telling.ANONYMOUS:
            hidden = {"git": None, "dirty": None}
            return {key: value for key, value in environment.items() if key in HARMLESS} | hidden
        return {key: value for key, value in environment.items() if not TELLING_KEY.search(key)}

    def _rename(self, shown: RecordData, written: RecordData) -> None:
        """Name a variant anew that is named after a path, its hash kept, and what is named after the variant."""
        given = {
            key: setting["value"]
            for section in (written["options"], written["config"])
            for key, setting in section.items()
            if setting["origin"] == "command line" and key not in RESULT_NEUTRAL
        }
        if any(_WHOLE.fullmatch(str(value)) for value in given.values()):
            values = {key: self._word(str(value)).replace(HIDDEN, "") for key, value in given.items()}
            text = "+".join(f"{key}={value.strip('/')}" for key, value in sorted(values.items()))
            clean = re.sub(r"[^A-Za-z0-9._=+-]+", "_", text)
            shown["variant"] = f"{clean[:70]}-{hashlib.sha256(written['variant'].encode()).hexdigest()[:8]}"
        protocol, method = shown["protocol"]["label"], shown["method"]["name"]
        shown["run_id"] = f"{protocol}/{method}/{shown['variant']}-s{shown['seed']}"
        if shown["predictions"] is not None:
            shown["predictions"]["file"] = f"{shown['variant']}-s{shown['seed']}.npz"


def _anonymise(shown: RecordData, written: RecordData) -> None:
    """Take out what names the authors of a method, a protocol or weights of their own."""
    method, protocol, weights = shown["method"], shown["protocol"], shown["weights"]
    if written["method"]["origin"] != "built-in":
        method["paper"] = ""
        method["file"] = f"{method['name']}.py"
        method["distribution"] = method["version"] = None
    if not written["protocol"]["origin"].startswith("protocols/"):
        protocol["origin"] = f"{protocol['name']}.yaml"
        spec = cast("dict[str, Any]", protocol["spec"])
        spec |= {key: "" for key in ("source", "notes") if key in spec}
    if weights["source"] != written["weights"]["source"]:  # a file, told apart by its content
        weights["source"] = f"file-{weights['sha256'][:8]}"


def _may_tell(text: str) -> bool:
    return "/" in text or "\\" in text or "@" in text


def _own(ask: Any) -> str:
    """Return a name of this machine, or nothing where it has none."""
    try:
        return str(ask())
    except (OSError, KeyError, ImportError):  # a user without an entry
        return ""


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts of a record that may tell."""
    if isinstance(value, str):
        if _may_tell(value):
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list) and value and not isinstance(value[0], int | float):
        for inner in value:
            yield from _texts(inner)
