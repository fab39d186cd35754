"""The torch learner: arrays in, arrays out; one module per learner, filled by copy."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch

from common import models, objectives, orders
from common.errors import LocalFault
from common.method import Fitted, ModelSpec, Scalar, Scores, Spec, Term, Training
from common.payloads import Weights
from common.samples import Labels, Samples
from edge_client.learners import checks, inputs, proximal
from edge_client.learners.torch.inputs import Prepare, tensor
from edge_client.learners.torch.network import Network
from edge_client.learners.torch.optimisers import optimiser
from edge_client.learners.torch.terms import TERMS, Loss


class TorchLearner:
    """`common.method.Learner` for every net and objective. Not for two threads at once."""

    def __init__(
        self,
        model: ModelSpec,
        n_classes: int,
        objective: str,
        objective_options: Mapping[str, Scalar],
        terms: tuple[str, ...],
        *,
        device: torch.device,
    ) -> None:
        self.n_classes = n_classes
        self._model = models.load(model, n_classes, objective=objective, objective_options=objective_options)
        self._shape = models.shape_of(models.options_of(model).input)
        self._flattens = models.is_dense(model.name)
        self._channels_last = self._flattens or bool(models.options_of(model).channels_last)
        self._terms = terms
        self._network = Network(model, n_classes, objective, objective_options, device)
        self._net_terms = getattr(self._network.net, "terms", {})  # those that only this net has
        checks.known_terms(terms, {*TERMS, *self._net_terms})

    def parameters(self) -> dict[str, Spec]:
        return dict(self._network.specs)

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
        """The loss is the objective's alone, without terms; with nothing to train on it is 0.

        A layer none of whose tensors may move keeps its buffers too, and works as in evaluation.
        """
        objective = self._objective(training.objective, training.objective_options)
        checks.terms(terms, self._terms)
        names = checks.trainable(trainable, self._network.specs)
        self._load(weights)
        if not len(samples):
            return Fitted(weights, 0.0, 0)
        with deterministic(self._network.device):
            self._network.begin_training(names)
            try:
                loss, n_steps = self._train(objective, samples, training, terms, names, rng)
            finally:
                self._network.end_training()
        if not n_steps:
            return Fitted(weights, 0.0, 0)
        return Fitted(weights.updated(self._network.params(names) | self._network.buffers(names)), loss, n_steps)

    def _train(
        self,
        objective: "_Objective",
        samples: Samples,
        training: Training,
        terms: tuple[Term, ...],
        names: frozenset[str],
        rng: "np.random.Generator",
    ) -> tuple[float, int]:
        network = self._network
        data, labels = self._read(samples, objective)
        prepare = self._prepare(samples)
        pulls = [
            (p, torch.from_numpy(p.anchor).to(network.device)) for p in proximal.pulls(terms, network.layout, names)
        ]
        extra = [(t.strength, self._term(t)) for t in terms if t.name != "proximal"]
        step = optimiser(training, network.layout.runs(names))
        flat, slopes, noise = network.flat, network.slopes, None
        if objective.random:
            noise = torch.Generator(network.device).manual_seed(int(rng.integers(2**63)))
        n_steps, last, seen, total = 0, 0, 0, torch.zeros((), dtype=torch.float64, device=network.device)
        for epoch, which in orders.batches(len(samples), training, rng, has_batch_norm=network.has_batch_norm):
            if epoch != last:
                last, seen, total = epoch, 0, torch.zeros_like(total)
            places = torch.from_numpy(which).to(network.device)
            shown = network.see(objective.views(prepare, data[places], noise), labels[places])
            loss = objective.loss(shown)
            total += loss.detach() * len(which)
            for strength, term in extra:
                loss = loss + strength * term(shown)
            slopes.zero_()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            with torch.no_grad():
                for pull, anchor in pulls:
                    for run in pull.runs:
                        slopes[run].add_(flat[run] - anchor[run], alpha=pull.strength)
                step(flat, slopes)
            n_steps, seen = n_steps + 1, seen + len(which)
        return float(total) / max(1, seen), n_steps

    def _term(self, term: Term) -> Loss:
        if term.name in self._net_terms:
            return cast(Loss, self._net_terms[term.name](term))
        return TERMS[term.name](term, self.n_classes, self._network.net.dim, self._network.device)

    def scores(self, weights: Weights, samples: Samples) -> Scores:
        self._load(weights)
        return self._each(samples, lambda x: self._network.classify(self._network.features(x)))

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        """Any module of the net is a layer too, by its path; its output is flattened."""
        checks.layer(layer, self._network.layers())
        self._load(weights)
        return self._each(samples, lambda x: self._network.output_of(layer, x))

    def gradients(self, weights: Weights, samples: Samples, objective: str) -> Weights:
        """As in evaluation: batch norm uses its running statistics. Random views are drawn alike at every call."""
        used = self._objective(objective, self._model.objective_options if objective == self._model.objective else {})
        self._load(weights)
        network = self._network
        noise = torch.Generator(network.device).manual_seed(0) if used.random else None
        prepare = self._prepare(samples)
        with deterministic(network.device):
            network.want_gradients(network.layout.shapes)
            try:
                for x, y in self._batches(samples):
                    used.check(y, self.n_classes)
                    shown = network.see(used.views(prepare, x, noise), torch.from_numpy(np.array(y)).to(network.device))
                    (used.loss(shown) * (len(y) / len(samples))).backward()  # type: ignore[no-untyped-call]  # torch
                return Weights(network.gradients())
            finally:
                network.end_training()

    def _load(self, weights: Weights) -> None:
        checks.weights(self._network.specs, weights, self._model.spec.name)
        self._network.load(weights)

    def _objective(self, name: str, options: Mapping[str, Scalar]) -> "_Objective":
        module = objectives.load(name)
        if name != self._model.objective and hasattr(module, "build"):
            raise LocalFault(f"this learner was made for objective {self._model.objective!r}, asked for {name!r}")
        return _Objective(module, models.from_options(module.Options, options, f"option of objective {name}"))

    def _prepare(self, samples: Samples) -> Prepare:
        scale = inputs.scaling(samples.source)
        device = self._network.device
        return Prepare(scale, flattens=self._flattens, channels_last=self._channels_last, device=device)

    def _read(self, samples: Samples, objective: "_Objective") -> tuple[torch.Tensor, torch.Tensor]:
        objective.check(samples.labels, self.n_classes)
        data = samples.read()
        checks.batch(data, self._shape, self._model.spec.name, flattens=self._flattens)
        return tensor(data, self._network.device), torch.from_numpy(np.array(samples.labels)).to(self._network.device)

    def _batches(self, samples: Samples) -> Iterator[tuple[torch.Tensor, Labels]]:
        for x, y in samples.batches(checks.rows(samples)):
            checks.batch(x, self._shape, self._model.spec.name, flattens=self._flattens)
            yield tensor(x, self._network.device), y

    @torch.no_grad()
    def _each(self, samples: Samples, f: Callable[[torch.Tensor], torch.Tensor]) -> Scores:
        prepare = self._prepare(samples)
        with deterministic(self._network.device):
            if not len(samples):  # rows that are not there still have a width
                return _array(f(prepare(torch.zeros((1, *self._shape), device=self._network.device))))[:0]
            return np.concatenate([_array(f(prepare(x))) for x, _ in self._batches(samples)])


class _Objective:
    """An objective's file with its options filled in."""

    def __init__(self, module: ModuleType, options: Any) -> None:
        self._module = module
        self._options = options
        self.random: bool = module.RANDOM

    def views(self, prepare: Prepare, x: torch.Tensor, noise: torch.Generator | None) -> tuple[torch.Tensor, ...]:
        seen: tuple[torch.Tensor, ...] = self._module.views(prepare.pixels(x), noise, self._options)
        return tuple(prepare.normalised(view, x.dtype) for view in seen)

    def loss(self, seen: objectives.Seen) -> torch.Tensor:
        return cast(torch.Tensor, self._module.loss(seen, self._options))

    def check(self, labels: Labels, n_classes: int) -> None:
        if self._module.LABELS:
            checks.labels(labels, n_classes)


def _array(tensor: torch.Tensor) -> Scores:
    return cast(Scores, tensor.cpu().numpy())


def deterministic(device: torch.device) -> AbstractContextManager[None]:
    """On CUDA: cuDNN's deterministic kernels in full float32; the CPU's are deterministic as they are."""
    if device.type == "cpu":
        return nullcontext()
    return torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False)
