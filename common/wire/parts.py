"""Canonical bytes as a stream of Parts, and back: structure first, then slices in order, then the digest.

A slice starts at a multiple of 64 bytes of its array and, unless it ends the array, has a multiple of 64 bytes. So
canonical offsets at which a transfer goes on are multiples of 64, and every slice holds whole elements.
"""

import hashlib
from collections.abc import Iterator

import google_crc32c

from common import pb
from common.errors import LinkLost, LocalFault, RemoteFault
from common.wire.canonical import ALIGN, Buffer, Layout, check_ref, layout, layout_of
from common.wire.limits import OWN, PART_BYTES, Limits
from common.wire.refusal import check_known, check_known_here, read, refused
from common.wire.values import Values

_OVERHEAD = 64  # a slice's own fields take at most 38 bytes
_KINDS = ("weights", "prompt", "prototypes", "expert", "mask", "sparse", "blob")  # named alike in Part and Payload


def parts(
    buffer: Buffer, offset: int = 0, part_bytes: int = PART_BYTES, *, sha256: bytes | None = None
) -> Iterator[bytes]:
    """Serialised Parts that carry the canonical bytes from `offset` on; each at most `part_bytes` long.

    Only the structure, which cannot be cut, may be longer. `sha256` is the digest of all bytes, from one who knows it;
    computed when not given.

    Raises:
        RemoteFault: if the peer asks to resume where no slice can start.
    """
    view = memoryview(buffer).toreadonly()
    try:
        found = layout(view, limits=OWN)
    except RemoteFault as error:
        raise LocalFault(f"payload to send is damaged: {error}") from error
    if len(view) != found.size:
        raise LocalFault(f"payload to send is damaged: expected {found.size} bytes, got {len(view)}")
    if offset and not (offset % ALIGN == 0 and len(found.head) <= offset <= found.size):
        expected = f"0, or a multiple of {ALIGN} from {len(found.head)} to {found.size}"
        raise refused("", "offset at which a transfer goes on", expected, offset)
    if offset == 0:
        yield pb.Part(**{found.kind: getattr(found.message, found.kind)}).SerializeToString(deterministic=True)
    step = max(ALIGN, (part_bytes - _OVERHEAD) // ALIGN * ALIGN)
    for number, (slot, start) in enumerate(zip(found.slots, found.starts, strict=True)):
        for at in range(max(0, offset - start), slot.n_bytes, step):
            yield _slice(number, at, view[start + at : start + min(at + step, slot.n_bytes)])
    digest = hashlib.sha256(view).digest() if sha256 is None else sha256
    yield pb.Part(end=pb.RecordEnd(sha256=digest)).SerializeToString()


def _slice(array: int, offset: int, data: memoryview) -> bytes:
    copied = bytes(data)  # protobuf and the checksum both take nothing else
    piece = pb.ArraySlice(array=array, offset=offset, data=copied, crc32c=google_crc32c.value(copied))
    serialised: bytes = pb.Part(slice=piece).SerializeToString()
    return serialised


class Assembler:
    """Takes the Parts of one payload and gives back its canonical bytes, every rule checked on the way.

    Memory: one part and the structure, whatever the payload's size.
    """

    def __init__(self, ref: pb.PayloadRef, *, limits: Limits, where: str = "", held: Buffer = b"") -> None:
        """`held` is what an earlier transfer left; `offset` says how much of it is of use (the rest is cut off)."""
        self._ref = ref
        self._limits = limits
        self._where = where
        self._layout: Layout | None = None
        self._digest = hashlib.sha256()
        self._array = 0
        self._values: Values | None = None
        self.offset = 0
        check_ref(ref, limits=limits, where=where)
        if len(held):
            self._take_up(memoryview(held))
        self._resumed = self.offset > 0
        self._ended = False

    def feed(self, part: bytes) -> bytes:
        """The bytes to append at `offset`, which moves on by their number.

        Raises:
            RemoteFault: the peer broke the contract; the same part will be refused again.
            LinkLost: the part was damaged on its way.
        """
        if self._ended:
            raise refused(self._where, "payload", "nothing after its end", "another part")
        if len(part) > self._limits.part_bytes:
            raise refused(self._where, "part", f"at most {self._limits.part_bytes} bytes", len(part))
        message = read(pb.Part, part, where=self._where)
        kind = message.WhichOneof("kind")
        match kind:
            case "slice":
                data = self._slice(message)
            case "end":
                data = self._end(message)
            case _ if kind in _KINDS:
                data = self._structure(message, kind)
            case _:
                raise refused(self._where, "part", "structure, slice or end of a payload", kind or "an empty message")
        self._digest.update(data)
        self.offset += len(data)
        return data

    def finish(self) -> None:
        """Raise unless all of the payload came and its digest is the one that was promised."""
        if not self._ended:
            raise refused(self._where, "payload", f"{self._ref.size} bytes and their end", f"{self.offset} bytes")
        if self._digest.digest() != self._ref.sha256:
            fault = refused(self._where, "digest of a payload", self._ref.sha256.hex(), self._digest.hexdigest())
            if self._resumed:  # bytes of an earlier transfer may be what is wrong, and they were ours to keep
                raise LinkLost(f"{fault}; it is sent again from its start") from fault
            raise fault

    def _take_up(self, held: memoryview) -> None:
        try:
            found = layout(held, limits=self._limits, where=self._where)
        except RemoteFault:
            return  # cut off inside the structure, or damaged: from the start again
        offset = len(held) // ALIGN * ALIGN
        if offset == self._ref.size:  # complete but unverified: its last bytes come again, so that its end does
            offset -= ALIGN
        if found.size != self._ref.size or offset < len(found.head):
            return
        self._layout = found
        self.offset = offset
        self._digest.update(held[:offset])
        self._array = _unfinished(found, 0, offset)
        if self._array < len(found.slots):
            slot, start = found.slots[self._array], found.starts[self._array]
            self._values = Values(slot, limits=self._limits, where=self._where)
            if offset > start:
                self._values.resume(held[start:offset])

    def _structure(self, message: pb.Part, kind: str) -> bytes:
        if self._layout is not None:
            raise refused(self._where, "payload", "its structure once", "a second structure")
        check_known(message, where=self._where)
        found = layout_of(kind, getattr(message, kind), limits=self._limits, where=self._where)
        if len(found.head) > self._limits.structure_bytes:
            limit = f"at most {self._limits.structure_bytes} bytes"
            raise refused(self._where, "structure of a payload", limit, len(found.head))
        if found.size != self._ref.size:
            raise refused(self._where, "size of the payload by its structure", self._ref.size, found.size)
        self._layout = found
        self._array = _unfinished(found, 0, len(found.head))
        return found.head

    def _slice(self, message: pb.Part) -> bytes:
        check_known_here(message, message.slice, where=self._where)
        found = self._layout
        if found is None:
            raise refused(self._where, "payload", "its structure first", "a slice")
        piece = message.slice
        data: bytes = piece.data
        if piece.array >= len(found.slots):
            raise refused(self._where, "array of a slice", f"below {len(found.slots)}", piece.array)
        slot, start = found.slots[piece.array], found.starts[piece.array]
        if start + piece.offset != self.offset or self._array != piece.array:
            self._refuse_position(slot.name, start + piece.offset)
        end = piece.offset + len(data)
        if end > slot.n_bytes:
            raise refused(self._where, f"slice of {slot.name}", f"at most {slot.n_bytes} bytes in all", end)
        if not data or (len(data) % ALIGN and end != slot.n_bytes):
            expected = f"a multiple of {ALIGN} bytes, or all the rest"
            raise refused(self._where, f"slice of {slot.name}", expected, f"{len(data)} bytes")
        if google_crc32c.value(data) != piece.crc32c:
            raise LinkLost(
                f"{refused(self._where, f'slice of {slot.name} at {piece.offset}', 'its checksum', 'another')}"
            )
        if self._values is None:
            self._values = Values(slot, limits=self._limits, where=self._where)
        self._values.feed(data)
        if end < slot.n_bytes:
            return data
        padded = data + bytes(-end % ALIGN) if end % ALIGN else data
        self._array = _unfinished(found, self._array + 1, self.offset + len(padded))
        self._values = None
        return padded

    def _refuse_position(self, name: str, position: int) -> None:
        got = "those after a gap" if position > self.offset else "those that are here already"
        raise refused(self._where, f"slice of {name}", f"the bytes from {self.offset} on", f"{got}, from {position} on")

    def _end(self, message: pb.Part) -> bytes:
        check_known(message, where=self._where)
        if self._layout is None or self.offset != self._ref.size:
            raise refused(self._where, "payload", f"{self._ref.size} bytes before its end", f"{self.offset} bytes")
        if message.end.sha256 != self._ref.sha256:
            raise refused(self._where, "digest at the end", self._ref.sha256.hex(), message.end.sha256.hex())
        self._ended = True
        return b""


def _unfinished(found: Layout, array: int, offset: int) -> int:
    """The first array from this one on that has bytes at or after `offset`; those without elements have none."""
    while array < len(found.slots) and found.starts[array] + found.slots[array].n_bytes <= offset:
        array += 1
    return array
