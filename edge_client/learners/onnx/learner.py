"""The onnx learner: the graph's bytes are the backbone's one tensor, so weights in, arrays out, as with any other."""

import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from common import models
from common.errors import ConfigError, RemoteFault
from common.method import Fitted, ModelSpec, Scores, Spec, Term, Training
from common.payloads import Weights
from common.samples import Samples, from_arrays
from edge_client.learners import checks, inputs
from edge_client.learners.layout import Flat
from edge_client.learners.numpy.learner import NumpyLearner

PIXELS, FEATURES = "pixels", "features"  # the graph's input (n, channels, height, width) and output (n, dim)


class OnnxLearner:
    """`common.method.Learner` for `onnx`: only the head is trained, on features, by the numpy learner."""

    def __init__(self, model: ModelSpec, n_classes: int, terms: tuple[str, ...]) -> None:
        self.n_classes = n_classes
        self._model = models.load(model, n_classes)
        self._specs = self._model.parameters()
        options = models.options_of(model)
        self._shape = models.shape_of(options.input)
        self._dim = options.dim
        self._head = NumpyLearner(ModelSpec("linear", {"input": str(options.dim)}), n_classes, terms)

    def parameters(self) -> dict[str, Spec]:
        return dict(self._specs)

    def initial(self, rng: np.random.Generator) -> Weights:
        return self._model.initial(rng)

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
        """Trains the head; raises ConfigError when the backbone is named among what is to move."""
        moving = set(self._specs) - {models.GRAPH} if trainable is None else set(trainable)
        if models.GRAPH in moving:
            raise ConfigError("an exported backbone is frozen: set [method] tune = 'head', or train where torch is")
        head = self._head_of(weights)
        fitted = self._head.fit(head, self._seen(weights, samples), training, terms=terms, trainable=moving, rng=rng)
        return Fitted(weights.updated(fitted.weights), fitted.loss, fitted.n_steps)

    def scores(self, weights: Weights, samples: Samples) -> Scores:
        return self._head.scores(self._head_of(weights), self._seen(weights, samples))

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        checks.layer(layer, ("embedding",))
        checks.weights(self._specs, weights, models.EXPORTED)
        session = _session(weights[models.GRAPH].tobytes())
        found = [session.run([FEATURES], {PIXELS: x})[0] for x in self._batches(samples)]
        features = np.concatenate([np.zeros((0, self._dim), np.float32), *found])
        if features.shape != (len(samples), self._dim):
            raise RemoteFault(
                f"the exported backbone gives features of another size; set [model] dim to its own: expected "
                f"{[len(samples), self._dim]}, got {list(features.shape)}"
            )
        return features

    def gradients(self, weights: Weights, samples: Samples, objective: str) -> Weights:
        """Of the head; the backbone has no parameters here."""
        return self._head.gradients(self._head_of(weights), self._seen(weights, samples), objective)

    def _head_of(self, weights: Weights) -> Weights:
        checks.weights(self._specs, weights, models.EXPORTED)
        return weights.without([models.GRAPH])

    def _seen(self, weights: Weights, samples: Samples) -> Samples:
        return from_arrays(self.embed(weights, samples), samples.labels, samples.n_classes)

    def _batches(self, samples: Samples) -> Iterator[Flat]:
        scale = inputs.scaling(samples.source)
        for x, _ in samples.batches(checks.rows(samples)):
            checks.batch(x, self._shape, models.EXPORTED, flattens=False)
            yield np.ascontiguousarray(inputs.prepared(x, scale).reshape(x.shape).transpose(0, 3, 1, 2))


@functools.lru_cache(maxsize=2)  # a run's backbone, and that of a run beside it
def _session(graph: bytes) -> Any:  # Any: onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    threads = os.environ.get("EDGEFED_THREADS") or os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        options.intra_op_num_threads = int(threads)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class but this
        raise RemoteFault(f"the exported backbone is no ONNX graph that onnxruntime can load: {error}") from error
