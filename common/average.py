"""Means over agents that hold one running sum each, whatever the number of replies."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from common.errors import QuorumMissed, RemoteFault
from common.payloads import Array, Weights

_BLOCK = 1 << 17  # entries
NOTHING = "nothing to average: the replies of this step stand for no samples, state left unchanged"
Bits = Mapping[str, NDArray[np.bool_]]


def weighted_mean(parts: Iterable[tuple[str, float, Weights]], like: Weights) -> Weights:
    """The mean of what agents sent: sum(mass * weights) / sum(mass); of counters the maximum.

    One float64 sum is held and parts are read one at a time. The last digits depend on the order of the parts, so
    `merge` gives them in the order of agent names. The result has the names, kinds and dtypes of `like`.

    Args:
        parts: agent name, mass (samples, say; finite, >= 0), weights.
        like: what every agent must have sent, by names, shapes and dtypes.

    Raises:
        QuorumMissed: the masses add up to zero, or there are no parts: there is no mean, and zeros are not one.
        RemoteFault: an agent sent something else, or a mass that is no mass.
    """
    return mean_of_shared(((agent, mass, weights, {}) for agent, mass, weights in parts), like)


def mean_of_shared(parts: Iterable[tuple[str, float, Weights, Bits]], like: Weights) -> Weights:
    """As `weighted_mean`, but each entry is averaged over the agents that share it.

    The fourth of each part has True where an entry is the agent's own; tensors that it shares whole may be left out.
    An entry that nobody shares stays as it is in `like`.
    """
    running = RunningMean(like)
    for agent, mass, weights, own in parts:
        running.add(agent, mass, weights, own)
    return running.mean()


def means_by_node(parts: Iterable[tuple[str, str, float, Weights]], like: Mapping[str, Weights]) -> dict[str, Weights]:
    """As `weighted_mean`, for each taxonomy node by itself, with a running sum for each node that was sent.

    Args:
        parts: agent name, node, mass, weights; nodes in any order.
        like: every node that may be sent, with what its weights must look like.

    Raises:
        QuorumMissed: no node has any mass.
        RemoteFault: as above, or an agent sent a node that `like` does not have.
    """

    def checked() -> Iterator[tuple[str, str, float, Weights]]:
        for agent, node, mass, weights in parts:
            if node not in like:
                raise RemoteFault(f"agent {agent}: expert {node!r} is of no inner node of the run's taxonomy")
            yield agent, node, mass, weights

    return _means(checked(), lambda node: like[node])


def means_by_group(parts: Iterable[tuple[str, str, float, Weights]], like: Weights) -> dict[str, Weights]:
    """As `means_by_node`, for groups of agents that all have the same model."""
    return _means(parts, lambda group: like)


def _means(parts: Iterable[tuple[str, str, float, Weights]], like: Callable[[str], Weights]) -> dict[str, Weights]:
    running: dict[str, RunningMean] = {}
    for agent, group, mass, weights in parts:
        if group not in running:
            running[group] = RunningMean(like(group))
        running[group].add(agent, mass, weights)
    means = {group: mean.mean() for group, mean in running.items() if mean.mass > 0}
    if not means:
        raise QuorumMissed(NOTHING)
    return means


class RunningMean:
    """A mean under way; `mass` is what has been added so far.

    Before a second part comes, nothing is summed: a mean of one is that one, which may lie on the disk.
    """

    def __init__(self, like: Weights) -> None:
        self.mass = 0.0
        self._like = like
        self._first: tuple[float, Weights] | None = None
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._masses: dict[str, NDArray[np.float64]] = {}  # of shape () unless an agent shares less than a whole tensor
        self._peaks: dict[str, Array] = {}

    def add(self, agent: str, mass: float, weights: Weights, own: Bits | None = None) -> None:
        own = own or {}
        check_mass(agent, mass)
        check_like(agent, weights, self._like)
        check_bits(agent, own, self._like)
        if mass == 0:
            return
        if not self.mass and not own:
            self._first = mass, weights
        else:
            if self._first is not None:
                self._add(*self._first, {})
                self._first = None
            self._add(mass, weights, own)
        self.mass += mass

    def _add(self, mass: float, weights: Weights, own: Bits) -> None:
        for name, array in weights.items():
            if is_counter(self._like, name):
                self._peaks[name] = np.maximum(self._peaks[name], array) if name in self._peaks else array
                continue
            total = self._sums.setdefault(name, np.zeros(array.shape, np.float64))
            _add_scaled(total, array, mass, own.get(name))
            shared = mass * ~own[name] if name in own else mass
            self._masses[name] = np.asarray(np.add(self._masses.get(name, 0.0), shared))

    def mean(self) -> Weights:
        like = self._like
        if self.mass == 0:
            raise QuorumMissed(NOTHING)
        if self._first is not None:
            alone = self._first[1]
            return Weights({name: alone[name] for name in like}, like.kinds)
        means = {
            name: self._peaks[name]
            if is_counter(like, name)
            else _divided(self._sums[name], self._masses[name], like[name])
            for name in like
        }
        return Weights(means, like.kinds)


def _add_scaled(total: NDArray[np.float64], array: Array, mass: float, own: NDArray[np.bool_] | None) -> None:
    """Add mass * array to the sum, but for the agent's own entries."""
    sums, values = total.reshape(-1), array.reshape(-1)
    for block in _blocks(values.size):
        scaled = np.multiply(values[block], mass, dtype=np.float64)
        if own is not None:
            scaled[own.reshape(-1)[block]] = 0
        sums[block] += scaled


def _divided(total: NDArray[np.float64], mass: NDArray[np.float64], before: Array) -> Array:
    mean = np.array(before)
    means, sums, masses = mean.reshape(-1), total.reshape(-1), np.broadcast_to(mass, total.shape).reshape(-1)
    for block in _blocks(means.size):
        is_shared = masses[block] > 0
        np.divide(sums[block], masses[block], out=means[block], where=is_shared, casting="same_kind")
    return mean


def _blocks(size: int) -> Iterator[slice]:
    """Pieces that stay in the cache: what is held beside the sum is a megabyte, not another model."""
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def is_counter(weights: Weights, name: str) -> bool:
    """Integers are never averaged, whatever their kind says."""
    return weights.kind(name) == "counter" or not np.issubdtype(weights[name].dtype, np.floating)


def check_mass(agent: str, mass: float) -> None:
    if not (math.isfinite(mass) and mass >= 0):
        raise RemoteFault(f"agent {agent}: the weight of its reply must be finite and at least 0, got {mass}")


def check_like(agent: str, weights: Weights, like: Weights) -> None:
    """Raise a RemoteFault that names the agent and the first tensor that differs."""
    for name, array in like.items():
        if name not in weights:
            raise RemoteFault(f"agent {agent}: tensor {name!r} is missing from its reply, expected {list(array.shape)}")
        if weights[name].shape != array.shape:
            expected, got = list(array.shape), list(weights[name].shape)
            raise RemoteFault(f"agent {agent}: tensor {name!r} has another shape, expected {expected}, got {got}")
        if weights[name].dtype != array.dtype:
            got_dtype = weights[name].dtype
            raise RemoteFault(f"agent {agent}: tensor {name!r} must be of {array.dtype}, got {got_dtype}")
    extra = [name for name in weights if name not in like]
    if extra:
        raise RemoteFault(f"agent {agent}: tensor {extra[0]!r} is not part of the run's model")


def check_bits(agent: str, bits: Bits, like: Weights) -> None:
    for name, mask in bits.items():
        if name not in like or mask.shape != like[name].shape:
            expected = list(like[name].shape) if name in like else "no such tensor"
            raise RemoteFault(
                f"agent {agent}: mask of {name!r} does not fit, expected {expected}, got {list(mask.shape)}"
            )
