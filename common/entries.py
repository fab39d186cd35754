"""Some entries of a model: in which form they travel, and put back into a model.

Bits are by tensor, True where an entry is chosen; a tensor without a chosen entry may be left out.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import LocalFault, RemoteFault
from common.payloads import Array, Encoding, Mask, Sparse, SparseEntries, Weights

Bits = Mapping[str, NDArray[np.bool_]]
Form = Literal["smaller", "bits", "values"]
_INDEX_BYTES = 4


def count(bits: Bits) -> int:
    return sum(int(np.count_nonzero(mask)) for mask in bits.values())


def as_mask(bits: Bits) -> Mask:
    """The places alone, as packed bits, for a receiver that holds the values."""
    return Mask({name: mask for name, mask in bits.items() if mask.any()})


def as_values(own: Weights, bits: Bits) -> Sparse:
    """The places with the values of `own` there."""
    found: dict[str, SparseEntries] = {}
    for name, mask in bits.items():
        indices = np.flatnonzero(mask).astype(np.int64)
        if indices.size:
            found[name] = SparseEntries(mask.shape, indices, own[name].ravel()[indices])
    return Sparse(found)


def mask_bytes(bits: Bits) -> int:
    return sum((mask.size + 7) // 8 for mask in bits.values() if mask.any())


def values_bytes(bits: Bits, encoding: Encoding) -> int:
    return count(bits) * bytes_of_one(encoding)


def sparse_bytes(given: Sparse, encoding: Encoding) -> int:
    return sum(tensor.indices.size for tensor in given.tensors.values()) * bytes_of_one(encoding)


def bytes_of_one(encoding: Encoding) -> int:
    """Of one entry as index and value."""
    return _INDEX_BYTES + (2 if encoding in ("float16", "bfloat16") else 4)


def in_form(form: Form, own: Weights, bits: Bits, encoding: Encoding) -> Mask | Sparse:
    """The chosen entries of `own` as packed bits, as index and value, or in the form that takes fewer bytes."""
    smaller = form == "smaller" and mask_bytes(bits) < values_bytes(bits, encoding)
    return as_mask(bits) if smaller or form == "bits" else as_values(own, bits)


def bits_of(given: Sparse | Mask | None) -> dict[str, NDArray[np.bool_]]:
    """The places, from either form; nowhere for None."""
    if given is None:
        return {}
    if isinstance(given, Mask):
        return {name: mask.astype(bool, copy=False) for name, mask in given.bits.items()}
    bits = {name: np.zeros(math.prod(tensor.shape), bool) for name, tensor in given.tensors.items()}
    for name, tensor in given.tensors.items():
        bits[name][tensor.indices.astype(np.int64)] = True
    return {name: flat.reshape(given.tensors[name].shape) for name, flat in bits.items()}


def put_back(base: Weights, given: Sparse | Mask | None, held: Weights | None) -> Weights:
    """`base` with the chosen entries: by their values, or out of `held` where only the places were given.

    Raises:
        RemoteFault: the entries are of another model.
        LocalFault: places were given and nothing is held.
    """
    if isinstance(given, Mask):
        if held is None:
            raise LocalFault("the server sent places without values, and this agent holds no model to take them from")
        return restored(base, held, bits_of(given))
    changed: dict[str, Array] = {}
    for name, tensor in given.tensors.items() if given else ():
        check_shape(name, tensor.shape, base)
        flat = base[name].flatten()  # a copy: decoded arrays are read-only
        flat[tensor.indices.astype(np.int64)] = tensor.values
        changed[name] = flat.reshape(tensor.shape)
    return base.updated(changed)


def restored(base: Weights, own: Weights, bits: Bits) -> Weights:
    """`base` with the chosen entries of `own`."""
    for name, mask in bits.items():
        check_shape(name, mask.shape, base)
        check_shape(name, mask.shape, own)
    return base.updated({name: np.where(mask, own[name], base[name]) for name, mask in bits.items() if mask.any()})


def report(given: Sparse | Mask | None, bits: Bits, encoding: Encoding) -> Iterator[tuple[str, float]]:
    """Numbers for `site.count`: how many entries, where they are, and what they cost on the way down."""
    yield "personal", count(bits)
    for name, mask in bits.items():
        yield f"personal {name}", int(np.count_nonzero(mask))
    if isinstance(given, Mask):
        yield "personal as bits (bytes)", mask_bytes(bits)
    elif given is not None:
        yield "personal as values (bytes)", values_bytes(bits, encoding)


def check_shape(name: str, shape: tuple[int, ...], weights: Weights) -> None:
    if name not in weights or weights[name].shape != shape:
        got = list(weights[name].shape) if name in weights else "no such tensor"
        raise RemoteFault(f"tensor {name!r}: the entries chosen do not fit, expected shape {list(shape)}, got {got}")
