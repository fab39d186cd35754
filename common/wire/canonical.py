"""The canonical bytes of a payload: what is stored, what is hashed, and what a transfer resumes in the middle of.

This text is the specification of the format. All integers are little-endian.

    position   bytes  content
    0          8      magic, "edgefed" and the format's number, 0x01
    8          8      length of the structure, u64
    16         …      structure: pb.Payload, serialised deterministically
    …          0-63   zeros, up to a multiple of 64
    …          …      for each array that the structure describes, in its order: its bytes as they travel, then
                      0-63 zeros, up to a multiple of 64

* Arrays are in C order. FLOAT32, FLOAT64, FLOAT16, INT8 … INT64 and UINT8 are their machine form; BFLOAT16 is the upper
  half of a float32, rounded to nearest even; BOOL is one bit an element, lowest bit first, rows not padded, and the
  bits after the last element are zero. An array without elements takes no bytes.
* The order of arrays: Weights, masks and experts as named; a sparse tensor's indices, then its values; the context of
  a prompt; the vectors of prototypes; the bytes of a blob.
* An array travels in its own element type, or, when it is FLOAT32, as FLOAT16 or BFLOAT16. Indices of sparse tensors
  are INT64 and travel as INT32 exactly when the tensor has at most 2**31 elements.
* The structure must be what deterministic serialisation gives, without unknown fields: so a payload in one encoding has
  one form, and its SHA-256 over all of these bytes is the payload's identity, wherever it was written.
* Every array starts at a multiple of 64 of a file that is memory-mapped, so arrays are used where they lie.

A transfer (common/wire/parts.py) sends the structure as one typed message and the arrays as slices; the receiver
makes magic, length and zeros itself.
"""

import hashlib
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common import pb
from common.errors import LocalFault, RemoteFault
from common.payloads import Encoding, Origin
from common.wire import dtypes, structure
from common.wire import slots as announced
from common.wire.limits import OWN, Limits
from common.wire.refusal import parse, refused
from common.wire.slots import Slot
from common.wire.structure import Expert, Sendable
from common.wire.values import Values

__all__ = ["ALIGN", "MAGIC", "Expert", "Layout", "Sendable", "decode", "encode", "layout", "verify"]

MAGIC = b"edgefed\x01"
ALIGN = 64
_LENGTH = struct.Struct("<Q")
_FIXED = len(MAGIC) + _LENGTH.size
_ZEROS = bytes(ALIGN)

Buffer = bytes | bytearray | memoryview | mmap.mmap


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything lies: `message` is the checked pb.Payload, `starts[i]` the position of array i."""

    message: Any
    slots: tuple[Slot, ...]
    starts: tuple[int, ...]
    head: bytes  # magic, length, structure, zeros
    size: int

    @property
    def kind(self) -> str:
        return str(self.message.WhichOneof("kind"))


def encode(payload: Sendable, encoding: Encoding = "exact") -> Iterator[bytes | memoryview]:
    """The canonical bytes, in pieces that are views of the arrays wherever they travel as they are.

    Raises:
        LocalFault: the payload is one that the other side would refuse for more than a policy.
    """
    try:
        message, arrays = structure.describe(payload, encoding)
        kind = message.WhichOneof("kind")
        found = layout_of(kind, getattr(message, kind), limits=OWN, where="")
        if len(found.head) > OWN.structure_bytes:
            limit = f"at most {OWN.structure_bytes} bytes of names and shapes"
            raise refused("", "structure, which must fit in one part", limit, len(found.head))
        yield found.head
        for (array, wire), slot in zip(arrays, found.slots, strict=True):
            data = dtypes.to_wire(array, wire)
            if slot.below is not None:
                Values(slot, limits=OWN, where="").feed(data)
            if len(data):
                yield data
                yield _ZEROS[: -len(data) % ALIGN]
    except (RemoteFault, ValueError, TypeError) as error:  # the latter two from protobuf: a class id below zero, say
        raise LocalFault(f"{type(payload).__name__} cannot be sent: {error}") from error


def decode(buffer: Buffer, *, sha256: bytes | None = None, limits: Limits = OWN, where: str = "") -> Sendable:
    """The payload in a buffer, its arrays read-only views of it; numbers are looked at by `verify` alone.

    `sha256` is the digest of the buffer, from one who knows it; computed when not given.
    """
    view = memoryview(buffer).toreadonly()
    found = layout(view, limits=limits, where=where)
    if len(view) != found.size:
        raise refused(where, "payload", f"{found.size} bytes as its structure says", len(view))
    arrays = [
        dtypes.from_wire(view[start : start + slot.n_bytes], slot.dtype, slot.wire, slot.shape)
        for slot, start in zip(found.slots, found.starts, strict=True)
    ]
    digest = hashlib.sha256(view).digest() if sha256 is None else sha256
    origin = Origin(digest, found.size, announced.encoding_of(found.slots))
    return structure.rebuild(found.message, arrays, origin)


def verify(buffer: Buffer, *, limits: Limits, where: str = "") -> None:
    """Look at every number: finite where the limits ask for it, indices ascending, zeros where zeros belong."""
    view = memoryview(buffer)
    found = layout(view, limits=limits, where=where)
    end = len(found.head)
    for slot, start in zip(found.slots, found.starts, strict=True):
        if any(view[end:start]):
            raise refused(where, f"bytes before {slot.name}", "zeros", "other bytes")
        end = start + slot.n_bytes
        Values(slot, limits=limits, where=where).feed(view[start:end])
    if any(view[end : found.size]):
        raise refused(where, "bytes after the last array", "zeros", "other bytes")


def layout(buffer: Buffer, *, limits: Limits, where: str = "") -> Layout:
    """Read and check the structure at the start of canonical bytes; the arrays need not be there yet."""
    view = memoryview(buffer)
    length = structure_bytes(view, limits=limits, where=where)
    data = bytes(view[_FIXED : _FIXED + length])
    if len(data) < length:
        raise refused(where, "structure of a payload", f"{length} bytes", len(data))
    message = parse(pb.Payload, data, where=where)
    kind = message.WhichOneof("kind")
    if kind is None:
        raise refused(where, "payload", "one of the payload types", "an empty message")
    if message.SerializeToString(deterministic=True) != data:
        raise refused(where, "structure of a payload", "its one canonical form", "another serialisation of it")
    found = layout_of(kind, getattr(message, kind), limits=limits, where=where)
    if view[: len(found.head)] != found.head[: len(view)]:
        raise refused(where, "bytes after the structure", "zeros", "other bytes")
    return found


def check_ref(ref: Any, *, limits: Limits, where: str) -> None:
    """Check a pb.PayloadRef: what a peer promises before it sends anything."""
    if len(ref.sha256) != hashlib.sha256().digest_size:
        raise refused(where, "digest of a payload", "32 bytes", len(ref.sha256))
    if ref.size > limits.payload_bytes:
        raise refused(where, "size of a payload", f"at most {limits.payload_bytes} bytes", ref.size)
    if ref.size < ALIGN or ref.size % ALIGN:
        raise refused(where, "size of a payload", f"a multiple of {ALIGN}, at least {ALIGN}", ref.size)


def structure_bytes(view: memoryview, *, limits: Limits, where: str) -> int:
    """Length of the structure, from the first 16 bytes."""
    if len(view) < _FIXED:
        raise refused(where, "payload", f"at least {_FIXED} bytes", len(view))
    if view[: len(MAGIC)] != MAGIC:
        raise refused(where, "first bytes of a payload", MAGIC, bytes(view[: len(MAGIC)]))
    length: int = _LENGTH.unpack_from(view, len(MAGIC))[0]
    if length > limits.structure_bytes:
        raise refused(where, "structure of a payload", f"at most {limits.structure_bytes} bytes", length)
    return length


def layout_of(kind: str, body: Any, *, limits: Limits, where: str) -> Layout:
    """Check a structure message, which has no unknown fields, and lay its arrays out."""
    slots = announced.slots(kind, body, limits=limits, where=where)
    message = pb.Payload(**{kind: body})
    head = _head(message)
    starts, end = [], len(head)
    for slot in slots:
        starts.append(end)
        end += slot.n_bytes + (-slot.n_bytes % ALIGN)
    return Layout(message, slots, tuple(starts), head, end)


def _head(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return b"".join((MAGIC, _LENGTH.pack(len(data)), data, _ZEROS[: -(_FIXED + len(data)) % ALIGN]))
