"""The arrays that a structure message announces, checked.

Everything that a peer's structure can get wrong is refused here, before a byte of its arrays is read or a byte of
memory is taken for them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from common import pb
from common.payloads import Encoding
from common.wire import dtypes
from common.wire.limits import Limits
from common.wire.refusal import refused

_KINDS = frozenset({pb.PARAM, pb.BUFFER, pb.COUNTER})


@dataclass(frozen=True)
class Slot:
    """One array of a payload: `n_bytes` as it travels; `below`, for sparse indices, the size of their tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: int
    wire: int
    n_bytes: int
    below: int | None = None

    @property
    def n(self) -> int:
        return math.prod(self.shape)


def slots(kind: str, message: Any, *, limits: Limits, where: str) -> tuple[Slot, ...]:
    """The arrays that a structure message announces, in order, each checked against the format and the limits.

    `kind` is the message's name in the oneof of pb.Payload.
    """
    check = _Check(limits, where)
    found = tuple(_SLOTS[kind](message, check))
    if len(found) > limits.n_arrays:
        raise refused(where, f"{kind} payload", f"at most {limits.n_arrays} arrays", len(found))
    total = sum(slot.n_bytes for slot in found)
    if total > limits.payload_bytes:
        raise refused(where, f"{kind} payload", f"at most {limits.payload_bytes} bytes", total)
    return found


@dataclass(frozen=True)
class _Check:
    limits: Limits
    where: str

    def refuse(self, ok: bool, what: str, expected: object, got: object) -> None:
        if not ok:
            raise refused(self.where, what, expected, got)

    def name(self, name: str, what: str) -> None:
        size = len(name.encode())
        self.refuse(0 < size <= self.limits.name_bytes, what, f"1 to {self.limits.name_bytes} bytes", f"{size} bytes")

    def names(self, described: Any, what: str) -> None:
        """Names of one payload, each there once."""
        limit = self.limits.n_arrays
        self.refuse(len(described) <= limit, f"{what}s", f"at most {limit}", len(described))
        seen: set[str] = set()
        for item in described:
            self.name(item.name, f"{what} name")
            self.refuse(item.name not in seen, f"{what} {item.name!r}", "each name once", "it again")
            seen.add(item.name)

    def shape(self, shape: Sequence[int], what: str, dtype: int) -> tuple[int, ...]:
        """Also bounds shapes with a zero in them, which numpy would still refuse to make."""
        rank, limit = len(shape), self.limits.payload_bytes
        self.refuse(rank <= self.limits.rank, f"shape of {what}", f"at most {self.limits.rank} dimensions", rank)
        checked = tuple(shape)
        size = dtypes.decoded_bytes(dtype, math.prod(n or 1 for n in checked))
        if size > limit:
            raise refused(self.where, f"shape of {what}", f"at most {limit} bytes of it", f"{checked}, {size} bytes")
        return checked

    def array(self, described: Any, what: str, *, short_index: bool | None = None) -> Slot:
        """`short_index` is given for sparse indices alone: whether they must travel as INT32."""
        dtype, wire = described.dtype, described.wire
        if not dtypes.known(dtype):
            raise refused(self.where, f"dtype of {what}", "an element type", dtypes.label(dtype))
        if short_index is None:
            allowed = dtypes.ALLOWED[dtype]
        else:
            allowed = (dtypes.SHORT_INDEX if short_index else (pb.INT64, pb.INT64),)
        if (dtype, wire) not in allowed:
            expected = " or ".join(f"{dtypes.label(d)} as {dtypes.label(w)}" for d, w in allowed)
            raise refused(self.where, f"dtype of {what}", expected, f"{dtypes.label(dtype)} as {dtypes.label(wire)}")
        shape = self.shape(described.shape, what, dtype)
        return Slot(what, shape, dtype, wire, dtypes.wire_bytes(wire, math.prod(shape)))

    def float_array(self, described: Any, what: str, rank: int) -> Slot:
        slot = self.array(described, what)
        self.refuse(slot.dtype in dtypes.FLOATS, f"dtype of {what}", "a float type", dtypes.label(slot.dtype))
        self.refuse(len(slot.shape) == rank, f"shape of {what}", f"{rank} dimensions", len(slot.shape))
        return slot


def _weights_slots(message: Any, check: _Check) -> Iterator[Slot]:
    check.names(message.arrays, "array")
    for item in message.arrays:
        what = f"array {item.name!r}"
        slot = check.array(item.array, what)
        check.refuse(item.kind in _KINDS, f"kind of {what}", "PARAM, BUFFER or COUNTER", item.kind)
        if item.kind == pb.COUNTER:
            ok = slot.dtype in dtypes.INTEGERS
            check.refuse(ok, f"dtype of counter {item.name!r}", "an integer type", dtypes.label(slot.dtype))
        yield slot


def _expert_slots(message: Any, check: _Check) -> Iterator[Slot]:
    check.name(message.node, "node of an expert")
    nodes = check.limits.nodes
    check.refuse(nodes is None or message.node in nodes, "expert", "a node of the run's taxonomy", repr(message.node))
    return _weights_slots(message.weights, check)


def _prompt_slots(message: Any, check: _Check) -> Iterator[Slot]:
    yield check.float_array(message.context, "prompt context", 3)


def _prototypes_slots(message: Any, check: _Check) -> Iterator[Slot]:
    ids, counts, n_classes = message.class_id, message.count, check.limits.n_classes
    slot = check.float_array(message.vectors, "prototype vectors", 2)
    got = f"{len(ids)} ids, {len(counts)} counts, {slot.shape[0]} vectors"
    check.refuse(len(ids) == len(counts) == slot.shape[0], "prototypes", "an id and a count for each vector", got)
    for before, after in pairwise(ids):
        check.refuse(before < after, "class ids of prototypes", "ascending", f"{after} after {before}")
    if ids and n_classes is not None:
        check.refuse(ids[-1] < n_classes, "class id of a prototype", f"below {n_classes}", ids[-1])
    if counts:
        low, high = min(counts), max(counts)
        check.refuse(low >= 1 and high < 2**63, "count of a prototype", "1 to 2**63 - 1", low if low < 1 else high)
    yield slot


def _mask_slots(message: Any, check: _Check) -> Iterator[Slot]:
    check.names(message.bits, "mask")
    for item in message.bits:
        what = f"mask {item.name!r}"
        slot = check.array(item.array, what)
        check.refuse(slot.dtype == pb.BOOL, f"dtype of {what}", "BOOL", dtypes.label(slot.dtype))
        check.refuse(item.kind == pb.PARAM, f"kind of {what}", "none", item.kind)
        yield slot


def _sparse_slots(message: Any, check: _Check) -> Iterator[Slot]:
    check.names(message.tensors, "sparse tensor")
    for item in message.tensors:
        what = f"sparse tensor {item.name!r}"
        values = check.array(item.values, f"values of {what}")
        shape = check.shape(item.shape, what, values.dtype)
        size = math.prod(shape)
        short = index_wire(shape) == pb.INT32
        indices = check.array(item.indices, f"indices of {what}", short_index=short)
        for slot in (indices, values):
            check.refuse(len(slot.shape) == 1, f"shape of {slot.name}", "1 dimension", len(slot.shape))
        n, n_values = indices.shape[0], values.shape[0]
        check.refuse(n == n_values, f"entries of {what}", "a value for each index", f"{n} indices, {n_values} values")
        check.refuse(n <= size, f"entries of {what}", f"at most {size}", n)
        yield replace(indices, below=size)
        yield values


def _blob_slots(message: Any, check: _Check) -> Iterator[Slot]:
    check.name(message.media_type, "media type of a blob")
    limit = check.limits.payload_bytes
    check.refuse(message.size <= limit, "size of a blob", f"at most {limit} bytes", message.size)
    yield Slot("blob", (message.size,), pb.UINT8, pb.UINT8, message.size)


_SLOTS: dict[str, Callable[[Any, _Check], Iterator[Slot]]] = {
    "weights": _weights_slots,
    "expert": _expert_slots,
    "prompt": _prompt_slots,
    "prototypes": _prototypes_slots,
    "mask": _mask_slots,
    "sparse": _sparse_slots,
    "blob": _blob_slots,
}


def index_wire(shape: Sequence[int]) -> int:
    """Indices travel as INT32 exactly when every index of the tensor fits."""
    wire: int = pb.INT32 if math.prod(shape) <= 2**31 else pb.INT64
    return wire


def encoding_of(found: Sequence[Slot]) -> Encoding:
    """The encoding that a payload was written in; "exact" when nothing, or not everything, was narrowed."""
    wires = {slot.wire for slot in found if slot.dtype == pb.FLOAT32}
    if wires == {pb.FLOAT16}:
        return "float16"
    return "bfloat16" if wires == {pb.BFLOAT16} else "exact"
