"""FedSimCLR: agents pre-train one common backbone on images without labels, the server averages it.

Source: Chen et al., SimCLR, ICML 2020 (the objective); its federated form and `mixing` as in Zhuang et al., FedEMA,
    ICLR 2022; aggregation "l_dawa": Rehman et al., L-DAWA, ICCV 2023, equation 5.
Deviation: L-DAWA's factors are normalised, see common/likeness.py.

Down goes the common backbone with the objective's projection head, up the trained one; the projection head is left out
of the result. Batch norm: "average" its statistics too; "local": its layers are the agent's and never averaged (FedBN),
and the server keeps a copy of each agent's for the result; "re-estimated": average, and look at the common model with
statistics of the agent's own images.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from common import batch_norm, knn, mixing, personal, tuning
from common.average import means_by_group
from common.errors import ConfigError
from common.likeness import mean_by_likeness
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Skip, Spec, Step
from common.methods import fedavg
from common.methods.fedavg import Reply, Task
from common.models import part_of
from common.payloads import Payload, Weights
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


@dataclass(frozen=True)
class Config:
    aggregation: Literal["fedavg", "uniform", "l_dawa"] = "fedavg"  # fedavg: by images; uniform: every agent alike
    groups: Literal["all", "task", "agent"] = "all"  # whose are averaged together; agent: nobody's, local only
    bn: tuning.BatchNorm = "average"
    mixing: float = 0.0  # FedEMA's tau: how much of its own weights an agent keeps, at first; 0: none
    neighbours: int = 20  # of the kNN reading, among the agent's labelled images
    temperature: float = 0.1  # of their votes

    def __post_init__(self) -> None:
        if not 0 <= self.mixing <= 1 or self.neighbours < 1 or self.temperature <= 0:
            raise ValueError(
                f"expected mixing in [0, 1], neighbours >= 1 and temperature > 0, "
                f"got {self.mixing}, {self.neighbours} and {self.temperature}"
            )
        if self.aggregation == "l_dawa" and self.groups != "all":
            raise ValueError(f"aggregation l_dawa compares with one common backbone, got groups = {self.groups!r}")


@dataclass(frozen=True)
class State:
    weights: Weights
    first: Weights | None  # first values of batch norm, where agents keep it
    groups: dict[str, Weights]
    norms: dict[str, batch_norm.Own]


@dataclass(frozen=True)
class Memory:
    own: Weights | None = None  # batch norm's layers with bn = "local"
    last: Weights | None = None  # what was trained last, with mixing
    scale: float = 0.0  # FedEMA's lambda, fixed when the agent first mixes


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    if not any(spec.part == "objective" for spec in model.parameters().values()):
        raise ConfigError(
            "fedsimclr trains without labels, under an objective with a projection head: set [objective] name = "
            f"'simclr', got {run.training.objective!r}"
        )
    if run.training.batch < 2:
        raise ConfigError(f"contrast needs two images in a batch: raise [optimiser] batch, got {run.training.batch}")
    weights, parameters = personal.first_weights(model, start, rng), model.parameters()
    first = fedavg.split(weights.without(personal.head(parameters)), _kept(run, parameters), ())
    return State(first.weights, first.first, {}, {})


def plan(
    run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    for agent in agents:
        yield agent, Task(state.groups.get(_group(run.config, agent), state.weights), state.first)


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    images, learner = site.data.unlabelled, site.learner(n_classes=0)
    if len(images) < 2:
        raise Skip(f"contrast needs at least two images, this agent has {len(images)}")
    common, scale, tau = task.weights, memory.scale, site.run.config.mixing
    if tau and memory.last is not None:
        common, scale = mixing.mixed(common, memory.last, first_share=tau, scale=scale)
    start = personal.whole(site, learner, [common, task.first, memory.own])
    trained = learner.fit(start, images, site.training, rng=site.rng).weights
    shared, kept = fedavg.parted(trained, _kept(site.run, learner.parameters()), len(images))
    return Reply(trained, len(images)), Memory(kept.own, shared.weights if tau else None, scale)


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    norms = dict(state.norms)

    def shared() -> Iterator[tuple[AgentInfo, float, Weights]]:
        for agent, reply in replies:
            layers, weights = batch_norm.apart(agent.name, reply.weights, state.first)
            yield agent, reply.n_samples if run.config.aggregation == "fedavg" else 1.0, weights
            if layers:
                norms[agent.name] = batch_norm.Own(_group(run.config, agent), layers)

    if run.config.aggregation == "l_dawa":
        mean = mean_by_likeness(((agent.name, weights) for agent, _, weights in shared()), state.weights)
        return replace(state, weights=mean, norms=norms)
    parts = ((agent.name, _group(run.config, agent), mass, weights) for agent, mass, weights in shared())
    means = means_by_group(parts, state.weights)
    return State(means.pop("", state.weights), state.first, {**state.groups, **means}, norms)


def _group(config: Config, agent: AgentInfo) -> str:
    """Whom its backbone is averaged with; "" is everybody."""
    return {"all": "", "task": agent.data.name, "agent": agent.name}[config.groups]


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    """Votes of the nearest labelled images of the agent: a monitor, nothing is trained for it."""
    learner, config, known = site.learner(n_classes=0), site.run.config, site.data.train
    trained = reply.weights if reply else None
    weights = personal.whole(site, learner, [task.weights, task.first, memory.own, trained])
    if config.bn == "re-estimated":
        weights = batch_norm.re_estimated(site, learner, weights, site.data.unlabelled)
    queries, bank = learner.embed(weights, inputs), learner.embed(weights, known)
    k, t = config.neighbours, config.temperature
    return {"knn": knn.scores(queries, bank, known.labels, len(site.classes), k=k, temperature=t)}


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    """The backbone as "weights"; as "weights." and a name that of a group, or of an agent with a norm of its own."""
    found = {"weights": state.weights} | {f"weights.{group}": weights for group, weights in state.groups.items()}
    for agent, norm in state.norms.items():
        found[f"weights.{agent}"] = state.groups.get(norm.group, state.weights).updated(norm.layers)
    return {name: _backbone((state.first or Weights({})).updated(weights)) for name, weights in found.items()}


def _backbone(weights: Weights) -> Weights:
    return weights.without(name for name in weights if part_of(name) == "objective")


def _kept(run: RunSpec[Config], parameters: Mapping[str, Spec]) -> tuple[str, ...]:
    return personal.batch_norm(parameters, "local" if run.config.bn == "local" else "average")
