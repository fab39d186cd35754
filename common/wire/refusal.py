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
    """Refuse a message that has an unknown field at any depth: a value never read would be a lost value.

    What it refuses it leaves without the unknown fields: a copy to keep them would double what a peer can make us hold.
    """
    size = message.ByteSize()
    here = UnknownFieldSet(message)
    number = here[0].field_number if len(here) else 0
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        name = type(message).__name__
        got = f"unknown field number {number}" if number else "an unknown field inside one of them"
        raise refused(where, f"message {name}", "fields of this version only", got)


def check_known_here(*messages: Message, where: str) -> None:
    """As `check_known`, for messages that hold no others: looks at no data, so it is for those that carry much."""
    for message in messages:
        unknown = UnknownFieldSet(message)
        if len(unknown):
            got = f"unknown field number {unknown[0].field_number}"
            raise refused(where, f"message {type(message).__name__}", "fields of this version only", got)
