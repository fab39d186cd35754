"""Records: frozen dataclasses as pb.Record, their scalars inside, their payloads by content.

A record is decoded against the class that the reader has; whatever does not fit is refused, with the field's name.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any

from common import pb
from common.wire import schema
from common.wire.canonical import check_ref
from common.wire.limits import OWN, Limits
from common.wire.reading import Get, Reader
from common.wire.refusal import check_known, refused
from common.wire.schema import Type, schema_id
from common.wire.writing import Put, Writer

__all__ = ["check", "decode", "digest", "encode", "payload_fields", "schema_id"]


def encode(obj: Any, put: Put) -> pb.Record:
    """The record of a dataclass; `put` keeps each payload somewhere and says what its content is called."""
    cls = type(obj)
    writer = Writer(put)
    value = writer.value(obj, cls, cls.__name__, 0)
    return pb.Record(schema=schema_id(cls), fields=value.fields, payloads=writer.refs)


def decode(
    cls: Type, record: pb.Record, get: Get, *, where: str = "", limits: Limits = OWN, get_kept: Get | None = None
) -> Any:
    """The dataclass that a record holds, one of the members if `cls` is a union.

    `get_kept` is for what an AgentStore reads when it is asked; without, `get` is.

    Raises:
        RemoteFault: it is no record of such a class, or breaks a limit.
    """
    return _read(cls, record, get, where, limits, get_kept)


def check(cls: Type, record: pb.Record, *, where: str, limits: Limits) -> None:
    """Refuse what `decode` would refuse, before any payload is here."""
    _read(cls, record, None, where, limits)


def digest(record: pb.Record) -> bytes:
    """The identity of a record and, as payloads stand in it by content, of all that it holds."""
    return hashlib.sha256(record.SerializeToString(deterministic=True)).digest()


def payload_fields(record: pb.Record) -> tuple[str, ...]:
    """For each payload of the record, the field where it first stands, for texts that people read."""
    names = ["an unused payload"] * len(record.payloads)
    for index, path in reversed(list(_uses(pb.Value(fields=record.fields), record.fields.type))):
        if index < len(names):
            names[index] = path
    return tuple(names)


def _read(
    cls: Type, record: pb.Record, get: Get | None, where: str, limits: Limits, get_kept: Get | None = None
) -> Any:
    member = _member(cls, record, where)
    check_known(record, where=where)
    _check_refs(record.payloads, limits, where)
    value = pb.Value(fields=record.fields)
    obj = Reader(record.payloads, get, limits, where, get_kept).value(value, member, member.__name__, 0)
    used = {index for index, _ in _uses(value, "")}
    for index in range(len(record.payloads)):
        if index not in used:
            raise refused(where, "payloads of a record", "a field for each", f"number {index} that no field has")
    return obj


def _member(cls: Type, record: pb.Record, where: str) -> type:
    """The class, or the member of a union, that a record says it is of; its schema must be ours."""
    named = {member.__name__: member for member in schema.members(cls)}
    member: type | None = named.get(record.fields.type)
    if member is None or not is_dataclass(member):
        raise refused(where, "record", " or ".join(named), repr(record.fields.type))
    if record.schema != schema_id(member):
        expected, got = schema_id(member).hex()[:16], record.schema.hex()[:16] or "none"
        raise refused(where, f"schema of {member.__name__} (the other side has another version)", expected, got)
    return member


def _check_refs(refs: Sequence[pb.PayloadRef], limits: Limits, where: str) -> None:
    n = len(refs)
    if n > limits.n_payloads:
        raise refused(where, "record", f"at most {limits.n_payloads} payloads", n)
    for ref in refs:
        check_ref(ref, limits=limits, where=where)
    total = sum(ref.size for ref in refs)
    if total > limits.record_bytes:
        raise refused(where, "payloads of a record", f"at most {limits.record_bytes} bytes", total)
    if len({ref.sha256 for ref in refs}) < n:
        raise refused(where, "payloads of a record", "each once", "one of them again")


def _uses(value: Any, path: str) -> Iterator[tuple[int, str]]:
    """Every payload number in a value, with the field where it stands."""
    match value.WhichOneof("kind"):
        case "payload":
            yield value.payload, path
        case "experts":
            yield from ((index, path) for index in value.experts.payloads)
        case "list":
            for i, item in enumerate(value.list.values):
                yield from _uses(item, f"{path}[{i}]")
        case "map":
            for entry in value.map.entries:
                yield from _uses(entry.value, f"{path}[{entry.key!r}]")
        case "fields":
            for field in value.fields.fields:
                yield from _uses(field.value, f"{path}.{field.name}")
