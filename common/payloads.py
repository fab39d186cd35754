"""The payload types that methods exchange; each has its own protobuf message (proto/federation.proto).

A payload is immutable. One that was decoded remembers its `origin`, the digest of the bytes that it came from, so
that keeping it or sending it on writes and hashes nothing. Decoded arrays are read-only views, often of a
memory-mapped file.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Encoding = Literal["exact", "float32", "float16", "bfloat16"]
Kind = Literal["param", "buffer", "counter"]
KINDS: tuple[Kind, ...] = ("param", "buffer", "counter")  # in the order of proto ArrayKind


@dataclass(frozen=True)
class Origin:
    """Content address of a payload's canonical bytes, and the encoding that they were written in.

    `node` is the taxonomy node of an expert's Weights: their bytes are those of the expert, not of the Weights alone.
    """

    sha256: bytes
    size: int
    encoding: Encoding
    node: str | None = None


class Weights(Mapping[str, Array]):
    """name -> array, each with a kind: `param` and `buffer` are averaged, of `counter` the maximum is taken.

    Order is the order of insertion and is kept on the wire.
    """

    __slots__ = ("__weakref__", "_arrays", "_kinds", "origin")

    def __init__(
        self,
        arrays: Mapping[str, Array],
        kinds: Mapping[str, Kind] | None = None,
        *,
        origin: Origin | None = None,
    ) -> None:
        self._arrays = dict(arrays)
        given = {} if kinds is None else kinds
        self._kinds: dict[str, Kind] = {name: given.get(name, "param") for name in self._arrays}
        self.origin = origin

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Weights({', '.join(f'{name}{list(array.shape)}' for name, array in self.items())})"

    def kind(self, name: str) -> Kind:
        return self._kinds[name]

    @property
    def kinds(self) -> dict[str, Kind]:
        return dict(self._kinds)

    @property
    def n_bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    def only(self, names: Iterable[str]) -> "Weights":
        """The named arrays, in this object's order; names that it does not have are ignored."""
        wanted = set(names)
        if wanted.issuperset(self._arrays):
            return self  # the same object, so its digest is kept
        return Weights({n: a for n, a in self._arrays.items() if n in wanted}, self._kinds)

    def without(self, names: Iterable[str]) -> "Weights":
        unwanted = set(names)
        return self.only(n for n in self._arrays if n not in unwanted)

    def updated(self, other: Mapping[str, Array]) -> "Weights":
        """These arrays with those of `other` put over them; new names come last."""
        if not other:
            return self
        kinds = dict(self._kinds)
        if isinstance(other, Weights):
            kinds.update(other.kinds)
        return Weights({**self._arrays, **other}, kinds)


@dataclass(frozen=True, eq=False)
class Prompt:
    """Context vectors: (n_prompts, n_ctx, dim)."""

    context: Array
    origin: Origin | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Class means: `vectors` (n, dim), row i for class `class_ids[i]` (ascending), of `counts[i]` >= 1 samples."""

    class_ids: Array  # (n,) int64
    counts: Array  # (n,) int64
    vectors: Array  # (n, dim)
    origin: Origin | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.class_ids)


@dataclass(frozen=True, eq=False)
class Mask:
    """name -> bool array; travels as packed bits."""

    bits: Mapping[str, Array]
    origin: Origin | None = field(default=None, repr=False)

    @property
    def n_set(self) -> int:
        return int(sum(np.count_nonzero(array) for array in self.bits.values()))


@dataclass(frozen=True, eq=False)
class SparseEntries:
    """Some entries of one tensor of the given shape: flat `indices` (k,) ascending int64, and their `values` (k,)."""

    shape: tuple[int, ...]
    indices: Array
    values: Array


@dataclass(frozen=True, eq=False)
class Sparse:
    """name -> the entries of that tensor that are given."""

    tensors: Mapping[str, SparseEntries]
    origin: Origin | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Blob:
    """Opaque bytes with a media type, for example an ONNX graph."""

    media_type: str
    data: bytes | memoryview
    origin: Origin | None = field(default=None, repr=False)


Payload = Weights | Prompt | Prototypes | Mask | Sparse | Blob
PAYLOAD_TYPES: tuple[type, ...] = (Weights, Prompt, Prototypes, Mask, Sparse, Blob)
