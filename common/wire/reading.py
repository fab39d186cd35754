"""Values of a record on their way in: a value is taken only as what its field is declared as."""

import math
from collections.abc import Callable
from typing import Any, get_args

from common import pb
from common.payloads import Weights
from common.store import AgentStore, Deferred
from common.wire import schema
from common.wire.limits import Limits
from common.wire.refusal import refused
from common.wire.schema import Type
from common.wire.structure import Expert
from common.wire.writing import is_of

Get = Callable[[pb.PayloadRef, Any], Any]  # with the payload's type, or a tuple of those that it may have


class Reader:
    """`get` is None when the payloads are not here yet: everything is checked and nothing is built.

    `get_kept`, if it is another, gets the payloads of an AgentStore's values when one is asked for.
    """

    def __init__(self, refs: Any, get: Get | None, limits: Limits, where: str, get_kept: Get | None = None) -> None:
        self._refs = refs
        self._get = get
        self._get_kept = get_kept or get
        self._limits = limits
        self._where = where

    def value(self, value: Any, t: Type, path: str, depth: int) -> Any:
        """What a pb.Value holds, if that is a `t`."""
        if depth > self._limits.depth:
            self._refuse(path, f"at most {self._limits.depth} nested values", "more")
        alternatives = schema.members(t)
        found = value.WhichOneof("kind")
        member: Any = _member_of_wire(value, found, alternatives)
        if member is None:
            self._refuse(path, schema.name(t), _said(value, found))
        match found:
            case "none":
                if not value.none:
                    self._refuse(path, "None to be marked by true", "false")
                return None
            case "boolean" | "integer":
                return getattr(value, found)
            case "real":
                return self._real(value.real, path)
            case "text":
                return self._text(value.text, path)
            case "payload":
                types = tuple(m for m in alternatives if schema.kind(m) == "payload")
                return self._payload(value.payload, types, path)
            case "experts":
                return self._experts(value.experts.payloads, path)
            case "list":
                return self._list(value.list.values, member, path, depth)
            case "map":
                return self._map(value.map.entries, member, path, depth)
            case _:
                return self._fields(value.fields, member, path, depth)

    def _refuse(self, path: str, expected: object, got: object) -> None:
        raise refused(self._where, f"field {path}", expected, got)

    def _real(self, value: float, path: str) -> float:
        if not (self._limits.allow_non_finite or math.isfinite(value)):
            self._refuse(path, "a finite number (the run's wire.non_finite)", value)
        return value

    def _text(self, value: str, path: str) -> str:
        size = len(value.encode())
        if size > self._limits.text_bytes:
            self._refuse(path, f"at most {self._limits.text_bytes} bytes of text", size)
        return value

    def _count(self, n: int, path: str) -> None:
        if n > self._limits.n_items:
            self._refuse(path, f"at most {self._limits.n_items} values", n)

    def _payload(self, index: int, types: tuple[type, ...], path: str) -> Any:
        if index >= len(self._refs):
            self._refuse(path, f"one of the record's {len(self._refs)} payloads", f"number {index}")
        if self._get is None:
            return None
        wanted = types[0] if len(types) == 1 else types
        payload = self._get(self._refs[index], wanted)
        if not isinstance(payload, wanted):
            self._refuse(path, " or ".join(t.__name__ for t in types), type(payload).__name__)
        return payload

    def _experts(self, indices: Any, path: str) -> dict[str, Weights]:
        experts: dict[str, Weights] = {}
        for index in indices:
            expert = self._payload(index, (Expert,), path)
            if expert is None:
                continue
            last = next(reversed(experts), "")
            if experts and expert.node <= last:
                self._refuse(path, "experts by ascending node, each once", f"{expert.node!r} after {last!r}")
            experts[expert.node] = expert.weights
        return experts

    def _list(self, values: Any, t: Type, path: str, depth: int) -> Any:
        fixed, items = schema.items_of(t)
        self._count(len(values), path)
        if fixed and len(values) != len(items):
            self._refuse(path, f"{len(items)} values", len(values))
        types = items if fixed else items * len(values)
        pairs = enumerate(zip(values, types, strict=True))
        read = [self.value(item, of, f"{path}[{i}]", depth + 1) for i, (item, of) in pairs]
        return read if schema.is_list(t) else tuple(read)

    def _map(self, entries: Any, t: Type, path: str, depth: int) -> Any:
        self._count(len(entries), path)
        item = get_args(t)[-1]
        values: dict[str, Any] = {}
        last: str | None = None
        for entry in entries:
            if last is not None and entry.key <= last:
                self._refuse(path, "ascending keys, each once", f"{entry.key!r} after {last!r}")
            last = self._text(entry.key, path)
            inner = f"{path}[{entry.key!r}]"
            if schema.kind(t) == "store" and self._get is not None:
                values[entry.key] = self._deferred(entry.value, item, inner, depth + 1)
            else:
                values[entry.key] = self.value(entry.value, item, inner, depth + 1)
        return AgentStore(values) if schema.kind(t) == "store" else values

    def _deferred(self, value: Any, t: Type, path: str, depth: int) -> Deferred[Any]:
        later = Reader(self._refs, self._get_kept, self._limits, self._where)
        return Deferred(value, self._refs, lambda: later.value(value, t, path, depth))

    def _fields(self, message: Any, cls: type, path: str, depth: int) -> Any:
        expected = schema.fields_of(cls)
        names = [name for name, _ in expected]
        got = [field.name for field in message.fields]
        if got != names:
            self._refuse(path, f"the fields {', '.join(names) or 'of an empty record'}", _difference(names, got))
        read = {
            field.name: self.value(field.value, t, f"{path}.{field.name}", depth + 1)
            for field, (_, t) in zip(message.fields, expected, strict=True)
        }
        if self._get is None:
            return None
        try:
            return cls(**read)
        except ValueError as error:
            raise refused(self._where, f"record {path}", "values that its class takes", error) from error


def _difference(names: list[str], got: list[str]) -> str:
    for name in got:
        if name not in names:
            return f"unknown field {name!r}"
        if got.count(name) > 1:
            return f"field {name!r} {got.count(name)} times"
    missing = [name for name in names if name not in got]
    return f"no field {missing[0]!r}" if missing else "them in another order"


def _member_of_wire(value: Any, found: str | None, alternatives: tuple[Type, ...]) -> Type | None:
    """The member of a union that a pb.Value is of."""
    for t in alternatives:
        k = schema.kind(t)
        if k == "literal":
            if found in ("boolean", "integer", "text") and is_of(getattr(value, found), t):
                return t
        elif k == "fields":
            if found == "fields" and value.fields.type == t.__name__:
                return t
        elif ("map" if k == "store" else k) == found:
            return t
    return None


def _said(value: Any, found: str | None) -> str:
    match found:
        case None:
            return "nothing"
        case "none":
            return "None"
        case "fields":
            return f"a {value.fields.type}"
        case "boolean" | "integer" | "real" | "text":
            return schema.said(getattr(value, found))
        case _:
            return f"a value of kind {found}"
