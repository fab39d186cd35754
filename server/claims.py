"""Numbers that agents say of themselves, looked at before anything is reckoned with them or written down."""

import math
from collections.abc import Iterator

from google.protobuf.message import Message

from common import pb
from common.errors import RemoteFault

MOST = 2**63 - 1  # what our records hold of a whole number
FREE = frozenset({"loss"})  # a training may diverge, and is shown as it is


def check(message: Message, where: str) -> None:
    """Every number of the message: real ones finite, whole ones such as can be kept.

    Raises:
        RemoteFault: naming the first that is not.
    """
    for name, value in _numbers(message, ""):
        if isinstance(value, int) and abs(value) > MOST:
            raise RemoteFault(f"{where}: {name} must be at most {MOST}, got {value}")
        if isinstance(value, float) and not math.isfinite(value) and name not in FREE:
            raise RemoteFault(f"{where}: {name} must be finite, got {value}")


def check_facts(data: pb.DataFacts, n_classes: int, where: str) -> None:
    """What an agent says of its data, with counts of as many classes as it has.

    Raises:
        RemoteFault: likewise.
    """
    check(data, where)
    if data.has_counts and len(data.counts) != n_classes:
        raise RemoteFault(f"{where}: expected samples of {n_classes} classes, got {len(data.counts)} counts")


def _numbers(message: Message, prefix: str) -> Iterator[tuple[str, object]]:
    for field, value in message.ListFields():
        name = prefix + field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from ((f"{name}[{key!r}]", inner) for key, inner in value.items())
            continue
        for one in value if isinstance(value, list) or hasattr(value, "extend") else (value,):
            if isinstance(one, Message):
                yield from _numbers(one, f"{name}.")
            else:
                yield name, one
