"""A small model in numpy for the tests of methods: it has a trunk, a batch norm with all three kinds, and a head."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.method import Fitted, Scalar, Scores, Spec, Term, Training
from common.payloads import Array, Weights
from common.samples import Samples

DIM = 3


@dataclass(frozen=True)
class TinyModel:
    n_classes: int = 4
    width: int = 2

    def parameters(self, **variant: Scalar) -> dict[str, Spec]:
        n, width = int(variant.get("n_classes", self.n_classes)), int(variant.get("width", self.width))
        return {
            "trunk.weight": Spec((width, DIM), layer="trunk"),
            "norm.scale": Spec((width,), layer="norm"),
            "norm.mean": Spec((width,), kind="buffer", layer="norm"),
            "norm.count": Spec((), dtype="int64", kind="counter", layer="norm"),
            "classifier.weight": Spec((n, width), layer="classifier", part="head"),
            "classifier.bias": Spec((n,), layer="classifier", part="head"),
        }

    def initial(self, rng: np.random.Generator, **variant: Scalar) -> Weights:
        specs = self.parameters(**variant)
        arrays: dict[str, Array] = {}
        for name, spec in specs.items():
            if spec.kind == "counter":
                arrays[name] = np.array(0, np.int64)
            elif spec.layer == "norm":
                arrays[name] = np.full(spec.shape, float(name == "norm.scale"), np.float32)
            else:
                arrays[name] = (0.5 * rng.standard_normal(spec.shape)).astype(np.float32)
        return Weights(arrays, {name: spec.kind for name, spec in specs.items()})


class TinyLearner:
    """Softmax regression on a normalised linear trunk; SGD with momentum, gradients written out."""

    def __init__(self, n_classes: int, **variant: Scalar) -> None:
        self.n_classes = n_classes
        self._model = TinyModel(n_classes)
        self._variant = variant

    def parameters(self) -> dict[str, Spec]:
        return self._model.parameters(**self._variant)

    def initial(self, rng: np.random.Generator) -> Weights:
        return self._model.initial(rng, **self._variant)

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
        arrays = {name: np.array(array) for name, array in weights.items()}
        moves = [n for n, s in self.parameters().items() if s.kind == "param"]
        moves = [n for n in moves if trainable is None or n in set(trainable)]
        velocity = {name: np.zeros_like(arrays[name]) for name in moves}
        x, loss, n_steps = samples.read(), 0.0, 0
        for _ in range(training.epochs):
            order, loss = rng.permutation(len(samples)), 0.0
            for first in range(0, len(order), training.batch):
                if training.steps is not None and n_steps >= training.steps:
                    break
                batch = order[first : first + training.batch]
                gradients, batch_loss, hidden_mean = _gradients(arrays, x[batch], samples.labels[batch])
                for term in terms:
                    assert term.name == "proximal"
                    for name, anchor in term.arrays.items():
                        gradients[name] = gradients[name] + np.float32(term.strength) * (arrays[name] - anchor)
                for name in moves:
                    velocity[name] = np.float32(training.momentum) * velocity[name] + gradients[name]
                    arrays[name] = arrays[name] - np.float32(training.lr) * velocity[name]
                arrays["norm.mean"] = np.float32(0.9) * arrays["norm.mean"] + np.float32(0.1) * hidden_mean
                arrays["norm.count"] = np.asarray(arrays["norm.count"] + 1)
                loss += batch_loss / len(order)
                n_steps += 1
        return Fitted(Weights(arrays, weights.kinds), loss, n_steps)

    def scores(self, weights: Weights, samples: Samples) -> Scores:
        return _forward(weights, samples.read())[2]

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        return _forward(weights, samples.read())[1]

    def gradients(self, weights: Weights, samples: Samples, objective: str) -> Weights:
        return Weights(_gradients(weights, samples.read(), samples.labels)[0])


def _forward(w: Mapping[str, Array], x: Array) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    hidden = x.astype(np.float32) @ w["trunk.weight"].T  # (n, width)
    features = (hidden - w["norm.mean"]) * w["norm.scale"]
    return hidden, features, features @ w["classifier.weight"].T + w["classifier.bias"]


def _gradients(w: Mapping[str, Array], x: Array, y: Array) -> tuple[dict[str, Array], float, Array]:
    """Mean gradients, summed loss, mean of the trunk's output; the running mean is a constant to the gradient."""
    hidden, features, scores = _forward(w, x)
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(x))
    d_scores = np.exp(log_p)
    d_scores[rows, y] -= 1
    d_scores = (d_scores / np.float32(len(x))).astype(np.float32)  # (n, n_classes)
    d_features = d_scores @ w["classifier.weight"]  # (n, width)
    gradients = {
        "trunk.weight": (d_features * w["norm.scale"]).T @ x.astype(np.float32),
        "norm.scale": (d_features * (hidden - w["norm.mean"])).sum(axis=0),
        "classifier.weight": d_scores.T @ features,
        "classifier.bias": d_scores.sum(axis=0),
    }
    return gradients, float(-log_p[rows, y].sum()), hidden.mean(axis=0)
