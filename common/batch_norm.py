"""Batch norm that is an agent's own: its layers, or statistics taken again from its images."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common import seeds
from common.average import check_like
from common.method import Learner, Site
from common.payloads import Weights
from common.samples import Samples

N_STEPS = 40  # at momentum 0.1, the nets' own, 0.9^40 = 1.5 % of the old statistics is left


@dataclass(frozen=True)
class Own:
    """An agent's layers, and the group that the rest of its backbone is averaged with."""

    group: str
    layers: Weights


def apart(agent: str, weights: Weights, own: Weights | None) -> tuple[Weights, Weights]:
    """The layers of a reply that are the agent's own, and the rest; `own` are their first values.

    Raises:
        RemoteFault: one of its own is missing or has another shape.
    """
    names = own or Weights({})
    layers = weights.only(name for name in names if name in weights)
    check_like(agent, layers, names)
    return layers, weights.without(names)


def re_estimated(site: Site[Any], learner: Learner, weights: Weights, samples: Samples) -> Weights:
    """The weights with statistics of these samples: a training that moves nothing else, at learning rate 0.

    Labels play no part, but the objective may ask for some, so all are 0. The same samples give the same statistics:
    nothing is drawn from the site's own stream. Views are the objective's.
    """
    parameters = learner.parameters()
    layers = {spec.layer for spec in parameters.values() if spec.kind == "buffer"}
    names = [name for name, spec in parameters.items() if spec.layer in layers]
    if len(samples) < 2 or not names:
        return weights
    batch = max(2, min(site.training.batch, len(samples)))
    epochs = math.ceil(N_STEPS / (len(samples) // batch))
    still = replace(
        site.training, optimiser="sgd", lr=0.0, momentum=0.0, weight_decay=0.0, epochs=epochs, batch=batch, steps=None
    )
    blank = replace(samples, labels=np.zeros(len(samples), np.int64))
    rng = seeds.generator(site.run.seed, "batch norm")
    seen = learner.fit(weights, blank, still, trainable=names, rng=rng).weights
    return weights.updated(seen.only(n for n, spec in parameters.items() if spec.kind != "param"))
