"""Which types the fields of a record may have, and the id by which two builds know that they agree on them.

bool, int, float, str, Literal; payloads; frozen dataclasses; X | None and other unions whose members can be told apart;
list[X], tuple[X, ...], tuple[X, Y], dict[str, X], Mapping[str, X]; dict[str, Weights], which are experts by taxonomy
node; AgentStore[X].
"""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_type_hints
from typing import get_origin as _get_origin

from common.errors import LocalFault
from common.payloads import PAYLOAD_TYPES, Weights
from common.store import AgentStore

SCALARS: dict[type, str] = {bool: "boolean", int: "integer", float: "real", str: "text"}  # and their Value kind

Type = Any  # a class, or what typing makes of several: there is no static type for both


def get_origin(t: Type) -> Any:  # typing's own result type leaves out most of what it returns
    return _get_origin(t)


def schema_id(*types: Type) -> bytes:
    """SHA-256 over names and types of all fields, at any depth; of several records, for all of them together."""
    return hashlib.sha256("\n".join(text(t) for t in types).encode()).digest()


@lru_cache(maxsize=1024)
def text(t: Type) -> str:
    """The type as text, every dataclass written out where it first stands."""
    return _text(t, frozenset())


@lru_cache(maxsize=1024)
def fields_of(cls: type) -> tuple[tuple[str, Type], ...]:
    """Names and types of a dataclass's fields, in order."""
    hints = get_type_hints(cls)
    return tuple((field.name, hints[field.name]) for field in fields(cls) if field.init)


@lru_cache(maxsize=4096)
def members(t: Type) -> tuple[Type, ...]:
    """The members of a union, nested ones too; of anything else, itself."""
    if get_origin(t) in (Union, UnionType):
        return tuple(inner for member in get_args(t) for inner in members(member))
    return (t,)


@lru_cache(maxsize=4096)
def kind(t: Type) -> str:
    """Which kind of pb.Value carries a type that is no union; "store" and "literal" are told apart further on."""
    origin = get_origin(t)
    if t in SCALARS:
        return SCALARS[t]
    if t is NoneType:
        return "none"
    if t in PAYLOAD_TYPES:
        return "payload"
    if origin is Literal:
        return "literal"
    if origin in (list, tuple) and get_args(t):
        return "list"
    if origin in (dict, Mapping) and get_args(t)[0] is str:
        return "experts" if get_args(t)[1] is Weights else "map"
    if origin is AgentStore:
        return "store"
    if isinstance(t, type) and is_dataclass(t):
        return "fields"
    raise LocalFault(
        f"type {t} cannot be part of a record: expected a scalar, a payload, a dataclass, or lists and dicts of them"
        " with text as keys (arrays travel inside payloads)"
    )


def name(t: Type) -> str:
    """The type for people, dataclasses by name alone."""
    return " or ".join(_name(member) for member in members(t))


def said(value: object) -> str:
    """A value for people: itself when it is short, else its type."""
    shown = repr(value)
    return shown if value is None or (type(value) in SCALARS and len(shown) <= 60) else f"a {type(value).__name__}"


def items_of(t: Type) -> tuple[bool, tuple[Type, ...]]:
    """Of list[X] and tuple[X, ...]: (False, (X,)), any number of them; of tuple[X, Y]: (True, (X, Y))."""
    arguments = get_args(t)
    if get_origin(t) is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return True, arguments
    return False, arguments[:1]


def is_list(t: Type) -> bool:
    return get_origin(t) is list


def _name(member: Type) -> str:
    match kind(member):
        case "none":
            return "None"
        case "literal":
            return " or ".join(repr(value) for value in get_args(member))
        case _:
            return str(member.__name__)


def _text(t: Type, outer: frozenset[type]) -> str:
    alternatives = members(t)
    if len(alternatives) > 1:
        _check_distinct(t, alternatives)
        return "|".join(sorted(_text(member, outer) for member in alternatives))
    match kind(t):
        case "literal":
            return f"Literal[{','.join(repr(value) for value in get_args(t))}]"
        case "list":
            fixed, items = items_of(t)
            inner = ",".join(_text(item, outer) for item in items)
            return f"{get_origin(t).__name__}[{inner}{'' if fixed else ',...'}]"
        case "map" | "store" as k:
            return f"{k}[{_text(get_args(t)[-1], outer)}]"
        case "fields":
            if t in outer:
                return str(t.__name__)
            inner = ",".join(f"{name}:{_text(field, outer | {t})}" for name, field in fields_of(t))
            return f"{t.__name__}({inner})"
        case "none" | "experts" as k:
            return k
        case _:
            return str(t.__name__)


def _check_distinct(t: Type, alternatives: tuple[Type, ...]) -> None:
    """On the wire a member of a union is known by its kind, a dataclass by its name, a payload by its type."""
    seen: set[str] = set()
    for member in alternatives:
        k = {"store": "map"}.get(kind(member), kind(member))
        tag = f"{k} {member.__name__}" if k in ("fields", "payload") else k
        if tag in seen:
            raise LocalFault(f"type {t} cannot be part of a record: two of its members look alike on the wire ({tag})")
        seen.add(tag)
