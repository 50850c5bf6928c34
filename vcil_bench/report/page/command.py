"""Command line of a record: writes the words that make the run anew, quoted for a shell."""

from __future__ import annotations

import json
import math
import shlex
from typing import Any

import yaml

from vcil_bench.common.config import parse_assignments
from vcil_bench.common.errors import UserError
from vcil_bench.record import Record


def command(record: Record) -> str:
    """Return the command line that makes a record anew, quoted for a shell."""
    data = record.data
    method, protocol = data["method"], data["protocol"]
    words = [
        *("vcil-bench", "run"),
        method["file"] if method["origin"] == "file" else method["name"],
        record.protocol_reference,
        *("--seed", str(data["seed"])),
    ]
    if data["data"]["kind"] != "synthetic":
        words += ["--data", data["data"]["root"]]
    given = {f"protocol.{key}": value for key, value in protocol["overrides"].items()}
    for section in (data["options"], data["config"]):
        given |= {
            key: setting["value"] for key, setting in section.items() if setting["origin"] == "command line"
        }
    if given:
        words += ["--set", *(f"{key}={_assigned(value)}" for key, value in given.items())]
    return shlex.join(str(word) for word in words)


def _assigned(value: Any) -> str:
    """Return a value as ``--set`` reads it back: YAML takes JSON's 1e-05 for a text, for one."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
    for text in (str(value), json.dumps(value, ensure_ascii=False), dumped.removesuffix("\n...\n").strip()):
        try:
            back = parse_assignments([f"key={text}"])["key"]
        except UserError:
            continue
        if type(back) is type(value) and back == value:
            return text
    return json.dumps(value)
