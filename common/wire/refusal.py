"""The sentence with which something remote is refused, and the strict reading of a message."""

from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from common.errors import RemoteFault


def refused(where: str, what: str, expected: object, got: object) -> RemoteFault:
    """One sentence: where (run, round, agent, field), what, expected, got."""
    return RemoteFault(f"{where + ': ' if where else ''}{what}: expected {expected}, got {got}")


def parse(cls: Any, data: bytes, *, where: str) -> Any:  # Any: generated message classes carry no types here
    """A message of class `cls`, refused when it cannot be read or has a field that this build does not know."""
    message = read(cls, data, where=where)
    check_known(message, where=where)
    return message


def read(cls: Any, data: bytes, *, where: str) -> Any:
    try:
        return cls.FromString(data)
    except DecodeError as error:
        raise refused(where, f"message {cls.__name__}", "a protobuf message", f"{len(data)} bytes ({error})") from error


def check_known(message: Message, *, where: str) -> None:
    """Refuse a message that has an unknown field at any depth: a value never read would be a lost value."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    if known.ByteSize() != message.ByteSize():
        raise _unknown(where, *_first_unknown(message, type(message).__name__))


def check_known_here(*messages: Message, where: str) -> None:
    """As `check_known`, for messages that hold no others; costs no copy, so it is for those that carry data."""
    for message in messages:
        unknown = UnknownFieldSet(message)
        if len(unknown):
            raise _unknown(where, type(message).__name__, unknown[0].field_number)


def _unknown(where: str, path: str, number: int) -> RemoteFault:
    return refused(where, f"message {path}", "fields of this version only", f"unknown field number {number}")


def _first_unknown(message: Message, path: str) -> tuple[str, int]:
    unknown = UnknownFieldSet(message)
    if len(unknown):
        return path, unknown[0].field_number
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            nested = [v for v in value.values() if isinstance(v, Message)]
        else:
            nested = [value] if isinstance(value, Message) else list(value)
        for item in nested:
            found = _first_unknown(item, f"{path}.{descriptor.name}")
            if found[1]:
                return found
    return path, 0
