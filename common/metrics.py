"""Metrics by name: each takes scores (n, n_classes) and labels (n,) and gives a sum over the examples.

Sums and counts can be pooled over agents in any grouping; means can not. A metric that needs the run's class names
or taxonomy finds them in `run`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UnknownName
from common.method import RunSpec, Scores
from common.samples import Labels

Metric = Callable[[Scores, Labels, RunSpec[Any]], float]  # Any: metrics look at no method's Config

# What a class that was ruled out (score -inf) costs when it is the right one: -ln(1e-12). Infinity would make the
# pooled sum useless for every other example.
RULED_OUT_NATS = 27.6310211159


def accuracy(scores: Scores, y: Labels, run: RunSpec[Any]) -> float:
    """How many are right; the lowest class wins a tie."""
    return float(np.count_nonzero(scores.argmax(axis=1) == y))


def loss(scores: Scores, y: Labels, run: RunSpec[Any]) -> float:
    """Summed cross-entropy of the softmax of the scores, in nats."""
    z = scores.astype(np.float64)
    top = z.max(axis=1)
    nats = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - z[np.arange(len(y)), y]
    return float(np.where(np.isposinf(nats), RULED_OUT_NATS, nats).sum())


METRICS: dict[str, Metric] = {"accuracy": accuracy, "loss": loss}


def sums(names: Iterable[str], scores: Scores, y: Labels, run: RunSpec[Any]) -> dict[str, float]:
    """The named metrics of these examples."""
    return {name: metric(name)(scores, y, run) for name in names}


def metric(name: str) -> Metric:
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]


def ruled_out(scores: Scores, classes: NDArray[np.bool_]) -> Scores:
    """The scores with -inf for every class that `classes` (n_classes,) does not mark."""
    return np.where(classes[None, :], scores, -np.inf)
