"""FedPer: the trunk is common and averaged, every agent has a head of its own.

Source: Arivazhagan et al., Federated Learning with Personalization Layers, 2019, algorithms 1 and 2; the personal
    layers are the model's head.
Deviation: all agents start from the same first head; with newcomers = "average" the heads go up too and one that has
    not trained yet starts from their mean (as widely used code does), else heads never leave their agents.

Down goes the common trunk, up the trained one; the first head goes down once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from common import personal
from common.average import check_like, weighted_mean
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Step
from common.methods import fedavg
from common.methods.fedavg import Memory, State, Task, plan, result
from common.payloads import Payload, Weights
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


@dataclass(frozen=True)
class Config:
    newcomers: Literal["initial", "average"] = "initial"
    bn: personal.BatchNorm = "average"


@dataclass(frozen=True)
class Reply:
    common: fedavg.Reply
    own: Weights | None


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    weights, parameters = personal.first_weights(model, start, rng), model.parameters()
    kept = personal.head(parameters) + personal.batch_norm(parameters, run.config.bn)
    return fedavg.split(weights, kept, personal.own_head(run, parameters))


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    samples, learner, config = fedavg.some_samples(site), site.learner(), site.run.config
    start = personal.whole(site, learner, [task.weights, task.first, memory.own])
    trained = learner.fit(start, samples, site.training, rng=site.rng).weights
    kept = personal.head(learner.parameters()) + personal.batch_norm(learner.parameters(), config.bn)
    common, memory = fedavg.parted(trained, kept, len(samples))
    shown = task.first if config.newcomers == "average" else None  # what agents keep and have in common
    return Reply(common, None if shown is None else trained.only(shown)), memory


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    owns: list[tuple[str, float, Weights]] = []  # small beside the trunks

    def trunks() -> Iterator[tuple[str, float, Weights]]:
        for agent, reply in replies:
            if reply.own is not None and state.first is not None:
                check_like(agent.name, reply.own, state.first)
                owns.append((agent.name, reply.common.n_samples, reply.own))
            yield agent.name, reply.common.n_samples, reply.common.weights

    weights = weighted_mean(trunks(), like=state.weights)
    return State(weights, weighted_mean(owns, like=state.first) if owns and state.first else state.first)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    return {"personal": fedavg.scores(task, reply.common if reply else None, memory, site, inputs)}
