"""The numpy learner: forward and backward by hand, float32, over one flat vector of weights."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from common import models, orders
from common.errors import ConfigError
from common.method import Fitted, ModelSpec, Scores, Spec, Term, Training
from common.payloads import Weights
from common.samples import Labels, Samples
from edge_client.learners import checks, inputs, proximal
from edge_client.learners.layout import Flat, Layout
from edge_client.learners.numpy.optimisers import optimiser

TERMS = ("prototypes",)
Named = dict[str, Flat]


class NumpyLearner:
    """`common.method.Learner` for `linear` and `mlp`."""

    def __init__(self, model: ModelSpec, n_classes: int, terms: tuple[str, ...]) -> None:
        checks.known_terms(terms, TERMS)
        self.n_classes = n_classes
        self._model = models.load(model, n_classes)
        self._specs = self._model.parameters()
        self._shape = models.shape_of(models.options_of(model).input)
        self._layout = Layout(self._specs)
        hidden = self._specs.get("fc1.bias")
        self._dim = int(np.prod(self._shape)) if hidden is None else hidden.shape[0]
        self._terms = terms

    def parameters(self) -> dict[str, Spec]:
        return dict(self._specs)

    def initial(self, rng: "np.random.Generator") -> Weights:
        return self._model.initial(rng)

    def fit(
        self,
        weights: Weights,
        samples: Samples,
        training: Training,
        *,
        terms: tuple[Term, ...] = (),
        trainable: Iterable[str] | None = None,
        rng: "np.random.Generator",
    ) -> Fitted:
        """The loss is cross-entropy alone, without terms; with nothing to train on it is 0."""
        self._check(weights)
        _check_objective(training.objective)
        checks.terms(terms, self._terms)
        checks.labels(samples.labels, self.n_classes)
        names = checks.trainable(trainable, self._specs)
        if not len(samples):
            return Fitted(weights, 0.0, 0)
        data = self._read(samples)
        flat, slopes = self._layout.flat(weights), np.zeros(self._layout.size, np.float32)
        w, g = self._layout.views(flat), self._layout.views(slopes)
        pulls = proximal.pulls(terms, self._layout, names)
        prototypes = [_Prototypes(term, self.n_classes, self._dim) for term in terms if term.name == "prototypes"]
        step = optimiser(training, self._layout.runs(names))
        scale, n_steps, last, total, seen = inputs.scaling(samples.source), 0, 0, 0.0, 0
        for epoch, which in orders.batches(len(samples), training, rng):
            if epoch != last:
                last, total, seen = epoch, 0.0, 0
            x, y = inputs.prepared(data[which], scale), samples.labels[which]
            total += _slopes(w, g, x, y, prototypes) * len(which)
            for pull in pulls:
                for run in pull.runs:
                    slopes[run] += np.float32(pull.strength) * (flat[run] - pull.anchor[run])
            step(flat, slopes)
            n_steps, seen = n_steps + 1, seen + len(which)
        moved = {name: w[name] for name in w if name in names} if n_steps else {}
        return Fitted(weights.updated(moved), total / max(1, seen), n_steps)

    def scores(self, weights: Weights, samples: Samples) -> Scores:
        self._check(weights)
        w = _floats(weights)
        found = [_scores(w, _hidden(w, x)) for x, _ in self._batches(samples)]
        return np.concatenate([np.zeros((0, self.n_classes), np.float32), *found])

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        """`linear` embeds a sample as its own pixels, `mlp` as its hidden layer after the ReLU."""
        checks.layer(layer, ("embedding",))
        self._check(weights)
        w = _floats(weights)
        found = [_hidden(w, x) for x, _ in self._batches(samples)]
        return np.concatenate([np.zeros((0, self._dim), np.float32), *found])

    def gradients(self, weights: Weights, samples: Samples, objective: str) -> Weights:
        self._check(weights)
        _check_objective(objective)
        checks.labels(samples.labels, self.n_classes)
        w, total = _floats(weights), np.zeros(self._layout.size, np.float32)
        g = self._layout.views(np.zeros(self._layout.size, np.float32))
        sums = self._layout.views(total)
        for x, y in self._batches(samples):
            _slopes(w, g, x, y, [])
            for name, sum_ in sums.items():
                sum_ += g[name] * np.float32(len(x) / len(samples))
        return Weights(sums)

    def _check(self, weights: Weights) -> None:
        checks.weights(self._specs, weights, self._model.spec.name)

    def _read(self, samples: Samples) -> NDArray[np.generic]:
        data = samples.read()
        checks.batch(data, self._shape, self._model.spec.name, flattens=True)
        return data

    def _batches(self, samples: Samples) -> Iterator[tuple[Flat, Labels]]:
        scale = inputs.scaling(samples.source)
        for x, y in samples.batches(checks.rows(samples)):
            checks.batch(x, self._shape, self._model.spec.name, flattens=True)
            yield inputs.prepared(x, scale), y


class _Prototypes:
    """strength * mean over the samples whose class has one of ||embedding - prototype||^2."""

    def __init__(self, term: Term, n_classes: int, dim: int) -> None:
        self.strength = np.float32(term.strength)
        ids, vectors = checks.prototypes(term, n_classes, dim)
        self.has = np.isin(np.arange(n_classes), ids)
        self.vectors = np.zeros((n_classes, dim), np.float32)
        self.vectors[ids] = vectors

    def slope(self, hidden: Flat, y: Labels) -> Flat | float:
        has = self.has[y]
        if not has.any():
            return 0.0
        factor = np.float32(2) * self.strength / np.float32(np.count_nonzero(has))
        return factor * np.where(has[:, None], hidden - self.vectors[y], np.float32(0))


def _hidden(w: Named, x: Flat) -> Flat:
    return np.maximum(x @ w["fc1.weight"].T + w["fc1.bias"], 0) if "fc1.weight" in w else x


def _scores(w: Named, hidden: Flat) -> Flat:
    return hidden @ w["classifier.weight"].T + w["classifier.bias"]


def _slopes(w: Named, g: Named, x: Flat, y: Labels, prototypes: list[_Prototypes]) -> float:
    """Writes the gradient of the mean loss over the batch into `g`; returns that loss."""
    hidden = _hidden(w, x)
    scores = _scores(w, hidden)
    scores -= scores.max(axis=1, keepdims=True)
    odds = np.exp(scores)
    sums = odds.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = float(np.mean(np.log(sums[:, 0]) - scores[rows, y]))
    d_scores = odds / sums  # (n, n_classes)
    d_scores[rows, y] -= 1
    d_scores /= np.float32(len(y))
    np.matmul(d_scores.T, hidden, out=g["classifier.weight"])
    d_scores.sum(axis=0, out=g["classifier.bias"])
    if "fc1.weight" in w:
        d_hidden = d_scores @ w["classifier.weight"]
        for term in prototypes:
            d_hidden += term.slope(hidden, y)
        d_hidden *= hidden > 0
        np.matmul(d_hidden.T, x, out=g["fc1.weight"])
        d_hidden.sum(axis=0, out=g["fc1.bias"])
    return loss


def _floats(weights: Weights) -> Named:
    return {name: np.asarray(array, np.float32) for name, array in weights.items()}


def _check_objective(name: str) -> None:
    if name != "cross_entropy":
        raise ConfigError(f"the numpy learner has the objective 'cross_entropy' only; {name!r} needs edgefed[torch]")
