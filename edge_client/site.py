"""What a method's `work` and `predict` see on an agent: `common.method.Site`, metered."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import models, seeds
from common.meter import Meter
from common.method import Fitted, Learner, ModelPart, RunSpec, Scalar, Scores, SiteData, Spec, Term, Training
from common.payloads import Weights
from common.samples import Samples
from edge_client import learners
from edge_client.data.agent_data import AgentData
from edge_client.data.loaded import LoadedSource

EMBEDDINGS_BYTES = 512 << 20  # 17,000 images of 2,048 features, train and test, are 140 MB


@dataclass(frozen=True)
class Views:
    """`common.method.SiteData`. The holdout is cut from the training part and the rest trained on."""

    train: Samples
    holdout: Samples
    test: Samples
    unlabelled: Samples


def views(data: AgentData, share: float, rng: "np.random.Generator") -> Views:
    """The agent's views with that share of the training part held out, rounded down."""
    order = rng.permutation(len(data.train))
    n_held = int(len(order) * share)
    held, kept = np.sort(order[:n_held]), np.sort(order[n_held:])
    train = data.train if n_held == 0 else data.train.take(kept)
    unlabelled = train.unlabelled() if data.extra is None else data.extra
    return Views(train, data.train.take(held), data.test, unlabelled)


@dataclass
class Trained:
    """What the learners of a task did, over all their trainings."""

    n_samples: int = 0  # of each training, summed
    n_steps: int = 0
    loss_sum: float = 0.0
    model_bytes: int = 0  # of the largest

    @property
    def loss(self) -> float | None:
        """Mean over the samples; None where nothing was trained, or by the gradients alone."""
        return self.loss_sum / self.n_samples if self.n_samples else None


_NO_STATE = Training()  # a gradient needs no state of an optimiser


class Embeddings:
    """Features by (model, weights, samples, layer), the latest used ones; shared by the tasks of a process."""

    def __init__(self, at_most_bytes: int = EMBEDDINGS_BYTES) -> None:
        self._found: OrderedDict[bytes, Scores] = OrderedDict()
        self._at_most_bytes = at_most_bytes

    def get(self, key: bytes) -> Scores | None:
        if key in self._found:
            self._found.move_to_end(key)
        return self._found.get(key)

    def keep(self, key: bytes, features: Scores) -> None:
        features.flags.writeable = False
        self._found[key] = features
        while sum(kept.nbytes for kept in self._found.values()) > self._at_most_bytes:
            self._found.popitem(last=False)


class TaskSite:
    """`common.method.Site` for one task, or for one evaluation moment of it: each has random numbers of its own.

    `check` is called before whatever takes long; it raises when the task is to end.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        run: RunSpec[Any],  # Any: of the method's own Config
        agent: str,
        classes: tuple[str, ...],
        data: Views,
        source: LoadedSource,
        *,
        rng: "np.random.Generator",
        training: Training | None = None,
        preference: str = "auto",
        meter: Meter,
        embeddings: Embeddings,
        check: Callable[[], None],
    ) -> None:
        self.run = run
        self.training = run.training if training is None else training
        self.classes = classes
        self.data: SiteData = data
        self.rng = rng
        self.trained = Trained()
        self._agent = agent
        self._source = source
        self._preference = preference
        self._meter = meter
        self._embeddings = embeddings
        self._check = check

    def learner(self, *, model: str | None = None, terms: tuple[str, ...] = (), **variant: Scalar) -> Learner:
        self._check()
        if model is not None:
            variant["model"] = model
        spec, n_classes = models.varied(self.run.model, len(self.classes), variant)
        spec = models.with_classes(spec, self.classes)
        objective = self.training.objective
        name = learners.choose(self._preference, spec, objective=objective)
        options = self.training.objective_options
        inner = learners.make(name, spec, n_classes, objective=objective, objective_options=options, terms=terms)
        return MeteredLearner(inner, f"{name} {spec}", self.trained, self._embeddings, self._check)

    def initial(self, learner: Learner, part: ModelPart | None = None) -> Weights:
        drawn = learner.initial(seeds.generator(self.run.seed, self._agent, "initial"))
        if part is None:
            return drawn
        return drawn.only(name for name, spec in learner.parameters().items() if spec.part == part)

    @contextmanager
    def span(self, name: str, n_samples: int) -> Iterator[None]:
        self._check()
        before, self.trained.model_bytes = self.trained.model_bytes, 0
        try:
            with self._source.touched() as touched, self._meter.span(name, n_samples) as span:
                try:
                    yield
                finally:
                    span.data_bytes = touched.n_bytes
                    span.model_bytes = self.trained.model_bytes
        finally:
            self.trained.model_bytes = max(before, self.trained.model_bytes)

    def count(self, name: str, n: float) -> None:
        self._meter.count(name, n)


class MeteredLearner:
    """A learner whose trainings are counted and whose features are remembered."""

    def __init__(
        self, inner: Learner, name: str, trained: Trained, embeddings: Embeddings, check: Callable[[], None]
    ) -> None:
        self.n_classes = inner.n_classes
        self._inner = inner
        self._name = name
        self._trained = trained
        self._embeddings = embeddings
        self._check = check

    def parameters(self) -> dict[str, Spec]:
        return self._inner.parameters()

    def initial(self, rng: "np.random.Generator") -> Weights:
        return self._inner.initial(rng)

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
        self._check()
        fitted = self._inner.fit(weights, samples, training, terms=terms, trainable=trainable, rng=rng)
        counted = self._trained
        if training.lr:  # else statistics were taken, and nothing was trained
            counted.n_samples += len(samples)
            counted.n_steps += fitted.n_steps
            counted.loss_sum += fitted.loss * len(samples)
        self._count_bytes(training)
        return fitted

    def scores(self, weights: Weights, samples: Samples) -> Scores:
        self._check()
        return self._inner.scores(weights, samples)

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        if not samples.source.digest:
            return self._inner.embed(weights, samples, layer)
        key = self._key(weights, samples, layer)
        found = self._embeddings.get(key)
        if found is None:
            found = self._inner.embed(weights, samples, layer)
            self._embeddings.keep(key, found)
        return found

    def gradients(self, weights: Weights, samples: Samples, objective: str) -> Weights:
        self._check()
        self._count_bytes(_NO_STATE)
        return self._inner.gradients(weights, samples, objective)

    def _count_bytes(self, training: Training) -> None:
        n_bytes = learners.model_bytes(self._inner, training)
        self._trained.model_bytes = max(self._trained.model_bytes, n_bytes)

    def _key(self, weights: Weights, samples: Samples, layer: str) -> bytes:
        key = hashlib.sha256(f"{self._name}\n{layer}\n{samples.source.digest}\n".encode())
        key.update(samples.positions.tobytes())
        if weights.origin is not None:
            key.update(weights.origin.sha256)
        else:
            for name, array in weights.items():
                key.update(f"{name} {array.dtype} {array.shape}\n".encode())
                key.update(np.ascontiguousarray(array).data)
        return key.digest()
