"""A learner whose training is arithmetic that fits on paper: w moves towards the mean of the samples.

Loss 1/2 ||w - mean(x)||^2 for `trunk.weight`, 1/2 ||v - mean(x)||^2 for `classifier.weight`; batch, order and generator
play no part. So one step is w += lr (mean - w), and with a proximal term also w -= lr strength (w - anchor).
"""

from collections.abc import Iterable

import numpy as np

from common.method import Fitted, Scalar, Scores, Spec, Term, Training
from common.payloads import Array, Weights
from common.samples import Samples, from_arrays
from tests.methods.loopback import Data

SPECS = {
    "trunk.weight": Spec((1,), layer="trunk"),
    "classifier.weight": Spec((1,), layer="classifier", part="head"),
}


class PullModel:
    """Both tensors start at zero."""

    def parameters(self, **variant: Scalar) -> dict[str, Spec]:
        return dict(SPECS)

    def initial(self, rng: np.random.Generator, **variant: Scalar) -> Weights:
        return Weights({name: np.zeros(spec.shape, np.float32) for name, spec in SPECS.items()})


class PullLearner(PullModel):
    def __init__(self, n_classes: int, **variant: Scalar) -> None:
        self.n_classes = n_classes

    def fit(
        self,
        weights: Weights,
        samples: Samples,
        training: Training,
        *,
        terms: tuple[Term, ...] = (),
        trainable: Iterable[str] | None = None,
        rng: np.random.Generator,
    ) -> Fitted:
        arrays = dict(weights)
        moves = list(SPECS) if trainable is None else list(trainable)
        n_steps = training.epochs if training.steps is None else min(training.steps, training.epochs)
        for _ in range(n_steps):
            pull = self.gradients(Weights(arrays), samples, training.objective)
            for name in moves:
                anchors = [(t.strength, t.arrays[name]) for t in terms if name in t.arrays]
                near = sum((np.float32(s) * (arrays[name] - anchor) for s, anchor in anchors), np.float32(0))
                arrays[name] = arrays[name] - np.float32(training.lr) * (pull[name] + near)
        return Fitted(Weights(arrays), 0.0, n_steps)

    def gradients(self, weights: Weights, samples: Samples, objective: str) -> Weights:
        mean = samples.read().astype(np.float32).mean()
        return Weights({name: weights[name] - mean for name in SPECS})

    def scores(self, weights: Weights, samples: Samples) -> Scores:
        """Both weights beside each other, one row an input: so `predict` shows which model it used."""
        return np.tile(np.concatenate([weights[name] for name in SPECS]), (len(samples), 1))

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        return samples.read().astype(np.float32)


def constant(n: int, value: float) -> Data:
    """An agent with n training samples, all of that value."""
    x: Array = np.full((n, 1), value, np.float32)
    samples = from_arrays(x, np.zeros(n, np.int64), 2)
    return Data(samples, samples.take(np.arange(0)), samples, samples.unlabelled())
