"""Local: every agent trains its own model and nothing is averaged, the floor that a personal method must beat.

Source: the "local only" row of the personalised federated learning papers.
Deviation: none; all agents start from the same first model, unless each has a head of its own.

Down goes the first model (one digest, so no bytes after the first step), up comes nothing: the trained model stays
in the agent's Memory, and a reply that the server refuses is kept.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from common import personal
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Skip, Step
from common.payloads import Payload, Weights
from common.samples import Samples

KEEP_REFUSED = True


@dataclass(frozen=True)
class Config:
    pass


@dataclass(frozen=True)
class State:
    first: Weights


@dataclass(frozen=True)
class Task:
    first: Weights


@dataclass(frozen=True)
class Reply:
    pass


@dataclass(frozen=True)
class Memory:
    weights: Weights | None = None


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    weights = personal.first_weights(model, start, rng)
    return State(weights.without(personal.own_head(run, model.parameters())))


def plan(
    run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    task = Task(state.first)
    for agent in agents:
        yield agent, task


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    samples = site.data.train
    if not len(samples):
        raise Skip("no training samples")
    learner = site.learner()
    start = personal.whole(site, learner, [task.first, memory.weights])
    return Reply(), Memory(learner.fit(start, samples, site.training, rng=site.rng).weights)


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    return state


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    learner = site.learner()
    return {"personal": learner.scores(personal.whole(site, learner, [task.first, memory.weights]), inputs)}


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    return {"weights": state.first}
