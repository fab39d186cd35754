"""Values of a record on their way out: what a field is declared as decides how its value is written."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from common import pb
from common.errors import LocalFault
from common.payloads import PAYLOAD_TYPES
from common.store import AgentStore, Deferred
from common.wire import schema
from common.wire.limits import OWN
from common.wire.schema import Type
from common.wire.structure import Expert

Put = Callable[[Any], pb.PayloadRef]  # takes a payload or an Expert


class Writer:
    def __init__(self, put: Put) -> None:
        self.refs: list[pb.PayloadRef] = []
        self._put = put
        self._index: dict[bytes, int] = {}

    def value(self, value: Any, t: Type, path: str, depth: int) -> Any:
        """The pb.Value of a field that is declared as `t`."""
        if depth > OWN.depth:
            raise LocalFault(f"field {path} cannot be sent: expected at most {OWN.depth} nested values, got more")
        member = _member_of_value(value, schema.members(t))
        if member is None:
            raise LocalFault(f"field {path} cannot be sent: expected {schema.name(t)}, got {schema.said(value)}")
        match schema.kind(member):
            case "none":
                return pb.Value(none=True)
            case "boolean" | "integer" | "real" | "text" as kind:
                return self._scalar(kind, value, path)
            case "literal":
                return self.value(value, type(value), path, depth)
            case "payload":
                return pb.Value(payload=self._payload(value))
            case "experts":
                experts = [self._payload(Expert(node, value[node])) for node in self._keys(value, path)]
                return pb.Value(experts=pb.Experts(payloads=experts))
            case "list":
                return self._list(value, member, path, depth)
            case "map":
                item = get_args(member)[1]
                keys = self._keys(value, path)
                return _map([(key, self.value(value[key], item, f"{path}[{key!r}]", depth + 1)) for key in keys])
            case "store":
                return self._store(value, get_args(member)[0], path, depth)
            case _:
                return self._fields(value, member, path, depth)

    def _scalar(self, kind: str, value: Any, path: str) -> Any:
        if kind == "integer" and not -(2**63) <= value < 2**63:
            raise LocalFault(f"field {path} cannot be sent: expected a number of 64 bits, got {value}")
        as_python = {"boolean": bool, "integer": int, "real": float, "text": str}[kind]  # numpy scalars too
        return pb.Value(**{kind: as_python(value)})

    def _keys(self, value: Mapping[Any, Any], path: str) -> list[str]:
        for key in value:
            if not isinstance(key, str):
                raise LocalFault(f"field {path} cannot be sent: expected text as keys, got {schema.said(key)}")
        return sorted(value)

    def _payload(self, payload: Any) -> int:
        return self._ref(self._put(payload))

    def _ref(self, ref: pb.PayloadRef) -> int:
        index = self._index.setdefault(ref.sha256, len(self.refs))
        if index == len(self.refs):
            self.refs.append(ref)
        return index

    def _list(self, value: Any, t: Type, path: str, depth: int) -> Any:
        fixed, items = schema.items_of(t)
        if fixed and len(value) != len(items):
            raise LocalFault(f"field {path} cannot be sent: expected {len(items)} values, got {len(value)}")
        types = items if fixed else items * len(value)
        pairs = enumerate(zip(value, types, strict=True))
        values = [self.value(item, of, f"{path}[{i}]", depth + 1) for i, (item, of) in pairs]
        return pb.Value(list=pb.List(values=values))

    def _store(self, store: AgentStore[Any], t: Type, path: str, depth: int) -> Any:
        pairs = []
        for agent, kept in store.items_as_kept():
            if isinstance(kept, Deferred):
                pairs.append((agent, self._moved(kept.value, kept.payloads)))
            else:
                pairs.append((agent, self.value(kept, t, f"{path}[{agent!r}]", depth + 1)))
        return _map(pairs)

    def _moved(self, value: Any, refs: Any) -> Any:
        """A value of another record, never decoded, with its payloads numbered as in this one."""
        moved = pb.Value()
        moved.CopyFrom(value)
        _renumber(moved, lambda index: self._ref(refs[index]))
        return moved

    def _fields(self, value: Any, cls: type, path: str, depth: int) -> Any:
        fields = [
            pb.Field(name=name, value=self.value(getattr(value, name), t, f"{path}.{name}", depth + 1))
            for name, t in schema.fields_of(cls)
        ]
        return pb.Value(fields=pb.Fields(type=cls.__name__, fields=fields))


def _renumber(value: Any, number: Callable[[int], int]) -> None:
    match value.WhichOneof("kind"):
        case "payload":
            value.payload = number(value.payload)
        case "experts":
            value.experts.payloads[:] = [number(index) for index in value.experts.payloads]
        case "list":
            for item in value.list.values:
                _renumber(item, number)
        case "map":
            for entry in value.map.entries:
                _renumber(entry.value, number)
        case "fields":
            for field in value.fields.fields:
                _renumber(field.value, number)


def _map(pairs: list[tuple[str, Any]]) -> Any:
    return pb.Value(map=pb.Map(entries=[pb.Entry(key=key, value=value) for key, value in pairs]))


def _member_of_value(value: Any, alternatives: tuple[Type, ...]) -> Type | None:
    """The member of a union that a value is of; a whole number will do for a real one."""
    for t in alternatives:
        if is_of(value, t):
            return t
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return float if whole and float in alternatives else None


def is_of(value: Any, t: Type) -> bool:
    match schema.kind(t):
        case "none":
            return value is None
        case "boolean":
            return isinstance(value, bool | np.bool_)
        case "integer":
            return isinstance(value, int | np.integer) and not isinstance(value, bool)
        case "real":
            return isinstance(value, float | np.floating)
        case "text":
            return isinstance(value, str)
        case "literal":
            return any(value == known and type(value) is type(known) for known in get_args(t))
        case "list":
            return isinstance(value, list | tuple)
        case "map" | "experts":
            return isinstance(value, Mapping) and not isinstance(value, PAYLOAD_TYPES)
        case "store":
            return isinstance(value, AgentStore)
        case _:  # a payload or a dataclass
            return type(value) is t
