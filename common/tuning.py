"""Which part of a backbone an agent tunes and keeps, and whether a head is of the agent's classes."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from common import personal
from common.average import check_like
from common.errors import ConfigError, RemoteFault
from common.method import AgentInfo, Model, Spec
from common.payloads import Blob, Payload, Weights

Tune = Literal["head", "last", "all"]
BatchNorm = Literal["average", "local", "re-estimated"]
HEAD, CLASSES = "head.", "classes."  # in the names of a result's payloads, before that of a task


def trunk(model: Model, given: Payload | None, rng: np.random.Generator) -> Weights:
    """A backbone without a head: the given one, checked against the model, or the model's first draw."""
    start = {} if given is None else {"weights": given}
    return personal.first_weights(model, start, rng).without(personal.head(model.parameters()))


def trunks(
    model: Model, parts: Mapping[str, Weights], rng: np.random.Generator, *, averaged: bool
) -> dict[str, Weights]:
    """Backbones that were trained apart, by agent or task.

    Raises:
        ConfigError: what is tuned of them would be averaged.
    """
    if parts and averaged:
        raise ConfigError("backbones that were trained apart are not averaged: set [method] backbone = 'own'")
    return {name: trunk(model, weights, rng) for name, weights in parts.items()}


def given(start: Mapping[str, Payload], prefix: str) -> dict[str, Weights]:
    """Those weights of an earlier run's result whose names begin so, by the rest of their names."""
    found = {name.removeprefix(prefix): start[name] for name in start if name.startswith(prefix)}
    return {name: payload for name, payload in found.items() if isinstance(payload, Weights)}


def heads_as_payloads(heads: Mapping[str, Weights], classes: Mapping[str, str]) -> dict[str, Payload]:
    """Heads by task, each with the digest of the class list that it is of."""
    found: dict[str, Payload] = {HEAD + task: head for task, head in heads.items()}
    known = [task for task in heads if task in classes]
    return found | {CLASSES + task: Blob("text/plain", classes[task].encode()) for task in known}


def given_heads(start: Mapping[str, Payload]) -> tuple[dict[str, Weights], dict[str, str]]:
    """What `heads_as_payloads` made of them in an earlier run."""
    lists = {name.removeprefix(CLASSES): start[name] for name in start if name.startswith(CLASSES)}
    return given(start, HEAD), {task: bytes(b.data).decode() for task, b in lists.items() if isinstance(b, Blob)}


def moving(parameters: Mapping[str, Spec], tune: Tune) -> tuple[str, ...]:
    """What moves of the trunk; its last stage is the module that its last tensor belongs to.

    Of the outermost modules, or of those within the one that holds them all: `layer4` of a ResNet, `blocks.2`.
    """
    trunk = [name for name, spec in parameters.items() if spec.part == "trunk"]
    if tune == "head" or not trunk:
        return ()
    if tune == "all":
        return tuple(trunk)
    modules = [name.split(".")[:-1] for name in trunk]
    depth = 1
    while len({tuple(path[:depth]) for path in modules}) == 1 and depth < len(modules[-1]):
        depth += 1
    return tuple(n for n, path in zip(trunk, modules, strict=True) if path[:depth] == modules[-1][:depth])


def shared(parameters: Mapping[str, Spec], tune: Tune, rule: BatchNorm) -> tuple[str, ...]:
    """What moves of the trunk and does not stay with an agent."""
    stays = own_norm(parameters, rule)
    return tuple(name for name in moving(parameters, tune) if name not in stays)


def own_norm(parameters: Mapping[str, Spec], rule: BatchNorm) -> tuple[str, ...]:
    """What stays with an agent of batch norm: nothing, its layers, or their statistics."""
    if rule == "re-estimated":
        return tuple(name for name in personal.batch_norm(parameters, "local") if parameters[name].kind != "param")
    return personal.batch_norm(parameters, rule)


def one_class(model: Model) -> Weights:
    """A head of zeros of one class."""
    specs = {name: spec for name, spec in model.parameters(n_classes=1).items() if spec.part == "head"}
    return Weights({name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()})


def check_objective(parameters: Mapping[str, Spec], objective: str, *, on_features: bool) -> None:
    """Raises ConfigError for one that trains without labels, or that wants images where there are features."""
    if on_features and objective != "cross_entropy":
        raise ConfigError(
            f"a head on kept features sees no images, so nothing can be augmented: set [objective] name ="
            f" 'cross_entropy' or [method] features = 'computed', got {objective!r}"
        )
    if any(spec.part == "objective" for spec in parameters.values()):
        raise ConfigError(f"heads are trained with labels: set [objective] name = 'cross_entropy', got {objective!r}")


def check_classes(before: Sequence[str], now: Sequence[str]) -> None:
    """Of one agent, when its head was trained and now; nothing is known before the first training.

    Raises:
        ConfigError: they differ.
    """
    if before and tuple(before) != tuple(now):
        raise ConfigError(
            f"the classes of this agent's data have changed since its head was trained; bring the data back, or start "
            f"a new run: expected {_shown(before)}, got {_shown(now)}"
        )


def check_task(agent: AgentInfo, known: str) -> None:
    """A task's class list is the same for all its agents, and in all rounds; `known` is its digest.

    Raises:
        RemoteFault: this agent has another.
    """
    if agent.data.classes_sha256 != known:
        raise RemoteFault(
            f"agent {agent.name}: its task {agent.data.name!r} has other classes than the run knows under that name; "
            f"give its data a name of their own, expected {known[:8]}, got {agent.data.classes_sha256[:8]}"
        )


def check_head(head: Weights | None, parameters: Mapping[str, Spec], n_classes: int) -> None:
    """The head that a run has for an agent's task, against the agent's own classes.

    Raises:
        ConfigError: they do not fit.
    """
    for name, array in (head or {}).items():
        expected = list(parameters[name].shape) if name in parameters else "no such tensor"
        if expected != list(array.shape):
            raise ConfigError(
                f"the run's head for this agent's task is not of its {n_classes} classes: tensor {name!r}, "
                f"expected {expected}, got {list(array.shape)}"
            )


def check_sent_head(agent: AgentInfo, head: Weights, one: Weights) -> None:
    """The head that an agent sent, against a head of one class; `one` is empty where heads stay with their agents.

    Raises:
        RemoteFault: it is none of this model and of the agent's number of classes.
    """
    shapes = {name: (agent.data.n_classes, *array.shape[1:]) for name, array in one.items()}
    check_like(agent.name, head, Weights({name: np.broadcast_to(one[name][:1], shapes[name]) for name in one}))


def _shown(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
