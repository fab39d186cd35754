"""A linear head over a frozen backbone: features are computed once, then the head alone is trained on them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.method import Learner, Scores, Site
from common.payloads import Weights
from common.samples import Samples, from_arrays

Vector = NDArray[np.floating[Any]]  # (dim,)

LEAST_DEVIATION = 1e-3  # of a feature, against division by nothing


def fitted(site: Site[Any], backbone: Weights, head: Weights, samples: Samples, *, standardise: bool) -> Weights:
    """The head after the site's training on these samples' features.

    With `standardise` it is trained on features of mean 0 and deviation 1 over the samples, and given back in terms of
    the features as they are: w / s and b - w m / s.
    """
    x = features(site, backbone, samples)
    learner = _learner(site, x.shape[1])
    mean, deviation = np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32)
    if standardise:
        mean = x.mean(axis=0, dtype=np.float32)
        deviation = np.maximum(x.std(axis=0, dtype=np.float32), np.float32(LEAST_DEVIATION))
    inputs = from_arrays((x - mean) / deviation, samples.labels, samples.n_classes)
    trained = learner.fit(_scaled(head, mean, deviation), inputs, site.training, rng=site.rng).weights
    return _scaled(trained, -mean / deviation, 1 / deviation)


def scores(site: Site[Any], backbone: Weights, head: Weights, samples: Samples) -> Scores:
    """(n, n_classes), from the same features that the head was trained on."""
    x = features(site, backbone, samples)
    return _learner(site, x.shape[1]).scores(head, from_arrays(x, samples.labels, samples.n_classes))


def features(site: Site[Any], backbone: Weights, samples: Samples) -> Scores:
    """(n, dim); the site remembers them for as long as its process lives."""
    return np.asarray(site.learner(n_classes=0).embed(backbone, samples))


def _learner(site: Site[Any], dim: int) -> Learner:
    return site.learner(model="linear", input=str(dim))


def _scaled(head: Weights, mean: Vector, deviation: Vector) -> Weights:
    """The head that gives for (x - mean) / deviation what the given one gives for x."""
    weight, bias = (np.asarray(head[f"classifier.{part}"], np.float32) for part in ("weight", "bias"))
    return head.updated({"classifier.weight": weight * deviation, "classifier.bias": bias + weight @ mean})
