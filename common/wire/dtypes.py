"""Element types: what a method sees (numpy), what travels (proto DType), and the way from one to the other."""

import math
from typing import Any

import numpy as np

from common import pb
from common.encoding import from_bfloat16, to_bfloat16
from common.errors import LocalFault
from common.payloads import Array, Encoding

_NUMPY: dict[int, np.dtype[Any]] = {
    pb.FLOAT32: np.dtype("<f4"),
    pb.FLOAT64: np.dtype("<f8"),
    pb.FLOAT16: np.dtype("<f2"),
    pb.INT8: np.dtype("i1"),
    pb.INT16: np.dtype("<i2"),
    pb.INT32: np.dtype("<i4"),
    pb.INT64: np.dtype("<i8"),
    pb.UINT8: np.dtype("u1"),
    pb.BOOL: np.dtype("?"),
}
_WIRE = {**_NUMPY, pb.BFLOAT16: np.dtype("<u2")}
_BY_NUMPY = {dtype: number for number, dtype in _NUMPY.items()}
_NARROW: dict[str, int] = {"float16": pb.FLOAT16, "bfloat16": pb.BFLOAT16}

FLOATS = frozenset({pb.FLOAT32, pb.FLOAT64, pb.FLOAT16})
INTEGERS = frozenset({pb.INT8, pb.INT16, pb.INT32, pb.INT64, pb.UINT8})
# (dtype, wire) by dtype; INT64 as INT32 is for the indices of sparse tensors alone
ALLOWED: dict[int, tuple[tuple[int, int], ...]] = {number: ((number, number),) for number in _NUMPY}
ALLOWED[pb.FLOAT32] += tuple((pb.FLOAT32, narrow) for narrow in _NARROW.values())
SHORT_INDEX = (pb.INT64, pb.INT32)


def number_of(array: Array, name: str) -> int:
    """The proto DType of a numpy array."""
    number = _BY_NUMPY.get(array.dtype.newbyteorder("<"))
    if number is None:
        known = ", ".join(sorted(dtype.name for dtype in _BY_NUMPY))
        raise LocalFault(f"array {name!r} cannot be sent: expected a dtype of {known}, got {array.dtype}")
    return number


def wire_of(dtype: int, encoding: Encoding) -> int:
    """How an element type travels in this encoding; only float32 is ever narrowed."""
    return _NARROW.get(encoding, dtype) if dtype == pb.FLOAT32 else dtype


def label(number: int) -> str:
    return pb.DType.Name(number) if number in pb.DType.values() else f"unknown number {number}"


def known(number: int) -> bool:
    """Whether a method can see this element type."""
    return number in _NUMPY


def decoded_bytes(dtype: int, n: int) -> int:
    return _NUMPY[dtype].itemsize * n


def wire_bytes(wire: int, n: int) -> int:
    return (n + 7) // 8 if wire == pb.BOOL else _WIRE[wire].itemsize * n


def to_wire(array: Array, wire: int) -> memoryview:
    """The array's bytes as they travel, C order, little end; without a copy when they already are."""
    if wire == pb.BOOL:
        flat: Array = np.packbits(np.ascontiguousarray(array, np.bool_).reshape(-1), bitorder="little")
    elif wire == pb.BFLOAT16:
        flat = to_bfloat16(array)
    elif wire == pb.FLOAT16:
        with np.errstate(over="ignore"):  # beyond the range it becomes Inf, and the receiver's policy decides
            flat = np.ascontiguousarray(array, dtype=_WIRE[wire])
    else:
        flat = np.ascontiguousarray(array, dtype=_WIRE[wire])
    return flat.reshape(-1).view(np.uint8).data


def elements(data: bytes | memoryview, wire: int) -> Array:
    """The travelling elements as numpy sees them: bits as bytes, bfloat16 as uint16. No copy."""
    return np.frombuffer(data, np.uint8 if wire == pb.BOOL else _WIRE[wire])


def from_wire(data: memoryview, dtype: int, wire: int, shape: tuple[int, ...]) -> Array:
    """The array that a method sees, read-only; a view of `data` when it travels as it is seen."""
    flat = elements(data, wire)
    if wire == pb.BOOL:
        flat = np.unpackbits(np.frombuffer(data, np.uint8), count=math.prod(shape), bitorder="little").view(np.bool_)
    elif wire == pb.BFLOAT16:
        flat = from_bfloat16(flat)
    elif wire != dtype:
        flat = flat.astype(_NUMPY[dtype])
    array = flat.reshape(shape)
    array.flags.writeable = False
    return array
