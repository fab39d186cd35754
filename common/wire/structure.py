"""The structure message of a payload: made from a payload, and made into a payload again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common import pb
from common.errors import LocalFault
from common.payloads import (
    KINDS,
    Array,
    Blob,
    Encoding,
    Mask,
    Origin,
    Payload,
    Prompt,
    Prototypes,
    Sparse,
    SparseEntries,
    Weights,
)
from common.wire import dtypes, slots


@dataclass(frozen=True, eq=False)
class Expert:
    """The weights of one node of a taxonomy: a payload of its own, so that each node is fetched by itself."""

    node: str
    weights: Weights


Sendable = Payload | Expert
Outgoing = list[tuple[Array, int]]  # arrays in their order, each with the DType that it travels in


def describe(payload: Sendable, encoding: Encoding) -> tuple[Any, Outgoing]:
    """The pb.Payload of a payload, and the arrays that follow it."""
    message, arrays = pb.Payload(), _Arrays(encoding)
    match payload:
        case Weights():
            _describe_weights(payload, message.weights, arrays)
        case Expert():
            message.expert.node = payload.node
            _describe_weights(payload.weights, message.expert.weights, arrays)
        case Prompt():
            arrays.add(payload.context, message.prompt.context, "context")
        case Prototypes():
            message.prototypes.class_id.extend(payload.class_ids.tolist())
            message.prototypes.count.extend(payload.counts.tolist())
            arrays.add(payload.vectors, message.prototypes.vectors, "vectors")
        case Mask():
            message.mask.SetInParent()
            for name, bits in payload.bits.items():
                arrays.add(bits, message.mask.bits.add(name=name).array, name)
        case Sparse():
            message.sparse.SetInParent()
            for name, entries in payload.tensors.items():
                tensor = message.sparse.tensors.add(name=name, shape=entries.shape)
                arrays.add(entries.indices, tensor.indices, name, wire=slots.index_wire(entries.shape))
                arrays.add(entries.values, tensor.values, name)
        case Blob():
            data = np.frombuffer(payload.data, np.uint8)
            message.blob.media_type, message.blob.size = payload.media_type, data.nbytes
            arrays.outgoing.append((data, pb.UINT8))
    return message, arrays.outgoing


class _Arrays:
    """Collects the arrays of one payload in order, writing the description of each."""

    def __init__(self, encoding: Encoding) -> None:
        self.outgoing: Outgoing = []
        self._encoding = encoding

    def add(self, array: Array, described: Any, name: str, *, wire: int | None = None) -> None:
        dtype = dtypes.number_of(array, name)
        described.shape.extend(array.shape)
        described.dtype = dtype
        described.wire = dtypes.wire_of(dtype, self._encoding) if wire is None else wire
        self.outgoing.append((array, described.wire))


def _describe_weights(weights: Weights, message: Any, arrays: _Arrays) -> None:
    message.SetInParent()
    for name, array in weights.items():
        arrays.add(array, message.arrays.add(name=name, kind=KINDS.index(weights.kind(name))).array, name)


def rebuild(message: Any, arrays: Sequence[Array], origin: Origin) -> Sendable:
    """The payload that a checked structure and its arrays describe."""
    kind = message.WhichOneof("kind")
    body = getattr(message, kind)
    match kind:
        case "weights":
            return _rebuild_weights(body, arrays, origin)
        case "expert":
            return Expert(body.node, _rebuild_weights(body.weights, arrays, replace(origin, node=body.node)))
        case "prompt":
            return Prompt(arrays[0], origin)
        case "prototypes":
            return Prototypes(_integers(body.class_id), _integers(body.count), arrays[0], origin)
        case "mask":
            return Mask({item.name: array for item, array in zip(body.bits, arrays, strict=True)}, origin)
        case "sparse":
            pairs = zip(body.tensors, arrays[::2], arrays[1::2], strict=True)
            return Sparse({t.name: SparseEntries(tuple(t.shape), i, v) for t, i, v in pairs}, origin)
        case "blob":
            return Blob(body.media_type, arrays[0].data, origin)
        case _:
            raise LocalFault(f"payload type {kind!r} is checked but cannot be rebuilt")


def _rebuild_weights(message: Any, arrays: Sequence[Array], origin: Origin) -> Weights:
    described = message.arrays
    named = {item.name: array for item, array in zip(described, arrays, strict=True)}
    return Weights(named, {item.name: KINDS[item.kind] for item in described}, origin=origin)


def _integers(values: Sequence[int]) -> Array:
    array = np.fromiter(values, np.int64, count=len(values))
    array.flags.writeable = False
    return array
