"""FedAvg: agents train the common model, the server averages by training samples.

Source: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017,
    algorithm 1.
Deviation: the mean is over the replies that arrived (m_t of the later versions), not over all registered agents;
    integer counters of batch norm are not averaged, their maximum is taken.

Down goes the common model, up comes the trained one. What stays with the agent never travels: its own head with
head = "agent", its batch-norm layers with bn = "local" (whose first values go down once, as `first`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import personal
from common.average import weighted_mean
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Skip, Spec, Step, Term
from common.payloads import Payload, Weights
from common.samples import Samples


@dataclass(frozen=True)
class Config:
    bn: personal.BatchNorm = "average"


@dataclass(frozen=True)
class State:
    weights: Weights
    first: Weights | None  # first values of what agents keep; None when they share no such values


@dataclass(frozen=True)
class Task:
    weights: Weights
    first: Weights | None


@dataclass(frozen=True)
class Reply:
    weights: Weights
    n_samples: int


@dataclass(frozen=True)
class Memory:
    own: Weights | None = None


def init(run: RunSpec[Any], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    weights, parameters = personal.first_weights(model, start, rng), model.parameters()
    return split(weights, _kept(run, parameters), personal.own_head(run, parameters))


def split(weights: Weights, kept: tuple[str, ...], own_head: tuple[str, ...]) -> State:
    """The first State when agents keep these tensors, of which those of an own head have no first values."""
    return State(weights.without(kept), weights.only(kept).without(own_head) or None)


def plan(
    run: RunSpec[Any], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    task = Task(state.weights, state.first)
    for agent in agents:
        yield agent, task


def work(task: Task, memory: Memory, site: Site[Any]) -> tuple[Reply, Memory]:
    return train(task, memory, site)


def train(task: Task, memory: Memory, site: Site[Any], terms: tuple[Term, ...] = ()) -> tuple[Reply, Memory]:
    samples, learner = some_samples(site), site.learner()
    start = personal.whole(site, learner, [task.weights, task.first, memory.own])
    fitted = learner.fit(start, samples, site.training, terms=terms, rng=site.rng)
    return parted(fitted.weights, _kept(site.run, learner.parameters()), len(samples))


def some_samples(site: Site[Any]) -> Samples:
    if not len(site.data.train):
        raise Skip("no training samples")
    return site.data.train


def parted(weights: Weights, kept: tuple[str, ...], n_samples: int) -> tuple[Reply, Memory]:
    """What goes up of a trained model, and what stays."""
    return Reply(weights.without(kept), n_samples), Memory(weights.only(kept) or None)


def merge(run: RunSpec[Any], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    parts = ((agent.name, reply.n_samples, reply.weights) for agent, reply in replies)
    return State(weighted_mean(parts, like=state.weights), state.first)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Any], inputs: Samples) -> dict[str, Scores]:
    reading = "personal" if _kept(site.run, site.learner().parameters()) else "model"
    return {reading: scores(task, reply, memory, site, inputs)}


def scores(task: Task, reply: Reply | None, memory: Memory, site: Site[Any], inputs: Samples) -> Scores:
    """Of the model as it was trained, or, without a reply, as the next training would start."""
    learner, trained = site.learner(), reply.weights if reply else None
    return learner.scores(personal.whole(site, learner, [task.weights, task.first, memory.own, trained]), inputs)


def result(run: RunSpec[Any], state: State) -> dict[str, Payload]:
    return {"weights": state.weights if state.first is None else state.weights.updated(state.first)}


def _kept(run: RunSpec[Any], parameters: Mapping[str, Spec]) -> tuple[str, ...]:
    return personal.own_head(run, parameters) + personal.batch_norm(parameters, run.config.bn)
