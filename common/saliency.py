"""Which entries of a model stay personal: scores, the quantile, and what is put back. FedOBP's arithmetic.

Source: FedOBP, Federated Optimal Brain Personalization (arXiv 2604.16574); a mask is True where an entry is personal.
Everything is float32 and by tensor, so that server and agent come to the same bits.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, RemoteFault
from common.method import Spec
from common.payloads import Array, Mask, Sparse, SparseEntries, Weights

Form = Literal["obd", "change", "fisher", "gradient"]
NEEDS_DATA: tuple[Form, ...] = ("fisher", "gradient")
Floats = NDArray[np.float32]
Bits = Mapping[str, NDArray[np.bool_]]  # by tensor; those without a personal entry may be left out
Scored = Mapping[str, Floats]  # the score of every entry, by tensor


def scored_names(parameters: Mapping[str, Spec], only: Iterable[str]) -> tuple[str, ...]:
    """Names of the tensors that get a score: params (never buffers or counters), of these layers if any are given.

    Raises:
        ConfigError: a layer of that name does not exist.
    """
    params = {name: spec.layer for name, spec in parameters.items() if spec.kind == "param"}
    chosen: set[str] = set()
    for wanted in only:
        found = {n for n, layer in params.items() if layer == wanted or layer.startswith(f"{wanted}.")}
        if not found:
            known = ", ".join(dict.fromkeys(params.values()))
            raise ConfigError(f"only: no layer {wanted!r} in this model; it has: {known}")
        chosen |= found
    return tuple(name for name in params if not only or name in chosen)


def scores(
    form: Form, own: Weights, base: Weights, names: Iterable[str], gradients: Weights | None = None
) -> dict[str, Floats]:
    """The score of every entry, for own model c, base g and gradients dL/dc at c.

    obd |(c - g) c|, change (c - g)^2; from local data: fisher (dL/dc)^2, gradient |dL/dc (c - g)|.

    Raises:
        RemoteFault: a tensor is missing, has another shape, or its scores are not numbers; the text names it.
    """
    found: dict[str, Floats] = {}
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite score is personal, NaN is refused below
        for name in names:
            if name not in own or own[name].shape != base[name].shape:
                got = list(own[name].shape) if name in own else "nothing"
                raise RemoteFault(f"tensor {name!r} cannot be scored: expected {list(base[name].shape)}, got {got}")
            gradient = None if gradients is None else gradients[name].astype(np.float32, copy=False)
            c, g = own[name].astype(np.float32, copy=False), base[name].astype(np.float32, copy=False)
            found[name] = _score(form, c, g, gradient)
            if np.isnan(found[name]).any():
                raise RemoteFault(f"tensor {name!r} cannot be scored: its scores are NaN")
    return found


def _score(form: Form, c: Floats, g: Floats, gradient: Floats | None) -> Floats:
    match form:
        case "obd":
            return np.asarray(np.abs((c - g) * c))
        case "change":
            return np.asarray(np.square(c - g))
        case _ if gradient is None:
            raise ValueError(f"score {form!r} needs gradients of local data")
        case "fisher":
            return np.asarray(np.square(gradient))
        case "gradient":
            return np.asarray(np.abs(gradient * (c - g)))


def blended(new: Scored, old: Scored | None, alpha: float) -> Scored:
    """Running score (1 - alpha) new + alpha old: alpha weighs the old value, as in the authors' code."""
    if old is None or alpha == 0:
        return new
    a = np.float32(alpha)
    return {name: np.asarray((np.float32(1) - a) * score + a * old[name]) for name, score in new.items()}


def layer_normalised(values: Scored) -> dict[str, Floats]:
    """Each tensor on [0, 1]; one whose scores are all equal becomes zeros (the authors' code divides by zero)."""

    def one(score: Floats) -> Floats:
        low, high = score.min(initial=np.inf), score.max(initial=-np.inf)
        return np.asarray((score - low) / (high - low)) if high > low else np.zeros_like(score)

    return {name: one(score) for name, score in values.items()}


def above_quantile(values: Scored, q: float) -> dict[str, NDArray[np.bool_]]:
    """True where a score is above the floor(q (N - 1))-th smallest of all N (counted from 0).

    So at most N - 1 - floor(q (N - 1)) entries, fewer when scores tie. O(N), of any size.
    """
    flat = np.concatenate([score.ravel() for score in values.values()]) if values else np.zeros(0, np.float32)
    if not flat.size:
        return {}
    rank = math.floor(q * (flat.size - 1))
    flat.partition(rank)
    return {name: np.asarray(score > flat[rank]) for name, score in values.items()}


def restored(base: Weights, own: Weights, bits: Bits) -> Weights:
    """`base` with the personal entries of `own`."""
    return base.updated({name: np.where(mask, own[name], base[name]) for name, mask in bits.items() if mask.any()})


def entries(own: Weights, bits: Bits) -> Sparse:
    """The personal entries of `own` by index and value; a tensor without any is left out."""
    found: dict[str, SparseEntries] = {}
    for name, mask in bits.items():
        indices = np.flatnonzero(mask)
        if indices.size:
            found[name] = SparseEntries(mask.shape, indices.astype(np.int64), own[name].ravel()[indices])
    return Sparse(found)


def with_entries(base: Weights, given: Sparse) -> Weights:
    """`base` with these entries put in."""
    changed: dict[str, Array] = {}
    for name, tensor in given.tensors.items():
        flat = base[name].flatten()  # a copy: decoded arrays are read-only
        flat[np.asarray(tensor.indices, np.int64)] = tensor.values
        changed[name] = flat.reshape(base[name].shape)
    return base.updated(changed)


def bits_of(given: Sparse | Mask | None) -> dict[str, NDArray[np.bool_]]:
    """Where the personal entries are, from either form; nowhere for None."""
    if given is None:
        return {}
    if isinstance(given, Mask):
        return {name: mask.astype(bool, copy=False) for name, mask in given.bits.items()}
    bits = {name: np.zeros(math.prod(tensor.shape), bool) for name, tensor in given.tensors.items()}
    for name, tensor in given.tensors.items():
        bits[name][np.asarray(tensor.indices, np.int64)] = True
    return {name: flat.reshape(given.tensors[name].shape) for name, flat in bits.items()}


def as_mask(bits: Bits) -> Mask:
    """The bits as a payload, without the tensors that have none set."""
    return Mask({name: mask for name, mask in bits.items() if mask.any()})


def mask_bytes(bits: Bits) -> int:
    return sum((mask.size + 7) // 8 for mask in bits.values() if mask.any())


def entry_bytes(n: int, *, value_bytes: int = 4) -> int:
    return n * (4 + value_bytes)


def count(bits: Bits) -> int:
    return sum(int(np.count_nonzero(mask)) for mask in bits.values())


def packed(weights: Weights, bits: Bits) -> Weights:
    """The entries that are not personal, each tensor with personal ones as a flat row of what is left."""
    left = {name: weights[name][~mask] for name, mask in bits.items() if mask.any()}
    return weights.updated(left)


def unpacked(values: Weights, bits: Bits, like: Weights) -> Weights:
    """What `packed` was given, with zeros where the personal entries were.

    Raises:
        RemoteFault: the number of values does not fit the mask.
    """
    full: dict[str, Array] = {}
    for name, mask in bits.items():
        if name not in like or mask.shape != like[name].shape:
            raise RemoteFault(f"mask of tensor {name!r} does not fit the model: got {list(mask.shape)}")
        if not mask.any():
            continue
        if name not in values or values[name].shape != (np.count_nonzero(~mask),):
            got = list(values[name].shape) if name in values else "nothing"
            raise RemoteFault(f"tensor {name!r}: expected {np.count_nonzero(~mask)} values, got {got}")
        full[name] = np.zeros(mask.shape, like[name].dtype)
        full[name][~mask] = values[name]
    return values.updated(full)
