"""A mean in which each agent's tensor counts by how little it turned away from the common one."""

from collections.abc import Iterable, Iterator

import numpy as np

from common.average import check_like, means_by_node
from common.payloads import Array, Weights


def mean_by_likeness(parts: Iterable[tuple[str, Weights]], like: Weights) -> Weights:
    """Each parameter's mean over agents, weighted by the cosine of its angle to the common one, at least 0.

    Source: Rehman et al., L-DAWA, ICCV 2023, equation 5. Deviation: the weights are divided by their sum, for otherwise
    they shrink the tensors; each tensor is a layer; what is not a parameter is averaged plainly. A tensor that all
    agents turned round stays as it was.

    Args:
        parts: agent name, weights.
        like: the common weights that they started from.
    """

    def weighed() -> Iterator[tuple[str, str, float, Weights]]:
        for agent, weights in parts:
            check_like(agent, weights, like)
            for name, array in like.items():
                mass = cosine(weights[name], array) if like.kind(name) == "param" else 1.0
                yield agent, name, max(mass, 0.0), weights.only([name])

    means = means_by_node(weighed(), {name: like.only([name]) for name in like})
    return like.updated({name: mean[name] for name, mean in means.items()})


def cosine(a: Array, b: Array) -> float:
    """Of the angle between two tensors; 1 where one is all zeros, for there is no angle."""
    x, y = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    sizes = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / sizes if sizes else 1.0
