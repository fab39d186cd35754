"""One small payload of each type, with numbers that are easy to recognise in hexadecimal."""

import hashlib
from typing import Any

import numpy as np

from common import pb
from common.payloads import Blob, Encoding, Mask, Prompt, Prototypes, Sparse, SparseEntries, Weights
from common.wire import canonical
from common.wire.canonical import Expert, Sendable

WEIGHTS = Weights(
    {"w": np.array([[1, -2], [0.5, 3]], "f4"), "n": np.array(7), "none": np.zeros((0, 3), "f8")}, {"n": "counter"}
)
PROMPT = Prompt(np.arange(6, dtype="f4").reshape(1, 2, 3))
PROTOTYPES = Prototypes(np.array([1, 4]), np.array([3, 200]), np.array([[1, 2], [3, 4]], "f4"))
EXPERT = Expert("animals", Weights({"w": np.array([1], "f4")}))
MASK = Mask({"w": np.array([[1, 0, 1], [0, 1, 1], [1, 0, 0]], "?")})
SPARSE = Sparse({"w": SparseEntries((2, 5), np.array([1, 9]), np.array([1, 2], "f4"))})
BLOB = Blob("text/plain", b"edge")

PAYLOADS: dict[str, Sendable] = {
    "weights": WEIGHTS,
    "prompt": PROMPT,
    "prototypes": PROTOTYPES,
    "expert": EXPERT,
    "mask": MASK,
    "sparse": SPARSE,
    "blob": BLOB,
}


def canonical_bytes(payload: Sendable, encoding: Encoding = "exact") -> bytes:
    return b"".join(canonical.encode(payload, encoding))


def ref_of(data: bytes) -> pb.PayloadRef:
    return pb.PayloadRef(sha256=hashlib.sha256(data).digest(), size=len(data))


def arrays_of(payload: Sendable) -> list[np.ndarray[Any, Any]]:
    match payload:
        case Weights():
            return list(payload.values())
        case Expert():
            return list(payload.weights.values())
        case Prompt():
            return [payload.context]
        case Prototypes():
            return [payload.class_ids, payload.counts, payload.vectors]
        case Mask():
            return list(payload.bits.values())
        case Sparse():
            return [array for t in payload.tensors.values() for array in (t.indices, t.values)]
        case Blob():
            return [np.frombuffer(payload.data, np.uint8)]


def assert_same(got: Sendable, expected: Sendable) -> None:
    """Equal in type, names and order, kinds, shapes, dtypes and every bit."""
    assert type(got) is type(expected)
    match got, expected:
        case Weights(), Weights():
            assert list(got) == list(expected)
            assert got.kinds == expected.kinds
        case Expert(), Expert():
            assert got.node == expected.node
            assert_same(got.weights, expected.weights)
        case Mask(), Mask():
            assert list(got.bits) == list(expected.bits)
        case Sparse(), Sparse():
            assert [(n, t.shape) for n, t in got.tensors.items()] == [(n, t.shape) for n, t in expected.tensors.items()]
        case Blob(), Blob():
            assert got.media_type == expected.media_type
    for a, b in zip(arrays_of(got), arrays_of(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.tobytes() == b.tobytes()
