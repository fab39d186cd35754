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
from common.method import AgentInfo, Learner, Model, RunSpec, Scores, Site, Skip, Spec, Step, Term
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


def init(run: RunSpec[Any], model: Model, start: Mapping[str, Payload], rng: np.random.Generator) -> State:
    weights, parameters = personal.first_weights(model, start, rng), model.parameters()
    shared = weights.without(_kept(run, parameters))
    first = weights.only(personal.batch_norm(parameters, run.config.bn))
    return State(shared, first.without(personal.own_head(run, parameters)) or None)


def plan(
    run: RunSpec[Any], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    task = Task(state.weights, state.first)
    for agent in agents:
        yield agent, task


def work(task: Task, memory: Memory, site: Site[Any]) -> tuple[Reply, Memory]:
    return train(task, memory, site)


def train(task: Task, memory: Memory, site: Site[Any], terms: tuple[Term, ...] = ()) -> tuple[Reply, Memory]:
    samples = site.data.train
    if not len(samples):
        raise Skip("no training samples")
    learner = site.learner()
    fitted = learner.fit(_model(task, memory, site, learner), samples, site.training, terms=terms, rng=site.rng)
    kept = _kept(site.run, learner.parameters())
    return Reply(fitted.weights.without(kept), len(samples)), Memory(fitted.weights.only(kept) or None)


def merge(run: RunSpec[Any], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    parts = ((agent.name, reply.n_samples, reply.weights) for agent, reply in replies)
    return State(weighted_mean(parts, like=state.weights), state.first)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Any], inputs: Samples) -> dict[str, Scores]:
    learner = site.learner()
    trained = reply.weights if reply else None
    weights = personal.whole(site, learner, [task.weights, task.first, memory.own, trained])
    reading = "personal" if _kept(site.run, learner.parameters()) else "model"
    return {reading: learner.scores(weights, inputs)}


def result(run: RunSpec[Any], state: State) -> dict[str, Payload]:
    return {"weights": state.weights if state.first is None else state.weights.updated(state.first)}


def _model(task: Task, memory: Memory, site: Site[Any], learner: Learner) -> Weights:
    return personal.whole(site, learner, [task.weights, task.first, memory.own])


def _kept(run: RunSpec[Any], parameters: Mapping[str, Spec]) -> tuple[str, ...]:
    return personal.own_head(run, parameters) + personal.batch_norm(parameters, run.config.bn)
