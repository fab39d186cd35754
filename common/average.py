"""Means over agents that hold one running sum, whatever the number of replies."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from common.errors import QuorumMissed, RemoteFault
from common.payloads import Array, Weights


def weighted_mean(parts: Iterable[tuple[str, float, Weights]], like: Weights) -> Weights:
    """The mean of what agents sent: sum(mass * weights) / sum(mass); of counters the maximum.

    One float64 sum is held and parts are read one at a time. The last digits depend on the order of the parts, so
    `merge` gives them in the order of agent names. The result has the names, kinds and dtypes of `like`.

    Args:
        parts: agent name, mass (samples, say; finite, >= 0), weights.
        like: what every agent must have sent, by names and shapes.

    Raises:
        QuorumMissed: the masses add up to zero, or there are no parts: there is no mean, and zeros are not one.
        RemoteFault: an agent sent other names or shapes, or a mass that is no mass.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    peaks: dict[str, Array] = {}
    mass = 0.0
    for agent, share, weights in parts:
        check_mass(agent, share)
        check_like(agent, weights, like)
        if share == 0:
            continue
        mass += share
        for name, array in weights.items():
            if is_counter(like, name):
                peaks[name] = np.maximum(peaks[name], array) if name in peaks else array
            elif name in sums:
                sums[name] += np.multiply(array, share, dtype=np.float64)
            else:
                sums[name] = np.multiply(array, share, dtype=np.float64)
    if mass == 0:
        raise QuorumMissed("nothing to average: the replies of this step stand for no samples, state left unchanged")
    mean: dict[str, Array] = {
        name: peaks[name] if is_counter(like, name) else (sums[name] / mass).astype(array.dtype)
        for name, array in like.items()
    }
    return Weights(mean, like.kinds)


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
    extra = [name for name in weights if name not in like]
    if extra:
        raise RemoteFault(f"agent {agent}: tensor {extra[0]!r} is not part of the run's model")
