"""Closed, typed configuration: one reader for protocol files, method configs and run options.

A typo in a key must never silently become a default value, so every mapping is read into a frozen dataclass
whose fields are the only keys allowed and whose annotations are checked. Errors name the key, the allowed
ones and the place the value came from.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from .errors import UserError, did_you_mean

LARGEST_NUMBER = 2**53  # beyond it JavaScript, which shows records, rounds whole numbers
SMALLEST_FLOAT32, LARGEST_FLOAT32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # of the normal ones
T = TypeVar("T")


class ConfigError(UserError):
    """A key that is unknown or missing, or a value of the wrong type."""


class _StrictLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice, which plain YAML resolves silently, and aliases.

    A few lines of aliases stand for billions of values, so that a file from elsewhere could fill the memory.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not allowed, write the value out", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text or a number", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold one mapping.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or is not a mapping at its top.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        what = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{path}{line}: malformed YAML ({what})") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: malformed YAML (nested too deeply)") from error
    except ValueError as error:  # a date such as 2020-99-99
        raise ConfigError(f"{path}: malformed YAML ({error})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, found {type(data).__name__}")
    return data


def fields_of(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the dataclass fields of ``cls`` by name."""
    return {field.name: field for field in dataclasses.fields(cls)}


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make a ``cls`` from a mapping, refusing unknown and missing keys, wrong types and what it refuses itself.

    Args:
        cls: A dataclass; nested dataclasses are built from nested mappings.
        values: Keys and raw values, as YAML gives them.
        where: Says in errors where the mapping came from, for instance a file and a section.

    Raises:
        ConfigError: Names the key or value, the allowed ones and ``where``.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping, found {values!r}")
    fields = fields_of(cls)
    allowed = ", ".join(fields)
    for key in values:
        if key not in fields:
            hint = did_you_mean(str(key), fields)
            raise ConfigError(f"{where}: unknown key {key!r}{hint}; allowed keys: {allowed}")
    hints = typing.get_type_hints(cls)
    made = {}
    for name, field in fields.items():
        if name in values:
            made[name] = convert(values[name], hints[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: missing key {name!r}; allowed keys: {allowed}")
    try:
        return cls(**made)
    except ConfigError as error:  # of its own checks, which know the keys alone
        raise ConfigError(f"{where}: {error}") from error


def convert(value: Any, annotation: Any, where: str) -> Any:
    """Check ``value`` against a type annotation and return it, converting only what is exact.

    Integers are taken for floats, numeric text for floats (YAML reads ``1e4`` as text) and lists for tuples;
    nothing else is converted.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        if value is False and "off" in args:
            return "off"  # which YAML reads as false
        if value in args and type(value) in {type(arg) for arg in args}:
            return value
        choices = ", ".join(str(arg) for arg in args)
        hint = did_you_mean(str(value), [str(arg) for arg in args])
        raise ConfigError(f"{where}: {value!r} is not allowed{hint}; allowed values: {choices}")
    if origin in (Union, types.UnionType):
        sections = [option for option in args if dataclasses.is_dataclass(option)]
        if sections and isinstance(value, Mapping):
            return convert(value, sections[0], where)  # so that its own errors name the key
        for option in args:
            try:
                return convert(value, option, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where}: {value!r} is not {_describe(annotation)}")
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return value if isinstance(value, annotation) else build(annotation, value, where)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        items = [convert(item, args[0], f"{where}[{i}]") for i, item in enumerate(value)]
        return origin(items)
    if origin is dict and isinstance(value, Mapping):
        return {
            convert(key, args[0], f"{where} key {key!r}"): convert(item, args[1], f"{where}.{key}")
            for key, item in value.items()
        }
    if annotation is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            if math.isfinite(number := float(value)):
                return number
        except (ValueError, OverflowError):  # a whole number may be too large for a float
            pass
    elif (
        annotation in (int, str, bool, type(None))
        and isinstance(value, annotation)
        and (annotation is not int or (not isinstance(value, bool) and abs(value) < LARGEST_NUMBER))
    ):
        return value
    raise ConfigError(f"{where}: {value!r} is not {_describe(annotation)}")


def check_numbers(
    config: Any,
    *,
    positive: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    below_one: Sequence[str] = (),
) -> None:
    """Refuse numbers of a config that no run can use; ``below_one`` means 0 <= x < 1.

    Raises:
        ConfigError: Names the key, its value and the bound.
    """
    bounds: list[tuple[Sequence[str], Callable[[float], bool], str]] = [
        (positive, lambda x: x > 0, "greater than 0"),
        (not_negative, lambda x: x >= 0, "0 or greater"),
        (below_one, lambda x: 0 <= x < 1, "at least 0 and below 1"),
    ]
    for keys, holds, text in bounds:
        for key in keys:
            value = getattr(config, key)
            if isinstance(value, float) and math.isfinite(value) and not _fits_float32(value):
                raise ConfigError(
                    f"{key}: {value} is nothing that numbers of 32 bits can hold; they reach from 1.2e-38 to "
                    "3.4e38"
                )
            if not (holds(value) and math.isfinite(value)):
                finite = "" if math.isfinite(value) else "finite, "
                raise ConfigError(f"{key}: {value} must be {finite}{text}")


def _fits_float32(value: float) -> bool:
    """Tell whether a number stays itself, but for its last digits, where tensors compute."""
    return value == 0 or SMALLEST_FLOAT32 <= abs(value) <= LARGEST_FLOAT32


def _describe(annotation: Any) -> str:
    """Name a type annotation in a user's words."""
    names = {
        int: "a whole number below 2^53",
        float: "a finite number",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    if annotation in names:
        return names[annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (list, tuple):
        return f"a list, each item {_describe(args[0])}"
    if origin is dict:
        return "a mapping"
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if args:
        return " or ".join(_describe(arg) for arg in args)
    return f"a mapping ({annotation.__name__})"


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Turn ``key=value`` texts of the command line into a mapping; values are read as YAML.

    Raises:
        ConfigError: A text has no ``=``, an empty key, a key twice, or a value that is not YAML.
    """
    parsed: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise ConfigError(f"--set {text!r}: expected key=value")
        if key in parsed:
            raise ConfigError(f"--set {key!r} is given twice")
        if value == "{}":  # a text template far likelier than an empty section
            parsed[key] = value
            continue
        try:
            parsed[key] = yaml.safe_load(value) if value else ""
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"--set {text!r}: the value is not valid YAML") from error
        except RecursionError as error:
            raise ConfigError(f"--set {key}: the value, {value[:20]}..., is nested too deeply") from error
    return parsed
