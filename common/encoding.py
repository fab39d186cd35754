"""Lossy encodings of float32 arrays on the wire, and what the other side will see of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from common.payloads import Array, Encoding, Mask, Prompt, Prototypes, Sparse, Weights


def to_bfloat16(array: Array) -> Array:
    """float32 -> the upper 16 bits (uint16), rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), (bits >> 16) | 0x0040, rounded).astype(np.uint16)


def from_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_trip(array: Array, encoding: Encoding) -> Array:
    """The array as it is decoded after it was sent; only float32 arrays are ever narrowed."""
    if array.dtype != np.float32 or encoding in ("exact", "float32"):
        return array
    if encoding == "float16":
        with np.errstate(over="ignore"):  # beyond 65504 it becomes Inf, and the receiver's policy decides
            return array.astype(np.float16).astype(np.float32)
    return from_bfloat16(to_bfloat16(array)).reshape(array.shape)


def as_received(payload: Any, encoding: Encoding) -> Any:  # Any: gives back the type that it was given
    """The payload as the other side will decode it; the same object when nothing changes."""
    if encoding in ("exact", "float32") or _already(payload, encoding):
        return payload
    return map_arrays(payload, lambda array: round_trip(array, encoding))


def map_arrays(payload: Any, f: Callable[[Array], Array]) -> Any:
    """The payload with `f` applied to each array that holds values (not to indices, ids, counts or bits)."""
    match payload:
        case Weights():
            return Weights({n: f(a) for n, a in payload.items()}, payload.kinds)
        case Prompt():
            return Prompt(f(payload.context))
        case Prototypes():
            return Prototypes(payload.class_ids, payload.counts, f(payload.vectors))
        case Sparse():
            return Sparse({n: replace(t, values=f(t.values)) for n, t in payload.tensors.items()})
        case Mapping():
            return {node: map_arrays(weights, f) for node, weights in payload.items()}
        case _:  # masks and blobs hold no values
            return payload


def _already(payload: Any, encoding: Encoding) -> bool:
    if isinstance(payload, Mask):
        return True
    origin = getattr(payload, "origin", None)
    return origin is not None and origin.encoding == encoding
