"""Which part of a backbone an agent tunes and keeps, and whether a head is of the agent's classes."""

from collections.abc import Mapping, Sequence
from typing import Literal

from common import personal
from common.errors import ConfigError, RemoteFault
from common.method import AgentInfo, Spec
from common.payloads import Weights

Tune = Literal["head", "last", "all"]
BatchNorm = Literal["average", "local", "re-estimated"]


def moving(parameters: Mapping[str, Spec], tune: Tune) -> tuple[str, ...]:
    """What moves of the trunk; its last stage is the module that its last tensor belongs to."""
    trunk = [name for name, spec in parameters.items() if spec.part == "trunk"]
    if tune == "head" or not trunk:
        return ()
    last = trunk[-1].partition(".")[0]
    return tuple(name for name in trunk if tune == "all" or name.partition(".")[0] == last)


def own_norm(parameters: Mapping[str, Spec], rule: BatchNorm) -> tuple[str, ...]:
    """What stays with an agent of batch norm: nothing, its layers, or their statistics."""
    if rule == "re-estimated":
        return tuple(name for name in personal.batch_norm(parameters, "local") if parameters[name].kind != "param")
    return personal.batch_norm(parameters, rule)


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


def _shown(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
