"""Statistics taken anew: those of the samples, and nothing else moves."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from common import batch_norm
from common.method import ModelSpec, Training
from common.samples import from_arrays
from edge_client import learners

SPEC = ModelSpec("resnet10", {"width": 4, "input": "16x16x3", "stem": "small"})
SITE = SimpleNamespace(run=SimpleNamespace(seed=1), training=Training(optimiser="adamw", lr=0.1, batch=8, epochs=1))


def some(n: int):
    x = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3)).astype(np.uint8)
    return from_arrays(x, np.full(n, -1), 0)  # without labels


def test_statistics_become_those_of_the_samples() -> None:
    learner, samples = learners.make("torch", SPEC, 3), some(32)
    weights = learner.initial(np.random.default_rng(0))
    found = batch_norm.re_estimated(SITE, learner, weights, samples)
    first = learner.embed(weights, samples, "conv1").reshape(32, 4, -1)  # what the first batch norm sees, by channel
    # 40 steps at momentum 0.1 leave 1.5 % of the first value, 0, and the mean over the last ten batches of 8 or so
    np.testing.assert_allclose(found["bn1.running_mean"], first.mean((0, 2)), rtol=0.03, atol=0.003)
    np.testing.assert_allclose(found["bn1.running_var"], first.var((0, 2)), rtol=0.05, atol=0.03)


def test_no_parameter_moves_and_the_same_samples_give_the_same() -> None:
    learner, samples = learners.make("torch", SPEC, 3), some(9)
    weights = learner.initial(np.random.default_rng(0))
    found = batch_norm.re_estimated(SITE, learner, weights, samples)
    assert all(np.array_equal(found[n], weights[n]) for n in weights if weights.kind(n) == "param")
    again = batch_norm.re_estimated(SITE, learner, weights, samples)
    assert all(np.array_equal(found[n], again[n]) for n in weights)


def test_one_sample_has_no_statistics() -> None:
    learner = learners.make("torch", SPEC, 3)
    weights = learner.initial(np.random.default_rng(0))
    assert batch_norm.re_estimated(SITE, learner, weights, some(1)) is weights
