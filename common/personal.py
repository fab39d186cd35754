"""Which tensors of a model stay with the agent, and how a whole model is put together again."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from common.errors import ConfigError
from common.method import Learner, Model, RunSpec, Site, Spec
from common.payloads import Array, Payload, Weights

BatchNorm = Literal["average", "local"]


def first_weights(model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> Weights:
    """The model's first draw, with the payload "weights" of an earlier run over it.

    Raises:
        ConfigError: the earlier weights have another shape (a head, or what belongs to the objective, may: it keeps its
            draw), name a tensor that the model does not have, or lack any other.
    """
    drawn = model.initial(rng)
    given = start.get("weights")
    if given is None:
        return drawn
    if not isinstance(given, Weights):
        raise ConfigError(f"init_from: payload 'weights' must be weights, got {type(given).__name__}")
    unknown = [name for name in given if name not in drawn]
    if unknown:
        raise ConfigError(f"init_from: the model has no tensor {unknown[0]!r}; it has {', '.join(drawn)}")
    overlay: dict[str, Array] = {}
    for name, spec in model.parameters().items():
        if name in given and given[name].shape == drawn[name].shape:
            overlay[name] = given[name].astype(drawn[name].dtype, copy=False)
        elif spec.part not in ("head", "objective"):
            got = list(given[name].shape) if name in given else "nothing"
            raise ConfigError(f"init_from: tensor {name!r} must be {list(drawn[name].shape)}, got {got}")
    return drawn.updated(overlay)


def own_head(run: RunSpec[Any], parameters: Mapping[str, Spec]) -> tuple[str, ...]:
    """Tensors of a head that each agent has for itself, with its own number of classes: head = "agent"."""
    return head(parameters) if run.head == "agent" else ()


def head(parameters: Mapping[str, Spec]) -> tuple[str, ...]:
    return tuple(name for name, spec in parameters.items() if spec.part == "head")


def batch_norm(parameters: Mapping[str, Spec], rule: BatchNorm) -> tuple[str, ...]:
    """Tensors that bn = "local" keeps: all of each layer that has running statistics, its scale and shift too.

    Source: Li et al., FedBN, ICLR 2021.
    """
    if rule == "average":
        return ()
    layers = {spec.layer for spec in parameters.values() if spec.kind == "buffer"}
    return tuple(n for n, s in parameters.items() if s.kind == "buffer" or (s.layer and s.layer in layers))


def whole(site: Site[Any], learner: Learner, parts: Iterable[Weights | None]) -> Weights:
    """The full model: later parts over earlier ones, in the model's order.

    A tensor that no part has is the agent's own first draw.
    """
    found = Weights({})
    for part in parts:
        found = found if part is None else found.updated(part)
    parameters = learner.parameters()
    if any(name not in found for name in parameters):
        found = site.initial(learner).updated(found)
    return Weights({name: found[name] for name in parameters}, found.kinds)
