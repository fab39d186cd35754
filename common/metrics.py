"""Metrics by name: each takes scores (n, n_classes) and labels (n,) and gives a sum over the examples.

Sums and counts can be pooled over agents in any grouping; means can not. A metric that needs the run's class names
or taxonomy finds them in `run`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common import information, taxonomy
from common.errors import ConfigError, UnknownName
from common.method import RunSpec, Scores
from common.samples import Labels
from common.taxonomy import Taxonomy

Metric = Callable[[Scores, Labels, RunSpec[Any]], float]  # Any: metrics look at no method's Config
Reading = Callable[[Taxonomy, NDArray[np.float64]], NDArray[np.int64]]  # probabilities (n, n_classes) -> nodes (n,)

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


def _hierarchical(reading: Reading, part: Literal["precision", "recall", "f1"]) -> Metric:
    """Information precision, recall or F1 of a hierarchical reading, summed over the examples."""

    def metric(scores: Scores, y: Labels, run: RunSpec[Any]) -> float:
        if run.taxonomy is None or run.classes is None:
            raise ConfigError("a hierarchical metric needs the run's taxonomy: set [data] taxonomy")
        tree = taxonomy.build(run.taxonomy, run.classes)
        predicted = reading(tree, probabilities(scores))
        found = information.compare(tree, y + len(tree.children), predicted)
        return float(getattr(found, part).sum())

    return metric


def probabilities(scores: Scores) -> NDArray[np.float64]:
    """Their softmax."""
    p = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = p / p.sum(axis=1, keepdims=True)
    return shares


# Source: Valmadre, NeurIPS 2022. Of the likeliest class, of the deepest node above 1/2, of the best expected F1; the
# last two may stop at an inner node.
_READINGS: dict[str, Reading] = {
    "information": information.leaf,
    "majority": information.majority,
    "expected": information.best_expected_f1,
}
_PARTS: tuple[Literal["precision", "recall", "f1"], ...] = ("precision", "recall", "f1")

METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "loss": loss,
    **{f"{name}_{part}": _hierarchical(reading, part) for name, reading in _READINGS.items() for part in _PARTS},
}


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
