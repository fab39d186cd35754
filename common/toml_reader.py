"""TOML tables into frozen dataclasses: every mistake is collected and named before anything starts.

Our own because the ready-made readers we tried stop at the first error or ignore unknown keys, none names the
nearest key, and the light ones start no faster than this.
"""

import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from common.errors import ConfigError, FederationError

T = TypeVar("T")
REST = {"rest": True}  # metadata of a field that takes the keys no other field has
INTERNAL = {"internal": True}  # of a field that no file sets


@dataclass
class Problems:
    """What is wrong with a file so far; `text` gives the line numbers."""

    where: str
    text: str = ""
    found: list[str] = field(default_factory=list)

    def add(self, path: str, sentence: str) -> None:
        line = _line_of(self.text, path)
        told = f"{self.where}{f' line {line}' if line else ''}: {sentence}"
        if told not in self.found:  # a run file is read for several rounds
            self.found.append(told)

    def raise_if_any(self) -> None:
        if self.found:
            raise ConfigError("\n".join(self.found))


def read(cls: type[T], table: Mapping[str, Any], problems: Problems, path: str = "") -> T | None:
    """The dataclass that the table describes; None when something was wrong and has been added to `problems`."""
    hints, known = get_type_hints(cls), {}
    rest_name = None
    for f in fields(cls):  # type: ignore[arg-type]  # callers pass dataclasses
        if f.metadata.get("rest"):
            rest_name = f.name
        elif not f.metadata.get("internal"):
            known[f.name] = f
    before = len(problems.found)
    values: dict[str, Any] = {} if rest_name is None else {rest_name: {}}
    for key, value in table.items():
        if key in known:
            values[key] = _value(hints[key], value, problems, _join(path, key))
        elif rest_name is not None:
            values[rest_name][key] = _frozen(value)
        else:
            problems.add(_join(path, key), _unknown_key(path, key, list(known)))
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            problems.add(path, f"{_join(path, name)} is missing; expected {_describe(hints[name])}")
    if len(problems.found) > before:
        return None
    try:
        return cls(**values)
    except (ValueError, FederationError) as error:  # what __post_init__ checks
        problems.add(path, f"{path or cls.__name__}: {error}")
        return None


def _value(hint: Any, value: Any, problems: Problems, path: str) -> Any:  # noqa: C901 - one branch a type
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in args:
            if option is type(None):
                continue
            trial = Problems("")
            result = _value(option, value, trial, path)
            if not trial.found:
                return result
    elif origin is Literal:
        if value in args and type(value) in {type(arg) for arg in args}:
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(args[0], item, problems, f"{path}[{i}]") for i, item in enumerate(value))
    elif origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {key: _value(args[1], inner, problems, _join(path, key)) for key, inner in value.items()}
    elif is_dataclass(hint) and isinstance(value, Mapping):
        return read(hint, value, problems, path)  # type: ignore[arg-type]  # a hint is a class
    elif hint is Any:
        return _frozen(value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint in (bool, int, str) and type(value) is hint:
        return value
    near = get_close_matches(str(value), [str(arg) for arg in args], n=1) if origin is Literal else []
    hint_text = f"; did you mean {near[0]!r}?" if near else ""
    problems.add(path, f"{path} must be {_describe(hint)}, got {_type_name(value)} {value!r}{hint_text}")
    return None


def _unknown_key(path: str, key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    place = f"[{path}]" if path else "the file"
    return f"{place} has no key {key!r}{hint} (it knows: {', '.join(sorted(known))})"


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _frozen(inner) for key, inner in value.items()}
    return value


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in args if option is not type(None))
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin is tuple:
        return f"a list of {_describe(args[0])}"
    if is_dataclass(hint) or (origin is not None and issubclass(origin, Mapping)):
        return "a table"
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    return names.get(hint, str(hint))


def _type_name(value: object) -> str:
    names = {bool: "the truth value", int: "the whole number", float: "the number", str: "the text"}
    return names.get(type(value), "a table" if isinstance(value, Mapping) else "the list")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _line_of(text: str, path: str) -> int | None:
    """The line where a dotted path is set, found by its section header and key; None when it is not there."""
    parts = [p for p in re.split(r"[.\[]", path) if not p.endswith("]")]
    section = key_line = None
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header:
            section = header.group(1)
            if parts and section == parts[0] and len(parts) == 1:
                return number
        elif section == (parts[0] if len(parts) > 1 else None) and re.match(rf"\s*{re.escape(parts[-1])}\s*=", line):
            key_line = number
            break
    return key_line
