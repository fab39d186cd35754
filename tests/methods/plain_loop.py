"""The three first methods as one loop each: no engine, no codec, no records; what a textbook would write.

`samples` are the agents' training views by name, `rng_for(round, agent)` gives each local training its generator.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from common.method import Learner, Term, Training
from common.payloads import Array, Weights
from common.samples import Samples

RngFor = Callable[[int, str], np.random.Generator]


@dataclass(frozen=True)
class Federation:
    learner: Learner
    samples: Mapping[str, Samples]
    training: Training
    rng_for: RngFor


def fedavg(federation: Federation, weights: Weights, rounds: int) -> Weights:
    return fedprox(federation, weights, rounds, mu=0.0)


def fedprox(federation: Federation, weights: Weights, rounds: int, mu: float) -> Weights:
    n_total = sum(len(samples) for samples in federation.samples.values())
    for number in range(1, rounds + 1):
        after = {}
        terms = (Term("proximal", mu, _floats(weights)),) if mu else ()
        for agent in federation.samples:
            after[agent] = _trained(federation, weights, number, agent, terms)
        mean: dict[str, Array] = {}
        for name, array in weights.items():
            if weights.kind(name) == "counter":
                mean[name] = np.max([trained[name] for trained in after.values()], axis=0)
            else:
                share = {agent: len(samples) / n_total for agent, samples in federation.samples.items()}
                total = sum(share[agent] * after[agent][name].astype(np.float64) for agent in after)
                mean[name] = np.asarray(total).astype(array.dtype)
        weights = Weights(mean, weights.kinds)
    return weights


def local(federation: Federation, weights: Weights, rounds: int) -> dict[str, Weights]:
    after = dict.fromkeys(federation.samples, weights)
    for number in range(1, rounds + 1):
        for agent in federation.samples:
            after[agent] = _trained(federation, after[agent], number, agent, ())
    return after


def _trained(federation: Federation, weights: Weights, number: int, agent: str, terms: tuple[Term, ...]) -> Weights:
    samples, rng = federation.samples[agent], federation.rng_for(number, agent)
    return federation.learner.fit(weights, samples, federation.training, terms=terms, rng=rng).weights


def _floats(weights: Weights) -> dict[str, Array]:
    return {name: array for name, array in weights.items() if weights.kind(name) == "param"}
