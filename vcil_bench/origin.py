"""Origin of records that were made elsewhere: who sent them, from where, and when they came.

They lie in ``results/elsewhere/NAME/``, laid out as any results folder is, with ``origin.yaml`` beside them.
Whatever shows their numbers shows the name with them.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from .common.config import ConfigError, build, read_yaml
from .common.files import write_atomically

ELSEWHERE = "elsewhere"  # folder below the results
FILE = "origin.yaml"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # part of a folder's name, of figures' names and of command lines


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where records come from.

    Attributes:
        name: Short name, the folder's; it stands beside every number.
        who: Who made the records.
        source: Where they were had from: an address, a paper, a message.
        received: Day on which they came, ``YYYY-MM-DD``.
        checked: The version of vcil-bench that checked them when they came; empty if none did.
        unchecked: The checks for which something was not there.
    """

    name: str
    who: str
    source: str
    received: str
    checked: str = ""
    unchecked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse a name that could not stand where names of origins stand."""
        if not re.fullmatch(NAME, self.name):
            raise ConfigError(f"name: {self.name!r} must be letters, digits, '.', '_' and '-'")

    @property
    def note(self) -> str:
        """The origin in words, for tables."""
        words = f"run elsewhere: {self.name}"
        if self.who:
            words += f" ({self.who})"
        return words if self.checked else f"{words}, not checked here"


def read(folder: Path) -> Origin:
    """Read the origin of a folder of records.

    Raises:
        ConfigError: There is no such file, it breaks the schema, or it names another folder.
    """
    path = folder / FILE
    if not path.is_file():
        raise ConfigError(
            f"{path}: not there, so nobody knows whose records these are, and none is read; bring them in with "
            "'vcil-bench import-records', or write the file"
        )
    origin = build(Origin, read_yaml(path), str(path))
    if origin.name != folder.name:
        raise ConfigError(f"{path}: name: {origin.name!r} is not the folder's, {folder.name!r}")
    return origin


def write(folder: Path, origin: Origin) -> None:
    """Write the origin of a folder of records."""
    text = yaml.safe_dump(dataclasses.asdict(origin), sort_keys=False, allow_unicode=True)
    write_atomically(folder / FILE, text.encode())
